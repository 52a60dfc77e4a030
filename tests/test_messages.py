"""What a person reads: no raw words of libraries, whatever fails, and nothing said twice."""

import ast
import errno
import os
import socket
import ssl
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet import error as twisted_errors
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.error import ProcessTerminated
from twisted.python.failure import Failure

from revtunnel.ground.server_places import after
from revtunnel.process.programs import _how_ended
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import sentence
from revtunnel.sockets.tls.peer_verification import tls_fault

ROOT = Path(__file__).resolve().parent.parent
RAW = (
    "non-clean",
    "Deferred",
    "[Errno",
    "Errno ",
    "SSL routines",
    "[(",
    "Traceback",
    "<class",
    "(b'",
    "User timeout",
)
SYSTEM = [OSError(number, os.strerror(number)) for number in sorted(errno.errorcode)]
TLS = [
    SSL.Error([("SSL routines", "", "wrong version number")]),
    SSL.Error([("SSL routines", "ssl3_read_bytes", "sslv3 alert certificate expired")]),
    SSL.Error([("SSL routines", "", "bad record mac"), ("", "", "")]),
    SSL.Error(),
    SSL.SysCallError(-1, "Unexpected EOF"),
    SSL.SysCallError(errno.ECONNRESET, "ECONNRESET"),
]
FAILED = [
    *SYSTEM,
    *map(sentence, TLS),
    twisted_errors.ConnectionDone(),
    twisted_errors.ConnectionLost(),
    twisted_errors.ConnectionAborted(),
    twisted_errors.ConnectionLost("reset the connection"),
    CancelledError(),
    Late(10.0, "Deferred"),
    socket.gaierror(socket.EAI_NONAME, "gate: the name is unknown"),
    TimeoutError(errno.ETIMEDOUT, "gate:2065 did not answer in 10 s"),
    ssl.SSLError(),
    ValueError(),
]


@pytest.mark.parametrize("error", FAILED, ids=lambda error: f"{type(error).__name__}-{error.args[:1]}")
def test_what_failed_is_said_in_words_of_ours(error: BaseException) -> None:
    """Of any connection: something, in one line, without what a library wraps around it."""
    words = in_words(Failure(error))
    assert words and words.isprintable()
    assert [raw for raw in RAW if raw in words] == []


@pytest.mark.parametrize("error", TLS, ids=lambda error: str(error.args))
def test_what_failed_in_a_handshake_likewise(error: SSL.Error) -> None:
    """Whether the engine raised it, or an End has passed it on: the same words."""
    assert [raw for raw in RAW if raw in tls_fault(error)] == []
    assert tls_fault(sentence(error)) in (tls_fault(error), "it hung up in the middle of the handshake")


def test_a_program_ends_with_a_number_or_by_a_signal() -> None:
    """Not with a probable error condition."""
    assert _how_ended(ProcessTerminated(exitCode=3)) == "exit code 3"
    assert _how_ended(ProcessTerminated(signal=9)) == "killed by SIGKILL"
    assert _how_ended(ProcessTerminated(signal=40)) == "killed by signal 40"  # of real time: no name


def test_no_place_is_named_twice() -> None:
    """Whoever tells of a failure names the place first."""
    for where in ("gate:2065", "[2001:db8::1]:2065", "wss://gate:443/link"):
        bare = where.removeprefix("wss://").removesuffix("/link")
        assert bare not in after(where, f"{bare}: refused the connection")
        assert bare not in after(where, f"{bare} did not answer in 10 s")


def test_nobody_asks_twisted_for_a_sentence() -> None:
    """But the one place that has words for what it would say, and the log of our own faults."""
    asks = {
        path.relative_to(ROOT / "revtunnel").as_posix()
        for path in (ROOT / "revtunnel").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("getErrorMessage", "getBriefTraceback")
    }
    assert asks == {"sockets/end_transport.py", "process/logs.py"}
