"""A daemon that says what it holds.

`python -m benchmarks.inside server|agent ...` runs it as it is. On SIGUSR2 it writes PID.json into the folder
that $INSIDE names: {"timers": [what they call, ...], "watched": ...}, from its own reactor.

Descriptors and memory can be read from outside; timers cannot.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from revtunnel.daemons.run import main

__all__ = ["FOLDER"]

FOLDER = "INSIDE"


def _tell(number: int, frame: object) -> None:
    from twisted.internet import reactor  # there is one by now, and the daemon chose it

    watched = len(reactor._selectables)  # type: ignore[attr-defined]
    calls = [each.func for each in reactor.getDelayedCalls()]  # type: ignore[attr-defined]
    held = {"timers": [getattr(call, "__qualname__", repr(call)) for call in calls], "watched": watched}
    path = Path(os.environ[FOLDER]) / f"{os.getpid()}.json"
    path.with_suffix(".new").write_text(json.dumps(held))
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, _tell)
    main(sys.argv[1:])
