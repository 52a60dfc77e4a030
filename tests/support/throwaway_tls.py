"""Twisted's TLS for connections in memory, with a certificate made once for each run and never checked.

Rule of this file: everything is Twisted's own, except where Twisted reaches for the global reactor: a pull
producer over TLS is driven by a cooperator of the test's clock. As in Twisted it is asked for more for ever,
also when it has nothing, until it is paused or leaves: over TLS an idle pull producer takes a processor, and
in memory ``pump`` says that it never ends.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import ssl
from twisted.internet.interfaces import IProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, CooperativeTask, Cooperator, TaskStopped
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["contexts", "over_tls"]


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
