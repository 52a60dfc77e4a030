"""What an agent finds when it looks at its services, and whom it tells."""

from collections.abc import Iterator

import pytest
from twisted.internet.protocol import Factory

from revtunnel.daemons.agent_settings import ProbeSettings
from revtunnel.daemons.service_probes import LONGEST, ServiceProbes
from revtunnel.ground.facts import Fact, ServiceDown, ServiceUp
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.targets import parse_offer
from revtunnel.streams.dialler import Dialler
from revtunnel.streams.service_state import ServiceState
from tests.support.reactor import HANGS, MemoryReactor
from tests.support.recorder import Recorder

LOCAL = (parse_offer("plc=10.0.0.5:502"), parse_offer("web=10.0.0.5:80"))
RULES = ProbeSettings((("plc", ""), ("web", "/status")), 30.0, 5.0)


class Site:
    """An agent's services in memory, and what was said of them. ``answer`` is what the web server says."""

    def __init__(self) -> None:
        self.reactor = MemoryReactor()
        self.answer: bytes | None = b"HTTP/1.1 200 OK\r\n\r\n"
        self.asked: list[Recorder] = []
        self.facts: list[Fact] = []
        self.said: list[ServiceState] = []
        dialler = Dialler(self.reactor, AgentLimits(), LOCAL, None, self.reactor.reach)
        self.probes = ServiceProbes(self.reactor, dialler.dial, "plc-7", self.facts.append)
        self.probes.link_up(self.said.append)

    def serve(self, port: int) -> None:
        """A machine is switched on."""
        self.reactor.serve("10.0.0.5", port, _Machine(self))

    def begin(self, rules: ProbeSettings = RULES) -> None:
        """Look, and let everything move that can."""
        self.probes.take(rules, LOCAL)
        self.wait(0.0)

    def wait(self, seconds: float) -> None:
        """So long, in small steps."""
        for _ in range(20):
            self.reactor.advance(seconds / 20)
            self.reactor.pump()
            for each in self.asked:
                if self.answer is not None and each.data and each.lost is None:
                    each.transport.write(self.answer)
            self.reactor.pump()


class _Machine(Factory):
    noisy = False

    def __init__(self, site: Site) -> None:
        self._site = site

    def buildProtocol(self, addr: object) -> Recorder:
        self._site.asked.append(Recorder())
        return self._site.asked[-1]


@pytest.fixture
def site() -> Iterator[Site]:
    """Afterwards nothing runs."""
    site = Site()
    yield site
    site.probes.stop()
    site.wait(0.0)
    assert site.reactor.getDelayedCalls() == []


def test_a_machine_that_is_switched_off_and_on(site: Site) -> None:
    """Each change is told once, by a fact and to the server; nothing else is."""
    site.begin(ProbeSettings((("plc", ""),)))
    down = ServiceDown("plc-7", "plc", "10.0.0.5:502 refused the connection")
    assert site.facts == [down]
    site.wait(95.0)
    assert site.facts == [down]
    site.serve(502)
    site.wait(31.0)
    assert site.facts == [down, ServiceUp("plc-7", "plc", "")]
    site.wait(95.0)
    assert [state.up for state in site.said] == [False, True]
    assert len(site.asked) == 4 and not any(pair.near.connected for pair in site.reactor.pairs)


@pytest.mark.parametrize(
    ("answer", "up", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, "answers 200"),
        (b"HTTP/1.0 404 Not Found\n\n", True, "answers 404"),
        (b"HTTP/1.1 503 Starting\r\n\r\n", False, "10.0.0.5:80 answers 503"),
        (b"SSH-2.0-OpenSSH\r\n", False, "10.0.0.5:80 does not answer as HTTP does"),
        (b"x" * (LONGEST + 1), False, "10.0.0.5:80 does not answer as HTTP does"),
        (None, False, "10.0.0.5:80 did not answer in 5 s"),
    ],
)
def test_a_web_server_has_to_answer(site: Site, answer: bytes | None, up: bool, detail: str) -> None:
    """With less than 500, as HTTP, in time."""
    site.answer = answer
    site.serve(80)
    site.begin(ProbeSettings((("web", "/status"),)))
    site.wait(6.0)
    assert site.said == [ServiceState("web", up, detail)]
    assert site.asked[0].data.startswith(b"GET /status HTTP/1.1\r\nHost: 10.0.0.5:80\r\n")


def test_one_that_neither_answers_nor_refuses(site: Site) -> None:
    """It costs the time of one look, and the next one comes."""
    site.reactor.faults["10.0.0.5", 502] = HANGS
    site.begin(ProbeSettings((("plc", ""),)))
    site.wait(6.0)
    assert [state.detail for state in site.said] == ["10.0.0.5:502 did not answer in 5 s"]
    del site.reactor.faults["10.0.0.5", 502]
    site.serve(502)
    site.wait(31.0)
    assert [state.up for state in site.said] == [False, True]


def test_a_server_that_comes_up_is_told_what_is_known(site: Site) -> None:
    """Of every service that is looked at; the one before is told no more."""
    site.serve(502)
    site.begin()
    said: list[ServiceState] = []
    before = [*site.said]
    site.probes.link_up(said.append)
    assert sorted(said) == sorted(before) and {state.name for state in said} == {"plc", "web"}
    site.serve(80)
    site.wait(31.0)
    assert site.said == before and said[-1] == ServiceState("web", True, "answers 200")


def test_other_settings(site: Site) -> None:
    """What is named no more is not looked at; what is new is, at once; the rest goes on."""
    site.serve(502)
    site.begin(ProbeSettings((("plc", ""),)))
    site.begin(RULES)
    assert [(state.name, state.up) for state in site.said] == [("plc", True), ("web", False)]
    site.begin(ProbeSettings((("web", "/status"),)))
    looks = len(site.asked)
    site.wait(100.0)
    assert len(site.asked) == looks
    site.begin(ProbeSettings())
    site.serve(80)
    site.wait(100.0)
    assert len(site.said) == 2
