"""What an agent remembers of its paths: by server and proxy, over a restart, for a month."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from revtunnel.daemons.agent_paths import KEPT, AgentPaths
from revtunnel.ground.facts import Fact, ServerState
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.hellos import ServerHello
from revtunnel.link.path_signs import PathSigns
from revtunnel.sockets.ways.proxy_choice import DIRECT, ProxyChoice, parse_proxy

NOW = 1_800_000_000.0


def told(path: Path, proxy: ProxyChoice = DIRECT, keepalive: float | None = None) -> Any:
    """The settings that it looks at."""
    limits = AgentLimits()
    return SimpleNamespace(
        state_directory=str(path), serial="plc-7", proxy=proxy, keepalive=keepalive, limits=limits
    )


def link(silence: float = 20.0, now: float = 100.0, signs: PathSigns | None = None, web: bool = False) -> Any:
    """One that was lost."""
    liveness = SimpleNamespace(heard_at=now - silence, keepalive=25.0, signs=signs)
    return SimpleNamespace(
        place=(ServerPlace("gate", 2065, "/agents" if web else ""), "192.0.2.1"),
        server=ServerHello(),
        ended=("lost", "the server hung up"),
        mux=SimpleNamespace(liveness=liveness),
        clock=SimpleNamespace(seconds=lambda: now),
    )


def test_what_was_learned_outlives_a_restart_but_not_a_month(tmp_path: Path) -> None:
    """And is said once."""
    facts: list[Fact] = []
    paths = AgentPaths(told(tmp_path), facts.append, lambda: NOW)
    for _ in range(3):
        assert paths.of(link()) is None
        paths.ended(link())
    (fact,) = facts
    assert isinstance(fact, ServerState) and fact.state == "keepalive"
    assert fact.detail.startswith("gate:2065 cuts what is silent for 20.0 s: asked after 10 s")
    for later, wanted in ((0.0, 10.0), (KEPT - 1, 10.0), (KEPT, None)):
        again = AgentPaths(told(tmp_path), facts.append, lambda later=later: NOW + later)  # type: ignore[misc]
        assert (again.of(link()), again.learned(link())) == (wanted, wanted)
    behind = told(tmp_path, ProxyChoice(parse_proxy("http://proxy:3128")))
    assert AgentPaths(behind, facts.append, lambda: NOW).of(link()) is None  # another path


def test_a_time_that_is_set_is_used_and_nothing_learned(tmp_path: Path) -> None:
    paths = AgentPaths(told(tmp_path, keepalive=7.0), [].append, lambda: NOW)
    for _ in range(5):
        paths.ended(link())
    assert (paths.of(link()), paths.learned(link())) == (7.0, None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_is_passed_over(tmp_path: Path) -> None:
    """Whatever is in it: the path is learned again."""
    for text in ("", "[]", '{"gate:2065": 3}', '{"gate:2065": ["x", 1]}', '{"gate:2065": [99999, 1.8e9]}'):
        (tmp_path / "plc-7.paths.json").write_text(text)
        assert AgentPaths(told(tmp_path), [].append, lambda: NOW).of(link()) is None


def test_a_path_is_probed_by_the_kernel_where_its_probes_reach_the_server(tmp_path: Path) -> None:
    """Not through a proxy, nor where a time was set or a path was found to cut."""
    assert AgentPaths(told(tmp_path), [].append, lambda: NOW).kernel_asks(link(), 60.0) == 60.0
    assert AgentPaths(told(tmp_path), [].append, lambda: NOW).kernel_asks(link(web=True), 60.0) == 0.0
    assert AgentPaths(told(tmp_path, keepalive=25.0), [].append, lambda: NOW).kernel_asks(link(), 60.0) == 0.0
    proxied = told(tmp_path, ProxyChoice(parse_proxy("http://proxy:3128")))
    assert AgentPaths(proxied, [].append, lambda: NOW).kernel_asks(link(), 60.0) == 0.0
    cuts = AgentPaths(told(tmp_path), [].append, lambda: NOW)
    for _ in range(3):
        cuts.ended(link())
    assert cuts.kernel_asks(link(), 60.0) == 0.0


def test_probes_that_came_too_late_come_sooner_for_a_month(tmp_path: Path) -> None:
    """Two links lost in a silence that had grown; 25 s, the first of all, is the server's word."""
    facts: list[Fact] = []
    paths = AgentPaths(told(tmp_path), facts.append, lambda: NOW)
    for _ in range(2):
        paths.ended(link(60.0, signs=PathSigns(60.0, 60.0, 0.0)))
    (fact,) = facts
    assert isinstance(fact, ServerState)
    assert fact.detail == "gate:2065 cuts what is silent for 60 s: probed after 30 s from now on"
    for later, wanted in ((0.0, 30.0), (KEPT, 60.0)):
        again = AgentPaths(told(tmp_path), facts.append, lambda later=later: NOW + later)  # type: ignore[misc]
        assert again.kernel_asks(link(), 60.0) == wanted
        assert again.of(link()) is None  # it is no path on which silent data sockets are cut
