"""What is asked of a device's site: by its record, once, again, and never more than needed."""

import pytest

from revtunnel.fleet.device_consent import ConsentRequest, DeviceConsent
from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.fleet.fleet import Fleet
from revtunnel.ground.limits import ServerLimits
from revtunnel.streams.consent_messages import decode_session

ANA = ConsentRequest(bytes(range(16)).hex(), "ana", ("ssh",))


class Link:
    """What the fleet has of a device."""

    def __init__(self, says_sessions: bool = True) -> None:
        self.says_sessions = says_sessions
        self.said: list[ConsentRequest | str] = []

    def say_session(self, payload: bytes) -> None:
        self.said.append(decode_session(payload))


def office(record: DeviceRecord | None = None, link: object = None) -> tuple[DeviceConsent, Fleet[object]]:
    """A say over a fleet that has one device, or none."""
    fleet: Fleet[object] = Fleet(ServerLimits(), lambda fact: None)
    if link is not None:
        fleet.arrive("plc-7", link, 0.0, True, True, (), system="rt1")
    return DeviceConsent(fleet, lambda serial: record or DeviceRecord()), fleet


@pytest.mark.parametrize(
    ("policy", "link", "refusal"),
    [
        ("any", None, ""),
        ("any", object(), ""),
        ("any", Link(False), ""),
        ("asked", Link(True), ""),
        ("asked", Link(False), "plc-7 cannot be asked, and its record has sessions = asked"),
        ("asked", object(), "plc-7 cannot be asked, and its record has sessions = asked"),
        ("no", Link(True), "the record of plc-7 has sessions = no"),
    ],
)
def test_the_record_has_the_first_word(policy: str, link: object, refusal: str) -> None:
    """Also for devices whose wire cannot be asked."""
    say, _ = office(DeviceRecord(sessions=policy), link)
    assert say.refusal("plc-7") == refusal


def test_only_what_is_new_is_told() -> None:
    """A yes again, after the agent came back, is none; a no after a yes is; and over is said once."""
    link = Link()
    say, _ = office(link=link)
    told: list[tuple[bool, str]] = []
    say.ask("plc-7", ANA, lambda yes, why: told.append((yes, why)))
    for yes in (True, True, False, False):
        assert say.consented("plc-7", ANA.session, yes, "why")
    assert told == [(True, "why"), (False, "why")]
    assert not say.consented("plc-8", ANA.session, True, "")
    say.arrived("plc-7")
    say.over(ANA.session)
    say.over(ANA.session)
    say.arrived("plc-7")
    assert link.said == [ANA, ANA, ANA.session]
    assert not say.consented("plc-7", ANA.session, True, "")


def test_an_answer_may_end_the_session_at_once() -> None:
    """While the others of the device are asked for again."""
    link = Link()
    say, fleet = office(link=link)
    asked = [ANA._replace(session=number.to_bytes(16, "big").hex()) for number in range(5)]
    for each in asked:
        say.ask("plc-7", each, lambda yes, why: [say.over(other.session) for other in asked] and None)
    link.says_sessions = False
    say.arrived("plc-7")
    assert say._questions == {} and say._of == {}
    assert fleet.get("plc-7") is not None
