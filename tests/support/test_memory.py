"""The memory transports: limits, cuts, producers and endings, as Twisted's TCP has them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.interfaces import IConsumer, IPullProducer, IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from tests.support.depth import deep
from tests.support.memory import MemoryTransport, Network, Pair, Recorder, random_cuts


@implementer(IPushProducer)
class Pushed:
    """A push producer that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


@implementer(IPullProducer)
class Pulled:
    """A pull producer of ``count`` pieces of ten bytes; it unregisters itself at the end if told so."""

    def __init__(self, transport: MemoryTransport, count: int, leaves: bool = True) -> None:
        self.transport = transport
        self.count = count
        self.leaves = leaves

    def resumeProducing(self) -> None:
        if self.count:
            self.count -= 1
            self.transport.write(b"0123456789")
        elif self.leaves:
            self.leaves = False
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.count = 0


def joined(**options: object) -> tuple[Network, Pair, Recorder, Recorder]:
    """Two recorders on one network, half-close told to both."""
    network, near, far = Network(), Recorder.half_closing(), Recorder.half_closing()
    return network, network.join(near, far, **options), near, far  # type: ignore[arg-type]


def test_a_transport_has_the_interfaces_of_tcp() -> None:
    """What our protocols ask of a transport is there, addresses and socket options included."""
    _, pair, near, far = joined(port=99)
    transport = near.transport
    assert ITCPTransport.providedBy(transport)
    assert IConsumer.providedBy(transport) and IPushProducer.providedBy(transport)
    transport.setTcpNoDelay(True)
    assert transport.getTcpNoDelay() and not transport.getTcpKeepAlive()
    assert transport.bufferSize == 65536
    assert transport.getPeer() == far.transport.getHost() and transport.getPeer().port == 99
    assert transport.getHost() == far.transport.getPeer()
    assert pair.near is transport and "99" in repr(transport)


def test_nothing_moves_before_a_turn() -> None:
    """A write stays in the buffer until the network turns, as it does until the reactor does."""
    network, pair, near, far = joined(name="link")
    near.transport.write(b"abc")
    near.transport.writeSequence([b"de", b"f"])
    assert network.held() == {"link.near": 6} and pair.near.peak == 6
    assert network.turn() and network.held() == {"link.to_far": 6}
    assert network.turn() and far.data == b"abcdef" and network.held() == {}
    assert not network.turn()


@pytest.mark.parametrize(
    ("cuts", "pieces"), [(None, [9]), (1, [1] * 9), (4, [4, 4, 1]), ([2, 3], [2, 3, 4]), ([], [9])]
)
def test_cuts(cuts: int | list[int] | None, pieces: list[int]) -> None:
    """The bytes come in the pieces that were asked for, in order."""
    network, _, near, far = joined(cuts=cuts)
    near.transport.write(b"123456789")
    network.pump()
    assert far.data == b"123456789" and far.pieces == pieces


def test_cuts_are_places_in_the_stream() -> None:
    """Writes that come late do not shift where reads end."""
    network, _, near, far = joined(cuts=[4, 4])
    for piece in (b"123", b"456", b"789"):
        near.transport.write(piece)
        network.pump()
    assert far.pieces == [3, 1, 2, 2, 1]


def test_random_cuts_repeat_with_their_seed() -> None:
    """The same seed gives the same pieces."""
    runs = []
    for _ in range(2):
        network, _, near, far = joined(cuts=random_cuts(7, 20), cuts_to_near=random_cuts(8, 20))
        near.transport.write(bytes(500))
        network.pump()
        runs.append(far.pieces)
    assert runs[0] == runs[1] and max(runs[0]) <= 20 and sum(runs[0]) == 500


def test_back_pressure_fills_the_wire_then_the_buffer_then_pauses_the_producer() -> None:
    """A reader that stops is felt by the writer's producer; it is resumed when the buffer is empty."""
    network, pair, near, far = joined(capacity=1000, name="link")
    producer = Pushed()
    near.transport.bufferSize = 100
    near.transport.registerProducer(producer, True)
    far.transport.pauseProducing()
    near.transport.write(bytes(1000))
    assert producer.told == ["pause"]  # from within write
    network.pump()
    assert producer.told == ["pause", "resume"] and network.held() == {"link.to_far": 1000}
    near.transport.write(bytes(101))
    network.pump()
    assert producer.told == ["pause", "resume", "pause"]
    assert network.held() == {"link.near": 101, "link.to_far": 1000} and pair.to_far.peak == 1000
    far.transport.resumeProducing()
    network.pump()
    assert producer.told[-1] == "resume" and len(far.data) == 1101 and pair.to_far.carried == 1101


def test_a_producer_is_stopped_with_its_connection() -> None:
    """A lost connection says stopProducing, also to a producer that comes too late."""
    network, _, near, far = joined()
    first, late = Pushed(), Pushed()
    near.transport.registerProducer(first, True)
    with pytest.raises(RuntimeError):
        near.transport.registerProducer(late, True)
    far.transport.abortConnection()
    network.pump()
    near.transport.registerProducer(late, True)
    assert first.told == ["stop"] and late.told == ["stop"]


def test_loss_waits_for_a_pull_producer() -> None:
    """loseConnection sends all that a pull producer still has, and waits until it is unregistered."""
    network, pair, near, far = joined()
    producer = Pulled(pair.near, 5)
    near.transport.registerProducer(producer, False)
    near.transport.loseConnection()
    network.pump()
    assert len(far.data) == 50 and near.lost is error.ConnectionDone


def test_loss_never_comes_while_a_paused_producer_is_registered() -> None:
    """loseConnection with a paused push producer resumes it, and closes when it has left."""
    network, _, near, far = joined(capacity=10)
    producer = Pushed()
    near.transport.bufferSize = 10
    near.transport.registerProducer(producer, True)
    near.transport.write(bytes(30))
    near.transport.loseConnection()
    network.pump()
    assert producer.told == ["pause", "resume"] and near.lost is None
    near.transport.unregisterProducer()
    network.pump()
    assert near.lost is error.ConnectionDone and len(far.data) == 30


@pytest.mark.parametrize("ending", ["loseConnection", "abortConnection"])
def test_connection_lost_comes_a_turn_later(ending: str) -> None:
    """Neither way to close calls connectionLost before it returns."""
    network, _, near, _ = joined()
    getattr(near.transport, ending)()
    assert near.lost is None
    network.pump()
    expected = error.ConnectionDone if ending == "loseConnection" else error.ConnectionAborted
    assert near.lost is expected


def test_half_close_leaves_the_other_direction_open() -> None:
    """After both ends of file the connection is still there until loseConnection, which then acts at once."""
    network, pair, near, far = joined()
    near.transport.write(b"question")
    near.transport.loseWriteConnection()
    network.pump()
    assert far.events == ["made", "data", "end of file"] and near.events[-1] == "write side closed"
    near.transport.write(b"lost, as on a socket")
    far.transport.write(b"answer")
    far.transport.loseWriteConnection()
    network.pump()
    assert near.data == b"answer" and far.data == b"question"
    assert pair.near.connected and pair.far.connected
    near.transport.loseConnection()
    assert near.lost is error.ConnectionDone
    assert far.lost is None and pair.open


def test_end_of_file_closes_a_protocol_that_knows_no_half_close() -> None:
    """A plain Protocol loses its connection at the other side's end of file."""
    network, near, far = Network(), Recorder.half_closing(), Recorder()
    network.join(near, far)
    near.transport.loseWriteConnection()
    network.pump()
    assert far.lost is error.ConnectionDone and near.events[-1] == "end of file"


def test_the_cheap_tls_rule_ends_everything_at_end_of_file() -> None:
    """With half_close off even a half-closeable protocol is lost, with what it had not sent."""
    network, _, near, far = joined(half_close=False, capacity=10)
    far.transport.write(bytes(100))
    near.transport.pauseProducing()
    near.transport.loseWriteConnection()
    network.pump()
    assert far.events == ["made", "lost ConnectionDone"]
    near.transport.resumeProducing()
    network.pump()
    assert len(near.data) == 10


@pytest.mark.parametrize(("lossy", "arrives"), [(False, b"abc"), (True, b"")])
def test_abort_is_a_reset_for_the_other_side(lossy: bool, arrives: bytes) -> None:
    """The aborted side's buffer is dropped; what was under way is read first, or lost when asked for."""
    network, _, near, far = joined(lossy=lossy)
    far.transport.pauseProducing()
    near.transport.write(b"abc")
    network.pump()
    near.transport.write(b"dropped")
    near.transport.abortConnection()
    network.pump()
    far.transport.resumeProducing()
    network.pump()
    assert near.lost is error.ConnectionAborted
    assert far.lost is error.ConnectionLost and far.data == arrives


def test_silence_reset_and_restore() -> None:
    """A severed pair tells nobody anything; restored it delivers; reset both sides lose the connection."""
    network, pair, near, far = joined()
    pair.sever()
    near.transport.write(b"late")
    near.transport.loseWriteConnection()
    network.pump()
    assert far.events == ["made"] and near.lost is None
    pair.restore()
    network.pump()
    assert far.events == ["made", "data", "end of file"]
    far.transport.write(b"never")
    pair.reset()
    network.pump()
    assert near.lost is error.ConnectionLost and far.lost is error.ConnectionLost


def test_bytes_to_a_severed_and_closed_socket_reset_it_when_restored() -> None:
    """What was under way to a socket that closed meanwhile comes back as a reset."""
    network, pair, near, far = joined()
    pair.sever()
    near.transport.write(b"abc")
    network.pump()
    far.transport.abortConnection()
    network.pump()
    assert near.lost is None
    pair.restore()
    network.pump()
    assert near.lost is error.ConnectionLost and network.held() == {}


class Raiser(Protocol):
    """Raises where it is told to."""

    def dataReceived(self, data: bytes) -> None:
        raise LookupError(data.decode())

    def connectionLost(self, reason: object = None) -> None:
        if isinstance(reason.value, error.ConnectionAborted):  # type: ignore[attr-defined]
            raise LookupError("lost")


def test_what_a_protocol_raises_is_raised_by_pump() -> None:
    """The connection is lost as Twisted does it, and the test hears of the exception."""
    network, near, far = Network(), Recorder(), Raiser()
    pair = network.join(near, far)
    near.transport.write(b"oops")
    with pytest.raises(LookupError, match="oops"):
        network.pump()
    assert not pair.far.connected
    network.pump()
    assert near.lost is error.ConnectionDone


def test_exceptions_can_be_kept_instead() -> None:
    """A network that is not strict lists them, from calls as well, each once."""
    network, near, far = Network(strict=False), Recorder(), Raiser()
    network.join(near, far)
    far.transport.abortConnection()
    network.clock.callLater(0, {}.popitem)
    network.pump()
    assert [type(each) for each in network.errors] == [LookupError, KeyError]


def test_a_paused_transport_may_still_get_the_read_of_this_turn() -> None:
    """Epoll reports both in one turn: pausing the second from the first is too late if it also writes."""
    network = Network()

    class Pauser(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            second.transport.pauseProducing()

    first, second, writer, other = Pauser(), Recorder(), Recorder(), Recorder()
    network.join(first, writer)
    pair = network.join(second, other)
    writer.transport.write(b"1")
    other.transport.write(b"2")
    network.turn()
    second.transport.write(b"keeps it registered")
    network.turn()
    assert first.data == b"1" and second.data == b"2" and not pair.near.reading


def test_advance_goes_from_call_to_call() -> None:
    """Time passes in steps, and bytes move at each of them."""
    network, _, near, far = joined()
    for at in (3.0, 1.0, 2.0, 9.0):
        network.callLater(at, near.transport.write, str(int(at)).encode())
    gone = network.callLater(1.5, near.transport.write, b"cancelled")
    network.callLater(1.0, gone.cancel)
    network.advance(5.0)
    assert far.data == b"123" and network.seconds() == 5.0
    assert far.pieces == [1, 1, 1]


def test_pump_says_when_it_never_ends() -> None:
    """Two echoes keep a byte moving for ever; pump gives up with an error."""

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data)

    network, near, far = Network(), Echo(), Echo()
    network.join(near, far)
    near.transport.write(b"x")
    with pytest.raises(RuntimeError, match="100 turns"):
        network.pump(100)


def recording(made: list[Recorder]) -> Factory:
    """A factory of recorders that go into a list."""

    class Recording(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> Recorder:
            made.append(Recorder())
            return made[-1]

    return Recording()


def test_endpoints_answer_refuse_and_hang() -> None:
    """A dial ends in a connection, in a refusal, or not at all; a hanging one can be cancelled."""
    network = Network()
    place = network.endpoint("service", cuts=1, port=23)
    accepted: list[Recorder] = []
    dialled: list[Recorder] = []
    results: list[object] = []

    def dial() -> None:
        place.connect(recording(dialled)).addBoth(results.append)

    dial()
    assert results == []
    network.pump()
    assert results.pop().check(error.ConnectionRefusedError)  # type: ignore[attr-defined]

    ports: list[object] = []
    place.listen(recording(accepted)).addCallback(ports.append)
    place.listen(recording(accepted)).addErrback(ports.append)
    assert ports[0].getHost().port == 23  # type: ignore[attr-defined]
    assert ports[1].check(error.CannotListenError)  # type: ignore[attr-defined]
    dial()
    network.pump()
    assert results.pop() is dialled[0] and place.pairs[0].name == "service0"
    dialled[0].transport.write(b"abc")
    network.pump()
    assert accepted[0].pieces == [1, 1, 1]

    place.hangs = True
    hanging = place.connect(recording(dialled))
    hanging.addBoth(results.append)
    network.pump()
    assert results == []
    hanging.cancel()
    assert results.pop().check(error.UserError)  # type: ignore[attr-defined]

    place.hangs = False
    ports[0].stopListening()  # type: ignore[attr-defined]
    dial()
    network.pump()
    assert results.pop().check(error.ConnectionRefusedError) and place.dials == 4  # type: ignore[attr-defined]


def test_a_chain_of_pairs_moves_together() -> None:
    """Client, server, agent and service on one network: bytes cross all three pairs in one pump."""

    class Forward(Protocol):
        other: "Forward"

        def dataReceived(self, data: bytes) -> None:
            self.other.transport.write(data)

    network = Network()
    ends = [Forward() for _ in range(4)]
    for left, right in (ends[:2], ends[2:]):
        left.other, right.other = right, left
    client, service = Recorder(), Recorder()
    network.join(client, ends[0], cuts=3, name="client")
    network.join(ends[1], ends[2], cuts=2, capacity=5, name="link")
    network.join(ends[3], service, cuts=1, name="service")
    client.transport.write(bytes(range(200)))
    service.transport.write(b"hello")
    network.pump()
    assert service.data == bytes(range(200)) and client.data == b"hello" and network.held() == {}


def test_real_tls_carries_bytes_and_closes_without_half_close() -> None:
    """TLS over memory is Twisted's own: bytes exact, and the other side's close closes both."""
    network, _, near, far = joined(tls=True, cuts=random_cuts(1, 700), cuts_to_near=random_cuts(2, 700))
    near.transport.write(bytes(range(256)) * 100)
    far.transport.write(b"back")
    network.pump()
    assert far.data == bytes(range(256)) * 100 and near.data == b"back"
    near.transport.loseConnection()
    far.transport.write(bytes(1000))
    network.pump()
    assert near.lost is error.ConnectionDone and far.lost is error.ConnectionDone


def test_tls_never_closes_while_a_producer_is_registered() -> None:
    """The measured trap of Twisted's TLS holds here too."""
    network, _, near, _ = joined(tls=True)
    network.pump()
    near.transport.registerProducer(Pushed(), True)
    near.transport.loseConnection()
    network.pump()
    assert near.lost is None
    near.transport.unregisterProducer()
    network.pump()
    assert near.lost is error.ConnectionDone


def test_tls_pulls_a_pull_producer_for_ever() -> None:
    """All its bytes come; but one that stays registered with nothing to say keeps the reactor busy."""
    network, pair, near, far = joined(tls=True, capacity=2000)
    network.pump()
    near.transport.registerProducer(Pulled(near.transport, 1000), False)
    near.transport.loseConnection()
    network.pump()
    assert far.data == b"0123456789" * 1000 and near.lost is error.ConnectionDone and not pair.open

    network, _, near, far = joined(tls=True)
    network.pump()
    idle = Pulled(near.transport, 1, leaves=False)
    near.transport.registerProducer(idle, False)
    with pytest.raises(RuntimeError, match="still moving"):
        network.pump(1000)
    assert len(far.data) == 10
    far.transport.abortConnection()
    network.pump()
    assert near.lost is error.ConnectionLost
    late = Pulled(near.transport, 3)
    near.transport.registerProducer(late, False)
    network.pump()
    assert late.count == 0


def test_what_a_pull_producer_raises_over_tls_is_raised_by_pump() -> None:
    """The cooperator does not swallow it."""

    class Broken(Pulled):
        def resumeProducing(self) -> None:
            raise LookupError("broken")

    network, pair, near, _ = joined(tls=True)
    network.pump()
    near.transport.registerProducer(Broken(pair.near, 1), False)
    with pytest.raises(LookupError, match="broken"):
        network.pump()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["near", "far"]), st.integers(0, 300)),
        st.tuples(st.sampled_from(["near", "far"]), st.sampled_from(["pauseProducing", "resumeProducing"])),
        st.just(("network", "turn")),
    ),
    max_size=30,
)


@settings(max_examples=deep(60), deadline=None)
@given(STEPS, st.integers(1, 200), st.integers(0, 999))
def test_no_byte_is_lost_or_reordered(steps: list[tuple[str, object]], capacity: int, seed: int) -> None:
    """Whatever is written, paused and turned: every byte is in one place, and all arrive in order."""
    network, pair, near, far = joined(capacity=capacity, cuts=seed % 7, cuts_to_near=random_cuts(seed))
    sent = {"near": b"", "far": b""}
    for who, what in steps:
        if isinstance(what, int):
            data = bytes((len(sent[who]) + index) % 251 for index in range(what))
            getattr(pair, who).write(data)
            sent[who] += data
        elif who == "network":
            network.turn()
        else:
            getattr(getattr(pair, who), str(what))()
        assert sum(network.held().values()) + len(near.data) + len(far.data) == sum(map(len, sent.values()))
        assert pair.to_far.peak <= capacity and pair.to_near.peak <= capacity
    pair.near.resumeProducing()
    pair.far.resumeProducing()
    network.pump()
    assert far.data == sent["near"] and near.data == sent["far"]
