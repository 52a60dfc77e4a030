"""What an engine can do to a directory: die, hang, forget, fill up, crawl, refuse, lead elsewhere."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.cluster import redis_engine
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.engine_settings import EngineSettings, engine_way, read_engine
from revtunnel.cluster.node_records import Claim, Wanted
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.redis_engine import DEADLINE, EngineWay
from revtunnel.cluster.redis_scripts import FORGET, SHARE, SHARED
from tests.cluster.directory_behaviour import Told
from tests.cluster.redis_world import LEASE, RedisWorld
from tests.support.epoll import own_reactor
from tests.support.ports import free_ports
from tests.support.redis_server import INSTALLED, PROGRAM, RedisServer
from tests.support.throwaway_tls import Issuer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]
MANY = 250  # devices: three batches


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedisWorld]:
    """An engine, and nodes to come."""
    with own_reactor() as loop:
        world = RedisWorld(loop, tmp_path)
        yield world
        world.close()


@pytest.fixture
def hurried(world: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> RedisWorld:
    """As it is shipped: an answer that takes longer is none."""
    monkeypatch.setattr(redis_engine, "DEADLINE", DEADLINE)
    return world


def node_of(world: RedisWorld, view: RedisDirectory, serial: str) -> str | None:
    """Where a serial is; the word "away" for nobody knows."""
    try:
        place = world.result(view.find(serial))
    except DirectoryAway:
        return "away"
    return None if place is None else str(place.node)


def devices(world: RedisWorld) -> int:
    """How many records there are."""
    counted = "return #redis.call('KEYS', 'rt:test:dev:*')"
    return int(world.engine.ask("EVAL", counted, "0").removeprefix(":"))


def filled(world: RedisWorld) -> tuple[RedisDirectory, RedisDirectory, Claim]:
    """Two nodes, many devices at the first, and a port number."""
    one, two = world.started("one", "two")
    for number in range(MANY):
        one.arrived(f"d{number}", number + 1, "rt1")
    wanted = Wanted("all", "d1", "ssh", ((7000, 7000),), keep=86_400_000, most=9)
    claim = world.result(Deferred.fromCoroutine(one.claims.claim(wanted)))
    one.claims.here = lambda claim: True
    world.until(lambda: devices(world) == MANY)
    world.until(lambda: has(one, claim) and has(two, claim))
    return one, two, claim


def has(view: RedisDirectory, claim: Claim) -> bool:
    """Whether a node knows that port, and no other."""
    return [(port, each.use) for port, each in view.claims.known.items()] == [(claim.port, claim.use)]


def claim(world: RedisWorld, view: RedisDirectory) -> None:
    """Ask for a port."""
    wanted = Wanted("all", "d2", "ssh", ((7001, 7001),))
    world.result(Deferred.fromCoroutine(view.claims.claim(wanted)))


def all_told(world: RedisWorld, view: RedisDirectory) -> bool:
    """Whether the engine has all of the first node's devices, and they count."""
    last = node_of(world, view, f"d{MANY - 1}")
    return last == "one" and devices(world) == MANY


def test_killed_and_back_with_nothing(world: RedisWorld) -> None:
    """Known places stay known, nobody is told "nowhere", and all of it is there again."""
    one, two, port = filled(world)
    told = [Told(one), Told(two)]
    assert node_of(world, two, "d7") == "one"
    world.engine.kill()
    world.until(lambda: one.problem is not None and two.problem is not None)
    assert node_of(world, two, "d8") == "away"
    place = two.known("d7")
    assert place is not None and place.node == "one"
    with pytest.raises(DirectoryAway):
        claim(world, two)
    one.left("d9", 10)
    one.arrived("new", 999, "rt1")
    two.arrived("d3", 1, "rt1")  # it has moved meanwhile
    seen: set[str | None] = set()
    world.engine.start()
    world.until(lambda: seen.add(node_of(world, two, "d8")) or "one" in seen)
    world.until(lambda: all_told(world, two))  # one left, one new
    assert seen <= {"away", "one"}
    assert [node_of(world, two, each) for each in ("new", "d3")] == ["one", "two"]
    world.until(lambda: ("d3", 4) in told[0].moved)
    world.until(lambda: world.engine.ask("HLEN", "rt:test:claims") == ":1")
    world.until(lambda: has(one, port) and has(two, port))
    assert not any(each.usurped for each in told) and told[0].moved == [("d3", 4)] and told[1].moved == []
    world.until(lambda: one.problem is None and two.problem is None)


def test_emptied_while_connections_stay(world: RedisWorld) -> None:
    """FLUSHALL: nothing is noticed but that a lease is not there."""
    one, two, port = filled(world)
    told = [Told(one), Told(two)]
    seen: set[str | None] = set()
    world.engine.ask("FLUSHALL")
    world.until(lambda: seen.add(node_of(world, two, "d8")) or all_told(world, two))
    assert seen <= {"away", "one"}
    world.until(lambda: world.engine.ask("HLEN", "rt:test:claims") == ":1")
    world.until(lambda: has(one, port) and has(two, port))
    assert not any(each.usurped or each.moved for each in told)


def test_hung_and_back(hurried: RedisWorld) -> None:
    """Each call has its deadline; a lease that ran out is had again, and nothing has moved."""
    world = hurried
    one, two, _ = filled(world)
    told = Told(one)
    world.engine.pause()
    began = time.monotonic()
    assert node_of(world, two, "d8") == "away"
    with pytest.raises(DirectoryAway, match="seconds"):
        next(two._engine.call("", "").__await__())  # whose answer would be that to the one before
    world.until(lambda: time.monotonic() > began + LEASE * 1.2)
    assert one.problem is not None
    world.engine.resume()
    world.until(lambda: one.problem is None and two.problem is None and all_told(world, two))
    assert told.moved == [] and told.usurped == 0


def test_full(world: RedisWorld) -> None:
    """Leases go on and records are read; what is new is said to be untold, and told once there is room."""
    one, two, _ = filled(world)
    world.engine.ask("CONFIG", "SET", "maxmemory", "1")
    one.arrived("new", 999, "rt1")
    world.until(lambda: "memory" in (one.problem or ""))
    began = time.monotonic()
    world.until(lambda: time.monotonic() > began + LEASE * 1.5)
    assert node_of(world, two, "d8") == "one"
    with pytest.raises(DirectoryAway, match="memory"):
        claim(world, two)
    world.engine.ask("CONFIG", "SET", "maxmemory", "0")
    world.until(lambda: node_of(world, two, "new") == "one")
    world.until(lambda: one.problem is None)


def test_connections_that_are_ended(world: RedisWorld) -> None:
    """Those for calls and those for news, with the scripts; what moved meanwhile is found out."""
    one, two, _ = filled(world)
    told = Told(one)
    world.engine.ask("SCRIPT", "FLUSH")
    for kind in ("pubsub", "normal"):
        world.engine.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    two.arrived("d3", 1, "rt1")
    world.until(lambda: told.moved == [("d3", 4)])
    world.until(lambda: all_told(world, two))


def test_news_that_nobody_of_us_published(world: RedisWorld) -> None:
    """Are a reason to look, and none to fall over."""
    one, two, _ = filled(world)
    told = Told(one)
    for text in ("{", "[]", "7", '["moved"]', '["moved", {}, [], 1]', '["usurped", 1e99]'):
        for channel in ("all", "to:one"):
            world.engine.ask("PUBLISH", f"rt:test:{channel}", text)
    two.arrived("d3", 1, "rt1")
    world.until(lambda: told.moved == [("d3", 4)])
    assert one._engine._news.problem is None and told.usurped == 0


def test_wrong_password(world: RedisWorld, tmp_path: Path) -> None:
    """It is said, and tried again until it is right; then changed under way."""
    world.engine.ask("CONFIG", "SET", "requirepass", "first")
    world.engine.password = "first"
    file = tmp_path / "password"
    file.write_text("wrong")
    file.chmod(0o600)
    place = read_engine(f"redis://127.0.0.1:{world.engine.port}/3")
    way = engine_way(EngineSettings(engine=place, engine_password_file=str(file)))
    view = world.view("one", way)
    with pytest.raises(DirectoryAway, match="WRONGPASS"):
        world.result(view.start())
    file.write_text("first\n")
    world.until(lambda: view.problem is None)
    world.engine.ask("CONFIG", "SET", "requirepass", "second")
    world.engine.password = "second"
    file.write_text("second\n")
    world.engine.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    began = view.me.epoch
    world.until(lambda: view.problem is not None)
    world.until(lambda: view.problem is None)
    assert view.me.epoch == began


class Delay:
    """A relay that holds each piece back for ``seconds``, both ways."""

    def __init__(self, port: int, seconds: float) -> None:
        self.seconds = seconds
        self.port = free_ports(1)[0]
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all."""
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        try:
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._behind))
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()
        except OSError:
            pass

    def _carry(self, come: socket.socket, go: socket.socket) -> None:
        try:
            while data := come.recv(65536):
                time.sleep(self.seconds)
                go.sendall(data)
            go.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_slow(hurried: RedisWorld) -> None:
    """A tenth of a second either way is borne; beyond the deadline it is away, and back when it is not."""
    world = hurried
    relay = Delay(world.engine.port, 0.1)
    (one,) = world.started("one")
    far = world.view("far", EngineWay("127.0.0.1", relay.port))
    world.result(far.start())
    one.arrived("d1", 1, "rt1")
    world.until(lambda: node_of(world, far, "d1") == "one")
    relay.seconds = 0.7
    assert node_of(world, far, "d1") == "away" and far.problem is not None
    relay.seconds = 0.0
    world.until(lambda: node_of(world, far, "d1") == "one")
    relay.close()


def test_its_clock_is_set_back(world: RedisWorld) -> None:
    """By an hour, as it seems: whoever comes later still counts as later."""
    one, two = world.started("one", "two")
    ahead = time.time() * 1000 + 3_600_000
    world.engine.ask("SET", "rt:test:clock", json.dumps([round(ahead), 0]))
    told = Told(one)
    one.arrived("d1", 1, "rt1")
    world.until(lambda: node_of(world, two, "d1") == "one")
    two.arrived("d1", 1, "rt1")
    world.until(lambda: node_of(world, one, "d1") == "two")
    world.until(lambda: told.moved == [("d1", 1)])
    now, behind = json.loads(world.engine.ask("GET", "rt:test:clock"))
    assert now > ahead and 3_500_000 < behind < 3_700_000


def test_a_sentinel_says_where_the_master_is(world: RedisWorld, tmp_path: Path) -> None:
    """And says so anew when the one that we had is a replica."""
    heir = RedisServer(tmp_path, f"replicaof 127.0.0.1 {world.engine.port}").start()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {world.engine.port} 1\n")
    sentinel = RedisServer(tmp_path, sentinel=config).start()
    try:
        nobody = ("127.0.0.1", free_ports(1)[0])
        way = EngineWay("main", sentinels=(nobody, ("127.0.0.1", sentinel.port)))
        one, two = world.view("one", way), world.view("two", way)
        for view in (one, two):
            world.result(view.start())
        one.arrived("d1", 1, "rt1")
        world.until(lambda: node_of(world, two, "d1") == "one")
        sentinel.ask("SENTINEL", "REMOVE", "main")
        sentinel.ask("SENTINEL", "MONITOR", "main", "127.0.0.1", str(heir.port), "1")
        heir.ask("REPLICAOF", "NO", "ONE")
        world.engine.ask("REPLICAOF", "127.0.0.1", str(heir.port))
        two.arrived("d2", 1, "rt1")
        world.until(lambda: node_of(world, one, "d2") == "two" and node_of(world, two, "d1") == "one")
        assert heir.ask("EXISTS", "rt:test:dev:d2") == ":1"
    finally:
        sentinel.kill()
        heir.kill()


def test_tls_with_certificates_of_both_sides(world: RedisWorld, tmp_path: Path) -> None:
    """The engine must be who it is called, and gets to see who we are."""
    issuer = Issuer(tmp_path)
    mine, theirs = issuer.device("whoever"), issuer.server("127.0.0.1")
    port = free_ports(1)[0]
    files = f"tls-cert-file {theirs.certificate_file}", f"tls-key-file {theirs.key_file}"
    options = (f"tls-port {port}", "bind 127.0.0.1 127.0.0.2", *files, f"tls-ca-cert-file {issuer.file}")
    with RedisServer(tmp_path, *options) as engine:
        assert engine
        settings = EngineSettings(
            engine=read_engine(f"rediss://127.0.0.1:{port}"),
            engine_authority=issuer.file,
            engine_certificate=mine.certificate_file,
            engine_certificate_key=mine.key_file,
        )
        way = engine_way(settings)
        view = world.view("one", way)
        world.result(view.start())
        assert view.problem is None
        named = world.view("two", replace(way, host="127.0.0.2"))
        with pytest.raises(DirectoryAway, match=r"not for 127\.0\.0\.2"):
            world.result(named.start())
        nameless = replace(settings, engine_certificate=None, engine_certificate_key=None)
        unshown = world.view("three", engine_way(nameless))
        with pytest.raises(DirectoryAway):
            world.result(unshown.start())


def test_a_unix_socket(world: RedisWorld, tmp_path: Path) -> None:
    """With a backlog, and no port."""
    path = tmp_path / "r.sock"
    with RedisServer(tmp_path, f"unixsocket {path}"):
        view = world.view("one", EngineWay(f"unix:{path}", 0))
        world.result(view.start())
        assert view.problem is None


def test_a_start_without_an_engine_goes_on_by_itself(world: RedisWorld) -> None:
    """What came meanwhile is told, with its age, and does not push out who came later elsewhere."""
    world.engine.kill()
    late, other = world.view("late"), world.view("other")
    for view in (late, other):
        with pytest.raises(DirectoryAway, match="refused"):
            world.result(view.start())
    told = Told(late)
    late.arrived("d1", 1, "rt1")
    began: Any = time.monotonic()
    world.until(lambda: time.monotonic() > began + 0.2)
    other.arrived("d1", 1, "rt1")
    world.engine.start()
    world.until(lambda: node_of(world, late, "d1") == "other")
    world.until(lambda: told.moved == [("d1", 1)])


def test_the_rights_that_the_page_names_are_enough(world: RedisWorld, tmp_path: Path) -> None:
    """For all that a node does, and no key of anybody else's."""
    page = (Path(__file__).parents[2] / "docs" / "scale-out.rst").read_text()
    block = page[page.index("    user gate on ") :].split("\n\n")[0]
    world.engine.ask("ACL", "SETUSER", *block.replace("PASSWORD", "secret").split()[1:])
    file = tmp_path / "password"
    file.write_text("secret")
    file.chmod(0o600)
    place = read_engine(f"redis://gate@127.0.0.1:{world.engine.port}")
    world.way = engine_way(EngineSettings(engine=place, engine_password_file=str(file)))
    one, two, port = filled(world)
    told = Told(one)
    two.arrived("d3", 1, "rt1")
    world.until(lambda: told.moved == [("d3", 4)])
    one.left("d4", 5)
    one.claims.release(port, 0)
    world.until(lambda: not two.claims.known and node_of(world, two, "d4") is None)
    world.result(Deferred.fromCoroutine(one.call(SHARE, 1, "id", "[]")))
    assert world.result(Deferred.fromCoroutine(two.call(SHARED, 0, 9)))[1] == [["id", "[]"]]
    assert world.result(Deferred.fromCoroutine(two.call(FORGET, "id"))) == 1
    world.result(one.stop())
    with pytest.raises(DirectoryAway, match=r"NOPERM|permission|ACL"):
        world.result(Deferred.fromCoroutine(two._engine.call("return redis.call('GET', 'x')", "x")))
