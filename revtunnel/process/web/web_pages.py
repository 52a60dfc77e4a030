"""What a web listener answers that is no WebSocket: health, what others put here, and else one JSON object.

The rule: one connection is one answer. So a WebSocket never comes behind a request on a connection that a
balancer keeps open for others, and nobody's bytes stand behind another's.

``root`` is a twisted.web resource, and takes children.

Source: ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.web import resource, server

from revtunnel.process.web.http_answers import PROBLEM_JSON, in_bytes, problem, write_json
from revtunnel.process.web.http_channel import BoundedChannel, BoundedSite

__all__ = ["WebPages"]

_SENTENCES = {404: "nothing is here", 405: "not with this method", 426: "this is for WebSockets"}


class _Told(resource.Resource):
    """One answer, whatever is asked behind it."""

    isLeaf = True

    def __init__(self, code: int, row: dict[str, Any] | None = None, **headers: str) -> None:
        super().__init__()
        self._code = code
        self._row = {"error": _SENTENCES[code]} if row is None else row
        self._headers = headers

    def render(self, request: Any) -> int:
        write_json(request, self._code, self._row, self._headers)
        return server.NOT_DONE_YET


class _Health(resource.Resource):
    """Whether this server takes new work: 200 or 503."""

    isLeaf = True

    def __init__(self, state: Callable[[], str]) -> None:
        super().__init__()
        self._state = state

    def render(self, request: Any) -> int:
        if request.method not in (b"GET", b"HEAD"):
            return _Told(405, Allow="GET, HEAD").render(request)
        state = self._state()
        return _Told(200 if state == "ready" else 503, {"state": state}).render(request)


class _Root(resource.Resource):
    """Everything that has no child of its own."""

    def __init__(self, is_route: Callable[[str], bool]) -> None:
        super().__init__()
        self._is_route = is_route

    def getChild(self, path: bytes, request: Any) -> resource.Resource:
        whole = request.path.decode("latin-1")
        return _Told(426, Upgrade="websocket") if self._is_route(whole) else _Told(404)

    def render(self, request: Any) -> int:
        """Twisted calls this, where nothing is but children."""
        return _Told(404).render(request)


class _OneAnswer(BoundedChannel):
    """A connection for one request."""

    rules: Any = None  # those of its listener
    came_from = ""  # HOST:PORT of the other end
    too_large = PROBLEM_JSON, in_bytes(problem(413, "too-large", "the body is too large"))

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Twisted asks this."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False


class _Site(BoundedSite):
    protocol: Any = _OneAnswer


class WebPages:
    """The pages of all listeners of a server. ``state`` is a word; ``is_route`` knows the WebSockets."""

    header = 10.0  # seconds to a whole request, absolute
    body = 64 * 1024  # bytes of one
    connections = 512  # callers at once

    def __init__(self, reactor: Any, is_route: Callable[[str], bool], state: Callable[[], str]) -> None:
        self.root = _Root(is_route)
        self.root.putChild(b"healthz", _Health(state))
        health = _Root(is_route)
        health.putChild(b"live", _Health(lambda: "ready"))
        health.putChild(b"ready", _Health(state))
        self.root.putChild(b"health", health)
        self.site = _Site(self.root, reactor, lambda: self)
        self.channel = self.site.channel  # a protocol for one connection; None: too many have one

    def put(self, name: str, page: resource.Resource) -> None:
        """Answer ``/name`` and what is below it with another resource."""
        self.root.putChild(name.encode("ascii"), page)
