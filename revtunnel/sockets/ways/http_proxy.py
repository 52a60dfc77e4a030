"""The way out through an HTTP proxy: CONNECT on a fresh connection, before TLS and before any frame.

The rules: a proxy is asked once, with what the settings know; any answer but 2xx is the end of this try, in
words that name the proxy and never its password. The bytes behind its answer are the server's: they stay
unread. The name that TLS checks is the server's all the same.

Source: RFC 9110 9.3.6; sockets/ways/proxy_choice.py and sockets/ways/http_connect.py for what is said.
"""

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.server_places import after
from revtunnel.ground.targets import place
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.opening import Names, Reach, connect, open_end, resolve
from revtunnel.sockets.peeking import HeadEnded, read_head
from revtunnel.sockets.stages import Stage, write_all
from revtunnel.sockets.ways.http_connect import ProxyAnswer, decode_answer, encode_request
from revtunnel.sockets.ways.proxy_choice import HttpProxy, ProxyChoice

__all__ = ["ProxyError", "open_way", "proxy_stage"]

MAX_HEAD = 8 * 1024  # bytes of a proxy's answer


class ProxyError(ConnectionError):
    """The proxy did not connect us; the sentence names it."""

    def __init__(self, proxy: HttpProxy, why: str) -> None:
        super().__init__(errno.ECONNREFUSED, f"proxy {proxy}: {why}")


def proxy_stage(
    reactor: Any, proxy: HttpProxy, host: str, port: int, through: Callable[[], None] = lambda: None
) -> Stage:
    """Ask ``proxy``, to which the End leads, for a connection to a server; the deadline is the caller's.

    ProxyError: it did not give one. ``through`` is called when it did.
    """

    async def stage(end: End) -> End:
        try:
            await write_all(reactor, end, encode_request(host, port, proxy.credentials))
            answer = await read_head(reactor, end, partial(decode_answer, limit=MAX_HEAD))
        except RemoteError as error:
            raise ProxyError(proxy, str(error)) from None
        except HeadEnded as error:
            raise ProxyError(proxy, said(error) if error.size else "it hung up without an answer") from None
        except OSError as error:
            raise ProxyError(proxy, said(error)) from None
        if not answer.connected:
            raise ProxyError(proxy, _why(answer, proxy, host, port))
        end.peer = place(host, port)
        through()
        return end

    return stage


def _why(answer: ProxyAnswer, proxy: HttpProxy, host: str, port: int) -> str:
    """What an answer means, and what can be done about it."""
    words = answer.words
    if answer.status == 407:
        return _unknown(answer, proxy, host, port)
    if answer.status < 400 or answer.status == 511:
        where = f", which leads to {answer.leads_to}" if answer.leads_to else ""
        return f"answered with a web page ({words}{where}), as a portal does that wants a login first"
    if answer.status >= 500:
        return f"{words}: it does not reach {host}:{port}"
    return f"{words}: whoever keeps it has to allow CONNECT to {host}:{port}"


def _unknown(answer: ProxyAnswer, proxy: HttpProxy, host: str, port: int) -> str:
    """Why it does not know who we are."""
    schemes = [each.lower() for each in answer.schemes]
    if schemes and "basic" not in schemes:
        known = f"have it let {host}:{port} pass without, or name a proxy beside us that speaks it"
        return f"wants {answer.words}, and only Basic is spoken here: {known}"
    if proxy.credentials is not None:
        return f"does not take the user and password of proxy_credentials ({answer.words})"
    return f"wants a user and a password ({answer.words}): see proxy_credentials"


def open_way(
    reactor: Any,
    choice: ProxyChoice,
    host: str,
    port: int,
    timeout: float,
    stages: Sequence[Stage] = (),
    reach: Reach = connect,
    names: Names = resolve,
) -> "Deferred[End]":
    """``open_end``, by the proxy that leads to the server if one does; fails as that does.

    ValueError: a proxy is needed, and the environment's cannot be used.
    """
    proxy = choice.proxy_for(host, port)
    if proxy is None:
        return open_end(reactor, host, port, timeout, stages, names, reach)
    through: list[bool] = []
    ask = proxy_stage(reactor, proxy, host, port, lambda: through.append(True))
    opening = open_end(reactor, proxy.host, proxy.port, timeout, [ask, *stages], reach=reach)

    def failed(failure: Failure) -> Failure:
        """Say that it was the proxy that could not be reached, or did not answer."""
        error = failure.value
        if not isinstance(error, OSError) or isinstance(error, ProxyError) or through:
            return failure
        return Failure(ProxyError(proxy, after(place(proxy.host, proxy.port), said(error))))

    return opening.addErrback(failed)
