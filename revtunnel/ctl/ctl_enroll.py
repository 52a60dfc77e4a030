"""revtunnelctl enroll: what a device proves itself with, made.

Rule of this file: at a server with an authority a device gets a certificate, at any other a key; ``--key``
asks for a key in any case, ``--app-key`` for that of a ThingWorx device. A private key is made where it is
kept: here with ``--out``, at the agent with a token.

Source: docs/admin.rst "Enrolment".
"""

import os
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from revtunnel.ctl.ctl_files import Wrong
from revtunnel.ctl.ctl_output import remark, say, warn
from revtunnel.ctl.tables import clean
from revtunnel.daemons.server_operations import APP_KEY, AUTHORITY, CERTIFY, ENROLL, TOKEN
from revtunnel.process.admin.admin_client import AdminClient
from revtunnel.process.admin.operation_form import Operation
from revtunnel.process.admin.refusals import Invalid, NotFound

__all__ = ["enroll"]

MAX_REQUEST = 16 * 1024  # bytes of a request's file


class KeyFile:
    """A file for a key, made before the key is, so that no key is lost for want of a place.

    It is written beside the file it becomes, with mode 0600 from its first moment.
    """

    def __init__(self, path: str, replace: bool) -> None:
        self._path = path
        self._made = ""
        if not replace and os.path.lexists(path):
            raise Wrong(f"{path}: there is such a file already; --replace would replace it, and the key")
        try:
            self._descriptor, self._made = tempfile.mkstemp(
                ".new", ".revtunnel-", os.path.dirname(path) or "."
            )
        except OSError as error:
            raise Wrong(f"{path}: {error.strerror}") from None

    def write(self, key: str) -> None:
        """Put the key there, on the disk."""
        try:
            os.write(self._descriptor, f"{key}\n".encode("ascii"))
            os.fsync(self._descriptor)
            os.replace(self._made, self._path)
        except OSError as error:
            raise Wrong(f"{self._path}: {error.strerror}; enroll again, with --replace") from None
        self._made = ""

    def close(self) -> None:
        """Leave nothing behind but the finished file."""
        os.close(self._descriptor)
        if self._made:
            with suppress(OSError):
                os.unlink(self._made)


def enroll(client: AdminClient, options: Namespace) -> int:
    """Make a key, a certificate or a token, as the options and the server say."""
    forms: dict[str, Callable[[AdminClient, Namespace], int]] = {
        "key": _key,
        "app_key": _app_key,
        "token": _token,
        "csr": _certificate,
        "out": _certificate,
    }
    form = next((name for name in ("key", "app_key", "token", "csr") if getattr(options, name)), None)
    if form is None:
        try:
            client.call(AUTHORITY)
            form = "out" if options.out else "token"
        except NotFound:
            form = "key"
    return forms[form](client, options)


def _key(client: AdminClient, options: Namespace) -> int:
    serial, name = options.serial, options.out or f"{options.serial}.key"
    status = _make_key(client, options, ENROLL)
    if not options.json:
        store = "" if options.out else f"keep it in a file of mode 0600, such as {name}; "
        remark(f"{store}beside the device, run:")
        remark(f"  revtunnel-agent --serial {serial} --key-file {name} --server HOST:PORT --local HOST:PORT")
    return status


def _app_key(client: AdminClient, options: Namespace) -> int:
    status = _make_key(client, options, APP_KEY)
    if not options.json:
        remark("it is the appKey of the device's SDK, whose thing has to be called as the serial;")
        remark(f"what the device has stands in the server's settings: [device {options.serial}] services")
    return status


def _make_key(client: AdminClient, options: Namespace, operation: Operation) -> int:
    serial = options.serial
    file = KeyFile(options.out, options.replace) if options.out else None
    try:
        answer = client.call(operation, serial=serial, replace=options.replace)
        if file is not None:
            file.write(answer["key"])
    finally:
        if file is not None:
            file.close()
    warn(answer)
    row = {"serial": serial} | ({"file": options.out} if file is not None else {"key": answer["key"]})
    text = f"key of {serial} is in {clean(options.out)}" if file is not None else clean(answer["key"])
    return say(options, row, text)


def _token(client: AdminClient, options: Namespace) -> int:
    if options.out:
        raise Invalid("--out: a token is shown and kept nowhere")
    answer = client.call(TOKEN, serial=options.serial, replace=options.replace)
    warn(answer)
    server = options.server or answer["server"] or "HOST:PORT"
    line = f"revtunnel-agent --enroll {clean(answer['token'])} --server {clean(server)}"
    row = {"serial": options.serial, "token": answer["token"], "server": server, "line": line}
    status = say(options, row, line)
    if not options.json:
        remark("beside the device, run this once, with --local [NAME=]HOST:PORT for each of its services")
    return status


def _certificate(client: AdminClient, options: Namespace) -> int:
    from cryptography.hazmat.primitives.serialization import Encoding

    from revtunnel.state.atomic_file import make_directory, write_whole
    from revtunnel.trust.authority import key_pem, load_certificate, make_request, new_key, pem

    serial, directory = options.serial, options.out
    names = {kind: os.path.join(directory or "", f"{serial}.{kind}") for kind in ("pem", "key")}
    authority = os.path.join(directory or "", "authority.pem")
    private = None if options.csr else new_key()
    for kind in ("pem",) if private is None else ("pem", "key"):
        if directory and not options.replace and os.path.lexists(names[kind]):
            raise Wrong(f"{names[kind]}: there is such a file already; --replace would replace it")
    try:
        request = make_request(serial, private) if private is not None else _read(options.csr)
        if directory:
            make_directory(directory)
            if private is not None:  # before the certificate is asked for: a full disk costs nothing then
                write_whole(names["key"], key_pem(private))
        answer = client.call(CERTIFY, serial=serial, request=request, replace=options.replace)
        made, trusted = (load_certificate(answer[name]) for name in ("certificate", "authority"))
        if directory:
            write_whole(names["pem"], pem(made), 0o644)
            write_whole(authority, pem(trusted), 0o644)
    except OSError as error:
        raise Wrong(f"{error.filename or directory}: {error.strerror}") from None
    warn(answer)
    if not directory:
        texts = {"certificate": made, "authority": trusted}
        row: dict[str, Any] = {name: each.public_bytes(Encoding.PEM).decode() for name, each in texts.items()}
        return say(options, {"serial": serial, **row}, pem(made).decode().rstrip("\n"))
    files = {"certificate": names["pem"], "authority": authority}
    files |= {} if private is None else {"certificate_key": names["key"]}
    lines = [f"{name} = {clean(path)}" for name, path in files.items()]
    return say(options, {"serial": serial, **files}, *lines)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(MAX_REQUEST + 1)
    if len(data) > MAX_REQUEST:
        raise Wrong(f"{path}: more than {MAX_REQUEST} bytes, a certificate request wanted")
    return data
