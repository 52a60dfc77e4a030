"""The files of the page for people: ``/`` is index.html, ``/page/NAME`` the others, from the package itself.

Rule of this file: they are read once, at the start, so that no request names a file of the disk; nothing but
what came from here runs in the page: no inline script, no style from elsewhere, no frame around it. A browser
keeps them and asks whether they are still the same.

Source: next/web.md section 5 "Headers"; CSP level 3; ours.
"""

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from twisted.web import resource, server

from revtunnel.process.web.http_answers import (
    PROBLEM_JSON,
    HttpRefused,
    header,
    problem,
    write,
    write_json,
)
from revtunnel.process.web.web_rules import PAGE

__all__ = ["PageFiles"]

MOST = 8 * 1024 * 1024  # bytes of all
SMALL = 1024  # bytes below which nothing is compressed
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
# xterm.js makes style elements of its own: on its page alone
_OWN = {
    "terminal.html": {
        "Content-Security-Policy": CSP.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    }
}
_HEADERS = {
    "Content-Security-Policy": CSP,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
          ".html": "text/html; charset=utf-8", ".svg": "image/svg+xml", ".woff2": "font/woff2",
          ".webmanifest": "application/manifest+json"}  # fmt: skip


class _File(NamedTuple):
    body: bytes
    small: bytes  # compressed; b"": that would spare nothing
    kind: str
    tag: str


class PageFiles(resource.Resource):
    """All files below ``page``; ``root`` is the resource of ``/``, this one that of ``/page``.

    ``headers``: what a file's own page needs beside the usual ones, by name.
    """

    isLeaf = True

    def __init__(self, folder: Traversable | None = None) -> None:
        super().__init__()
        self.headers: dict[str, dict[str, str]] = {**_OWN}
        self._files = dict(_read(folder or files(__package__) / "page", ""))
        if sum(len(each.body) for each in self._files.values()) > MOST:
            raise ValueError(f"more than {MOST} bytes of files in page")
        self.root = _Index(self._answer)

    def render(self, request: Any) -> Any:
        return self._answer(request, "/".join(part.decode("latin-1") for part in request.postpath))

    def _answer(self, request: Any, name: str) -> Any:
        try:
            self._write(request, name)
        except HttpRefused as refused:
            row = problem(refused.status, refused.word, str(refused))
            write_json(request, refused.status, row, refused.headers, PROBLEM_JSON)
        return server.NOT_DONE_YET

    def _write(self, request: Any, name: str) -> None:
        found = self._files.get(name)
        if found is None or PAGE not in request.channel.rules.parts:
            raise HttpRefused(404, "not-found", "nothing is here")
        if request.method not in (b"GET", b"HEAD"):
            raise HttpRefused(405, "method", "not with this method, but GET, HEAD", Allow="GET, HEAD")
        headers = {**_HEADERS, "ETag": found.tag, **self.headers.get(name, {})}
        if found.tag in re.findall(r'"[^"]*"', header(request, "if-none-match")):
            write(request, 304, b"", found.kind, headers)
            return
        takes = header(request, "accept-encoding").replace(" ", "").split(",")
        if found.small and "gzip" in takes:
            write(request, 200, found.small, found.kind, {**headers, "Content-Encoding": "gzip"})
        else:
            write(request, 200, found.body, found.kind, headers)


class _Index(resource.Resource):
    """``/`` itself."""

    isLeaf = True

    def __init__(self, answer: Callable[[Any, str], Any]) -> None:
        super().__init__()
        self._answer = answer

    def render(self, request: Any) -> Any:
        return self._answer(request, "" if request.postpath else "index.html")


def _read(folder: Traversable, before: str) -> list[tuple[str, _File]]:
    found: list[tuple[str, _File]] = []
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.is_dir():
            found += _read(each, f"{before}{each.name}/")
            continue
        body = each.read_bytes()
        small = gzip.compress(body, 9, mtime=0) if len(body) > SMALL else b""
        ending = "." + each.name.rpartition(".")[2]
        kind = _KINDS.get(ending) or mimetypes.guess_type(each.name)[0] or "application/octet-stream"
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        found.append((before + each.name, _File(body, small if len(small) < len(body) else b"", kind, tag)))
    return found
