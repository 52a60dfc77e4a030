"""When an agent for EMO offers rt1 first."""

import pytest

from revtunnel.ground.limits import EmoLimits
from revtunnel.systems.emo.emo_choice import EmoChoice

LIMITS = EmoLimits()


@pytest.mark.parametrize("reason", ["lost", "silent", "refused"])
def test_who_hung_up_is_asked_again_after_a_while(reason: str) -> None:
    """However often it is connected to meanwhile: it may have been one of ours that was overloaded."""
    choice = EmoChoice("auto")
    assert choice.offers_rt1(0.0, LIMITS)
    assert choice.is_original(reason, 3.0)
    assert not choice.offers_rt1(3.0, LIMITS)
    assert not choice.offers_rt1(3.0 + LIMITS.ask_again - 1, LIMITS)
    assert choice.offers_rt1(3.0 + LIMITS.ask_again, LIMITS)


def test_a_refusal_in_words_is_none_of_an_original() -> None:
    """A server of ours that denies the agent is asked again in the same way."""
    choice = EmoChoice("auto")
    for word in ("denied", "duplicate", "protocol", "stopping"):
        assert not choice.is_original(word, 3.0)
    assert choice.offers_rt1(1.0, LIMITS)


def test_no_is_never() -> None:
    """And can be set while the agent runs."""
    choice = EmoChoice("no")
    assert not choice.offers_rt1(0.0, LIMITS)
    choice.mode = "auto"
    assert choice.offers_rt1(0.0, LIMITS)
