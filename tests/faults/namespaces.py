"""Three machines in network namespaces: client, server and agent, with a cable between each two that talk.

    client 10.77.2.2 ---- 10.77.2.1 server 10.77.1.1 ---- 10.77.1.2 agent

``behind_nat`` puts a fourth, ``site``, behind the agent's, which then is the router that hides it (RFC 3022):

    server 10.77.1.1 ---- 10.77.1.2 agent 10.77.3.1 ---- 10.77.3.2 site

Rule of this file: only ``ip`` and ``nft``, and sockets that are made inside a namespace; a socket stays where
it was made. Needs the right to make namespaces; ``reason_against`` says why not.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.support.services import Service

__all__ = ["CLIENT_SIDE", "SERVER", "Net", "inside", "moved", "reason_against"]

CLIENT_SIDE = "10.77.2.1"  # the server, seen from the client
SERVER = "10.77.1.1"  # the server, seen from the agent
CLONE_NEWNET = 0x40000000
NETFILTER = 12  # NETLINK_NETFILTER; all as in linux/netfilter/nfnetlink{,_conntrack}.h
FLUSH = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, socket.AF_INET, 0, 0)  # delete, acknowledge
NAT = """\
add table ip nat
add chain ip nat out { type nat hook postrouting priority 100; }
add rule ip nat out oifname "to-s" masquerade
add table ip pass
add chain ip pass through { type filter hook forward priority 0; policy drop; }
add rule ip pass through ct state established,related accept
add rule ip pass through iifname "to-b" ct state new accept
add chain ip pass here { type filter hook input priority 0; policy accept; }
add rule ip pass here iifname "to-s" meta l4proto tcp drop
"""


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


def _set(name: str, value: int) -> None:
    Path("/proc/sys/net", name).write_text(str(value))


class Net:
    """The three namespaces; ``client``, ``server`` and ``agent`` are their names, ``site`` the fourth's."""

    def __init__(self) -> None:
        self.client, self.server, self.agent, self.site = (f"rt{os.getpid()}{each}" for each in "csab")

    def __enter__(self) -> Self:
        for name in (self.client, self.server, self.agent):
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "set", "lo", "up")
        self._cable(self.server, "to-c", self.client, "to-s", "10.77.2")
        self._cable(self.server, "to-a", self.agent, "to-s", "10.77.1")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.client, self.server, self.agent, self.site):
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

    def behind_nat(self, forgets: int) -> None:
        """Hide ``site`` behind the agent's machine, which forgets a connection after so many silent seconds.

        What belongs to no connection it knows goes nowhere, and nobody is told.
        """
        self._ip("netns", "add", self.site)
        self._ip("-n", self.site, "link", "set", "lo", "up")
        self._cable(self.agent, "to-b", self.site, "to-a", "10.77.3")
        self._ip("-n", self.site, "route", "add", "default", "via", "10.77.3.1")
        numbers = {"ipv4/ip_forward": 1, "netfilter/nf_conntrack_tcp_loose": 0}
        for name, value in {**numbers, "netfilter/nf_conntrack_tcp_timeout_established": forgets}.items():
            inside(self.agent, lambda name=name, value=value: _set(name, value))
        subprocess.run([*self.prefix(self.agent), "nft", "-f", "-"], input=NAT, text=True, check=True)

    def forget(self) -> None:
        """Let the router lose all that it knows of connections (``conntrack -F``)."""
        with inside(self.agent, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)) as sock:
            sock.send(FLUSH)
            done = sock.recv(4096)
        assert not any(done[16:20]), done

    @staticmethod
    def _cable(here: str, device: str, there: str, its: str, network: str) -> None:
        Net._ip("-n", here, "link", "add", device, "type", "veth", "peer", "name", its, "netns", there)
        for place, name, last in ((here, device, 1), (there, its, 2)):
            Net._ip("-n", place, "address", "add", f"{network}.{last}/24", "dev", name)
            Net._ip("-n", place, "link", "set", name, "up")

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
