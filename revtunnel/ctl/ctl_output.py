"""How revtunnelctl prints: results to standard output, remarks to standard error.

Rule of this file: nothing that came from elsewhere reaches a terminal raw: remarks are cleaned here, results
by whoever makes the lines.

Source: docs/admin.rst.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from revtunnel.ctl.tables import clean

__all__ = ["listing", "print_json", "remark", "say", "warn"]


def print_json(value: Any) -> None:
    """One line of ASCII."""
    print(json.dumps(value).replace("\x7f", "\\u007f"), flush=True)


def say(options: Namespace, value: Any, *lines: str) -> int:
    """Print a result, ``value`` for programs, ``lines`` for people; the exit status 0."""
    if options.json:
        print_json(value)
    else:
        for line in lines:
            print(line)
    return 0


def remark(text: str) -> None:
    """Say something beside the result."""
    print(f"revtunnelctl: {clean(text)}", file=sys.stderr)


def warn(answer: dict[str, Any]) -> None:
    """Say it where a change counts, but is not on the server's disk."""
    if answer.get("problem"):
        remark(f"it counts from now on, but a restart would forget it: {answer['problem']}")


def listing(options: Namespace, key: str, rows: list[Any], lines: Sequence[str]) -> int:
    """Print a listing: ``rows`` for programs, ``lines`` for people."""
    if not rows and not options.json:
        remark(f"no {key}" if key.endswith("s") else "none")
        return 0
    return say(options, {key: rows}, *lines)
