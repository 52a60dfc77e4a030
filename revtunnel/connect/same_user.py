"""Whose program is at the other end of a connection from this machine: the kernel's table of connections.

Rule of this file: who is not found is a stranger. The table is per network namespace, and so are loopback
connections.

Source: proc(5), /proc/net/tcp; next/remote-sessions.md section 7.
"""

import os
import socket
import struct

__all__ = ["is_same_user", "owner_of"]


def owner_of(table: str, near: tuple[str, int], far: tuple[str, int]) -> int | None:
    """The user id of the socket with these two addresses in the text of /proc/net/tcp or tcp6."""
    wanted = [_written(*near), _written(*far)]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7])
    return None


def is_same_user(sock: socket.socket) -> bool:
    """Whether an accepted connection comes from a program of ours, or of root's."""
    near, far = sock.getpeername()[:2], sock.getsockname()[:2]
    with open(
        "/proc/net/tcp6" if sock.family == socket.AF_INET6 else "/proc/net/tcp", encoding="ascii"
    ) as file:
        owner = owner_of(file.read(), near, far)
    return owner is not None and owner in (os.geteuid(), 0)


def _written(host: str, port: int) -> str:
    """An address as that table has it: words of 32 bits in the machine's own order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"
