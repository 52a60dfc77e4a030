"""The first moment of the programs that a CAMEO server starts: ports that listen at once, or a line and 1."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from revtunnel.daemons import cameo_programs
from tests.support.ports import free_ports

PROGRAMS = {"responder": 1, "publisher": 2}
Ran = list[tuple[str, list[socket.socket]]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """What is run behind it."""
    found: Ran = []
    monkeypatch.setattr(cameo_programs, "_run", lambda name, sockets: found.append((name, sockets)))
    return found


@pytest.mark.parametrize("which", PROGRAMS)
def test_ports_listen_before_anything_is_read(ran: Ran, which: str) -> None:
    """For everybody, as the original's do: who connects now is only kept waiting."""
    ports = free_ports(PROGRAMS[which])
    getattr(cameo_programs, which)([str(port) for port in ports])
    ((_, sockets),) = ran
    assert [sock.getsockname() for sock in sockets] == [("0.0.0.0", port) for port in ports]
    for port, sock in zip(ports, sockets, strict=True):
        socket.create_connection(("127.0.0.1", port), 5).close()
        sock.close()


@pytest.mark.parametrize("which", PROGRAMS)
@pytest.mark.parametrize("word", ["", "0", "65536", "x", "-1", "+1", "¹", "1 2"])
def test_c9_what_is_no_port(ran: Ran, which: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The usage, on standard output, where the server that starts it reads."""
    with pytest.raises(SystemExit) as ended:
        getattr(cameo_programs, which)([word] * PROGRAMS[which])
    assert ended.value.code == 1 and not ran
    assert capsys.readouterr().out.startswith("usage: cameo-")


@pytest.mark.parametrize("which", PROGRAMS)
@pytest.mark.parametrize("change", [-1, 1])
def test_c9_too_few_and_too_many(ran: Ran, which: str, change: int) -> None:
    """The same."""
    with pytest.raises(SystemExit) as ended:
        getattr(cameo_programs, which)(["2000"] * (PROGRAMS[which] + change))
    assert ended.value.code == 1 and not ran


def test_c10_a_port_that_is_taken(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit) as ended:
        port = other.getsockname()[1]
        cameo_programs.responder([str(port)])
    assert ended.value.code == 1 and not ran
    assert f"cannot listen on port {port}: Address already in use" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "parts", "outside"),
    [
        ("cameo-rep-proxy", ["responder"], "responder"),
        ("cameo-pub-proxy", ["subscribers", "publishers"], "subscriber"),
    ],
)
def test_each_port_is_given_to_its_part(no_leaks: None, name: str, parts: list[str], outside: str) -> None:
    """In the order of the command line; the descriptor is the system's by then, and ours is closed."""
    adopted: list[tuple[int, str]] = []
    began: list[str] = []
    system: Any = SimpleNamespace(
        main_ports=lambda: ("responder", "subscribers", "publishers"),
        adopt=lambda descriptor, family, factory: adopted.append((descriptor, factory)),
        start_outside=began.append,
    )
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in parts]
    numbers = [sock.fileno() for sock in sockets]
    cameo_programs._open(system, name, sockets)
    assert adopted == list(zip(numbers, parts, strict=True)) and began == [outside]
    assert [sock.fileno() for sock in sockets] == [-1] * len(parts)
