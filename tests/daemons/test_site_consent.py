"""The device's own say: a server asks over a real link in memory, the site answers, channels follow."""

import pytest

from revtunnel.daemons.agent_settings import ConsentSettings
from revtunnel.daemons.site_consent import AT_ONCE, KEPT, MOST
from revtunnel.fleet.device_consent import ConsentRequest
from revtunnel.ground.facts import ConsentGiven, PeerGlitch
from revtunnel.ground.reasons import Ended
from revtunnel.streams.consent_messages import encode_consent
from tests.support.programs import Program
from tests.support.world import World

ID = bytes(range(16)).hex()
ANA = ConsentRequest(ID, "ana", ("console",), "192.0.2.7:4711")
ASK = ConsentSettings("ask", "/bin/sh --who {user} '{services} of {device}' {session}")


def number(index: int) -> str:
    """An id."""
    return index.to_bytes(16, "big").hex()


class Site:
    """A server and an agent whose site is to be asked."""

    def __init__(self, rules: ConsentSettings) -> None:
        self.world = World(site=rules)
        self.answers: list[tuple[bool, str]] = []
        self.say = self.world.switchboard.say

    def ask(self, asked: ConsentRequest = ANA) -> None:
        """The server asks, and everything that can move has moved."""
        self.say.ask("plc-1", asked, lambda yes, why: self.answers.append((yes, why)))
        self.world.pump()

    @property
    def programs(self) -> list[Program]:
        """That were begun."""
        return self.world.reactor.programs

    def reconnect(self) -> None:
        """The link is lost, and another one comes."""
        old = self.world.server_link()
        for pair in self.world.link_pairs():
            pair.near.abortConnection()
        self.world.pump()
        self.world.advance(2.0)
        assert self.world.server_link() is not old

    def reaches(self, session: str, name: str = "console") -> bool:
        """Whether a client of the session gets to a service."""
        before = len(self.world.services[name])
        client = self.world.member(session, name)
        self.world.pump()
        return client.here and len(self.world.services[name]) > before


def test_a_site_that_allows_says_yes_at_once() -> None:
    """Then channels of the session reach its services, and no others; those of ports were never concerned."""
    site = Site(ConsentSettings("allow"))
    assert not site.reaches(ID)
    site.ask()
    assert site.answers == [(True, "")]
    assert site.reaches(ID)
    assert not site.reaches(ID, "web")
    assert not site.reaches(number(7))
    refused = [fact for fact in site.world.agents["plc-1"].facts if getattr(fact, "detail", "")]
    assert {fact.reason for fact in refused if hasattr(fact, "reason")} == {Ended.NOT_ALLOWED}  # type: ignore[attr-defined]
    site.world.talk("web")
    site.say.over(ID)
    site.world.pump()
    assert not site.reaches(ID)
    site.world.finish()


def test_a_site_that_takes_none_says_no() -> None:
    """And clients of ports come through."""
    site = Site(ConsentSettings("no"))
    site.ask()
    assert site.answers == [(False, "the device's site takes no sessions")]
    assert not site.reaches(ID)
    site.world.talk("console")
    site.world.finish()


def test_a_command_is_asked_with_words_and_environment() -> None:
    """No shell sees them; its yes is a yes when it ends with 0."""
    site = Site(ASK)
    site.ask()
    (program,) = site.programs
    assert program.words == ["/bin/sh", "--who", "ana", "console of plc-1", ID]
    assert program.environ == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "REVTUNNEL_USER": "ana",
        "REVTUNNEL_SERVICES": "console",
        "REVTUNNEL_SESSION": ID,
        "REVTUNNEL_ADDRESS": "192.0.2.7:4711",
        "REVTUNNEL_DEVICE": "plc-1",
    }
    assert site.answers == []
    assert not site.reaches(ID)
    site.world.advance(3.0)
    program.end(0, b"operator 7 pressed the green button\n")
    site.world.pump()
    assert site.answers == [(True, "")]
    assert site.reaches(ID)
    (told,) = (fact for fact in site.world.agents["plc-1"].facts if isinstance(fact, ConsentGiven))
    assert (told.user, told.services, told.answer, told.seconds) == ("ana", "console", "yes", 3.0)
    site.world.finish()


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (1, b"hello\nthe press is open\n", "the press is open"),
        (1, b"", "the device's site said no"),
        (None, b"", "the device's site said no"),
        (255, b"\x1b[2Jevil\n", "?[2Jevil"),
    ],
)
def test_whatever_else_a_command_ends_with_is_a_no(status: int | None, said: bytes, why: str) -> None:
    """The server is told its last line, without what a terminal would obey."""
    site = Site(ASK)
    site.ask()
    site.programs[0].end(status, said)
    site.world.pump()
    assert site.answers == [(False, why)]
    assert not site.reaches(ID)


def test_a_command_that_is_late_or_missing_is_a_no() -> None:
    """The late one is killed, and its yes afterwards counts for nothing."""
    site = Site(ASK)
    site.ask()
    site.world.advance(59.0)
    assert site.programs[0].signals == []
    site.world.advance(2.0)
    assert site.programs[0].signals == ["KILL"]
    assert site.answers == [(False, "nobody at the device's site said yes in 60 s")]
    consent = site.world.agents["plc-1"].consent
    assert consent is not None
    consent.take(ConsentSettings("ask", "/nowhere/site-says"))
    site.ask(ANA._replace(session=number(2)))
    assert site.answers[1:] == [(False, "the device's site said no")]


def test_so_many_are_asked_for_at_once() -> None:
    """More are a no, and the end of a session frees its place."""
    site = Site(ASK)
    for index in range(AT_ONCE + 1):
        site.ask(ANA._replace(session=number(index)))
    assert site.answers == [(False, f"{AT_ONCE} sessions are being asked for, {AT_ONCE} at most")]
    assert len(site.programs) == AT_ONCE
    site.say.over(number(0))
    site.world.pump()
    assert site.programs[0].signals == ["KILL"]
    site.ask()
    assert len(site.programs) == AT_ONCE + 1


def test_a_service_that_is_not_offered_is_a_no() -> None:
    """Nobody is asked for it."""
    site = Site(ASK)
    site.ask(ANA._replace(services=("console", "ssh")))
    assert site.answers == [(False, "there is no service ssh")]
    assert site.programs == []


def test_the_number_of_sessions_is_limited() -> None:
    """A server that never says over cannot fill the agent."""
    site = Site(ConsentSettings("allow"))
    for index in range(MOST + 1):
        site.say.ask(
            "plc-1", ANA._replace(session=number(index)), lambda yes, why: site.answers.append((yes, why))
        )
    site.world.pump()
    assert site.answers[:-1] == [(True, "")] * MOST
    assert site.answers[-1] == (False, f"{MOST} sessions are allowed, {MOST} at most")


def test_another_link_of_the_same_agent_is_asked_and_nobody_twice() -> None:
    """What was allowed is allowed; what was being asked for is asked for once more."""
    site = Site(ASK)
    site.ask()
    site.programs[0].end(0)
    other = ANA._replace(session=number(2), user="ben")
    site.ask(other)
    site.reconnect()
    assert site.programs[1].signals == ["KILL"]
    assert [program.words[2] for program in site.programs] == ["ana", "ben", "ben"]
    assert site.answers == [(True, "")]
    assert site.reaches(ID)
    site.programs[2].end(0)
    site.world.pump()
    assert site.answers == [(True, ""), (True, "")]


def test_a_yes_is_not_kept_for_ever_without_a_link() -> None:
    """Nor for another person, or other services, under the same id."""
    site = Site(ASK)
    site.ask()
    site.programs[0].end(0)
    site.ask(ANA._replace(user="eve"))
    assert len(site.programs) == 2
    site.programs[1].end(1, b"not her")
    site.world.pump()
    assert not site.reaches(ID)
    site.ask()
    site.programs[2].end(0)
    site.world.pump()
    consent = site.world.agents["plc-1"].consent
    assert consent is not None
    consent.link_gone(site.world.agents["plc-1"].link)
    site.world.advance(KEPT + 1)
    site.ask()
    assert len(site.programs) == 4


def test_a_site_that_changes_its_mind_ends_what_runs() -> None:
    """Its channels are reset by the agent itself, and the server is told."""
    site = Site(ConsentSettings("allow"))
    site.ask()
    client = site.world.member(ID)
    port, _ = site.world.talk("web")
    site.world.pump()
    consent = site.world.agents["plc-1"].consent
    assert consent is not None
    consent.take(ConsentSettings("no"))
    site.world.pump()
    assert client.was_reset
    assert port.here
    assert site.answers == [(True, ""), (False, "the device's site takes no sessions any more")]
    assert not site.reaches(ID)
    site.world.finish()


def test_a_site_that_changes_its_mind_waits_for_no_command() -> None:
    """It is killed, and the answer is no at once, whatever the command would have said."""
    site = Site(ASK)
    site.ask()
    consent = site.world.agents["plc-1"].consent
    assert consent is not None
    consent.take(ConsentSettings("no"))
    site.world.pump()
    (program,) = site.programs
    assert program.signals == ["KILL"]
    assert site.answers == [(False, "the device's site takes no sessions any more")]
    program.end(0)
    site.world.pump()
    assert len(site.answers) == 1
    assert not site.reaches(ID)
    told = [fact.answer for fact in site.world.agents["plc-1"].facts if isinstance(fact, ConsentGiven)]
    assert told == ["no"]
    site.world.finish()


def test_an_agent_that_comes_back_unable_to_be_asked_says_no() -> None:
    """What it had allowed is not known any more: an older one, or another one, has its serial now."""
    site = Site(ConsentSettings("allow"))
    site.ask()
    site.world.site = None
    site.world.agents["plc-1"].uplink.abort()
    site.world.pump()
    site.world.add_agent("plc-1", (site.world.switchboard.fleet.get("plc-1").offers[0],))  # type: ignore[union-attr]
    site.world.pump()
    assert not site.say.asks("plc-1")
    assert site.answers == [(True, ""), (False, "plc-1 cannot be asked any more")]


def test_an_answer_that_nobody_asked_for_means_nothing() -> None:
    """A yes of that kind is an oddity; so is one for another device's session."""
    site = Site(ConsentSettings("allow"))
    site.say.ask("plc-2", ANA, lambda yes, why: site.answers.append((yes, why)))
    link = site.world.agents["plc-1"].link
    link.consent(ID, True, "")
    link.consent(number(9), False, "")
    site.world.pump()
    assert site.answers == []
    (glitch,) = site.world.of(PeerGlitch)
    assert glitch.detail == "a yes to a session that nobody asked for"
    assert len(encode_consent(ID, True)) == 17


def test_a_device_that_cannot_be_asked_has_sessions_by_its_record() -> None:
    """Its channels say nothing of sessions."""
    world = World("legacy")
    say = world.switchboard.say
    assert not say.asks("plc-1")
    assert say.refusal("plc-1") == ""
    say.ask("plc-1", ANA, lambda yes, why: None)
    client = world.member(ID)
    world.pump()
    assert client.here and len(world.services["console"]) == 1
    world.finish()
