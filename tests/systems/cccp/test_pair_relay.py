"""The relay of a proxy session: who left is said, what he had said arrives, and both ends come back alive."""

import pytest

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import RECORD
from revtunnel.systems.cccp.pair_relay import PairRelay
from tests.sockets.test_relay import CARRIERS, LIMITS, Joined, connected


class Paired(Joined):
    """A client and a device, and between them a relay of a session."""

    relay: PairRelay

    def __init__(self, tls: tuple[bool, bool] = (False, False), limits: RelayLimits = LIMITS) -> None:
        ends = []

        def connect(with_tls: bool) -> object:
            mine, theirs = connected(with_tls)
            ends.append(theirs)
            return mine, theirs

        super().__init__(tls, limits, connect)  # type: ignore[arg-type]
        self.near, self.far = ends
        self.relay = PairRelay(self.reactor, self.near, self.far, lambda *how: self.ended.append(how), limits)


@pytest.mark.parametrize("tls", CARRIERS[:4])
def test_end_of_file_of_the_device(tls: tuple[bool, bool]) -> None:
    """The client has all of it, no end of file, and can go on with another device."""
    pair = Paired(tls)
    pair.relay.start()
    pair.service.write(b"last words")
    pair.service.end_writing()
    pair.until(lambda: pair.ended)
    assert (pair.ended, pair.relay.far_left, pair.relay.near_left) == ([(Ended.CLOSED, "")], True, False)
    assert pair.hear(pair.client, 10) == b"last words" and pair.relay.to_near == 10
    assert pair.near.write(b"next") == 4
    assert pair.hear(pair.client, 4) == b"next"
    pair.finish()


def test_reset_of_the_client() -> None:
    """The device has what came before, and goes on."""
    pair = Paired()
    pair.relay.start()
    pair.client.write(b"before")
    pair.until(lambda: pair.relay.to_far == 6)
    pair.client.abort()
    pair.until(lambda: pair.ended)
    assert pair.relay.near_left and not pair.relay.far_left
    assert pair.hear(pair.service, 6) == b"before"
    assert pair.far.write(b"on") == 2 and pair.hear(pair.service, 2) == b"on"
    pair.finish()


def test_held_bytes_of_a_client_that_was_cut_go_first() -> None:
    """The device has all that was held for it before the pair ends, which is no end in order."""
    pair = Paired()
    pair.relay.start()
    pair.service.write(b"never read, so that the client's abort is a reset")
    pair.until(lambda: pair.relay.to_near)
    pair.fill(pair.client)
    held = pair.relay.held_for_far
    read = pair.relay.to_far + held
    pair.client.abort()
    pair.turn(20)
    assert held and not pair.ended
    assert len(pair.hear(pair.service, read)) == read
    pair.until(lambda: pair.ended)
    ((reason, detail),) = pair.ended
    assert reason is Ended.RESET_BY_PEER and detail.startswith("near: ")
    assert pair.relay.near_left and not pair.relay.far_left and not pair.relay.lost
    pair.finish()


def test_held_bytes_of_a_device_that_left_go_first() -> None:
    """The client takes nothing for a while: the pair ends when he has all of it, and not before."""
    pair = Paired()
    pair.relay.start()
    total = pair.fill(pair.service)
    pair.service.end_writing()
    pair.turn(20)
    assert not pair.ended
    heard = len(pair.hear(pair.client, total))
    pair.until(lambda: pair.ended)
    assert heard == total == pair.relay.to_near
    assert pair.relay.far_left and not pair.relay.near_left
    pair.finish()


def test_a_client_that_never_takes_the_rest() -> None:
    """Both are cut after ``flush`` seconds without progress."""
    pair = Paired(limits=RelayLimits(first=RECORD, turn=4 * RECORD, flush=5.0))
    pair.relay.start()
    pair.fill(pair.service)
    pair.service.end_writing()
    for _ in range(4):
        pair.now += 5.1
        pair.turn(5)
    assert [reason for reason, _ in pair.ended] == [Ended.STALLED]
    assert pair.relay.near_left and pair.relay.far_left
    pair.finish()


def test_parted_by_the_owner() -> None:
    """Nobody left; what the client has not taken is handed out."""
    pair = Paired()
    pair.relay.start()
    total = pair.fill(pair.service)
    taken = pair.relay.to_near
    rest, _ = pair.relay.part()
    assert pair.ended == [(Ended.OPERATOR, "")] and not (pair.relay.near_left or pair.relay.far_left)
    assert rest and taken + len(rest) <= total
    pair.finish()
