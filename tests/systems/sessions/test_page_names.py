"""Names of devices' pages: one for each service, one label, and what is a page at all."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.targets import Target
from revtunnel.systems.sessions.page_names import label_of, named_by, spoken_by, told_host

SERIAL = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)
SERVICE = st.from_regex(r"[A-Za-z0-9._-]{1,32}", fullmatch=True)
LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,61}[a-z0-9]")


def test_labels_as_people_read_them() -> None:
    """Serial and service, where they are of small letters, digits and single hyphens; else a hash."""
    assert label_of("plc-7", "web") == "plc-7--web"
    assert named_by("plc-7--web") == ("plc-7", "web")
    for serial, service in (
        ("PLC-7", "web"),
        ("plc--7", "web"),
        ("xn", "web"),
        ("p" * 60, "web"),
        ("a.b", "w"),
    ):
        label = label_of(serial, service)
        assert re.fullmatch(r"x-[0-9a-f]{20}--page", label)
        assert named_by(label) is None
    hashed = label_of("PLC-7", "web").partition("--")[0]
    assert label_of(hashed, "page") != f"{hashed}--page"  # a device that is called so is not that one


@given(SERIAL, SERVICE, SERIAL, SERVICE)
def test_no_two_services_have_one_label(serial: str, service: str, other: str, second: str) -> None:
    """And each is one label of DNS, without hyphens where those mean something else."""
    label = label_of(serial, service)
    assert LABEL.fullmatch(label) and label[2:4] != "--"
    assert (label == label_of(other, second)) is ((serial, service) == (other, second))


@pytest.mark.parametrize(
    ("service", "spoken"),
    [
        *(("web", "http"), ("web2", "http"), ("www.a", "http"), ("HTTP-alt", "http"), ("https", "https")),
        *(("https_admin", "https"), ("webcam", ""), ("ssh", ""), ("my-http", ""), ("ui", "https-any")),
    ],
)
def test_what_is_a_page(service: str, spoken: str) -> None:
    """By its name, or by the device's record."""
    assert spoken_by(service, [("ui", "https-any")]) == spoken
    assert spoken_by(service, [(service, "http")]) == "http"


def test_what_is_told_as_host() -> None:
    """Where the agent dials, without the port that goes without saying, or what the record says."""
    assert told_host(Target("10.0.0.5", 80), "target", False) == "10.0.0.5"
    assert told_host(Target("10.0.0.5", 80), "target", True) == "10.0.0.5:80"
    assert told_host(Target("fe80::1", 443), "target", True) == "[fe80::1]"
    assert told_host(Target("unix:/run/x", 0), "target", False) == "localhost"
    assert told_host(Target("10.0.0.5", 80), "press.local", False) == "press.local"
