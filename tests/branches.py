"""Branches that the last run under ``coverage`` has taken, by room: ``python -m tests.branches``.

Coverage's own report adds lines and branches up, and knows no rooms.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["by_room", "main"]


def by_room(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Branches that were taken, and all of them, of what ``coverage json`` tells."""
    taken, all_of_them = Counter[str](), Counter[str]()
    for name, file in report["files"].items():
        room = Path(name).parts[1:-1]
        if room and file["summary"]["num_branches"]:
            taken[room[0]] += file["summary"]["covered_branches"]
            all_of_them[room[0]] += file["summary"]["num_branches"]
    return {room: (taken[room], all_of_them[room]) for room in sorted(all_of_them)}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "coverage.json")
        argv = [sys.executable, "-m", "coverage", "json", "-q", "-o", str(file)]
        if (status := subprocess.run(argv, check=False).returncode) != 0:
            return status
        found = by_room(json.loads(file.read_text()))
    for room, (taken, branches) in found.items():
        print(f"{room:10} {taken / branches:6.1%} of {branches}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
