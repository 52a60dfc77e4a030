"""Make the agent one file, for devices without pip: this package, all it needs, and a start.

    python -m revtunnel.daemons.agent_file revtunnel-agent.pyz

Rule of this file: what is in it is what is installed here, so it runs with the same Python on the same kind
of machine, and says so elsewhere. Licences go with it, tests and what no agent uses do not.

Source: the standard library's zipapp; ours.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipapp
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import revtunnel
from revtunnel.daemons import agent_file_start
from revtunnel.daemons.agent_file_start import BUILD, SITE, this_machine

__all__ = ["build", "needed"]

USAGE, FAILED = 64, 1
_UNUSED = {f"twisted/{name}" for name in ("conch", "mail", "names", "pair", "trial", "words")}
_FOLDERS = {"test", "tests", "testing", "newsfragments", "__pycache__", ".."}
_ENDS = (".pyc", ".pyi", ".c", ".h", "RECORD", "INSTALLER", "direct_url.json", "REQUESTED")


def needed(name: str, extras: frozenset[str] = frozenset()) -> dict[str, metadata.Distribution]:
    """What is installed of everything that a distribution needs, itself left out.

    Raises:
        PackageNotFoundError: something is not installed.
    """
    from packaging.requirements import Requirement  # comes with Twisted

    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, extras)]
    while waiting:
        of, wanted = waiting.pop()
        for line in metadata.distribution(of).requires or []:
            asked = Requirement(line)
            named = asked.name.lower().replace("_", "-")
            applies = asked.marker is None or any(
                asked.marker.evaluate({"extra": extra}) for extra in (*wanted, "")
            )
            if applies and named not in found:
                found[named] = metadata.distribution(named)
                waiting.append((named, frozenset(asked.extras)))
    return found


def _files(distribution: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    for each in distribution.files or []:
        place = each.as_posix()
        unused = set(each.parts) & _FOLDERS or place.endswith(_ENDS)
        if not unused and "/".join(each.parts[:2]) not in _UNUSED:
            yield place, Path(str(each.locate()))


def _mine() -> Iterator[tuple[str, Path]]:
    root = Path(revtunnel.__file__).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(_ENDS):
            yield f"revtunnel/{path.relative_to(root).as_posix()}", path


def build(target: str) -> str:
    """Write the file: what is in it, in words.

    Raises:
        PackageNotFoundError: something that the agent needs is not installed here.
        OSError: it cannot be written.
    """
    parts = needed("revtunnel")
    with tempfile.TemporaryDirectory() as folder:
        mark = hashlib.sha256()
        files = dict(pair for each in parts.values() for pair in _files(each)) | dict(_mine())
        for place, path in sorted(files.items()):
            copy = Path(folder, SITE, place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            mark.update(place.encode() + b"\0" + copy.read_bytes())
        about = {"id": mark.hexdigest()[:16], "version": revtunnel.__version__, **this_machine()}
        Path(folder, BUILD).write_text(json.dumps(about))
        shutil.copyfile(agent_file_start.__file__, Path(folder, "__main__.py"))
        zipapp.create_archive(folder, target, f"/usr/bin/env python{about['python']}", compressed=True)
    versions = ", ".join(f"{name} {each.version}" for name, each in sorted(parts.items()))
    return f"revtunnel {revtunnel.__version__}, {versions}; Python {about['python']} on {about['platform']}"


def main(arguments: list[str]) -> int:
    """The exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m revtunnel.daemons.agent_file FILE", file=sys.stderr)
        return USAGE
    try:
        said = build(arguments[0])
    except metadata.PackageNotFoundError as error:
        print(f"agent_file: {error.name} is not installed here", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"agent_file: {error}", file=sys.stderr)
        return FAILED
    print(f"{arguments[0]}: {os.path.getsize(arguments[0]) // 1024} KiB: {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
