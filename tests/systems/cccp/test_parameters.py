"""Parameters of CCCP's API: what the description's patterns allow is taken, and nothing else."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.networks import network_of
from revtunnel.process.admin.refusals import Invalid
from revtunnel.systems.cccp.parameters import ENTRY, SERIAL, read_truth, read_whitelist, read_whole
from revtunnel.systems.cccp.registration import parse_registered


@given(st.from_regex(ENTRY, fullmatch=True))
def test_every_entry_that_is_described_is_taken(entry: str) -> None:
    """Blanks around it, and bits behind its length, too."""
    (network,) = read_whitelist(entry)
    assert network == network_of(str(network))


@given(st.ip_addresses() | st.from_type(ipaddress.IPv4Network) | st.from_type(ipaddress.IPv6Network))
def test_every_address_and_network_is_described(value: object) -> None:
    """In the spelling of the standard library, and in whole."""
    assert re.fullmatch(ENTRY, str(value))
    if isinstance(value, ipaddress.IPv6Address):
        assert read_whitelist(value.exploded) == read_whitelist(str(value))


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("10.1.2.3/8", ["10.0.0.0/8"]),
        ("127.0.0.1, ::1", ["127.0.0.1/32", "::1/128"]),
        ("::ffff:10.0.0.1", ["10.0.0.1/32"]),
        ("1:2:3:4:5:6:7::", ["1:2:3:4:5:6:7:0/128"]),
        ("::1,::1", ["::1/128"]),
    ],
)
def test_entries(text: str, networks: list[str]) -> None:
    """Each once, in one spelling."""
    assert [str(each) for each in read_whitelist(text)] == networks


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "1.2.3", "01.2.3.4", "1.2.3.4/33", "1.2.3.4/08", "10.0.0.0/255.0.0.0", "::1/129"),
        *("1::2::3", "fe80::1%eth0", "\t1.2.3.4", "1.2.3.4,", "::1 /64", "\u0661.2.3.4"),
        ",".join(["::"] * 65),
    ],
)
def test_what_is_not_described_is_refused(text: str) -> None:
    """Also what ipaddress would take."""
    with pytest.raises(Invalid):
        read_whitelist(text)


@given(st.text(st.sampled_from("./a~! \x7f"), max_size=8) | st.text(max_size=70))
def test_serials_are_described_as_they_are_taken(text: str) -> None:
    """No more and no fewer."""
    try:
        parse_registered(text)
    except RemoteError:
        assert not re.fullmatch(SERIAL, text)
    else:
        assert re.fullmatch(SERIAL, text)


def test_numbers_and_truths() -> None:
    """Within their limits, in one spelling."""
    assert [read_whole("limit", text, 1, 200) for text in ("1", "200")] == [1, 200]
    for text in ("0", "201", "01", "+1", "1.0", "", "\u0661", "1\n"):
        with pytest.raises(Invalid, match="limit: a whole number of 1 to 200 wanted"):
            read_whole("limit", text, 1, 200)
    assert [read_truth("persistent", text) for text in ("true", "TRUE", "False")] == [True, True, False]
    for text in ("tRuE", "1", "yes", ""):
        with pytest.raises(Invalid, match="persistent: true or false wanted"):
            read_truth("persistent", text)
