"""Connections that begin with a PROXY header: whom a load balancer sends, known by the client's own address.

The rules: the header is read before anything else, TLS included, and not a byte behind it; whoever is not
named as a sender is refused, and so is a sender without a right header in time. From then on the connection's
peer, for logs, limits and lists, is the client that the header names; where it names none, the sender. Who
hangs up without a word is looking whether we live, and is not reported.

Source: the public specification of the PROXY protocol; sockets/ways/trusted_proxies.py; ours.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python import log
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.listening import Came
from revtunnel.sockets.peeking import HeadEnded, read_head
from revtunnel.sockets.ways.proxy_header import ProxyHeader
from revtunnel.sockets.ways.trusted_proxies import HeaderRules

__all__ = ["ProxyHeaders", "Refused"]

Refused = Callable[[str, str, str], None]  # "host:port", a word, a sentence


class _Headed(NamedTuple):
    """What a connection whose header is awaited came with."""

    came: Came
    rules: HeaderRules
    refused: Refused


class ProxyHeaders:
    """All connections of one server whose header has not come. ``most`` says how many may be."""

    def __init__(self, reactor: Any, most: Callable[[], int]) -> None:
        self._reactor = reactor
        self._most = most
        self._reading: set[Deferred[ProxyHeader]] = set()

    @property
    def waiting(self) -> int:
        """Headers that are awaited."""
        return len(self._reading)

    def behind(self, came: Came, rules: Callable[[], HeaderRules | None], refused: Refused) -> Came:
        """What to listen with: ``came`` sees clients only, whose headers were read by the rules of then."""
        return partial(self._came, came, rules, refused)

    def stop(self) -> None:
        """Wait for no header any more."""
        for reading in list(self._reading):
            reading.cancel()

    # -- inside

    def _came(
        self, came: Came, rules_now: Callable[[], HeaderRules | None], refused: Refused, end: End
    ) -> None:
        rules = rules_now()
        if rules is None:
            came(end)
            return
        headed = _Headed(came, rules, refused)
        if not headed.rules.trusts(end.peer):
            why = "not-allowed", "only those that proxy_from names are let in here"
        elif len(self._reading) >= self._most():
            why = "overloaded", "too many PROXY headers are awaited"
        else:
            self._read(end, headed)
            return
        end.abort()
        headed.refused(end.peer, *why)

    def _read(self, end: End, headed: _Headed) -> None:
        """Read the header, then let the client in."""
        reading = Deferred.fromCoroutine(read_head(self._reactor, end, headed.rules.decode))
        self._reading.add(reading)
        reading.addTimeout(headed.rules.wait, self._reactor)

        def done(result: Any) -> Any:
            self._reading.discard(reading)
            if not isinstance(result, Failure):
                self._let_in(end, headed, result)
            elif not result.check(CancelledError):
                self._refuse(end, headed, result)

        reading.addBoth(done).addErrback(lambda bug: log.err(bug))

    def _let_in(self, end: End, headed: _Headed, header: ProxyHeader) -> None:
        if header.origin is not None:
            end.origin = header.origin
            end.peer = header.origin.peer
        try:
            headed.came(end)
        except BaseException:
            end.abort()
            raise

    def _refuse(self, end: End, headed: _Headed, failure: Failure) -> None:
        error, peer = failure.value, end.peer
        end.abort()
        if isinstance(error, TimeoutError):
            headed.refused(peer, "silent", f"no PROXY header in {headed.rules.wait:g} s")
        elif isinstance(error, RemoteError):
            headed.refused(peer, "proxy-header", str(error))
        elif isinstance(error, HeadEnded) and not error.size:
            return
        elif isinstance(error, OSError):
            headed.refused(peer, "lost", said(error))
        else:
            failure.raiseException()
