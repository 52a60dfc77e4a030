"""Connections that nobody reads: whether their other side has left, as the kernel says it."""

from revtunnel.sockets.hangups import has_ended, hung_up, is_cut
from tests.support.ends import tcp_pair


def test_a_fin_and_a_reset_are_told_apart() -> None:
    """An end is none that has hung up: the other direction still goes."""
    (ended, ends), (cut, cuts) = tcp_pair(), tcp_pair()
    assert not (has_ended(ended) or is_cut(ended) or hung_up(ended))
    ends.shutdown(1)
    cuts.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset
    cuts.close()
    assert (has_ended(ended), is_cut(ended), hung_up(ended)) == (True, False, None)
    assert has_ended(cut) and is_cut(cut)
    error = hung_up(cut)
    assert error is not None and error.strerror == "Connection reset by peer"
    for each in (ended, ends, cut):
        each.close()
