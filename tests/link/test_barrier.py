"""Questions on a wire that answers in order, and what may pass after their answers."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from revtunnel.link.barrier import Barrier


def test_a_thing_passes_after_a_question_that_was_asked_later() -> None:
    """The answer to a question that was out already proves nothing."""
    barrier: Barrier[str] = Barrier()
    barrier.ask()
    barrier.wait("late")
    assert not barrier.wanted  # one question at a time
    assert barrier.answer() == []
    assert barrier.wanted
    barrier.ask()
    assert barrier.open
    assert barrier.answer() == ["late"]
    assert not barrier.wanted
    assert not barrier.open


def test_two_answers_are_two_questions() -> None:
    """A thing that wants two stays behind one that wants one."""
    barrier: Barrier[str] = Barrier()
    barrier.wait("two", answers=2)
    barrier.wait("one")
    barrier.ask()
    assert barrier.answer() == ["one"]
    assert barrier.wanted
    barrier.ask()
    assert barrier.answer() == ["two"]


def test_an_answer_that_nobody_asked_for_passes_nothing() -> None:
    """None, and what waits goes on waiting."""
    barrier: Barrier[str] = Barrier()
    barrier.wait("it")
    assert barrier.answer() is None
    barrier.ask()
    assert barrier.answer() == ["it"]
    assert barrier.answer() is None


@given(st.lists(st.sampled_from(("wait", "wait two", "ask", "answer")), max_size=60))
def test_nothing_passes_early_and_nothing_is_forgotten(moves: list[str]) -> None:
    """Beside a plain model: each thing passes with the first answer that it may, once."""
    barrier: Barrier[int] = Barrier()
    asked: deque[int] = deque()  # times of open questions
    waiting: dict[int, tuple[int, int]] = {}  # thing -> since when, answers to go
    for time, move in enumerate(moves):
        if move.startswith("wait"):
            answers = 2 if move == "wait two" else 1
            barrier.wait(time, answers)
            waiting[time] = (time, answers)
        elif move == "ask":
            barrier.ask()
            asked.append(time)
        elif asked:
            question = asked.popleft()
            waiting = {thing: (since, left - (question > since)) for thing, (since, left) in waiting.items()}
            passed = [thing for thing, (_, left) in waiting.items() if left == 0]
            waiting = {thing: entry for thing, entry in waiting.items() if entry[1]}
            assert barrier.answer() == passed
        else:
            assert barrier.answer() is None
        assert barrier.open == bool(asked)
        assert barrier.wanted == (bool(waiting) and not asked)
