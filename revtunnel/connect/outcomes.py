"""How the program ends: its exit status for every cause.

====== ===============================================================================================
status when
====== ===============================================================================================
0      done; the session was ended from here
64     wrong usage
69     the server cannot be reached, or does not answer; the service cannot
75     try again: the device is away, or a limit, or the session is over
77     you may not do that: the token, a grant, the device's site or its server says no
78     wrong configuration: no login, files that cannot be used, local ports that cannot be opened
other  of the program behind ``--exec``; 128 and its signal's number if one ended it
====== ===============================================================================================

Source: sysexits.h; next/remote-sessions.md section 7.
"""

from revtunnel.ground.reasons import Ended

__all__ = ["CONFIG", "DENIED", "DONE", "TRY_AGAIN", "UNREACHABLE", "USAGE", "Stop", "for_channel", "for_http"]

DONE, USAGE, UNREACHABLE, TRY_AGAIN, DENIED, CONFIG = 0, 64, 69, 75, 77, 78
WORDS = {
    # refusals of the server
    **dict.fromkeys(("denied", "muted", "private", "not-owner", "no-take-over", "taken"), DENIED),
    **dict.fromkeys(("unknown", "malformed"), UNREACHABLE),
    # ends of sessions
    **dict.fromkeys(("revoked", "approval-timeout"), DENIED),
    "client-gone": UNREACHABLE,
    "owner": DONE,
}
_HTTP = {401: DENIED, 403: DENIED, 410: TRY_AGAIN, 429: TRY_AGAIN, 503: TRY_AGAIN}
_CHANNEL = {Ended.CLOSED: DONE, Ended.NOT_ALLOWED: DENIED, Ended.LINK_LOST: TRY_AGAIN}


class Stop(Exception):
    """The program ends with this status, and this sentence if there is one."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status

    @classmethod
    def by_word(cls, word: str, why: str) -> "Stop":
        """For a refusal or an end that the server has a word for."""
        return cls(WORDS.get(word, TRY_AGAIN), f"{word}: {why}" if why and why != word else word)


def for_http(status: int) -> int:
    """The exit status for an answer that was not 101."""
    return _HTTP.get(status, UNREACHABLE)


def for_channel(ended: Ended) -> int:
    """The exit status where one channel was all that was wanted."""
    return _CHANNEL.get(ended, UNREACHABLE)
