"""The memory transports against real loopback sockets: the same script must tell the protocols the same."""

from collections.abc import Callable

import pytest
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import ClientFactory

from tests.support.epoll import QUIET, own_reactor
from tests.support.memory import Network, Recorder
from tests.support.test_memory import Pulled, Pushed

pytestmark = pytest.mark.slow

Script = list[tuple[str, str, object]]
SETTLE = ("both", "settle", None)


def op(who: str, what: str, argument: object = None) -> tuple[str, str, object]:
    """One step: a method of that side's transport."""
    return who, what, argument


WRITE_NEAR = op("near", "write", b"from near")
WRITE_FAR = op("far", "write", b"from far")

SCRIPTS: dict[str, Script] = {
    "both write, near closes": [WRITE_NEAR, WRITE_FAR, SETTLE, op("near", "loseConnection")],
    "half close, late answer": [
        WRITE_NEAR,
        op("near", "loseWriteConnection"),
        SETTLE,
        WRITE_FAR,
        op("far", "loseConnection"),
        SETTLE,
        op("near", "loseConnection"),
    ],
    "half close from both": [
        op("near", "loseWriteConnection"),
        op("far", "loseWriteConnection"),
        SETTLE,
        op("near", "loseConnection"),
        SETTLE,
        op("far", "loseConnection"),
    ],
    "half close and close at once": [
        WRITE_NEAR,
        op("near", "loseWriteConnection"),
        op("near", "loseConnection"),
    ],
    "write after half close": [op("near", "loseWriteConnection"), WRITE_NEAR, SETTLE, WRITE_NEAR],
    "write after close": [op("near", "loseConnection"), WRITE_NEAR, SETTLE, WRITE_NEAR],
    "abort": [WRITE_NEAR, SETTLE, op("near", "abortConnection")],
    "abort drops the buffer": [WRITE_NEAR, op("near", "abortConnection")],
    "abort twice and close": [
        op("near", "abortConnection"),
        op("near", "abortConnection"),
        op("near", "loseConnection"),
    ],
    "abort behind a paused reader": [
        op("far", "pauseProducing"),
        WRITE_NEAR,
        SETTLE,
        op("near", "abortConnection"),
        SETTLE,
        op("far", "resumeProducing"),
    ],
    "abort towards a paused reader that writes": [
        op("far", "pauseProducing"),
        WRITE_NEAR,
        SETTLE,
        op("near", "abortConnection"),
        SETTLE,
        WRITE_FAR,
    ],
    "close behind a paused reader": [
        op("far", "pauseProducing"),
        WRITE_NEAR,
        op("near", "loseConnection"),
        SETTLE,
        op("far", "resumeProducing"),
    ],
    "close with unread input": [
        op("near", "pauseProducing"),
        WRITE_FAR,
        SETTLE,
        op("near", "loseConnection"),
        SETTLE,
        WRITE_FAR,
    ],
    "write to a closed side": [op("near", "loseConnection"), SETTLE, WRITE_FAR, SETTLE, WRITE_FAR, SETTLE],
    "write to an aborted side at once": [op("near", "abortConnection"), WRITE_FAR, SETTLE],
    "paused side closes": [op("near", "pauseProducing"), op("near", "loseConnection")],
    "pull producer, then close": [op("near", "pull", 5), op("near", "loseConnection")],
    "pull producer that stays": [op("near", "pull stays", 2), op("near", "loseConnection")],
    "push producer that is not paused": [op("near", "push"), WRITE_NEAR, op("near", "loseConnection")],
    "stopProducing closes": [op("near", "stopProducing"), SETTLE],
    "stopConsuming closes": [op("near", "push"), op("near", "stopConsuming"), SETTLE],
    "crossing closes": [WRITE_NEAR, WRITE_FAR, op("near", "loseConnection"), op("far", "loseConnection")],
}


def play(script: Script, near: Recorder, far: Recorder, settle: Callable[[], object]) -> list[object]:
    """Do the steps; what both sides were told, then what their producers were told."""
    producers: list[Pushed] = []
    for who, what, argument in [*script, SETTLE]:
        transport = (near if who == "near" else far).transport
        if what == "settle":
            settle()
        elif what.startswith("pull"):
            transport.registerProducer(Pulled(transport, argument, "stays" not in what), False)  # type: ignore[arg-type]
        elif what == "push":
            producers.append(Pushed())
            transport.registerProducer(producers[-1], True)
        else:
            getattr(transport, what)(*([] if argument is None else [argument]))
    told = [list(producer.told) for producer in producers]
    return [list(near.events), bytes(near.data), list(far.events), bytes(far.data), told]


def handing_out(protocol: IProtocol) -> ClientFactory:
    """A factory for exactly this protocol."""

    class One(ClientFactory):
        noisy = False

        def buildProtocol(self, addr: object) -> IProtocol:
            return protocol

    return One()


def real(script: Script, near: Recorder, far: Recorder) -> list[object]:
    """The script over loopback, on a reactor of its own."""
    with own_reactor() as loop:

        def settle() -> None:
            loop.settle(
                lambda: len(near.events) + len(near.data) + len(far.events) + len(far.data), quiet=QUIET
            )

        port = loop.reactor.listenTCP(0, handing_out(far), interface="127.0.0.1")
        loop.reactor.connectTCP("127.0.0.1", port.getHost().port, handing_out(near))
        try:
            loop.until(lambda: near.connected and far.connected, "both ends")
            return play(script, near, far, settle)
        finally:
            for transport in (near.transport, far.transport):
                transport.abortConnection()
            port.stopListening()
            settle()


@pytest.mark.parametrize("half_closing", [True, False], ids=["half-closing", "plain"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_memory_tells_what_real_sockets_tell(name: str, half_closing: bool) -> None:
    """Events, bytes and producer calls are equal on both."""
    make = Recorder.half_closing if half_closing else Recorder
    network, near, far = Network(), make(), make()
    network.join(near, far)
    in_memory = play(SCRIPTS[name], near, far, network.pump)
    assert in_memory == real(SCRIPTS[name], make(), make())
