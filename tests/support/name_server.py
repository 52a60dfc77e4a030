"""A name server over loopback, by UDP and TCP, that lists what a test gives it (twisted.names)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import common, dns, error, server

from tests.support.epoll import Loop

__all__ = ["Zone", "served"]

Record = tuple[int, int, int, str, int]  # priority, weight, port, target, TTL
ERRORS = {dns.ENAME: error.DNSNameError, dns.ESERVER: error.DNSServerError}
HOST = "127.0.0.1"


class Zone(common.ResolverBase):
    """SRV records by their name; ``code`` is what is said of other names."""

    def __init__(self, records: Mapping[str, Sequence[Record]], code: int = dns.ENAME) -> None:
        super().__init__()
        self.records = {name: [*each] for name, each in records.items()}
        self.code = code
        self.asked = 0

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: object) -> "Deferred[object]":
        self.asked += 1
        found = self.records.get(name.decode())
        if found is None:
            return fail(ERRORS[self.code](dns.Message(rCode=self.code)))
        answers = [
            dns.RRHeader(
                name,
                dns.SRV,
                payload=dns.Record_SRV(*each[:3], each[3].encode("latin-1"), each[4]),
                ttl=each[4],
            )
            for each in found
        ]
        return succeed((answers, [], []))


class _Server(server.DNSServerFactory):
    def gotResolverError(
        self, failure: object, protocol: object, message: dns.Message, address: object
    ) -> None:
        """Says which error it is, where the original says that each is of the name or of the server."""
        code = getattr(getattr(failure, "value", None), "args", [None])[0]
        message.rCode = code.rCode if isinstance(code, dns.Message) else dns.ESERVER
        self.sendReply(protocol, message, address)


@contextmanager
def served(loop: Loop, zone: Zone) -> Iterator[tuple[str, int]]:
    """Its place while it runs."""
    factory = _Server(clients=[zone])
    factory.noisy = False
    protocol = dns.DNSDatagramProtocol(factory, reactor=loop.reactor)
    by_tcp = loop.reactor.listenTCP(0, factory, interface=HOST)
    port = by_tcp.getHost().port
    by_udp = loop.reactor.listenUDP(port, protocol, interface=HOST)
    try:
        yield HOST, port
    finally:
        by_udp.stopListening()
        by_tcp.stopListening()
        loop.settle(quiet=0.02)
