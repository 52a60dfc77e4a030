"""Reading and writing through a TLS engine, many records in one call of ours.

The rule: what pyOpenSSL's ``recv_into`` and ``send`` do, in their order, and no more. They allocate a buffer
for each record and copy it, and ask three helpers and the engine after each whether it went well; here the
engine reads into the caller's own memory, and is asked when it did not. That is a quarter to a third of what
a record costs, be it 16 KiB or a keystroke.

SSL_get_error(3) of OpenSSL before 4.0 judges by the thread's queue of errors, which is every connection's:
what another call left there would end a sound connection. So the queue is emptied before the engine works,
and after a fault.

It uses names that are pyOpenSSL's own (``_lib``, ``_ffi``, ``_ssl``, ``_raise_ssl_error``); where one of them
is missing, its public methods do the same.

Source: ours; OpenSSL's SSL_read(3), SSL_write(3), SSL_get_error(3); pyOpenSSL's Connection.
"""

from typing import Any

from OpenSSL import SSL

__all__ = ["RECORD", "read_records", "write_records"]

RECORD = 16 * 1024  # bytes of the largest TLS record
_WANTS_READ, _WANTS_WRITE = SSL.WantReadError(), SSL.WantWriteError()


def read_publicly(connection: Any, view: memoryview) -> tuple[int, SSL.Error | None]:
    """Read record by record while there is room for one: how many bytes, and what ended it, if anything."""
    receive, room, got = connection.recv_into, len(view), 0
    try:
        got = receive(view, RECORD)
        while room - got >= RECORD:
            got += receive(view[got:], RECORD)
    except SSL.Error as error:
        return got, error
    return got, None


def write_publicly(connection: Any, data: bytes | memoryview) -> tuple[int, SSL.Error | None]:
    """Write record by record: how many bytes were taken, and why no more, if not all."""
    view, send, taken = memoryview(data), connection.send, 0
    try:
        while taken < len(view):
            taken += send(view[taken:])
    except SSL.Error as error:
        return taken, error
    return taken, None


def read_directly(connection: Any, view: memoryview) -> tuple[int, SSL.Error | None]:
    """Read record by record while there is room for one: how many bytes, and what ended it, if anything."""
    ssl, read, room, got = connection._ssl, _lib.SSL_read, len(view), 0
    _lib.ERR_clear_error()
    with _ffi.from_buffer("char[]", view, True) as place:
        while True:
            size = read(ssl, place + got, min(RECORD, room - got))
            if size <= 0:
                return got, _stopped(connection, ssl, size)
            got += size
            if room - got < RECORD:
                return got, None


def write_directly(connection: Any, data: bytes | memoryview) -> tuple[int, SSL.Error | None]:
    """Write record by record: how many bytes were taken, and why no more, if not all."""
    ssl, write, wanted, taken = connection._ssl, _lib.SSL_write, len(data), 0
    _lib.ERR_clear_error()
    with _ffi.from_buffer(data) as place:
        while taken < wanted:
            size = write(ssl, place + taken, wanted - taken)
            if size <= 0:
                return taken, _stopped(connection, ssl, size)
            taken += size
    return taken, None


def _stopped(connection: Any, ssl: Any, result: int) -> SSL.Error:
    """Why the engine did nothing."""
    why = _lib.SSL_get_error(ssl, result)
    if why == _lib.SSL_ERROR_WANT_READ:
        return _WANTS_READ
    if why == _lib.SSL_ERROR_WANT_WRITE:
        return _WANTS_WRITE
    try:
        connection._raise_ssl_error(ssl, result)
    except SSL.Error as error:
        return error
    finally:
        _lib.ERR_clear_error()  # its own, or what it has not taken from there
    raise AssertionError(f"SSL_get_error says {why}, pyOpenSSL nothing")


_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
_NAMES = (
    "SSL_read",
    "SSL_write",
    "SSL_get_error",
    "ERR_clear_error",
    "SSL_ERROR_WANT_READ",
    "SSL_ERROR_WANT_WRITE",
)
_KNOWN = (
    _ffi is not None
    and all(hasattr(_lib, name) for name in _NAMES)
    and hasattr(SSL.Connection, "_raise_ssl_error")
    and "_ssl" in SSL.Connection.__init__.__code__.co_names
)
read_records = read_directly if _KNOWN else read_publicly
write_records = write_directly if _KNOWN else write_publicly
