"""What a server's listeners say of it."""

from argparse import Namespace
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pytest

from revtunnel.daemons.server_listeners import ServerListeners, agent_listener, nodes_at
from revtunnel.daemons.server_options import ServerOptions
from revtunnel.daemons.server_settings import ListenerSettings
from revtunnel.sockets.listening import Listeners
from revtunnel.streams.commands import Feature
from tests.daemons.test_options import parse


@pytest.mark.parametrize("data", ["auto", "link"])
def test_a_server_has_what_there_is(tmp_path: Path, data: str) -> None:
    """Every feature that agents can have, but for data sockets where the link carries all."""
    path = tmp_path / "r.ini"
    path.write_text(f"[listener main]\ndata = {data}\n")
    options = parse(ServerOptions, "--config", str(path))
    assert isinstance(options, ServerOptions)
    (listener,) = options.settings.listeners
    everything = reduce(or_, Feature)
    wanted = everything if data == "auto" else everything & ~(Feature.DATA_SOCKETS | Feature.EARLY)
    assert agent_listener(listener, options.settings).hello.features == wanted


def test_a_listener_for_nodes_is_opened_by_a_node_only(tmp_path: Path) -> None:
    """A reload makes none of a server, and nobody who comes there is taken for an agent."""
    path = tmp_path / "r.ini"
    path.write_text("[listener main]\n")
    settings = parse(ServerOptions, "--config", str(path)).settings
    assert nodes_at(settings) == ""
    peers = ListenerSettings(name="peers", kind="nodes", address=(("127.0.0.1", 2066),))
    settings = replace(settings, listeners=(*settings.listeners, peers))
    assert nodes_at(settings) == "peers"
    board: Any = Namespace(
        limits=settings.limits, agents=lambda name: None, data=Namespace(gates=Namespace())
    )
    listeners = ServerListeners(None, Listeners(None, lambda fact: None), board)
    listeners.take(settings)
    assert [each.port for each in listeners._wanted] == [2065]
    listeners.nodes = lambda name: lambda end: None
    listeners.take(settings)
    assert [each.port for each in listeners._wanted] == [2065, 2066]
