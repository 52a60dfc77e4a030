"""What is asked by POST and is no operation of the table: logins, and what an invitation is for.

Rule of this file: it reads a request as the API does (api.py) and decides nothing; ``about`` is the row by
which the description has it.

Source: ours.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web import resource

from revtunnel.process.admin.operation_form import Operation, Row
from revtunnel.process.web.api import Answer, body_of, failed
from revtunnel.process.web.api_values import checked, read_body
from revtunnel.process.web.askers import Place, place_of
from revtunnel.process.web.http_answers import HttpRefused, answered, in_bytes, write
from revtunnel.process.web.web_rules import PAGE

__all__ = ["PostPage"]

Work = Callable[[Any, Place, Row], Awaitable[Answer]]  # request, where it came in, its arguments


class PostPage(resource.Resource):
    """One of them, where the page is."""

    isLeaf = True

    def __init__(
        self,
        about: Operation,
        work: Work,
        looked: Operation | None = None,
        look: Callable[[], Row] | None = None,
    ) -> None:
        """``looked``, ``look``: what GET answers, where it does."""
        super().__init__()
        self.about = about
        self.rows = [about, *([looked] if looked is not None else [])]
        self._work = work
        self._look = look

    def render(self, request: Any) -> Any:
        done: Deferred[Any] = Deferred.fromCoroutine(self._carry_out(request))
        done.addErrback(failed)
        return answered(request, done, write, cancels=False)

    async def _carry_out(self, request: Any) -> Answer:
        place = place_of(request)
        if PAGE not in place.rules.parts or request.postpath:
            raise HttpRefused(404, "not-found", "nothing is here")
        if request.method == b"GET" and self._look is not None:
            return Answer(200, in_bytes(self._look()))
        if request.method != b"POST":
            allowed = "POST" if self._look is None else "GET, POST"
            raise HttpRefused(405, "method", f"not with this method, but {allowed}", Allow=allowed)
        raw = body_of(request)
        return await self._work(request, place, checked(self.about.asked, {}, read_body(raw) if raw else {}))
