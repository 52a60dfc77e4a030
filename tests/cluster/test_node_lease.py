"""A node's own lease: the table, and that it never believes in itself longer than the engine does."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from revtunnel.cluster.node_lease import LENGTH, NodeLease, Standing
from tests.support.depth import deep


def test_the_table() -> None:
    """From joining to lost, by nothing but time, and back by a renewal."""
    lease = NodeLease()
    assert lease.standing(100.0) is Standing.JOINING
    assert lease.granted(100.0, 100.5, 7, False)
    assert lease.standing(106.9) is Standing.HELD
    assert lease.standing(107.0) is Standing.DOUBTFUL
    assert lease.standing(110.0) is Standing.LOST
    assert [lease.may_claim(at) for at in (106.9, 107.0, 110.0)] == [True, False, False]
    assert lease.granted(120.0, 120.1, 7, True), "who was lost asserts, also where the engine was patient"
    assert lease.standing(120.1) is Standing.HELD


def test_an_engine_that_forgot_is_told_everything() -> None:
    """Emptied between two renewals: nothing of ours is there, though we never doubted."""
    lease = NodeLease()
    lease.granted(0.0, 0.0, 7, False)
    assert not lease.granted(3.0, 3.0, 7, True)
    assert lease.granted(6.0, 6.0, 7, False)


def test_a_late_answer_does_not_shorten_a_lease() -> None:
    """Two renewals under way, answered in the wrong order."""
    lease = NodeLease()
    lease.granted(5.0, 5.0, 7, False)
    lease.granted(3.0, 5.1, 7, True)
    assert lease.standing(11.9) is Standing.HELD


def test_a_later_run_of_the_name_ends_this_one() -> None:
    """Whichever way it is told, and for good."""
    lease, other = NodeLease(), NodeLease()
    lease.granted(0.0, 0.0, 7, False)
    other.granted(0.0, 0.0, 7, False)
    assert not lease.granted(3.0, 3.0, 8, True)
    other.replaced()
    for each in (lease, other):
        assert each.standing(3.0) is Standing.LEFT
        assert each.left == "replaced"
        assert not each.granted(4.0, 4.0, 7, True)
        assert each.standing(4.0) is Standing.LEFT


class TwoRunsAndAnEngine(RuleBasedStateMachine):
    """Two runs of one name, messages that take as long as they like, an engine that forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.given = 0  # the engine's milliseconds, which go on though it forgets
        self.epoch = 0  # what the engine has of the name
        self.until = -1.0  # and of its lease
        self.runs = [NodeLease(), NodeLease()]
        self.emptied_at = -1.0
        self.asked: list[tuple[int, float]] = []
        self.answers: list[tuple[int, float, int, bool]] = []

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 7.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(run=st.sampled_from([0, 1]))
    def ask(self, run: int) -> None:
        if not self.runs[run].left:
            self.asked.append((run, self.now))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def the_engine_answers(self, data: st.DataObject) -> None:
        run, asked = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        epoch = self.runs[run].epoch
        if epoch == 0:
            epoch = self.given = self.given + 1
        elif self.epoch > epoch:
            self.answers.append((run, asked, self.epoch, False))
            return
        kept = self.epoch == epoch and self.until > self.now
        self.epoch, self.until = epoch, self.now + LENGTH
        self.answers.append((run, asked, epoch, kept))

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), lost=st.booleans())
    def an_answer_comes(self, data: st.DataObject, lost: bool) -> None:
        run, asked, epoch, kept = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))
        lease = self.runs[run]
        before = lease.standing(self.now)
        if lost:
            return
        told = lease.granted(asked, self.now, epoch, kept)
        if not kept and not lease.left:
            assert told
        if before in (Standing.JOINING, Standing.LOST) and lease.standing(self.now) is Standing.HELD:
            assert told

    @rule()
    def the_engine_forgets(self) -> None:
        self.epoch, self.until, self.emptied_at = 0, -1.0, self.now

    @invariant()
    def nobody_believes_longer_than_the_engine(self) -> None:
        for lease in self.runs:
            believes = lease.standing(self.now) in (Standing.HELD, Standing.DOUBTFUL)
            if believes and lease.epoch == self.epoch and (lease.asked or 0.0) > self.emptied_at:
                assert self.until > self.now

    @invariant()
    def who_claims_is_believed_or_was_replaced_or_forgotten(self) -> None:
        claims = [lease for lease in self.runs if lease.may_claim(self.now)]
        current = [lease for lease in claims if lease.epoch == self.epoch]
        assert len({lease.epoch for lease in claims}) == len(claims)
        assert len(current) <= 1


TestTwoRunsAndAnEngine = TwoRunsAndAnEngine.TestCase
TestTwoRunsAndAnEngine.settings = settings(max_examples=deep(200), deadline=None)
