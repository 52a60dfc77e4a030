"""Lines to the syslog socket: a real datagram socket in the place of the system's logger."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from revtunnel.process.logs import LineObserver
from revtunnel.process.syslog_output import SyslogOutput


def a_logger(place: Path) -> socket.socket:
    """The system's logger."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(place))
    made.settimeout(5)
    return made


@pytest.fixture
def place(tmp_path: Path, no_leaks: None) -> Iterator[Path]:
    """Where it listens."""
    yield tmp_path / "log"


def test_a_line_has_facility_priority_and_name(place: Path) -> None:
    """Daemon's facility, the line's own priority, the program's name and process."""
    with a_logger(place) as logger:
        output = SyslogOutput("cameo-rep-proxy", str(place))
        assert output.journal
        assert output.write(b"<4>warn unroutable peer=x\n")
        assert output.write(b"no priority\n")
        head = f"cameo-rep-proxy[{os.getpid()}]: ".encode()
        assert logger.recv(4096) == b"<28>" + head + b"warn unroutable peer=x"
        assert logger.recv(4096) == b"<30>" + head + b"no priority"
        output.close()
        assert not output.write(b"<6>after the end\n") and output.dropped == 1


def test_a_logger_that_restarts_is_found_again(place: Path) -> None:
    """Without one, lines are dropped and counted, and nothing is raised."""
    output = SyslogOutput("x", str(place))
    assert not output.write(b"<6>nobody\n") and output.dropped == 1
    for _ in range(2):
        with a_logger(place) as logger:
            assert output.write(b"<6>somebody\n")
            assert logger.recv(4096).endswith(b"somebody")
        place.unlink()
        assert not output.write(b"<6>nobody\n")
    assert output.dropped == 3
    output.close()


def test_a_logger_that_does_not_read_blocks_nobody(place: Path) -> None:
    """Its socket is full at some time; then lines are dropped."""
    with a_logger(place):
        output = SyslogOutput("x", str(place))
        for _ in range(10_000):
            output.write(b"<6>" + b"x" * 1000 + b"\n")
        assert output.dropped > 1000
        output.close()


def test_events_come_as_lines(place: Path) -> None:
    """The log of the two programs, whole: a traceback is several datagrams."""
    with a_logger(place) as logger:
        output = SyslogOutput("x", str(place))
        observer = LineObserver(output, "text", lambda: 0.0)
        observer({"event": "peer-refused", "reason": "silent"})
        assert logger.recv(4096).endswith(b"]: info peer-refused reason=silent")
        output.close()
