"""Tokens: written, given, used once, late, withdrawn; addresses that fail too often."""

import base64
import hashlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.limits import EnrolmentLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.link.handshake import LinkDenied
from revtunnel.trust.enrolment import (
    Enrolment,
    EnrolmentToken,
    TokenRow,
    TooManyTokens,
    mark_of,
    parse_token,
    source_of,
    write_token,
)
from tests.support.steps import steps

SECRET, OTHER = bytes(range(16)), bytes(16)
TOKEN = EnrolmentToken(bytes([0xA5]) * 32, SECRET, "plc-7")
HOST = "192.0.2.7"
LIMITS = EnrolmentLimits()


class Store:
    """Keeps rows as the ledger does."""

    def __init__(self, *rows: TokenRow) -> None:
        self.rows = {row.mark: row for row in rows}

    def tokens(self) -> list[TokenRow]:
        return list(self.rows.values())

    def save_tokens(self, rows: Iterable[TokenRow], gone: Iterable[bytes]) -> None:
        self.rows.update((row.mark, row) for row in rows)
        for mark in gone:
            del self.rows[mark]


def table(store: Store | None = None, limits: EnrolmentLimits = LIMITS) -> Enrolment:
    return Enrolment(limits, 0.0, store or Store())


def why(
    enrolment: Enrolment, secret: bytes, asked: str | None = None, now: float = 1.0, source: str = HOST
) -> str:
    """The reason in our log why a token is refused; what the agent is told is the same for all."""
    with pytest.raises(LinkDenied) as caught:
        enrolment.redeem(secret, asked, source, now)
    assert (caught.value.reason, caught.value.serial) == (GoAway.DENIED, "")
    return str(caught.value)


# ---- written tokens


def test_written_form() -> None:
    """By hand: prefix, then pin, secret and serial in base64url without padding."""
    text = write_token(TOKEN)
    assert text == "rttok1_" + base64.urlsafe_b64encode(b"\xa5" * 32 + SECRET + b"plc-7").decode().rstrip("=")
    assert parse_token(f" {text}\n") == TOKEN


@given(
    st.builds(
        EnrolmentToken,
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=16, max_size=16),
        st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True),
    )
)
def test_round_trip(token: EnrolmentToken) -> None:
    """Every serial fits, and the text survives a shell: no character of it means anything there."""
    text = write_token(token)
    assert parse_token(text) == token
    assert text.replace("_", "").replace("-", "").isalnum()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rttok1_",
        "rtkey1_AAAA",
        "rttok1_!!!!",
        "rttok1_" + "A" * 63,
        "rttok1_" + "A" * 64,
        "rttok2_x",
        "caf\xe9",
    ],
)
def test_what_is_no_token(text: str) -> None:
    """Refused without a word of the text, which may be a secret with a typing error."""
    with pytest.raises(ValueError, match="token") as caught:
        parse_token(text)
    assert len(text) < 8 or text not in str(caught.value)


@pytest.mark.parametrize("change", ["cut", "padded", "other alphabet", "white space within", "a bad serial"])
def test_only_the_one_spelling_is_a_token(change: str) -> None:
    """What the decoder would forgive is refused, so that half a token is not another one."""
    token = EnrolmentToken(bytes([0xFB]) * 32, SECRET, "plc-70")
    text = write_token(token)
    assert "-" in text[7:]
    wrong = {
        "cut": text[:-8] + text[-7:],
        "padded": text + "==",
        "other alphabet": "rttok1_" + text[7:].replace("-", "+"),
        "white space within": text[:20] + " " + text[20:],
        "a bad serial": "rttok1_" + base64.urlsafe_b64encode(bytes(48) + b"a b").decode().rstrip("="),
    }[change]
    with pytest.raises(ValueError, match="token"):
        parse_token(wrong)


# ---- given and used


def test_a_token_is_good_once() -> None:
    """It names its serial, is kept as a hash only, and is gone when it was used."""
    store = Store()
    enrolment = table(store)
    enrolment.give("plc-7", SECRET, 0.0)
    assert store.rows == {
        mark_of(SECRET): TokenRow(hashlib.sha256(b"rt1 token" + SECRET).digest(), "plc-7", 3600.0)
    }
    assert enrolment.redeem(SECRET, None, HOST, 1.0) == "plc-7"
    assert (len(enrolment), store.rows) == (0, {})
    assert "wrong, used or too late" in why(enrolment, SECRET)


def test_wrong_used_and_late_are_one() -> None:
    """The same words even in our own log: which of them it was cannot be known from outside."""
    enrolment = table()
    enrolment.give("plc-7", SECRET, 0.0)
    wrong = why(enrolment, OTHER)
    late = why(enrolment, SECRET, now=3600.0)
    assert wrong == late


def test_a_token_of_another_serial_is_refused_and_stays() -> None:
    """A device that pasted its neighbour's line does not use it up."""
    enrolment = table()
    enrolment.give("plc-7", SECRET, 0.0)
    assert "is for plc-7, the request for plc-8" in why(enrolment, SECRET, "plc-8")
    assert enrolment.redeem(SECRET, "plc-7", HOST, 2.0) == "plc-7"


def test_a_new_token_makes_the_old_one_void() -> None:
    """One token for one serial; a neighbour's is not touched."""
    store = Store()
    enrolment = table(store)
    enrolment.give("plc-8", b"8" * 16, 0.0)
    enrolment.give("plc-7", SECRET, 0.0)
    enrolment.give("plc-7", OTHER, 0.0)
    assert {row.serial for row in store.tokens()} == {"plc-7", "plc-8"}
    why(enrolment, SECRET)
    assert enrolment.redeem(OTHER, None, HOST, 1.0) == "plc-7"


def test_tokens_are_withdrawn_with_their_serial() -> None:
    """After a revocation no line that still lies about lets the device in."""
    enrolment = table()
    enrolment.give("plc-7", SECRET, 0.0)
    assert (enrolment.waits("plc-8"), enrolment.waits("plc-7")) == (False, True)
    assert (enrolment.withdraw("plc-8"), enrolment.withdraw("plc-7"), enrolment.withdraw("plc-7")) == (
        0,
        1,
        0,
    )
    why(enrolment, SECRET)


def test_so_many_tokens_and_no_more() -> None:
    """A full table refuses, but not a new token for a serial that has one, and time makes room."""
    enrolment = table(limits=EnrolmentLimits(tokens=2, token_life=100.0))
    enrolment.give("a", b"a" * 16, 0.0)
    enrolment.give("b", b"b" * 16, 50.0)
    with pytest.raises(TooManyTokens):
        enrolment.give("c", b"c" * 16, 99.0)
    enrolment.give("b", b"B" * 16, 99.0)
    enrolment.give("c", b"c" * 16, 100.0)
    assert len(enrolment) == 2


def test_tokens_outlive_the_process() -> None:
    """What is left of their time counts on, never more than is given today; the rest is dropped."""
    rows = [
        TokenRow(mark_of(bytes([n]) * 16), f"d-{n}", left) for n, left in enumerate((50.0, 9e9, -1.0, 0.0))
    ]
    store = Store(*rows)
    enrolment = Enrolment(LIMITS, 1000.0, store)
    assert (len(enrolment), len(store.rows)) == (2, 2)
    assert enrolment.redeem(bytes(16), None, HOST, 1049.9) == "d-0"
    why(enrolment, bytes([1]) * 16, now=1000.0 + 3600.0)


# ---- renewal


def test_renewal_gives_the_same_serial_only() -> None:
    """Who showed a certificate gets one for that serial, whatever the request says."""
    enrolment = table()
    assert enrolment.renew("plc-7", None, 0, HOST, 0.0) == "plc-7"
    assert enrolment.renew("plc-7", "plc-7", 15, HOST, 0.0) == "plc-7"
    with pytest.raises(LinkDenied, match="certificate is for plc-7, the request for plc-8"):
        enrolment.renew("plc-7", "plc-8", 0, HOST, 0.0)
    with pytest.raises(LinkDenied, match="neither a token nor a certificate"):
        enrolment.renew(None, None, 0, HOST, 0.0)
    with pytest.raises(LinkDenied, match="got 16 certificates in 24 hours"):
        enrolment.renew("plc-7", None, 16, HOST, 0.0)


# ---- failures


def test_ten_wrong_tries_and_the_address_is_refused() -> None:
    """Also with a good token, until ten minutes have passed since the first of them; others are not."""
    enrolment = table()
    enrolment.give("plc-7", SECRET, 0.0)
    for now in range(10):
        enrolment.hear(HOST, float(now))
        why(enrolment, OTHER, now=float(now))
    with pytest.raises(LinkDenied, match=f"10 failures from {HOST}"):
        enrolment.hear(HOST, 599.9)
    enrolment.hear("192.0.2.8", 10.0)
    enrolment.hear(HOST, 600.0)
    assert enrolment.redeem(SECRET, None, HOST, 600.0) == "plc-7"


def test_a_refused_address_stays_refused_for_no_longer_than_its_failures() -> None:
    """Knocking on costs nothing more: ``hear`` counts nothing."""
    enrolment = table()
    for _ in range(10):
        why(enrolment, OTHER, now=0.0)
    for now in (1.0, 300.0, 599.0):
        with pytest.raises(LinkDenied):
            enrolment.hear(HOST, now)
    enrolment.hear(HOST, 600.0)


def test_failed_addresses_are_bounded() -> None:
    """The one that failed longest ago is forgotten."""
    enrolment = table(limits=EnrolmentLimits(wrong_tries=1, sources=2))
    for host in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"):
        why(enrolment, OTHER, source=host)
    enrolment.hear("10.0.0.2", 1.0)
    for host in ("10.0.0.1", "10.0.0.3"):
        with pytest.raises(LinkDenied):
            enrolment.hear(host, 1.0)


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:db8::1:2:3:4]", "2001:db8::/64"),
        ("2001:db8::9", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix:", "unix:"),
    ],
)
def test_addresses(host: str, source: str) -> None:
    """IPv4 by address, IPv6 by the /64 that one host has for itself."""
    assert source_of(host) == source


def test_a_token_costs_no_look_at_the_others() -> None:
    """Giving one, its use and its withdrawal, with ten and with a thousand that wait."""
    costs = []
    for size in (10, 900):
        tokens = Enrolment(LIMITS, 0.0, Store())
        for number in range(size):
            tokens.give(f"d-{number}", number.to_bytes(16, "big"), 0.0)

        def life(given: Enrolment = tokens) -> None:
            given.give("new", bytes(16), 1.0)
            assert given.waits("new")
            given.redeem(bytes(16), None, "192.0.2.1", 1.0)
            given.withdraw("d-5")

        costs.append(steps(life))
    assert costs[1] <= costs[0] * 1.2
