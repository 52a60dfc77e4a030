"""Real ZeroMQ sockets (libzmq, through pyzmq) with our relays between them."""

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

zmq = pytest.importorskip("zmq", exc_type=ImportError)
from tests.support.cameo_site import SERVER, Backend, Programs, Sockets, ask  # noqa: E402  needs zmq
from tests.support.traffic import wait_until  # noqa: E402

pytestmark = pytest.mark.slow

RESPONDER = b"responder-676e576d-6102-42d8-ae24-222a7000dfa0-adder:5"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Programs]:
    """Both programs, running."""
    with Programs(tmp_path) as programs:
        yield programs


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Sockets of the test."""
    with Sockets() as made:
        yield made


def subscribed(subscriber: Any, publisher: Any, topic: bytes) -> None:
    """Return when publications of a topic arrive, some of which may still wait; they say -1."""
    for _ in range(2000):
        publisher.send_multipart([topic, b"-1"])
        if subscriber.poll(20):
            return
    raise AssertionError("no publication arrives")


def emptied(subscriber: Any) -> None:
    """Forget what came so far."""
    while subscriber.poll(300):
        subscriber.recv_multipart()


def said(system: Programs, word: str) -> None:
    """Return when a relay has logged it."""
    wait_until(lambda: word in system.log.read_text(), word)


def test_z9_requests_of_req_and_dealer(system: Programs, sockets: Sockets) -> None:
    """REQ to the server, DEALER to a responder with several answers in flight."""
    with Backend(system.ports[0]), Backend(system.ports[0], RESPONDER, b'{"type":22}'):
        client = sockets.make(zmq.REQ, system.ports[0])
        for number in range(50):
            assert ask(client, SERVER, b'{"type":%d}' % number) == [b'{"type":%d}' % number]
        dealer = sockets.make(zmq.DEALER, system.ports[0])
        while True:  # until the responder is there: requests before are dropped, as with CAMEO
            dealer.send_multipart([b"", RESPONDER, b"", b'{"type":1}'])
            if dealer.poll(200):
                break
        for number in range(100):
            dealer.send_multipart([b"", RESPONDER, b"", b'{"type":21}', b"%d" % number])
        answers: list[int] = []
        while 99 not in answers:
            frames = dealer.recv_multipart()
            assert frames[:4] == [b"", RESPONDER, b"", b'{"type":22}']
            answers += [int(frames[5])] if len(frames) == 6 else []
        assert answers == list(range(100))


def test_z9_publications(system: Programs, sockets: Sockets) -> None:
    """Two publishers, two subscribers, prefixes, an end of a subscription."""
    one, two = (sockets.make(zmq.PUB, system.ports[2]) for _ in range(2))
    status = sockets.make(zmq.SUB, system.ports[1], SUBSCRIBE=b"status")
    everything = sockets.make(zmq.SUB, system.ports[1], SUBSCRIBE=b"")
    for publisher in (one, two):
        subscribed(status, publisher, b"status")
        emptied(status)
    emptied(everything)
    for publisher in (one, two):
        publisher.send_multipart([b"result", b"{}", b"x" * 1000])
        publisher.send_multipart([b"status", b"", b"end"])
    assert [status.recv_multipart() for _ in range(2)] == [[b"status", b"", b"end"]] * 2
    assert (
        sorted(everything.recv_multipart()[0] for _ in range(4)) == [b"result", b"result"] + [b"status"] * 2
    )
    status.setsockopt(zmq.UNSUBSCRIBE, b"status")
    while everything.poll(200):
        everything.recv_multipart()
    one.send_multipart([b"status", b"nobody else"])
    assert everything.recv_multipart() == [b"status", b"nobody else"]
    assert not status.poll(300)


def test_no_lost_first_request(system: Programs, sockets: Sockets) -> None:
    """A request that is made before the server is there is answered at the moment it is."""
    client = sockets.make(zmq.REQ, system.ports[0])
    client.send_multipart([SERVER, b"", b"early"])
    assert not client.poll(500)
    with Backend(system.ports[0]) as server:
        assert client.recv_multipart() == [SERVER, b"", b"early"]
        assert server.asked == [[b"early"]]


def test_a_request_that_was_given_up_is_never_executed_late(system: Programs, sockets: Sockets) -> None:
    """Nothing is queued in the relay: the request dies with its socket."""
    client = sockets.make(zmq.REQ, system.ports[0])
    client.send_multipart([SERVER, b"", b"START, but nobody waits any more"])
    assert not client.poll(300)
    client.close(linger=0)
    with Backend(system.ports[0]) as server:
        other = sockets.make(zmq.REQ, system.ports[0])
        assert ask(other, SERVER, b"now") == [b"now"]
        assert server.asked == [[b"now"]]


def test_the_server_restarts_and_clients_go_on(system: Programs, sockets: Sockets) -> None:
    """A REQ socket that asks while the server is away waits, and is answered when it is back."""
    client = sockets.make(zmq.REQ, system.ports[0])
    with Backend(system.ports[0]):
        assert ask(client, SERVER, b"first") == [b"first"]
    said(system, "peer-left")
    client.send_multipart([SERVER, b"", b"second"])
    assert not client.poll(300)
    with Backend(system.ports[0]):
        assert client.recv_multipart() == [SERVER, b"", b"second"]


def test_64_bit_frames(system: Programs, sockets: Sockets) -> None:
    """Frames of 255 and 256 bytes, of 1 MiB, of 20 MiB; many frames in one message."""
    with Backend(system.ports[0]):
        client = sockets.make(zmq.REQ, system.ports[0])
        for size in (0, 255, 256, 65536, 1 << 20, 20 << 20):
            data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            assert ask(client, SERVER, b"head", data, b"") == [b"head", data, b""]
        parts = [b"%d" % number * number for number in range(50)]
        assert ask(client, SERVER, *parts) == parts


def test_z8_heartbeats_both_ways(system: Programs, sockets: Sockets) -> None:
    """Peers that ask us ten times a second, and drop who does not answer, stay; idle and in use."""
    beat = {"HEARTBEAT_IVL": 100, "HEARTBEAT_TIMEOUT": 2000, "HEARTBEAT_TTL": 2000}
    with Backend(system.ports[0]):
        client = sockets.make(zmq.REQ, system.ports[0], **beat)
        subscriber = sockets.make(zmq.SUB, system.ports[1], SUBSCRIBE=b"t", **beat)
        publisher = sockets.make(zmq.PUB, system.ports[2], **beat)
        monitors = [
            each.get_monitor_socket(zmq.EVENT_DISCONNECTED) for each in (client, subscriber, publisher)
        ]
        subscribed(subscriber, publisher, b"t")
        emptied(subscriber)
        assert ask(client, SERVER, b"before") == [b"before"]
        time.sleep(2.5)
        assert ask(client, SERVER, b"after") == [b"after"]
        publisher.send_multipart([b"t", b"after"])
        assert subscriber.recv_multipart() == [b"t", b"after"]
        assert not any(monitor.poll(0) for monitor in monitors)


def test_newest_local_holder_of_a_name_wins(system: Programs, sockets: Sockets) -> None:
    """With libzmq's own ROUTER the newer one would be ignored for ever. The older serves again after it."""
    client = sockets.make(zmq.REQ, system.ports[0])
    with Backend(system.ports[0], answer=b"older"):
        assert ask(client, SERVER, b"x") == [b"older", b"x"]
        with Backend(system.ports[0], answer=b"newer"):
            said(system, "name-replaced")
            for _ in range(20):
                assert ask(client, SERVER, b"y") == [b"newer", b"y"]
        said(system, "peer-left")
        assert ask(client, SERVER, b"z") == [b"older", b"z"]


def test_no_forged_replies(system: Programs, sockets: Sockets) -> None:
    """A client learns its victim's id from the server, and still cannot speak to it."""
    seen: list[bytes] = []
    router = sockets.make(zmq.ROUTER, system.ports[0], SERVER)
    victim = sockets.make(zmq.REQ, system.ports[0])
    victim.send_multipart([SERVER, b"", b"question"])
    frames = router.recv_multipart()
    seen.append(frames[2])
    attacker = sockets.make(zmq.DEALER, system.ports[0])
    attacker.send_multipart([b"", frames[2], b"", b"forged"])
    attacker.send_multipart([b"", SERVER, b"", b"marker"])
    marker = router.recv_multipart()
    assert marker[4:] == [b"marker"] and not victim.poll(200)
    router.send_multipart([*frames[:4], b"answer"])
    assert victim.recv_multipart() == [SERVER, b"", b"answer"]


def test_z9_curve_is_refused_and_nobody_suffers(system: Programs, sockets: Sockets) -> None:
    """A socket with another mechanism never gets in."""
    if not zmq.has("curve"):
        pytest.skip("this libzmq has no CURVE")
    public, secret = zmq.curve_keypair()
    keys = {"CURVE_SERVERKEY": public, "CURVE_PUBLICKEY": public, "CURVE_SECRETKEY": secret}
    curve = sockets.make(zmq.REQ, system.ports[0], **keys)
    with Backend(system.ports[0]):
        curve.send_multipart([SERVER, b"", b"x"])
        client = sockets.make(zmq.REQ, system.ports[0])
        assert ask(client, SERVER, b"y") == [b"y"]
        assert not curve.poll(300)


def test_a_socket_of_the_wrong_kind_is_refused_and_nobody_suffers(system: Programs, sockets: Sockets) -> None:
    """REP, PUSH, PAIR at each port."""
    wrong = [sockets.make(kind, port) for kind in (zmq.REP, zmq.PUSH, zmq.PAIR) for port in system.ports]
    with Backend(system.ports[0]):
        client = sockets.make(zmq.REQ, system.ports[0])
        assert ask(client, SERVER, b"y") == [b"y"]
    assert len(wrong) == 9


def test_z5_a_slow_subscriber_costs_nobody_else_anything(system: Programs, sockets: Sockets) -> None:
    """It does not read while 200 MB are published; the other one gets every message."""
    publisher = sockets.make(zmq.PUB, system.ports[2], SNDHWM=0)
    slow = sockets.make(zmq.SUB, system.ports[1], SUBSCRIBE=b"t", RCVHWM=1, RCVBUF=20_000)
    quick = sockets.make(zmq.SUB, system.ports[1], SUBSCRIBE=b"t", RCVHWM=0)
    for each in (slow, quick):
        subscribed(each, publisher, b"t")
    emptied(quick)
    for number in range(2000):
        publisher.send_multipart([b"t", b"%d" % number, b"x" * 100_000])
        if number % 10 == 9:
            assert [int(quick.recv_multipart()[1]) for _ in range(10)] == list(range(number - 9, number + 1))
    seen = []
    while slow.poll(1000):
        seen += [number for number in [int(slow.recv_multipart()[1])] if number >= 0]
    assert seen == sorted(seen) and seen[:20] == list(range(20)) and len(seen) < 2000


class Load:
    """Requests and publications without an end; a REQ socket without an answer is thrown away."""

    def __init__(self, system: Programs) -> None:
        self.system = system
        self.answers = self.events = 0
        self.wrong: list[object] = []
        self._stop = threading.Event()
        work = (self._ask, self._ask, self._publish, self._subscribe)
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def goes_on(self) -> None:
        """Return when answers and events have come since now."""
        before = self.answers, self.events
        end = time.monotonic() + 30
        while self.answers < before[0] + 100 or self.events < before[1] + 100:
            assert time.monotonic() < end, f"answers, events: {before}, then {self.answers, self.events}"
            time.sleep(0.02)

    def _ask(self) -> None:
        with Sockets() as sockets:
            client = sockets.make(zmq.REQ, self.system.ports[0])
            for number in itertools.count():
                if self._stop.is_set():
                    return
                word = b"%d" % number
                client.send_multipart([SERVER, b"", word])
                if not client.poll(500):
                    client.close(linger=0)
                    client = sockets.make(zmq.REQ, self.system.ports[0])
                    continue
                answer = client.recv_multipart()
                self.answers += 1
                if answer != [SERVER, b"", word]:
                    self.wrong.append(answer)

    def _publish(self) -> None:
        with Sockets() as sockets:
            publisher = sockets.make(zmq.PUB, self.system.ports[2])
            for number in itertools.count():
                if self._stop.is_set():
                    return
                publisher.send_multipart([b"t", b"%d" % number, b"x" * (number % 1000)])
                time.sleep(0.0005)

    def _subscribe(self) -> None:
        with Sockets() as sockets:
            subscriber = sockets.make(zmq.SUB, self.system.ports[1], SUBSCRIBE=b"t")
            while not self._stop.is_set():
                if subscriber.poll(100):
                    _, number, data = subscriber.recv_multipart()
                    self.events += 1
                    if len(data) != int(number) % 1000:
                        self.wrong.append((number, len(data)))


def test_relays_restarted_under_load_and_everything_heals_by_itself(system: Programs) -> None:
    """Killed three times in the middle of it: sockets come back alone, and no answer goes astray."""
    with Backend(system.ports[0]), Load(system) as load:
        load.goes_on()
        for _ in range(3):
            system.kill()
            time.sleep(0.2)
            system.start()
            load.goes_on()
    assert load.wrong == []


@contextlib.contextmanager
def busy_machine(many: int = 4) -> Iterator[None]:
    """Processes that want all of every core, and end with us."""
    code = "import os, sys, threading; threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)))"
    command = [sys.executable, "-c", f"{code}.start()\nwhile True: pass"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(many)]
    try:
        yield
    finally:
        for each in processes:
            each.kill()
            each.communicate()


def test_nothing_is_lost_or_overtaken_on_a_busy_machine(system: Programs, sockets: Sockets) -> None:
    """A client is set up as CAMEO's are: subscribe, ask until an event comes, go on. From there it has all.

    Had the key of an application that is killed been lost, or come behind its end, its subscriber would have
    met an application that terminated.
    """
    events = sockets.make(zmq.PUB, system.ports[2])

    topics = (b"status", b"result", b"keyvalue", b"cancel", b"ping")
    with busy_machine(), Backend(system.ports[0]):
        client = sockets.make(zmq.REQ, system.ports[0])
        for _ in range(4):
            subscriber = sockets.make(zmq.SUB, system.ports[1])
            for topic in topics:
                subscriber.setsockopt(zmq.SUBSCRIBE, topic)
            while not subscriber.poll(100):
                assert ask(client, SERVER, b"sync") == [b"sync"]
                events.send_multipart([b"status", b"sync"])
            wanted = []
            for number in range(10):
                for topic, word in ((b"keyvalue", b"stored"), (b"status", b"killed")):
                    wanted.append([topic, b"%d %b" % (number, word)])
                    events.send_multipart(wanted[-1])
                assert ask(client, SERVER, b"kill") == [b"kill"]
            got: list[list[bytes]] = []
            while len(got) < len(wanted):
                message = subscriber.recv_multipart()
                got += [message] if message[1] != b"sync" else []
            assert got == wanted
            subscriber.close()


def test_many_subscribers_and_topics(system: Programs, sockets: Sockets) -> None:
    """Each of 50 subscribers with 20 topics gets its own and nothing else."""
    publisher = sockets.make(zmq.PUB, system.ports[2])
    subscribers = []
    for number in range(50):
        made = sockets.make(zmq.SUB, system.ports[1])
        for topic in range(20):
            made.setsockopt(zmq.SUBSCRIBE, b"stream:app-%d-%d:" % (number, topic))
        subscribers.append(made)
    for number, each in enumerate(subscribers):
        subscribed(each, publisher, b"stream:app-%d-19:" % number)
    emptied(subscribers[-1])
    for number, each in enumerate(subscribers):
        with contextlib.suppress(zmq.Again):
            while True:
                each.recv_multipart(zmq.NOBLOCK)
        publisher.send_multipart([b"stream:app-%d-7:more" % number, b"%d" % number])
    for number, each in enumerate(subscribers):
        assert each.recv_multipart() == [b"stream:app-%d-7:more" % number, b"%d" % number]
        assert not each.poll(0)
