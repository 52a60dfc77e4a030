"""The grammar of a serial: the identity of a device on every wire.

Source: faults.md "Device identity" (secure mode); ours for the rest.
"""

import re

from revtunnel.ground.errors import RemoteError

__all__ = ["MAX_SERIAL", "parse_serial"]

MAX_SERIAL = 64
_SERIAL = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


def parse_serial(text: str) -> str:
    """Return ``text`` if it is a serial: 1 to 64 of letters, digits and ``._:-``.

    Raises:
        RemoteError: it is not one; the text is shown escaped and cut, so it is safe to log.
    """
    if not _SERIAL.fullmatch(text):
        raise RemoteError(f"serial {text[:80]!a}: 1 to {MAX_SERIAL} of A-Z a-z 0-9 . _ : - wanted")
    return text
