"""The lock beside a file that one process has for itself; it ends with its process, however that ends.

Rule of this file: what is written to is a file of our own and nothing else: no link is followed, and one that
is somebody else's, or has a second name, is left alone.

Take it after the last fork: a child would hold it too.

Source: faults.md N38.
"""

import contextlib
import errno
import fcntl
import os
import stat

from revtunnel.state.atomic_file import OPEN

__all__ = ["hold"]


def hold(path: str) -> int:
    """The descriptor of ``path.lock``, locked until it is closed or the process ends.

    Raises:
        OSError: another process has it, which ``strerror`` names, or the system says no; it names the file.
    """
    name = f"{path}.lock"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | OPEN, 0o600)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {error.strerror}") from None
    fault = _fault(descriptor, os.path.dirname(name) or ".")
    if fault:
        os.close(descriptor)
        raise OSError(errno.EPERM, f"{name}: {fault}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            text = f"{path} is in use by another server, process {holder}"
            raise OSError(errno.EAGAIN, text) from None
        raise OSError(error.errno, f"{name}: {error.strerror}") from None
    with contextlib.suppress(OSError):  # the number is a courtesy
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _fault(descriptor: int, directory: str) -> str:
    """Why an open file is no lock of ours, or nothing."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return "it is no plain file"
    if status.st_nlink != 1:
        return f"it has {status.st_nlink} names"
    if status.st_uid not in (os.geteuid(), 0, os.stat(directory).st_uid):
        return f"it belongs to user {status.st_uid}"
    return ""
