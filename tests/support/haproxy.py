"""haproxy before a server: one listening port for each port behind it, with a PROXY header of either version.

Rule of this file: haproxy is used as it is installed; a test that needs it is skipped where it is not.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_ports

__all__ = ["INSTALLED", "Haproxy"]

INSTALLED = shutil.which("haproxy") is not None
READY = 20.0  # seconds


class Haproxy:
    """Runs until the end of ``with``; ``ports`` are its own, in the order of ``behind``.

    ``behind`` are the ports that it leads to, ``options`` what stands behind each server, such as
    "send-proxy-v2". It listens on every address of ``host``.
    """

    def __init__(self, directory: Path, behind: Sequence[int], options: str, host: str = "127.0.0.1") -> None:
        self.host = host
        self.ports = free_ports(len(behind))
        self._path = directory / "haproxy.cfg"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            "defaults",
            "  mode tcp",
            "  timeout connect 5s",
            "  timeout client 60s",
            "  timeout server 60s",
        ]
        for mine, port in zip(self.ports, behind, strict=True):
            lines += [f"listen l{mine}", f"  bind {host}:{mine}"]
            lines += [f"  server s{mine} 127.0.0.1:{port} {options}"]
        self._path.write_text("\n".join([*lines, ""]))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(self._path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        end = time.monotonic() + READY
        for port in self.ports:
            while not self._listens(port):
                assert self._process.poll() is None, self._process.communicate()[0].decode()
                assert time.monotonic() < end, "haproxy does not listen"
                time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=10)

    def clients(self, port: int) -> list[str]:
        """Who is connected to one of its ports, as the kernel knows it: "127.0.0.1:PORT"."""
        return [
            f"{socket.inet_ntoa(bytes.fromhex(host)[::-1])}:{int(number, 16)}"
            for (host, number), (_, theirs), state in _connections()
            if int(theirs, 16) == port and state == "01"
        ]

    @staticmethod
    def _listens(port: int) -> bool:
        """Whether somebody does, without connecting."""
        return any(int(mine, 16) == port and state == "0A" for (_, mine), _, state in _connections())


def _connections() -> Iterator[tuple[list[str], list[str], str]]:
    """Local and remote address and port, in hex, and the state of every IPv4 socket."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        yield local.split(":"), remote.split(":"), state
