"""The UNIX socket of the admin socket: making it safely, and taking it away again.

Rule of this file: at no moment may more people connect than the settings say, and a file that is not a dead
server's socket is never removed. Twisted's own port would set the mode after binding and, on stopping, remove
whatever file has the name by then.

Source: faults.md C1, C4, "Mechanisms, exact" (Admin).
"""

import contextlib
import os
import socket
import stat
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.failure import Failure

from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.operation_form import MAX_PATH

__all__ = ["AdminPort", "listen", "make_room"]

DIRECTORY_MODE = 0o750
CONNECT_TEST = 1.0  # seconds that a server may take to accept; a longer wait means a full queue: it is alive
BACKLOG = 64


def make_room(path: str) -> None:
    """Make the directory if it is missing, and take away the socket that a killed server left.

    Raises:
        OSError: a server answers at ``path``, or it is no socket, or not ours to use; the text says which.
    """
    directory = os.path.dirname(path)
    try:
        if not os.path.isdir(directory):
            os.makedirs(os.path.dirname(directory), exist_ok=True)
            os.mkdir(directory, DIRECTORY_MODE)
            os.chmod(directory, DIRECTORY_MODE)  # the umask may have left less
        if not _is_stale(path):
            return
        os.unlink(path)
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(f"admin socket {path}: {error.strerror}") from None


def _is_stale(path: str) -> bool:
    """Whether a socket is there that nobody listens at."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(f"admin socket {path}: a file that is no socket is there; it is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as test:
        test.settimeout(CONNECT_TEST)
        try:
            test.connect(path)
        except ConnectionRefusedError:
            return True
        except (TimeoutError, BlockingIOError):
            pass
    raise OSError(f"admin socket {path}: another server answers there; stop it, or set another socket")


class AdminPort(unix.Port):
    """A listening socket whose file has its mode from the first moment; it removes only its own file."""

    def __init__(self, path: str, mode: int, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(os.fsencode(path), factory, BACKLOG, mode, reactor)
        self._path = path
        self._mine: tuple[int, int] | None = None  # device and inode

    def startListening(self) -> None:
        before = os.umask(0o777 & ~self.mode)
        try:
            super().startListening()
        finally:
            os.umask(before)
        self._mine = self._there()

    def connectionLost(self, reason: Failure) -> None:
        if self._mine is not None and self._there() == self._mine:
            with contextlib.suppress(OSError):  # the directory is no longer ours to write
                os.unlink(self._path)
        tcp.Port.connectionLost(self, reason)

    @property
    def is_reached(self) -> bool:
        """Whether who connects by its name gets here."""
        return self._there() == self._mine

    def abandon(self) -> Any:
        """Stop listening, and leave whatever has the name now."""
        self._mine = None
        return self.stopListening()

    def _there(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def listen(reactor: Any, settings: AdminSettings, factory: IProtocolFactory) -> AdminPort:
    """Listen where the settings say.

    Raises:
        OSError: it cannot be had; the text says why.
    """
    size = len(os.fsencode(settings.socket))
    if size > MAX_PATH:
        raise OSError(f"admin socket {settings.socket}: {size} bytes, at most {MAX_PATH} wanted")
    make_room(settings.socket)
    port = AdminPort(settings.socket, settings.mode, factory, reactor)
    try:
        port.startListening()
    except Exception as error:  # CannotListenError wraps what the system said
        cause = getattr(error, "socketError", error)
        raise OSError(
            f"admin socket {settings.socket}: {getattr(cause, 'strerror', None) or cause}"
        ) from None
    return port
