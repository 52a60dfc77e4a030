"""Three machines in network namespaces: client, server and agent, with a cable between each two that talk.

    client 10.77.2.2 ---- 10.77.2.1 server 10.77.1.1 ---- 10.77.1.2 agent

Rule of this file: only ``ip`` and ``nft``, and sockets that are made inside a namespace; a socket stays where
it was made. Needs the right to make namespaces; ``reason_against`` says why not.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, Self

from tests.support.services import Service

__all__ = ["CLIENT_SIDE", "SERVER", "Net", "inside", "moved", "reason_against"]

CLIENT_SIDE = "10.77.2.1"  # the server, seen from the client
SERVER = "10.77.1.1"  # the server, seen from the agent
CLONE_NEWNET = 0x40000000


def reason_against(*programs: str) -> str:
    """Why there can be no namespaces here; empty if there can. ``programs``: needed beside ``ip``."""
    missing = [name for name in ("ip", *programs) if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    name = f"rtprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


def inside(name: str, work: Callable[[], Any]) -> Any:
    """What ``work()`` gives in a thread that has entered the namespace; what it raises is raised here."""
    found: list[Any] = []

    def enter() -> None:
        try:
            with open(f"/run/netns/{name}") as place:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(place.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            found.extend((work(), None))
        except BaseException as problem:
            found.extend((None, problem))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    result, problem = found[-2:]
    if problem is not None:
        raise problem
    return result


class Net:
    """The three namespaces; ``client``, ``server`` and ``agent`` are their names."""

    def __init__(self) -> None:
        self.client, self.server, self.agent = (f"rt{os.getpid()}{each}" for each in "csa")

    def __enter__(self) -> Self:
        for name in (self.client, self.server, self.agent):
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "set", "lo", "up")
        self._cable("c", self.client, "10.77.2")
        self._cable("a", self.agent, "10.77.1")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.client, self.server, self.agent):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._ip("netns", "del", name)

    @staticmethod
    def prefix(name: str) -> list[str]:
        """What stands before a command that is to run inside."""
        return ["ip", "netns", "exec", name]

    def address(self, name: str, device: str, address: str) -> None:
        """One more address, such as ``10.1.0.1/16``, for a machine's device."""
        self._ip("-n", name, "address", "add", address, "dev", device)

    def cut(self) -> None:
        """Pull the cable between server and agent."""
        self._ip("-n", self.server, "link", "set", "to-a", "down")

    def mend(self) -> None:
        """Put it back."""
        self._ip("-n", self.server, "link", "set", "to-a", "up")

    def filter(self, rule: str) -> None:
        """One rule for what comes in at the server, such as ``iifname "to-a" drop``."""
        self._nft(self.server, f"add rule inet faults incoming {rule}")

    def filter_agent(self, rule: str) -> None:
        """The same at the agent, whose interface is ``to-s``."""
        self._nft(self.agent, f"add rule inet faults incoming {rule}")

    def clear(self) -> None:
        """No rules any more."""
        for name in (self.server, self.agent):
            self._nft(name, "flush ruleset")

    def _nft(self, name: str, command: str) -> None:
        chain = "type filter hook input priority 0; policy accept;"
        text = f"add table inet faults\nadd chain inet faults incoming {{ {chain} }}\n{command}\n"
        subprocess.run([*self.prefix(name), "nft", "-f", "-"], input=text, text=True, check=True)

    def _cable(self, letter: str, name: str, network: str) -> None:
        here, there = f"to-{letter}", "to-s"
        self._ip("-n", self.server, "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        for place, device, last in ((self.server, here, 1), (name, there, 2)):
            self._ip("-n", place, "address", "add", f"{network}.{last}/24", "dev", device)
            self._ip("-n", place, "link", "set", device, "up")

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


def moved(service: Service, name: str) -> Service:
    """The same service, listening inside a namespace."""
    plain = service.listen

    def listen() -> socket.socket:
        return inside(name, plain)

    service.listen = listen  # type: ignore[method-assign]
    return service
