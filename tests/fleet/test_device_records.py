"""What one device is allowed: ports, targets, clients, an end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.ground.networks import network_of
from revtunnel.ground.targets import parse_offer

OFFICE = (network_of("10.1.0.0/16"), network_of("2001:db8:1::/48"))
NOON = 1_800_000_000.0


def test_nothing_written_allows_everything() -> None:
    """No record, no pool rule: any client, port and target, for ever."""
    records = DeviceRecords()
    record = records.of("plc-1")
    assert records.refuses("plc-1", "198.51.100.1:5", "default", NOON) == ""
    assert record.ports is None
    assert record.has_target(parse_offer("anything=10.0.0.5:1"))
    assert not records.expired("plc-1", 1e12)
    assert records.source("plc-1") == ""
    said = {name for name, value in record.row().items() if value is not None}
    assert said == {"labels", "leases", "services", "sessions", "web", "web_host"}
    assert (record.labels, record.sessions) == ((), "any")


def test_the_record_in_force() -> None:
    """A device's own, else the default one."""
    records = DeviceRecords({"plc-1": DeviceRecord(channels=1), DEFAULT: DeviceRecord(channels=2)})
    assert (records.of("plc-1").channels, records.source("plc-1")) == (1, "plc-1")
    assert (records.of("plc-2").channels, records.source("plc-2")) == (2, "*")


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("10.1.2.3:5", True),
        ("10.2.0.1:5", False),
        ("[::ffff:10.1.2.3]:5", True),
        ("[2001:db8:1::9]:5", True),
        ("[2001:db8:2::9]:5", False),
        ("unix:/run/x", False),
    ],
)
def test_n33_clients_by_their_network(peer: str, allowed: bool) -> None:
    """IPv4, IPv6, and IPv4 in IPv6; what has no address is in no network."""
    records = DeviceRecords({"plc-1": DeviceRecord(clients=OFFICE)})
    assert records.refuses("plc-1", peer, "default", NOON) == ("" if allowed else "not-allowed")


def test_a_pool_and_a_record_must_both_allow_a_client() -> None:
    """Neither widens what the other says; no network at all is nobody."""
    both = DeviceRecords({"plc-1": DeviceRecord(clients=OFFICE)}, {"default": (network_of("10.1.7.0/24"),)})
    assert both.refuses("plc-1", "10.1.7.1:5", "default", NOON) == ""
    assert both.refuses("plc-1", "10.1.8.1:5", "default", NOON) == "not-allowed"
    assert both.refuses("plc-1", "10.1.8.1:5", "other", NOON) == ""
    assert both.refuses("plc-2", "10.2.0.1:5", "default", NOON) == "not-allowed"
    for nobody in (DeviceRecords({"plc-1": DeviceRecord(clients=())}), DeviceRecords({}, {"": ()})):
        assert nobody.refuses("plc-1", "127.0.0.1:5", "", NOON) == "not-allowed"


def test_a_record_ends() -> None:
    """At its second; the day that is shown is the last one."""
    records = DeviceRecords({"plc-1": DeviceRecord(expires=1_767_225_600.0)})  # the end of 2025
    assert not records.expired("plc-1", 1_767_225_599.9)
    assert records.expired("plc-1", 1_767_225_600.0)
    assert records.refuses("plc-1", "127.0.0.1:5", "default", 1_767_225_600.0) == "expired"
    assert records.of("plc-1").row()["expires"] == "2025-12-31"


def test_ports_are_shown_as_they_are_written() -> None:
    """Who holds them to it is client_ports.py."""
    record = DeviceRecord(ports=((20000, 20009), (30000, 30000)))
    assert record.row()["ports"] == ["20000-20009", "30000-30000"]


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("http", "http=10.0.0.5:81", "web=10.0.0.5:80"),
        ("10.0.0.5:23", "x=10.0.0.5:23", "x=10.0.0.5:24"),
        ("10.0.0.5:*", "x=10.0.0.5:9", "x=10.0.0.6:9"),
        ("*:502", "x=plc.example:502", "x=plc.example:503"),
        ("*:*", "x=[2001:db8::1]:5", ""),
        ("*.Plant.Example:*", "x=plc.plant.example:5", "x=plant.example:5"),
        ("*.plant.example:80", "x=plc.plant.example:80", "x=plc.plant.example:81"),
        ("[::ffff:10.0.0.5]:23", "x=10.0.0.5:23", "x=10.0.0.5:24"),
        ("[2001:DB8::1]:*", "x=[2001:db8::1]:7", "x=[2001:db8::2]:7"),
        ("unix:/run/plc", "x=unix:/run/plc", "x=unix:/run/other"),
        ("PLC:23", "x=plc:23", "x=plc.example:23"),
    ],
)
def test_targets_by_name_or_by_address(pattern: str, fitting: str, other: str) -> None:
    """In the spelling of offers; a domain is its hosts, not itself."""
    record = DeviceRecord(targets=(parse_pattern(pattern),))
    assert record.has_target(parse_offer(fitting))
    assert not other or not record.has_target(parse_offer(other))


def test_no_target_at_all() -> None:
    """An empty list allows none, which is something else than no list."""
    assert not DeviceRecord(targets=()).has_target(parse_offer("10.0.0.5:23"))


@pytest.mark.parametrize(
    "text",
    (
        *("", "*", "a b", "*:", ":*", ":80", "*:0", "*:70000", "10.0.*:80", "x*y:80", "*x:80", "*..:x"),
        *("unix:x", "[10.0.0.1]:80", "300.1.1.1:80", "-:*", "*.a b:80", "a:b:c"),
    ),
)
def test_what_is_no_pattern(text: str) -> None:
    """It is refused, and not taken for a wider one."""
    with pytest.raises(ValueError, match=r"wanted|is not|brackets"):
        parse_pattern(text)


@given(st.text(alphabet="*.:[]a0/ ux-", max_size=12))
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    """Nothing else is raised; what is a pattern is written so that it reads back as the same one."""
    try:
        pattern = parse_pattern(text)
    except ValueError:
        return
    assert parse_pattern(str(pattern)) == pattern
