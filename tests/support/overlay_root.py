"""A machine of its own: this one's files with a layer above them, in a mount namespace, for commands as root.

Rule of this file: what is written is in memory, and gone at the end. ``systemctl`` is a small model of it,
tests/support/systemctl_model.py; ``reason_against`` says why there can be none.

::

    with OverlayRoot(tmp_path / "m") as machine:
        machine.prefix = net.prefix(net.server)
        machine.run("/opt/revtunnel/bin/revtunnelctl install-units")
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.packing import ROOT
from tests.support.traffic import wait_until

__all__ = ["OverlayRoot", "reason_against"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOUNTED = """
mount -t tmpfs none "$0" && mkdir "$0/upper" "$0/work" "$0/root" &&
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root" &&
for each in proc dev sys; do mount --rbind "/$each" "$0/root/$each"; done &&
echo mounted && exec sleep infinity
"""


def reason_against(*programs: str) -> str:
    """Why there can be no such machine here; empty if there can."""
    wanted = ("unshare", "nsenter", "chroot", "setpriv", "systemd-sysusers", "systemd-tmpfiles", *programs)
    missing = [name for name in wanted if shutil.which(name, path=PATH) is None]
    if os.geteuid():
        return "root only"
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = MOUNTED.replace("exec sleep infinity", "exit 0")
    with tempfile.TemporaryDirectory() as place:
        words = ["unshare", "-m", "sh", "-c", tried, place]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


class OverlayRoot:
    """The machine. ``prefix`` stands before each command, such as ``ip netns exec NAME``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.prefix: Sequence[str] = ()
        self._place = directory
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        words = ["unshare", "-m", "sh", "-c", MOUNTED, str(self._place)]
        self._holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "mounted\n"
        self.write("usr/local/sbin/systemctl", (ROOT / "tests/support/systemctl_model.py").read_text(), 0o755)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._holder is not None and self._holder.stdout is not None
        for pid in self.path("run/systemctl-model").glob("*.pid"):
            self.run(f"systemctl stop {pid.stem}")
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()

    def path(self, name: str) -> Path:
        """Where a file of this machine is seen from outside; only while the machine is there."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/root{self._place}/root/{name}")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Put a file there."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self, line: str, fails: bool = False, **environment: str) -> str:
        """A line of a shell, by root: what it said on both outputs."""
        assert self._holder is not None
        kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        into = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "chroot", f"{self._place}/root"]
        done = subprocess.run(
            [*self.prefix, *into, "sh", "-c", f"cd / && {line}"],
            env={"PATH": PATH, "HOME": "/root", **kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        assert (done.returncode != 0) is fails, f"{line}\n{done.stdout}{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """What its services wrote."""
        logs = self.path("run/systemctl-model").glob("*.log")
        return "\n".join(f"---- {each.name}\n{each.read_text()}" for each in logs)

    def wait_log(self, unit: str, words: str) -> None:
        """Until they stand in a service's log."""
        path = self.path(f"run/systemctl-model/{unit}.log")
        wait_until(lambda: words in path.read_text(), f"{words} in {path.read_text()}", 120.0)
