"""What goes on to a device and comes back: neighbours' fields, cookies of whom, addresses, lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.process.web.proxy_headers import (
    Field,
    PageOrigin,
    cookies_named,
    fault_of,
    to_browser,
    to_device,
    trailers,
    upgrade,
)

OURS = b"__Host-Http-rt-page"
PAGE = PageOrigin(b"https://plc-7--web.pages.example:2443", b"10.0.0.5", False, OURS)
PORT = PageOrigin(b"https://devices.example:30000", b"press:8443", True, OURS + b"-30000", b"rt-0123-")
TEXT = st.text(st.sampled_from('aAbB=;, _-\t"__Host-Http-rt-page')).map(str.encode)


def device(*fields: Field, page: PageOrigin = PAGE, keep: bool = True) -> dict[bytes, bytes]:
    """What a device is told."""
    return dict(to_device([(b"Host", b"x"), *fields], page, keep))


def browser(*fields: Field, page: PageOrigin = PAGE) -> list[Field]:
    """What a browser is told."""
    return to_browser(list(fields), page)


def test_what_is_between_neighbours_stays_there() -> None:
    """What Connection names, too; but not what says how long a body is."""
    said = device(
        (b"Connection", b"close, X-Mine, content-length"),
        (b"CONNECTION", b"cookie"),
        (b"X-Mine", b"1"),
        (b"Keep-Alive", b"5"),
        (b"TE", b"trailers"),
        (b"Proxy-Authorization", b"Basic x"),
        (b"Content-Length", b"7"),
        (b"Authorization", b"Basic own"),
        (b"X-Forwarded-For", b"1.2.3.4"),
        (b"Forwarded", b"for=1.2.3.4"),
    )
    assert said == {
        b"Host": b"10.0.0.5",
        b"Content-Length": b"7",
        b"Authorization": b"Basic own",
        b"Via": b"1.1 revtunnel",
    }
    assert device((b"Transfer-Encoding", b"chunked"))[b"Transfer-Encoding"] == b"chunked"
    assert device(keep=False)[b"Connection"] == b"close"
    answer = browser(
        (b"Connection", b"X-B"), (b"X-B", b"1"), (b"Transfer-Encoding", b"chunked"), (b"A", b"b")
    )
    assert answer == [(b"A", b"b")]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"websocket")], b"websocket"),
        ([(b"Upgrade", b"websocket")], b""),
        ([(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c")], b""),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket, h2c")], b""),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"HTTP/2.0")], b""),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"shout/1")], b"shout/1"),
    ],
)
def test_upgrades(fields: list[Field], found: bytes) -> None:
    """To anything but HTTP/2, whose requests nobody would look at."""
    assert upgrade(fields) == found
    said = device(*fields)
    assert said.get(b"Upgrade", b"") == found
    assert said.get(b"Connection", b"") == (b"Upgrade" if found else b"")


def test_two_lengths_are_a_fault() -> None:
    """In whatever case."""
    both = [(b"content-LENGTH", b"5"), (b"Transfer-encoding", b"chunked")]
    assert fault_of(both) and not fault_of(both[:1]) and not fault_of(both[1:])


def test_a_request_comes_from_the_device_s_own_page() -> None:
    """Origin and Referer are the device's; what is of elsewhere does not go on."""
    own = PAGE.origin
    said = device((b"Origin", own), (b"Referer", own + b"/a?b"))
    assert (said[b"Origin"], said[b"Referer"]) == (b"http://10.0.0.5", b"http://10.0.0.5/a?b")
    assert b"Referer" not in device((b"Referer", b"https://gate.example/#secret"))
    assert b"Referer" not in device((b"Referer", own + b".evil/"))
    assert device((b"Origin", b"null"))[b"Origin"] == b"null"


def test_cookies_of_a_name() -> None:
    """All but ours go on; what the device sets stays with its host, and is never ours."""
    cookies = b'a=1; %s=secret; __HOST-rt=login; b="x y";; c' % OURS
    assert device((b"Cookie", cookies))[b"Cookie"] == b'a=1; b="x y"; c'
    assert b"Cookie" not in device((b"Cookie", OURS + b"=1"))
    assert cookies_named([(b"cookie", b"x=1; x=2"), (b"Cookie", b"X=3;x =4")], b"x") == [b"1", b"2", b"4"]
    for value, kept in (
        (b"sid=1; Domain=pages.example; Path=/; HttpOnly", b"sid=1; Path=/; HttpOnly"),
        (b"sid=a=b;domain = x;Secure", b"sid=a=b; Secure"),
        (b"sid=", b"sid="),
        (OURS + b"=evil; Path=/", b""),
        (OURS.lower() + b" =evil", b""),
        (b"\t" + OURS + b"=evil", b""),
        (b"__Host-rt=evil", b""),
        (b"=" + OURS + b"=evil", b""),
        (b"nameless", b""),
    ):
        assert browser((b"Set-Cookie", value)) == ([(b"Set-Cookie", kept)] if kept else []), value


def test_cookies_of_a_port() -> None:
    """A secret stands before each, no script sees one, and what has it not does not go on."""
    cookies = b"rt-0123-a=1; a=tossed; rt-9999-a=neighbour; RT-0123-a=2; __Host-rt=login"
    assert device((b"Cookie", cookies), page=PORT)[b"Cookie"] == b"a=1"
    [field, kept] = browser((b"Set-Cookie", b"a=1; Domain=x; httponly; Path=/"), page=PORT)
    assert field == (b"Set-Cookie", b"rt-0123-a=1; Path=/; HttpOnly")
    assert kept == (b"Cache-Control", b"no-store")
    assert browser((b"Cache-Control", b"immutable"), (b"Expires", b"x"), page=PORT) == [kept]
    assert browser((b"Cache-Control", b"immutable")) == [(b"Cache-Control", b"immutable")]


@given(st.lists(TEXT, max_size=4))
def test_our_cookie_never_goes_on_and_is_never_set(values: list[bytes]) -> None:
    """Whatever stands around it."""
    for page in (PAGE, PORT):
        said = device(*((b"Cookie", each) for each in values), page=page)
        names = [each.partition(b"=")[0].strip().lower() for each in said.get(b"Cookie", b"").split(b";")]
        assert OURS.lower() not in names
        for name, value in browser(*((b"Set-Cookie", each) for each in values), page=page):
            first = value.partition(b";")[0].partition(b"=")[0]
            assert name != b"Set-Cookie" or (first and first.strip().lower() != page.cookie.lower())


def test_addresses_of_the_device_become_the_page_s() -> None:
    """With and without the port that goes without saying; those of others stay."""
    own = PAGE.origin
    for value, found in (
        (b"http://10.0.0.5/a?b#c", own + b"/a?b#c"),
        (b"HTTP://10.0.0.5:80", own),
        (b"//10.0.0.5/x", own + b"/x"),
        (b"/x", b"/x"),
        (b"https://10.0.0.5/x", b"https://10.0.0.5/x"),
        (b"http://10.0.0.5:8080/", b"http://10.0.0.5:8080/"),
        (b"http://10.0.0.5@evil/", b"http://10.0.0.5@evil/"),
        (b"http://evil/10.0.0.5", b"http://evil/10.0.0.5"),
    ):
        assert browser((b"Location", value)) == [(b"Location", found)]
    assert browser((b"Refresh", b'5; URL="http://10.0.0.5/"')) == [(b"Refresh", b'5; URL="' + own + b'/"')]
    assert browser((b"Location", b"https://press:8443/"), page=PORT)[0][1] == PORT.origin + b"/"


def test_what_would_harm_others_is_dropped() -> None:
    """And nothing else; trailers say nothing that counts before a body."""
    harm = b"Strict-Transport-Security", b"Alt-Svc", b"Clear-Site-Data", b"Set-Cookie2"
    stays = (b"Content-Security-Policy", b"x"), (b"X-Frame-Options", b"DENY")
    assert browser(*((name, b"x") for name in harm), *stays) == [*stays]
    behind = [(b"X-Sum", b"1"), (b"Set-Cookie", b"a=b"), (b"Content-Length", b"5"), (b"Host", b"x")]
    assert trailers(behind) == [(b"X-Sum", b"1")]
