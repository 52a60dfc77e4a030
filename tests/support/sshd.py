"""A real sshd with a user who has a password: in a mount namespace, so that the machine's own users stay.

::

    with PasswordSshd(tmp_path) as sshd:             # root only; skip where ``CAN_SSHD`` is not
        sshd.port, sshd.USER, sshd.PASSWORD
        sshd.new_host_key()                          # as after a machine was set up anew
"""

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.support.ports import free_ports
from tests.support.traffic import wait_until

__all__ = ["CAN_SSHD", "PasswordSshd"]

SSHD = "/usr/sbin/sshd"


def _can() -> bool:
    if not (os.path.exists(SSHD) and shutil.which("ssh-keygen") and shutil.which("openssl")):
        return False
    found = os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return bool(found) and found.returncode == 0


CAN_SSHD = _can()


class PasswordSshd:
    """It listens on loopback, on a free port that it keeps."""

    USER, PASSWORD = "fitter", "open sesame"

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "sshd"
        self._directory.mkdir()
        (self.port,) = free_ports(1)
        self._write()

    @property
    def target(self) -> str:
        """For an agent."""
        return f"127.0.0.1:{self.port}"

    def _write(self) -> None:
        directory, name = self._directory, self.USER
        made = ["openssl", "passwd", "-6", self.PASSWORD]
        hashed = subprocess.run(made, capture_output=True, check=True, text=True).stdout.strip()
        for path, line in (
            ("/etc/passwd", f"{name}:x:4711:4711::/:/bin/sh"),
            ("/etc/shadow", f"{name}:{hashed}:19000:0:99999:7:::"),
            ("/etc/group", f"{name}:x:4711:"),
        ):
            copy = directory / path.rpartition("/")[2]
            copy.write_text(f"{Path(path).read_text()}{line}\n")
            copy.chmod(0o600 if copy.name == "shadow" else 0o644)
        lines = [f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {directory / 'host'}"]
        lines += ["UsePAM no", "PidFile none", "PasswordAuthentication yes", "PrintMotd no", "StrictModes no"]
        lines += [f"Banner {directory / 'banner'}", "PrintLastLog no", "MaxAuthTries 3"]
        (directory / "banner").write_text("for fitters only\x1b[31m\n")
        (directory / "sshd_config").write_text("\n".join(lines) + "\n")

    def start(self, kind: str = "ed25519") -> None:
        """With a new host key."""
        host = self._directory / "host"
        for each in (host, host.with_suffix(".pub")):
            each.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(host)], check=True)
        os.makedirs("/run/sshd", exist_ok=True)
        mounts = "".join(
            f"mount --bind {self._directory / each} /etc/{each} && " for each in ("passwd", "shadow", "group")
        )
        command = f"{mounts}exec {SSHD} -D -e -f {self._directory / 'sshd_config'}"
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(["unshare", "-m", "sh", "-c", command], stderr=log)
        wait_until(self._listens, "sshd")

    def new_host_key(self, kind: str = "ed25519") -> None:
        """It comes again with another one."""
        self.stop()
        self.start(kind)

    @property
    def fingerprint(self) -> str:
        """Of its host key."""
        made = ["ssh-keygen", "-l", "-f", str(self._directory / "host.pub")]
        return subprocess.run(made, capture_output=True, check=True, text=True).stdout.split()[1]

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        """No sshd any more."""
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
