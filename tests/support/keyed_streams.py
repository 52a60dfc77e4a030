"""Streams that say whose they are: every word has its device, its client and where it stands.

Rule of this file: a client knows of each byte what it must be, and how many there are; a cut is allowed
where a test cuts, a wrong byte and an end in order before the last one never.
"""

import contextlib
import socket
import struct

from tests.support.services import Service

__all__ = ["WORD", "KeyedService", "ask", "begin"]

WORD = 8  # bytes: 16 bits device, 16 bits client, 32 bits position
BLOCK = 4096  # words
PATIENCE = 5.0  # seconds without a byte, after which a client gives up
LONG = 30.0  # of one that has to be served
HEAD = struct.Struct(">HI")  # client, words


def _words(device: int, client: int, first: int, count: int) -> bytes:
    base = device << 48 | client << 32
    return struct.pack(f">{count}Q", *range(base + first, base + first + count))


class KeyedService(Service):
    """The service beside one device: a client says who it is and how many words it wants."""

    def __init__(self, device: int) -> None:
        super().__init__()
        self.device = device

    def serve(self, sock: socket.socket, number: int) -> None:
        """Send them, and end in order."""
        asked = b""
        while len(asked) < HEAD.size:
            data = sock.recv(HEAD.size - len(asked))
            if not data:
                return
            asked += data
        client, words = HEAD.unpack(asked)
        with contextlib.suppress(OSError):
            for first in range(0, words, BLOCK):
                sock.sendall(_words(self.device, client, first, min(BLOCK, words - first)))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)


def begin(port: int, device: int, client: int, host: str = "127.0.0.1") -> socket.socket:
    """A client that has had the first word of a long stream, and reads no more of it."""
    sock = socket.create_connection((host, port), LONG)
    sock.sendall(HEAD.pack(client, 1 << 31))
    assert sock.recv(WORD, socket.MSG_WAITALL) == _words(device, client, 0, 1)
    return sock


def ask(
    port: int, device: int, client: int, words: int, patience: float = PATIENCE, host: str = "127.0.0.1"
) -> str:
    """Have a stream: "whole", "cut" (after some bytes), "none" (not one), "silent".

    Raises:
        AssertionError: a byte is wrong, or it ended in order too soon.
    """
    got = 0
    with socket.socket() as sock:
        sock.settimeout(patience)
        try:
            sock.connect((host, port))
            sock.sendall(HEAD.pack(client, words))
            rest = b""
            while data := sock.recv(65536):
                rest += data
                count = len(rest) // WORD
                assert rest[: count * WORD] == _words(device, client, got, count), (
                    f"client {client} of device {device}: a wrong byte behind word {got}, {rest[:16].hex()}"
                )
                got, rest = got + count, rest[count * WORD :]
        except TimeoutError:
            return "silent"
        except OSError:
            return "cut" if got else "none"
    assert (got, rest) == (words, b""), (
        f"client {client} of device {device}: a clean end at word {got} of {words}"
    )
    return "whole"
