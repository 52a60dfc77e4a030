"""Certificates that last for one run: an ``Issuer`` makes right and wrong ones; and Twisted's TLS in memory.

Rule of this file: an ``Issuer`` is an authority of its own that signs what it is told, however wrong. For
connections in memory, with a certificate that nobody checks, everything is Twisted's own, except where
Twisted reaches for the global reactor: a pull producer over TLS has a cooperator of the clock of the test.
As in Twisted it is asked for more for ever, also when it has nothing, until it is paused or leaves: over TLS
an idle pull producer takes a processor, and in memory ``pump`` says that it never ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet import ssl
from twisted.internet.interfaces import IProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, CooperativeTask, Cooperator, TaskStopped
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["DAY", "DEVICE_URI", "Issued", "Issuer", "contexts", "over_tls", "pem"]

DAY = timedelta(days=1)
DEVICE_URI = "urn:revtunnel:device:"
NODE_URI = "urn:revtunnel:node:"
SERVERS = (ExtendedKeyUsageOID.SERVER_AUTH,)
DEVICES = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_CERTIFICATE = serialization.Encoding.PEM


def pem(*items: Any) -> bytes:
    """Certificates, lists of revoked ones and private keys, one after the other."""
    form = _CERTIFICATE, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return b"".join(
        item.private_bytes(*form) if hasattr(item, "private_bytes") else item.public_bytes(_CERTIFICATE)
        for item in items
    )


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the files they are in."""

    certificate: x509.Certificate
    key: Any
    certificate_file: str
    key_file: str


class Issuer:
    """An authority. Files go to ``directory``; ``above`` signs it, and then it is one in the middle."""

    def __init__(self, directory: Path, name: str = "test authority", above: "Issuer | None" = None) -> None:
        self.directory = directory
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        by = above or self
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            by.name, self.name, self.key.public_key(), 1, now - DAY, now + 9 * DAY
        )
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = builder.add_extension(basic, critical=True).sign(by.key, hashes.SHA256())
        self.file = str(self.write(f"{name.replace(' ', '-')}.pem", pem(self.certificate)))

    def write(self, name: str, data: bytes, mode: int = 0o644) -> Path:
        """A file beside the others."""
        path = self.directory / name
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def issue(
        self,
        file: str,
        names: Sequence[x509.GeneralName] | None,
        uses: Sequence[x509.ObjectIdentifier] | None,
        since: timedelta = -DAY,
        until: timedelta = 5 * DAY,
        common_name: str = "",
    ) -> Issued:
        """Any certificate, in ``file.pem`` and ``file.key``; times count from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        now = datetime.now(UTC)
        number = x509.random_serial_number()
        builder = x509.CertificateBuilder(
            self.name, subject, key.public_key(), number, now + since, now + until
        ).add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        if uses is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        shown = self.write(f"{file}.pem", pem(certificate))
        return Issued(certificate, key, str(shown), str(self.write(f"{file}.key", pem(key), 0o600)))

    def server(self, *names: str, file: str = "server", **more: Any) -> Issued:
        """A server's certificate; the names are host names and IP addresses."""
        found = [
            x509.IPAddress(ip_address(each)) if _is_address(each) else x509.DNSName(each) for each in names
        ]
        return self.issue(file, found, **{"uses": SERVERS, **more})

    def device(self, *serials: str, file: str = "", **more: Any) -> Issued:
        """A device's certificate."""
        found = [x509.UniformResourceIdentifier(DEVICE_URI + serial) for serial in serials]
        return self.issue(file or serials[0], found, **{"uses": DEVICES, **more})

    def node(self, *names: str, file: str = "", **more: Any) -> Issued:
        """A node's certificate."""
        found = [x509.UniformResourceIdentifier(NODE_URI + name) for name in names]
        return self.issue(file or names[0], found, **{"uses": (*SERVERS, *DEVICES), **more})

    def revoke(self, *revoked: Issued, file: str = "crl.pem", until: timedelta = DAY) -> str:
        """A list of revoked certificates."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(self.name, now - 2 * DAY, now + until)
        for each in revoked:
            entry = x509.RevokedCertificateBuilder(each.certificate.serial_number, now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        return str(self.write(file, pem(builder.sign(self.key, hashes.SHA256()))))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@cache
def contexts() -> tuple[Any, Any]:
    """For the server's and for the client's side."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "memory")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ssl.PrivateCertificate.loadPEM(pem).options(), ssl.CertificateOptions(verify=False)


def over_tls(protocol: IProtocol, is_client: bool, clock: Clock) -> IProtocol:
    """The protocol to put on a plain transport so that ``protocol`` talks TLS over it."""

    class One(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> IProtocol:
            return protocol

    server, client = contexts()
    wrapper = TLSMemoryBIOFactory(client if is_client else server, is_client, One(), clock)
    wrapper.noisy = False
    wrapper.protocol = _Transport
    wrapper.clock = clock
    wrapper.cooperator = Cooperator(lambda: lambda: True, lambda step: clock.callLater(0, step))
    return wrapper.buildProtocol(None)


class _Transport(BufferingTLSTransport):
    """Twisted's, with pull producers on the factory's cooperator."""

    _pulled: "_Pulled | None" = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As Twisted's."""
        if streaming:
            super().registerProducer(producer, True)
            return
        self._pulled = _Pulled(producer)
        super().registerProducer(self._pulled, True)
        if self._pulled is not None:
            self._pulled.start(self.factory)

    def unregisterProducer(self) -> None:
        """As Twisted's."""
        pulled, self._pulled = self._pulled, None
        if pulled is not None:
            pulled.stop()
        super().unregisterProducer()


@implementer(IPushProducer)
class _Pulled:
    """Makes a push producer of a pull producer."""

    def __init__(self, producer: IPullProducer) -> None:
        self._producer = producer
        self._task: CooperativeTask[Iterator[None]] | None = None
        self._stopped = False

    def start(self, factory: Any) -> None:
        """Pull in every turn from now on, unless stopped meanwhile. Errors are raised there."""

        def failed(reason: Failure) -> None:
            if not reason.check(TaskStopped):
                factory.clock.callLater(0, reason.raiseException)

        if not self._stopped:
            self._task = factory.cooperator.cooperate(self._pull())
            self._task.whenDone().addErrback(failed)

    def stop(self) -> None:
        """Pull no more."""
        if not self._stopped and self._task is not None:
            self._task.stop()
        self._stopped = True

    def _pull(self) -> Iterator[None]:
        while True:
            self._producer.resumeProducing()
            yield None

    def pauseProducing(self) -> None:
        """Twisted calls this."""
        if self._task is not None:
            self._task.pause()

    def resumeProducing(self) -> None:
        """Twisted calls this."""
        if self._task is not None:
            self._task.resume()

    def stopProducing(self) -> None:
        """Twisted calls this."""
        self.stop()
        self._producer.stopProducing()
