"""The publisher relay's decisions: publications, subscriptions, publishers that come and go."""

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import CameoLimits
from revtunnel.systems.cameo.cameo_peers import CameoPeer
from revtunnel.systems.cameo.cameo_publications import Publications
from revtunnel.systems.cameo.zmtp_messages import MessageDecoder, ZmtpMessage, encode_message
from tests.support.cameo import a_peer, message, written


def a_relay(publishers: int = 1, limits: CameoLimits | None = None) -> tuple[Publications, list[CameoPeer]]:
    """A relay with so many publishers."""
    relay = Publications(limits or CameoLimits())
    there = [a_peer(f"127.0.0.1:{number}", limits=limits) for number in range(publishers)]
    for peer in there:
        relay.join_publisher(peer)
    return relay, there


def test_a_publication_goes_once_to_everybody_who_wants_it() -> None:
    """Whole and unchanged."""
    relay, _ = a_relay()
    first, second, third = a_peer(), a_peer(), a_peer()
    relay.subscribe(first, b"status", True)
    relay.subscribe(first, b"st", True)
    relay.subscribe(second, b"", True)
    relay.subscribe(third, b"result", True)
    touched = relay.receive(message(b"status", b"{}", b"", keep=0))
    assert set(touched) == {first, second}
    assert written(first) == written(second) == [[b"status", b"{}", b""]]
    assert written(third) == []


def test_subscriptions_reach_every_publisher_once() -> None:
    """First subscriber, last subscriber, and nothing between."""
    relay, (one, two) = a_relay(2)
    first, second = a_peer(), a_peer()
    assert relay.subscribe(first, b"a", True) == [one, two]
    assert relay.subscribe(second, b"a", True) == ()
    assert relay.subscribe(first, b"a", False) == ()
    assert relay.leave(second) == [one, two]
    assert written(one) == written(two) == [[b"\1a"], [b"\0a"]]
    assert relay.leave(first) == ()


def test_z7_a_new_publisher_is_told_everything_that_is_wanted() -> None:
    """Also one that lost its connection and comes back."""
    relay, (old,) = a_relay()
    subscriber = a_peer()
    relay.subscribe(subscriber, b"a", True)
    relay.subscribe(subscriber, b"b", True)
    relay.subscribe(subscriber, b"b", True)
    relay.subscribe(subscriber, b"c", True)
    relay.subscribe(subscriber, b"c", False)
    relay.subscribe(subscriber, b"c", False)
    assert written(old) == [[b"\1a"], [b"\1b"], [b"\1c"], [b"\0c"]]
    relay.leave(old)
    again = a_peer()
    relay.join_publisher(again)
    assert written(again) == [[b"\1a"], [b"\1b"]]
    assert written(old) == []


def test_subscriptions_as_messages() -> None:
    """The form of ZMTP 3.0; anything else that a subscriber says is counted and dropped."""
    relay, (publisher,) = a_relay()
    subscriber = a_peer()
    assert relay.request(subscriber, message(b"\1status", keep=0)) == [publisher]
    assert relay.request(subscriber, message(b"\0status", keep=0)) == [publisher]
    for bodies in ((b"hello",), (b"",), (b"\1a", b"b")):
        assert relay.request(subscriber, message(*bodies, keep=0)) == ()
    assert written(publisher) == [[b"\1status"], [b"\0status"]]
    assert relay.counts["no-subscription"] == 3 and len(relay.topics) == 0


def test_z5_a_slow_subscriber_loses_for_itself_only() -> None:
    """Whole messages, counted at it and in all."""
    relay, _ = a_relay()
    limits = CameoLimits(queue_messages=2)
    slow, quick = a_peer(limits=limits), a_peer(limits=limits)
    for peer in (slow, quick):
        relay.subscribe(peer, b"", True)
    slow.outbox.full = True
    for number in range(5):
        relay.receive(message(b"t%d" % number, keep=0))
    assert [frames[0] for frames in written(quick)] == [b"t0", b"t1", b"t2", b"t3", b"t4"]
    assert (slow.outbox.waiting, slow.outbox.dropped, quick.outbox.dropped) == (2, 3, 0)
    assert relay.counts["slow"] == 3


def test_z5_a_run_is_dropped_message_by_message() -> None:
    """What has room waits, the rest is counted, one by one."""
    relay, _ = a_relay()
    slow, quick = a_peer(limits=CameoLimits(queue_messages=2)), a_peer()
    for peer in (slow, quick):
        relay.subscribe(peer, b"", True)
    slow.outbox.full = True
    (run,) = MessageDecoder(1 << 30, 64, runs=True).units(encode_message([b"t", b"x"]) * 5)
    assert isinstance(run, ZmtpMessage) and relay.receive(run) == (slow, quick)
    assert written(quick) == [[b"t", b"x"]] * 5 and quick.outbox.messages_sent == 5
    assert (slow.outbox.waiting, slow.outbox.dropped, slow.outbox.messages_sent) == (2, 3, 2)
    assert relay.counts["slow"] == 3
    (nobody,) = MessageDecoder(1 << 30, 64, runs=True).units(encode_message([b"t", b"x"]) * 5)
    relay.leave(slow)
    relay.leave(quick)
    assert isinstance(nobody, ZmtpMessage) and relay.receive(nobody) == ()
    assert relay.counts["unwanted"] == 5


def test_a_publisher_that_misses_a_subscription_is_named() -> None:
    """It would publish too little or too much for ever: it has to come back and be told everything."""
    relay, (publisher,) = a_relay(limits=CameoLimits(queue_messages=1))
    publisher.outbox.full = True
    subscriber = a_peer()
    relay.subscribe(subscriber, b"a", True)
    assert not relay.astray
    relay.subscribe(subscriber, b"b", True)
    assert relay.astray == {publisher}
    relay.leave(publisher)
    assert not relay.astray


def test_z6_limits_are_the_subscribers_fault() -> None:
    """Too many topics, a topic too long: RemoteError, and nothing is passed on."""
    relay, (publisher,) = a_relay(limits=CameoLimits(topics=2, topic=3))
    subscriber = a_peer()
    relay.request(subscriber, message(b"\1a", keep=0))
    with pytest.raises(RemoteError, match="topic of 4 bytes"):
        relay.request(subscriber, message(b"\1long", keep=0))
    relay.request(subscriber, message(b"\1b", keep=0))
    with pytest.raises(RemoteError, match="more than 2 topics"):
        relay.subscribe(subscriber, b"c", True)
    assert written(publisher) == [[b"\1a"], [b"\1b"]]


def test_the_subscribers_of_one_machine_share_its_topics() -> None:
    """As many connections as they like; this machine's own are not counted, and who leaves makes room."""
    relay, _ = a_relay(limits=CameoLimits(topics=10, topics_per_source=3))
    first, second = (a_peer(f"192.0.2.1:{port}", local=False) for port in (1, 2))
    other, here = a_peer("192.0.2.2:1", local=False), a_peer()
    for prefix in (b"a", b"b"):
        relay.subscribe(first, prefix, True)
        relay.subscribe(second, b"a", True)
    with pytest.raises(RemoteError, match=r"more than 3 topics from 192\.0\.2\.1"):
        relay.subscribe(second, b"c", True)
    for peer in (other, here):
        relay.subscribe(peer, b"c", True)
    relay.subscribe(first, b"b", False)
    relay.subscribe(second, b"c", True)
    relay.leave(first)
    relay.leave(second)
    for prefix in (b"d", b"e", b"f"):
        relay.subscribe(first, prefix, True)
        relay.subscribe(here, prefix, True)
    relay.leave(first)
    relay.leave(other)
    assert not relay._of_sources


def test_what_nobody_wants_is_counted() -> None:
    """A publisher may not have heard yet that a topic is not wanted any more."""
    relay, _ = a_relay()
    assert relay.receive(message(b"status", b"x", keep=0)) == ()
    assert relay.counts["unwanted"] == 1
