"""What the kernel knows of a connection: whether the other machine's kernel still acknowledges what is sent.

A ReadyAgent device that dials a service, or waits for a slow one, answers nothing for minutes, but its kernel
goes on to acknowledge; that of a machine without power does not. TCP_USER_TIMEOUT cannot tell the two apart:
it also ends a connection whose other side lives and takes nothing for that long.

Source: tcp(7), also for SIOCOUTQ; struct tcp_info of linux/tcp.h; faults.md N8; wire/readyagent.md section 2.
"""

import contextlib
import fcntl
import socket
import struct
from typing import Any

__all__ = ["acknowledged", "segments", "silence", "unacknowledged"]

_INFO = struct.Struct("=8B13I")  # the last of the 13: milliseconds since an acknowledgement came
_RETRANSMITS, _PROBES, _LAST_ACK = 2, 3, 20
_ACKED = struct.Struct("=120xQ")  # tcpi_bytes_acked, since Linux 4.1
_SEGMENTS = struct.Struct("=140xI")  # tcpi_segs_in, since Linux 4.2
_OUTQ = 0x5411  # SIOCOUTQ of linux/sockios.h
_UNANSWERED = 2  # in a row; one may be on its way


def silence(handle: Any) -> float:
    """Seconds since the other kernel acknowledged anything, if two packets in a row wait for that; else 0.0.

    0.0 also for what is not a TCP socket of this kernel. A keepalive or a probe of a closed window is such a
    packet too, so an idle connection counts after two of them.
    """
    if not isinstance(handle, socket.socket) or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    with contextlib.suppress(OSError, struct.error):
        info = _INFO.unpack(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
        if max(info[_RETRANSMITS], info[_PROBES]) >= _UNANSWERED:
            return float(info[_LAST_ACK]) / 1000
    return 0.0


def unacknowledged(handle: Any) -> int:
    """Bytes that were written and that the other kernel has not said to have; 0 also where nobody knows."""
    if isinstance(handle, socket.socket):
        with contextlib.suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(handle, _OUTQ, b"\0" * 4))[0])
    return 0


def acknowledged(handle: Any) -> int:
    """Bytes that the other kernel has said to have, since the connection began; -1 where nobody knows."""
    if isinstance(handle, socket.socket):
        with contextlib.suppress(OSError, struct.error):
            return int(_ACKED.unpack(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size))[0])
    return -1


def segments(handle: Any) -> int:
    """Segments that came since the connection began, those without a byte too; -1 where nobody knows."""
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, struct.error):
            found: int = _SEGMENTS.unpack(
                handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGMENTS.size)
            )[0]
            return found
    return -1
