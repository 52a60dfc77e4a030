"""The grammar of a device's labels: what an operator calls it by, such as ``line=3`` or ``hall-b``.

Source: ours.
"""

import re

__all__ = ["MAX_LABELS", "parse_label"]

MAX_LABELS = 32  # labels of one device
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,32}(?:=[A-Za-z0-9._-]{1,64})?", re.ASCII)


def parse_label(text: str) -> str:
    """Return ``text`` if it is a label: ``NAME`` or ``NAME=VALUE``. Case counts.

    Raises:
        ValueError: it is none; the text is shown escaped and cut.
    """
    if not _LABEL.fullmatch(text):
        wanted = "NAME or NAME=VALUE wanted, 1 to 32 and 1 to 64 of A-Z a-z 0-9 . _ -"
        raise ValueError(f"label {text[:120]!a}: {wanted}")
    return text
