"""Whose program is at the other end of a connection from this machine, by what the kernel says.

Rule of this file: who is not found is a stranger. The kernel is asked for the one socket (sock_diag); where
it cannot be, its whole table is read, which takes milliseconds. Either is of our network namespace, and so
are loopback connections.

Source: sock_diag(7), linux/inet_diag.h; proc(5), /proc/net/tcp; next/remote-sessions.md section 7.
"""

import errno
import os
import socket
import struct

__all__ = ["ask_kernel", "is_same_user", "owner_of"]

Place = tuple[str, int]
_DIAG, _BY_FAMILY, _REQUEST, _ERROR = 4, 20, 1, 2  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, ...
_HEAD = struct.Struct("=IHHII")  # nlmsghdr: size, type, flags, sequence, process
_ANY = 0xFFFFFFFF  # states; cookie
_UID = _HEAD.size + 4 + 48 + 12  # of inet_diag_msg


def is_same_user(sock: socket.socket) -> bool:
    """Whether an accepted connection comes from a program of ours, or of root's."""
    near, far = sock.getpeername()[:2], sock.getsockname()[:2]
    try:
        owner = ask_kernel(sock.family, near, far)
    except OSError:
        owner = _in_table("/proc/net/tcp6", near, far) if sock.family == socket.AF_INET6 else None
        if owner is None:
            owner = _in_table("/proc/net/tcp", _plain(near), _plain(far))
    return owner is not None and owner in (os.geteuid(), 0)


def ask_kernel(family: int, near: Place, far: Place) -> int | None:
    """The user id of the socket with these two addresses; None: there is none. OSError: no answer."""
    addresses = b"".join(_packed(host).ljust(16, b"\0") for host, _ in (near, far))
    identity = struct.pack("!HH", near[1], far[1]) + addresses + struct.pack("=III", 0, _ANY, _ANY)
    asked = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ANY) + identity
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _DIAG) as kernel:
        kernel.send(_HEAD.pack(_HEAD.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked)
        answer = kernel.recv(4096, socket.MSG_DONTWAIT)  # it answers before ``send`` returns
    kind = _HEAD.unpack_from(answer)[1]
    if kind == _BY_FAMILY:
        return int(struct.unpack_from("=I", answer, _UID)[0])
    code = -struct.unpack_from("=i", answer, _HEAD.size)[0] if kind == _ERROR else errno.EPROTO
    if code != errno.ENOENT:
        raise OSError(code, os.strerror(code))
    return None


def owner_of(table: str, near: Place, far: Place) -> int | None:
    """The same, out of the text of /proc/net/tcp or tcp6."""
    wanted = [_written(*near), _written(*far)]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7])
    return None


def _in_table(name: str, near: Place, far: Place) -> int | None:
    with open(name, encoding="ascii") as file:
        return owner_of(file.read(), near, far)


def _plain(at: Place) -> Place:
    """IPv4 that came to an IPv6 socket, as the other side may have it."""
    return at[0].removeprefix("::ffff:"), at[1]


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])


def _written(host: str, port: int) -> str:
    """An address as that table has it: words of 32 bits in the machine's own order."""
    packed = _packed(host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"
