"""Reading and writing through a TLS engine, many records in one call of ours.

The rule: what pyOpenSSL's ``recv_into`` and ``send`` do, in their order, and no more. They allocate a buffer
for each record and copy it, and ask three helpers and the engine after each whether it went well; here the
engine reads into the caller's own memory, and is asked when it did not. That is a quarter to a third of what
a record costs, be it 16 KiB or a keystroke.

SSL_get_error(3) of OpenSSL before 4.0 judges by the thread's queue of errors, which is every connection's:
what another call left there would end a sound connection. So the queue is emptied before the engine works,
and after a fault.

The data plane's thread does the same without Python (_pump_tls.c): it has an engine's address, and is told
once where OpenSSL's functions are.

It uses names that are pyOpenSSL's own (``_lib``, ``_ffi``, ``_ssl``, ``_raise_ssl_error``), and one of
cryptography's; where one of them is missing, its public methods do the same.

Source: ours; OpenSSL's SSL_read(3), SSL_write(3), SSL_get_error(3); pyOpenSSL's Connection.
"""

from typing import Any

from OpenSSL import SSL

__all__ = ["RECORD", "address_of", "fault_of", "read_records", "use_functions", "write_records"]

RECORD = 16 * 1024  # bytes of the largest TLS record
HUNG_UP = -1  # of the extension: a FIN without close_notify
LAST_ERRNO = 4095  # greater numbers are OpenSSL's
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


def use_functions(pump: Any) -> bool:
    """Say to the extension where OpenSSL's functions are; False: nobody knows, and TLS stays with Python."""
    try:
        from cryptography.hazmat.bindings._rust import _openssl

        places = [_ffi.cast("uintptr_t", _ffi.addressof(_openssl.lib, name)) for name in _FUNCTIONS]
        pump.use_tls(tuple(map(int, places)), _lib.SSL_R_UNEXPECTED_EOF_WHILE_READING)
    except (ImportError, AttributeError, TypeError):
        return False
    return _KNOWN


def address_of(connection: Any) -> int:
    """Where the engine of a connection is, for that; the connection has to be kept."""
    return int(_ffi.cast("uintptr_t", connection._ssl))


def fault_of(number: int) -> SSL.Error | None:
    """What the extension says of a fault, as pyOpenSSL would; None: it is an errno."""
    if number == HUNG_UP:
        return SSL.SysCallError(-1, "Unexpected EOF")
    if number <= LAST_ERRNO:
        return None
    words = _lib.ERR_reason_error_string(number)
    return SSL.Error([("", "", _ffi.string(words).decode("ascii", "replace") if words else "")])


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
_FUNCTIONS = (
    "SSL_read",
    "SSL_write",
    "SSL_shutdown",
    "SSL_get_shutdown",
    "SSL_get_error",
    "ERR_get_error",
    "ERR_clear_error",
)
_KNOWN = (
    _ffi is not None
    and all(hasattr(_lib, name) for name in _NAMES)
    and hasattr(SSL.Connection, "_raise_ssl_error")
    and "_ssl" in SSL.Connection.__init__.__code__.co_names
)
read_records = read_directly if _KNOWN else read_publicly
write_records = write_directly if _KNOWN else write_publicly
