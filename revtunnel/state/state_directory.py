"""The directory of what outlives the process: nobody but its owner may write in it.

Rule of this file: who can write in a directory can put another file in the place of any in it, whatever the
modes of those say. So a directory that is open to others is as good as a database that is.

Source: ours.
"""

import os
import stat

__all__ = ["openness", "ready_directory"]


def openness(path: str) -> str:
    """Who else than we may write in a directory, in words; nothing: nobody. OSError: it cannot be asked."""
    status = os.stat(path)
    if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        return f"{path} belongs to user {status.st_uid}, who may write there"
    others = [
        who for who, bit in (("its group", stat.S_IWGRP), ("anybody", stat.S_IWOTH)) if status.st_mode & bit
    ]
    if others:
        return f"{path} is open to {' and '.join(others)}: chmod go-w it"
    return ""


def ready_directory(path: str, allow_open: bool) -> str:
    """Make the directory, if needed, and look who may write there: what is to be warned of, or nothing.

    Raises:
        OSError: it cannot be made, or others may write there and ``allow_open`` is False.
    """
    os.makedirs(path, mode=0o750, exist_ok=True)
    found = openness(path)
    if found and not allow_open:
        raise OSError(f"{found} (or allow_open_state)")
    return found
