"""What of a browser's request goes on to a device's web page, and what of the answer comes back.

Rule of this file: what is between two neighbours stays between them (RFC 9110 section 7.6.1), and the length
of a body is never another's to say. Our own cookie never goes on, and no answer can set it: in ``PageOrigin``
it has a name, and a cookie of the device with that name, or with none, is dropped. Where several pages share
one jar of cookies (``prefix``; RFC 6265 section 8.5: cookies know no ports), a device's cookies get a secret
prefix that scripts do not see, and what has another does not go on; nothing is kept in the browser's cache
there, for another page has the same addresses next.

Dropped from answers: Strict-Transport-Security, which holds for a host with all its ports and perhaps for
names below it; Alt-Svc, which leads past us; Clear-Site-Data, which clears cookies of the whole domain, ours
among them. Content-Security-Policy and all else stay.

Source: RFC 9110, RFC 9112 section 6.1, RFC 6265bis, RFC 6797, RFC 7838; ours.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "Field",
    "PageOrigin",
    "cookies_named",
    "fault_of",
    "to_browser",
    "to_device",
    "trailers",
    "upgrade",
]

Field = tuple[bytes, bytes]

_NEIGHBOURS = frozenset((
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"),
    *(b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info", b"http2-settings"),
))  # fmt: skip
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host"))  # these cannot be named away
_OURS_TO_SAY = frozenset((
    *(b"host", b"cookie", b"origin", b"referer", b"forwarded", b"x-real-ip"),
    *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port"),
))  # fmt: skip
_HARM = frozenset((b"strict-transport-security", b"alt-svc", b"clear-site-data", b"set-cookie2"))
_KEPT = frozenset((b"cache-control", b"expires", b"pragma"))
_ADDRESSES = frozenset((b"location", b"content-location"))
_NO_TRAILERS = _NEIGHBOURS | _FRAMING | _OURS_TO_SAY | _HARM | {b"set-cookie", b"authorization", b"trailer"}
_LOGIN = b"__host-rt"  # of browsers at our own page; it is never sent here, and never goes on
_ABSOLUTE = re.compile(rb"(https?:)?//([^/?#]*)([^#]*.*)", re.IGNORECASE | re.DOTALL)
_REFRESH = re.compile(rb"([^;,]*[;,]\s*url\s*=\s*[\"']?)(.*)", re.IGNORECASE | re.DOTALL)


class PageOrigin(NamedTuple):
    """A device's web page: where browsers have it, and how the device is asked."""

    origin: bytes  # such as https://plc-7--web.pages.example:2443
    host: bytes  # what the device is told as Host
    secure: bool  # it is asked by HTTPS
    cookie: bytes  # the name of ours there
    prefix: bytes = b""  # of the device's cookies; b"": this origin has a host of its own
    last: bool = False  # the browser's connection is not kept

    @property
    def far(self) -> bytes:
        """The device's own origin."""
        return (b"https://" if self.secure else b"http://") + self.host


def fault_of(fields: Iterable[Field]) -> str:
    """Why a message is not to be trusted about where it ends; "": it is. The parser has judged the rest."""
    names = {name.lower() for name, _ in fields}
    both = b"content-length" in names and b"transfer-encoding" in names
    return "both Content-Length and Transfer-Encoding" if both else ""


def upgrade(fields: Iterable[Field]) -> bytes:
    """The protocol that a message wants to go on with, or goes on with; b"": none.

    HTTP/2 in the middle of a connection would be requests that nobody has looked at.
    """
    named = _named(fields)
    said = b", ".join(value for name, value in fields if name.lower() == b"upgrade").strip()
    return said if b"upgrade" in named and not re.search(rb"(?i)\bh2c?\b|\bHTTP/", said) else b""


def cookies_named(fields: Iterable[Field], name: bytes) -> list[bytes]:
    """The values of all cookies of this name."""
    return [value for found, value in _cookies(fields) if found == name]


def to_device(fields: list[Field], page: PageOrigin, keep: bool) -> list[Field]:
    """The fields of a request as the device gets them; ``keep``: its connection may serve the next one."""
    said = [(b"Host", page.host)]
    said += [field for field in _onward(fields) if field[0].lower() not in _OURS_TO_SAY]
    cookies = [b"%s=%s" % each if each[0] else each[1] for each in _device_cookies(fields, page)]
    if cookies:
        said.append((b"Cookie", b"; ".join(cookies)))
    for name, value in fields:
        is_origin = name.lower() == b"origin"
        if is_origin and value == b"null":
            said.append((b"Origin", value))
        elif is_origin or (name.lower() == b"referer" and value.lower().startswith(page.origin + b"/")):
            said.append((name, page.far + value[len(page.origin) :]))
    said.append((b"Via", b"1.1 revtunnel"))
    if any(name.lower() == b"transfer-encoding" for name, _ in fields):
        said.append((b"Transfer-Encoding", b"chunked"))
    wanted = upgrade(fields)
    if wanted:
        said += [(b"Connection", b"Upgrade"), (b"Upgrade", wanted)]
    elif not keep:
        said.append((b"Connection", b"close"))
    return said


def to_browser(fields: list[Field], page: PageOrigin) -> list[Field]:
    """The fields of an answer as the browser gets them."""
    said: list[Field] = []
    for name, value in _onward(fields):
        low = name.lower()
        if low == b"set-cookie":
            cookie = _cookie_set(value, page)
            said += [(name, cookie)] if cookie else []
        elif low in _ADDRESSES:
            said.append((name, _address(value, page)))
        elif low == b"refresh":
            said.append((name, _REFRESH.sub(lambda at: at[1] + _address(at[2], page), value)))
        elif low not in _HARM and not (page.prefix and low in _KEPT):
            said.append((name, value))
    return [*said, (b"Cache-Control", b"no-store")] if page.prefix else said


def trailers(fields: Iterable[Field]) -> list[Field]:
    """Fields behind a body, without those that mean something before it (RFC 9110 section 6.5.1)."""
    return [(name, value) for name, value in fields if name.lower() not in _NO_TRAILERS]


# -- inside


def _named(fields: Iterable[Field]) -> set[bytes]:
    """What Connection names."""
    said = b",".join(value for name, value in fields if name.lower() == b"connection")
    return {word.strip().lower() for word in said.split(b",")}


def _onward(fields: Iterable[Field]) -> list[Field]:
    fields = list(fields)
    gone = _NEIGHBOURS | (_named(fields) - _FRAMING)
    return [(name, value) for name, value in fields if name.lower() not in gone]


def _cookies(fields: Iterable[Field]) -> list[Field]:
    """Names and values, in order; one without ``=`` is a value."""
    said = b";".join(value for name, value in fields if name.lower() == b"cookie")
    found = []
    for each in filter(None, (part.strip(b" \t") for part in said.split(b";"))):
        name, sign, value = each.partition(b"=")
        found.append((name.rstrip(b" \t"), value.lstrip(b" \t")) if sign else (b"", each))
    return found


def _is_ours(name: bytes, page: PageOrigin) -> bool:
    return name.lower() in (page.cookie.lower(), _LOGIN)


def _device_cookies(fields: Iterable[Field], page: PageOrigin) -> list[Field]:
    found = [each for each in _cookies(fields) if not _is_ours(each[0], page)]
    size = len(page.prefix)
    return [(name[size:], value) for name, value in found if name.startswith(page.prefix)]


def _cookie_set(value: bytes, page: PageOrigin) -> bytes:
    """A Set-Cookie of the device; b"": it is dropped. It stays with its host."""
    first, *more = (part.strip(b" \t") for part in value.split(b";"))
    name, sign, content = first.partition(b"=")
    name = name.rstrip(b" \t")
    if not sign or not name or _is_ours(name, page):
        return b""
    attributes = [each for each in more if each.partition(b"=")[0].strip().lower() != b"domain"]
    if page.prefix:
        attributes = [each for each in attributes if each.lower() != b"httponly"] + [b"HttpOnly"]
    return b"; ".join([page.prefix + name + b"=" + content.lstrip(b" \t"), *attributes])


def _address(value: bytes, page: PageOrigin) -> bytes:
    """An address of the device's own as one of ours; any other as it is."""
    found = _ABSOLUTE.fullmatch(value)
    if found is None:
        return value
    scheme = (found[1] or (b"https:" if page.secure else b"http:")).lower()
    is_own = _placed(scheme + b"//" + found[2]) == _placed(page.far)
    return page.origin + found[3] if is_own else value


def _placed(origin: bytes) -> bytes:
    """In lower case, without the port that goes without saying."""
    low = origin.lower()
    return low.removesuffix(b":443" if low.startswith(b"https:") else b":80")
