"""Files that are there whole or not at all, with their mode from the first moment.

Rule of this file: a file is written beside the one that it becomes, put on the disk, then renamed over it.
Who reads it sees the old one or the new one, also after a power cut.

Run by root, a new file belongs to the owner of its directory: what an administrator makes for a daemon is
readable for the daemon.

Source: ours.
"""

import os
import tempfile
from contextlib import suppress

__all__ = ["OPEN", "make_directory", "settle", "write_all", "write_whole"]

# how a file of ours is opened beside what is done with it: a pipe in its place keeps nobody waiting
OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def write_whole(path: str, data: bytes, mode: int = 0o600) -> None:
    """Put ``data`` there, in place of whatever was.

    Raises:
        OSError: it is as it was before.
    """
    directory = os.path.dirname(path) or "."
    descriptor, made = tempfile.mkstemp(".new", ".revtunnel-", directory)
    try:
        try:
            _hand_over(descriptor, directory)
            os.fchmod(descriptor, mode)
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(made, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(made)
        raise
    settle(directory)


def make_directory(path: str, mode: int = 0o700) -> None:
    """Make a directory, and those above it, where they are not there.

    Raises:
        OSError: it cannot be made.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(os.path.abspath(path))
    make_directory(above, 0o755)
    os.mkdir(path, mode)
    os.chmod(path, mode)  # whatever the umask is
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _hand_over(descriptor, above)
    finally:
        os.close(descriptor)


def _hand_over(descriptor: int, directory: str) -> None:
    if os.geteuid() == 0:
        owner = os.stat(directory)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def settle(directory: str) -> None:
    """Put the names in a directory on the disk; some file systems cannot."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(file: int, data: bytes) -> None:
    """Write until all is written.

    Raises:
        OSError: a part may be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
