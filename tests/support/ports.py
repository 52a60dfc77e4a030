"""Ports that no other test has: every worker of pytest-xdist hands out its own, one after the other.

Rule of this file: all are below those that the system gives to outgoing connections, and one that is given is
not given again before all others were. Where that begins is random, for two suites at once on one machine.

Source: ours.
"""

import os
import random
import socket
from collections.abc import Iterator

__all__ = ["free_ports", "port_block"]

LOW, HIGH = 10_000, 32_000  # the system's begin at 32768
WORKERS = 8  # more share them
SINGLE = 750  # of a worker's, at its low end, that are given one by one


def _share() -> tuple[int, int]:
    size = (HIGH - LOW) // WORKERS
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0) % WORKERS
    return LOW + number * size, LOW + (number + 1) * size


def _in_turn(low: int, high: int) -> Iterator[int]:
    at = random.randrange(low, high)
    while True:
        yield at
        at = at + 1 if at + 1 < high else low


_LOW, _HIGH = _share()
_single = _in_turn(_LOW, _LOW + SINGLE)
_block = _in_turn(_LOW + SINGLE, _HIGH)


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def free_ports(count: int = 3) -> list[int]:
    """Ports that nobody listens at."""
    found: list[int] = []
    while len(found) < count:
        port = next(_single)
        if _is_free(port):
            found.append(port)
    return found


def port_block(size: int = 300) -> str:
    """A range of ports for clients, nobody listens at any: ``LOW-HIGH``."""
    found: list[int] = []
    while len(found) < size:
        port = next(_block)
        if found and port != found[-1] + 1:
            found = []
        found = [*found, port] if _is_free(port) else []
    return f"{found[0]}-{found[-1]}"
