"""What fails is tried again: when, how often, and what is said of it."""

from twisted.internet.task import Clock

from revtunnel.ground.facts import Fact, Trouble, TroubleOver
from revtunnel.ground.retries import LAST, Retries, longer


class Place:
    """Something that fails while ``why`` says so."""

    def __init__(self, early: float = 0.0, quiet: bool = False) -> None:
        self.clock = Clock()
        self.facts: list[Fact] = []
        self.retries = Retries(self.clock, self.facts.append, lambda: early)
        self.tries: list[float] = []
        self.why = "it is full"
        self.quiet = quiet

    def do(self) -> None:
        """Try it."""
        self.tries.append(self.clock.seconds())
        if self.why:
            self.retries.failed("the disk", self.why, self.do, self.quiet)
        else:
            self.retries.well("the disk")

    def pass_by(self, seconds: int) -> None:
        """Time, a tenth of a second at once."""
        self.clock.pump([0.125] * (8 * seconds))


def test_it_is_tried_again_later_each_time_until_it_is_well() -> None:
    """Both ends are said once, and between them nothing."""
    place = Place()
    place.do()
    place.pass_by(200)
    assert place.tries == [0, 2, 6, 14, 30, 62, 122, 182]
    assert place.facts == [Trouble("the disk", "it is full")]
    place.why = "it is gone"
    place.pass_by(60)
    assert place.retries.problems == {"the disk": "it is gone"}
    place.why = ""
    place.pass_by(60)
    assert place.retries.problems == {}
    assert place.facts[1:] == [TroubleOver("the disk", 302.0)]
    assert place.clock.getDelayedCalls() == []
    place.why = "again"
    place.do()
    place.pass_by(2)
    assert place.tries[-2:] == [place.clock.seconds() - 2, place.clock.seconds()]


def test_a_failure_between_two_tries_puts_nothing_off() -> None:
    """Its words are the newest ones."""
    place = Place()
    place.do()
    place.pass_by(1)
    place.why = "it is still full"
    place.do()
    assert place.retries.problems == {"the disk": "it is still full"}
    place.pass_by(1)
    assert place.tries == [0, 1, 2]


def test_what_was_well_all_the_time_is_not_said() -> None:
    """Nor what is not wanted any more."""
    place = Place()
    place.retries.well("the disk")
    place.do()
    place.retries.drop("the disk")
    assert [type(fact) for fact in place.facts] == [Trouble]
    assert place.clock.getDelayedCalls() == []


def test_a_quiet_one_is_said_by_others() -> None:
    """It is a problem all the same."""
    place = Place(quiet=True)
    place.do()
    assert place.retries.problems
    place.why = ""
    place.pass_by(2)
    assert place.facts == [] and place.retries.problems == {}


def test_many_do_not_come_at_once() -> None:
    """Each try may be early."""
    place = Place(early=1.0)
    place.do()
    place.pass_by(10)
    assert place.tries == [0, 1.625, 4.875]
    assert longer(0) == 2 and longer(40) == LAST and longer(LAST) == LAST


def test_a_process_that_ends_tries_nothing() -> None:
    """And nothing new."""
    place = Place()
    place.do()
    place.retries.stop()
    place.do()
    assert place.clock.getDelayedCalls() == [] and place.retries.problems == {}
