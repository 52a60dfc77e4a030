"""How an agent that is one file starts: it unpacks itself once, and goes on as ``revtunnel-agent``.

Rule of this file: it is the ``__main__`` of the file that agent_file.py makes, so it imports the standard
library alone. Compiled modules cannot be read out of an archive; what is unpacked belongs to who runs it, and
is whole or not there: in ``$CACHE_DIRECTORY`` (systemd), /var/cache/revtunnel for root, or the user's cache.

Source: ours.
"""

import json
import os
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping

__all__ = ["BUILD", "SITE", "main", "this_machine", "unpacked"]

BUILD, SITE = "build.json", "site"  # names in the archive
FAILED = 1


def this_machine() -> dict[str, str]:
    """What compiled modules have to be made for."""
    return {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "platform": sysconfig.get_platform()}


def _base(environ: Mapping[str, str], root: bool) -> str:
    if environ.get("CACHE_DIRECTORY"):
        return environ["CACHE_DIRECTORY"].partition(":")[0]
    if root:
        return "/var/cache/revtunnel"
    return os.path.join(environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "revtunnel")


def unpacked(archive: str, environ: Mapping[str, str], root: bool) -> str:
    """The directory with what is in the archive.

    Raises:
        OSError: it cannot be made, or is not ours.
        ValueError: the archive is for another machine.
    """
    with zipfile.ZipFile(archive) as file:
        build = json.loads(file.read(BUILD))
        here = this_machine()
        wanted = {name: build[name] for name in here}
        if wanted != here:
            raise ValueError(f"it is for {_shown(wanted)}, and this is {_shown(here)}")
        base = _base(environ, root)
        found = os.path.join(base, f"agent-{build['id']}")
        if not os.path.isdir(found):
            os.makedirs(base, mode=0o700, exist_ok=True)
            fresh = tempfile.mkdtemp(prefix="new-", dir=base)
            try:
                file.extractall(fresh)
                os.sync()  # after a power cut it is whole, or it is not there
                os.rename(fresh, found)
            except OSError:
                shutil.rmtree(fresh, ignore_errors=True)
                if not os.path.isdir(found):  # else another one was faster
                    raise
    status = os.stat(found)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{found} belongs to somebody else, or others may write there")
    return os.path.join(found, SITE)


def _shown(machine: Mapping[str, str]) -> str:
    return f"Python {machine['python']} on {machine['platform']}"


def main() -> None:
    """Unpack, if that has not been done, and be the agent."""
    archive = os.path.abspath(sys.argv[0])
    try:
        sys.path.insert(0, unpacked(archive, os.environ, os.geteuid() == 0))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        print(f"revtunnel-agent: {archive}: {error}", file=sys.stderr)
        raise SystemExit(FAILED) from None
    sys.argv[0] = "revtunnel-agent"
    from revtunnel.daemons.run import agent

    agent()


if __name__ == "__main__":
    main()
