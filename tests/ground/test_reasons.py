"""The reasons: their numbers are on the wire and their words on every surface."""

from revtunnel.ground.reasons import Ended, GoAway

# wire/link-extension.md "Commands", Reset reasons
RESET_REASONS = {
    1: "refused",
    2: "unreachable",
    3: "timed-out",
    4: "not-allowed",
    5: "out-of-resources",
    6: "flow-control",
    7: "reset-by-peer",
    8: "idle",
    9: "operator",
    10: "stalled",
    11: "link-lost",
    12: "protocol",
    13: "not-here",
}


def test_reset_reasons_keep_their_numbers() -> None:
    """They are the wire's, in its order."""
    assert {int(reason): reason.word for reason in Ended if reason} == RESET_REASONS


def test_words_are_plain() -> None:
    """Every reason has a word of lower case letters and hyphens, and no word is used twice in one list."""
    for kind in (Ended, GoAway):
        words = [reason.word for reason in kind]
        assert len(set(words)) == len(words)
        assert all(word.replace("-", "").isalpha() and word.islower() for word in words)


def test_goaway_reasons_keep_their_numbers() -> None:
    """A number of GOAWAY never changes its meaning."""
    assert {reason.name: int(reason) for reason in GoAway} == {
        "STOPPING": 1,
        "DENIED": 2,
        "REPLACED": 3,
        "PROTOCOL": 4,
        "OPERATOR": 5,
        "OVERLOADED": 6,
        "DUPLICATE": 7,
        "EXPIRED": 8,
    }
