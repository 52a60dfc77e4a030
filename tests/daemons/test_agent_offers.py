"""What an agent offers: its settings, what its server may change of that, and who has the last word."""

from dataclasses import replace
from pathlib import Path

import pytest

from revtunnel.daemons.agent_offers import AgentOffers, offer_changes
from revtunnel.daemons.agent_reading import load_agent
from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.ground.facts import Fact
from revtunnel.ground.targets import parse_offer
from revtunnel.streams.offer_messages import OfferChange
from tests.daemons.test_settings import HERE, errors

LOCAL = "console=10.0.0.5:23, http=10.0.0.5:80"


def add(text: str) -> OfferChange:
    """A wish for one more."""
    offer = parse_offer(text)
    return OfferChange(offer, offer.name)


def away(name: str) -> OfferChange:
    """A wish for one less."""
    return OfferChange(None, name)


class Site:
    """An agent's offers."""

    def __init__(
        self, directory: Path, more: str = "remote_offers = 10.0.0.5:22, *.plant.example:443\n"
    ) -> None:
        self.directory = directory
        self.facts: list[Fact] = []
        self.offers = AgentOffers(self.settings(LOCAL, more), self.facts.append)

    def settings(self, local: str, more: str) -> AgentSettings:
        """What the file says."""
        path = self.directory / "a.ini"
        path.write_text(f"[agent]\nserial = plc-7\nservers = 127.0.0.1:2065\nlocal = {local}\n{more}")
        return load_agent(str(path), None, HERE)

    @property
    def names(self) -> list[str]:
        """Of what is offered."""
        return [offer.name for offer in self.offers.now]


def test_nothing_can_be_changed_as_shipped(tmp_path: Path) -> None:
    """Nor taken away."""
    site = Site(tmp_path, "")
    for change in (add("ssh=10.0.0.5:22"), away("http")):
        assert "does not let its offers be changed" in site.offers.change(change)
    assert site.names == ["console", "http"] and len(site.facts) == 2


def test_what_is_allowed_can_be_added_and_all_be_taken_away(tmp_path: Path) -> None:
    """What was added and taken away again can be added again."""
    site = Site(tmp_path)
    assert site.offers.change(add("ssh=10.0.0.5:22")) == ""
    assert site.offers.change(add("web=a.plant.example:443")) == ""
    assert site.names == ["console", "http", "ssh", "web"]
    assert [site.offers.change(away(name)) for name in ("http", "ssh")] == ["", ""]
    assert site.names == ["console", "web"]
    assert site.offers.change(add("ssh=10.0.0.5:22")) == "" and site.names[-1] == "ssh"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (add("x=10.0.0.5:23"), "10.0.0.5:23 is not in remote_offers"),
        (add("x=plant.example.org:443"), "not in remote_offers"),
        (add("x=unix:/run/x"), "not in remote_offers"),
        (add("http=10.0.0.5:22"), "something is called http already"),
        (away("nothing"), "nothing is called nothing here"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: OfferChange, why: str) -> None:
    """With a word for the operator."""
    site = Site(tmp_path)
    assert why in site.offers.change(change)
    assert site.names == ["console", "http"]


@pytest.mark.parametrize(
    "place",
    [
        "127.0.0.1:443",
        "[::1]:443",
        "localhost:443",
        "169.254.169.254:443",
        "[::ffff:127.0.0.1]:443",
        "unix:/run/x",
    ],
)
def test_what_no_star_means(tmp_path: Path, place: str) -> None:
    """This machine, its link, where clouds answer, UNIX sockets: they have to be written out, or ``any``."""
    wide, named = Site(tmp_path, "remote_offers = *:443, *:*\n"), Site(tmp_path, f"remote_offers = {place}\n")
    assert "not in remote_offers" in wide.offers.change(add(f"x={place}"))
    assert wide.offers.change(add("y=10.0.0.5:443")) == ""
    assert named.offers.change(add(f"x={place}")) == ""
    assert Site(tmp_path, "remote_offers = any\n").offers.change(add(f"x={place}")) == ""


def test_no_more_than_the_link_takes(tmp_path: Path) -> None:
    """``offers`` in [link]."""
    site = Site(tmp_path, "remote_offers = any\n[link]\noffers = 3\n")
    assert site.offers.change(add("a=10.0.0.9:1")) == ""
    assert "3 services are offered, which is the most" in site.offers.change(add("b=10.0.0.9:2"))


def test_settings_have_the_last_word(tmp_path: Path) -> None:
    """What they leave alone stays as the server had it; what they say anew holds, what they forbid goes."""
    site = Site(tmp_path)
    more = "remote_offers = 10.0.0.5:22, *.plant.example:443\n"
    for change in (add("ssh=10.0.0.5:22"), add("web=a.plant.example:443"), away("http")):
        site.offers.change(change)
    assert not site.offers.take(site.settings(LOCAL, more))
    assert site.offers.take(site.settings("console=10.0.0.5:23, http=10.0.0.5:81, web=10.0.0.5:443", more))
    assert [str(offer.target) for offer in site.offers.now] == [
        *("10.0.0.5:23", "10.0.0.5:81", "10.0.0.5:443", "10.0.0.5:22")
    ]
    assert site.offers.take(site.settings("console=10.0.0.5:23", ""))
    assert site.names == ["console"]


def test_a_reload_says_each_service(tmp_path: Path) -> None:
    """Added, removed, changed."""
    site = Site(tmp_path)
    old = site.offers.now
    new = (replace(old[0], target=old[1].target), parse_offer("ssh=10.0.0.5:22"))
    assert offer_changes(old, new) == [
        "[agent] local: changed console",
        "[agent] local: removed http",
        "[agent] local: added ssh",
    ]
    assert offer_changes(old, old) == []


def test_a_name_is_nothing_that_can_be_allowed(tmp_path: Path) -> None:
    """Whoever adds an offer gives it its name."""
    text = f"[agent]\nserial = plc-7\nservers = 127.0.0.1:1\nlocal = {LOCAL}\nremote_offers = ssh\n"
    (line,) = errors(tmp_path, text, "agent")
    assert "remote_offers" in line and "HOST:PORT" in line
