"""What a server's listeners say of it."""

from functools import reduce
from operator import or_
from pathlib import Path

import pytest

from revtunnel.daemons.server_listeners import agent_listener
from revtunnel.daemons.server_options import ServerOptions
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
    wanted = everything if data == "auto" else everything & ~Feature.DATA_SOCKETS
    assert agent_listener(listener, options.settings).hello.features == wanted
