"""A request and its answer between two connections in memory: streamed, held back, cut, refused, upgraded."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.support.memory import Network, Pair, Recorder

h11 = pytest.importorskip("h11")
from revtunnel.process.web.awaited_connection import PARTING, AwaitedConnection  # noqa: E402
from revtunnel.process.web.http_exchange import DeviceFault, HttpSide, exchange, join  # noqa: E402
from revtunnel.process.web.proxy_headers import PageOrigin  # noqa: E402

PAGE = PageOrigin(b"https://plc-7--web.pages.example", b"press", False, b"__Host-Http-rt-page")
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
END = b"Via: 1.1 revtunnel\r\n"


class Room:
    """A browser, a device, and one exchange between them."""

    def __init__(self, request: bytes, capacity: int = 65536, **options: Any) -> None:
        self.network = Network()
        self.browser, self.device = Recorder.half_closing(), Recorder.half_closing()
        sides = [AwaitedConnection(self.network.clock) for _ in range(2)]
        self.front, self.back = HttpSide(sides[0], h11.SERVER, 16_384), HttpSide(sides[1], h11.CLIENT)
        self.there: Pair = self.network.join(self.browser, sides[0], capacity=capacity, **options)
        self.far: Pair = self.network.join(sides[1], self.device, capacity=capacity, **options)
        self.done: list[Any] = []
        self.running = Deferred.fromCoroutine(self._run())
        self.running.addBoth(self.done.append)
        self.says(request)

    async def _run(self) -> bool:
        request = await self.front.event()
        switches = await exchange(self.front, self.back, request, PAGE, True)
        if switches:
            await join(self.front, self.back)
        return switches

    def says(self, data: bytes) -> None:
        """The browser."""
        self.there.near.write(data)  # type: ignore[union-attr]
        self.network.pump()

    def answers(self, data: bytes) -> None:
        """The device."""
        self.far.far.write(data)  # type: ignore[union-attr]
        self.network.pump()

    @property
    def fault(self) -> BaseException:
        """What it ended with."""
        [found] = self.done
        assert isinstance(found, Failure) and found.value is not None
        return found.value


@pytest.mark.parametrize("cuts", [None, 1])
def test_bodies_both_ways_on_a_connection_that_is_kept(cuts: Any) -> None:
    """Lengths, chunks and trailers; however it is cut into pieces. The next request has the same two."""
    room = Room(POST % 5 + b"hel", cuts=cuts)
    assert room.device.data == b"POST /a HTTP/1.1\r\nHost: press\r\nContent-Length: 5\r\n" + END + b"\r\nhel"
    room.says(b"lo")
    room.answers(OK % 2 + b"ok")
    assert room.browser.data.endswith(b"\r\n\r\nok") and room.done == [False]
    assert room.front.next() and room.back.next()
    del room.device.data[:], room.browser.data[:], room.done[:]
    Deferred.fromCoroutine(room._run()).addBoth(room.done.append)
    room.says(CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 3\r\nHost: evil\r\n\r\n")
    head, _, body = room.device.data.partition(b"\r\n\r\n")
    assert head.endswith(END + b"Transfer-Encoding: chunked")
    assert body.replace(b"1\r\na\r\n1\r\nb\r\n1\r\nc", b"3\r\nabc") == b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
    room.answers(b"HTTP/1.1 103 \r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert room.browser.data.startswith(b"HTTP/1.1 103 \r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n")
    room.answers(b"1;ext=1\r\nz\r\n0\r\n\r\n")
    assert room.browser.data.endswith(b"Transfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n")
    assert room.done == [False]


def test_an_answer_may_come_before_the_whole_request() -> None:
    """It is passed on; its connections serve no other."""
    room = Room(POST % 1_000_000 + b"x")
    room.answers(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert room.browser.data.startswith(b"HTTP/1.1 413 No\r\n") and room.done == [False]
    assert not room.front.next() and not room.back.next()


def test_who_takes_nothing_stops_the_other() -> None:
    """Either way, and what is held meanwhile is bounded."""
    room = Room(CHUNKED, capacity=10_000)
    room.far.to_far.blocked = True
    piece = b"%x\r\n" % 50_000 + b"x" * 50_000 + b"\r\n"
    for _ in range(40):
        room.there.near.write(piece)  # type: ignore[union-attr]
        room.network.pump()
    assert room.far.near.buffered < 300_000 and room.there.near.buffered > 1_500_000
    room.far.to_far.blocked = False
    room.says(b"0\r\n\r\n")
    assert room.device.data.count(b"x" * 50_000) or room.device.data.count(b"x") >= 2_000_000
    room.there.to_near.blocked = True
    room.far.far.write(OK % 2_000_000 + b"y" * 2_000_000)  # type: ignore[union-attr]
    room.network.pump()
    assert room.front.connection.full_since is not None
    assert room.there.far.buffered < 300_000 and room.far.far.buffered > 1_500_000
    room.there.to_near.blocked = False
    room.network.pump()
    assert room.browser.data.count(b"y") == 2_000_000 and room.done == [False]
    assert room.front.connection.full_since is None


def test_a_browser_that_leaves_is_noticed_while_nothing_is_said() -> None:
    """By an end of file as by a reset; not by a request behind the first."""
    for leave in ("loseConnection", "abortConnection"):
        room = Room(GET)
        getattr(room.there.near, leave)()
        room.network.pump()
        assert isinstance(room.fault, OSError)
    room = Room(GET + GET)
    room.says(GET)
    assert room.done == []
    room.answers(OK % 0)
    assert room.done == [False] and room.front.next()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        b"",
    ],
)
def test_a_device_that_does_not_answer_well(answer: bytes) -> None:
    """Not a byte of it gets to the browser, who can still be told why."""
    room = Room(GET)
    room.answers(answer)
    room.far.far.loseConnection()  # type: ignore[union-attr]
    room.network.pump()
    assert isinstance(room.fault, DeviceFault)
    assert room.browser.data == b"" and room.front.h11.our_state is h11.SEND_RESPONSE


def test_an_answer_that_is_cut_ends_in_no_order() -> None:
    """Neither one of a length, nor one to the end of file behind a reset."""
    for head, end in ((OK % 9, "loseConnection"), (b"HTTP/1.0 200 OK\r\n\r\n", "abortConnection")):
        room = Room(GET)
        room.answers(head + b"half")
        getattr(room.far.far, end)()
        room.network.pump()
        assert isinstance(room.fault, OSError | h11.RemoteProtocolError)
        assert b"half" in room.browser.data and not room.browser.data.endswith(b"0\r\n\r\n")
    room = Room(GET)
    room.answers(b"HTTP/1.0 200 OK\r\n\r\nall")
    room.far.far.loseConnection()  # type: ignore[union-attr]
    room.network.pump()
    assert room.browser.data.endswith(b"3\r\nall\r\n0\r\n\r\n")


def test_a_request_whose_body_is_wrong_is_cut() -> None:
    """The device never has an end of it."""
    room = Room(CHUNKED + b"3\r\nabc\r\nnot a size\r\n")
    assert isinstance(room.fault, h11.RemoteProtocolError)
    assert room.device.data.endswith(b"3\r\nabc\r\n")


def test_an_upgrade_joins_both_to_their_ends() -> None:
    """What either said too early belongs to it; each direction ends by itself; a cut cuts both."""
    asks = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n"
    switches = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: upgrade\r\nX: y\r\n\r\n"
    room = Room(asks + b"early")
    room.answers(switches + b"LOUD")
    assert room.device.data.endswith(b"\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nearly")
    assert room.browser.data.endswith(b"X: y\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nLOUD")
    room.there.near.loseWriteConnection()  # type: ignore[union-attr]
    room.network.pump()
    assert room.device.events[-1] == "end of file" and room.done == []
    room.answers(b"BYE")
    room.far.far.loseConnection()  # type: ignore[union-attr]
    room.network.pump()
    assert room.browser.data.endswith(b"BYE") and room.browser.events[-1] == "end of file"
    assert room.done == [True]
    room = Room(asks)
    room.answers(switches)
    room.far.far.abortConnection()  # type: ignore[union-attr]
    room.network.pump()
    assert isinstance(room.fault, OSError)


def test_parting_has_an_end() -> None:
    """Who is told good-bye and goes on talking is cut."""
    room = Room(GET)
    room.front.connection.part()
    room.network.pump()
    assert room.browser.events[-1] == "end of file"
    room.says(GET * 10)
    room.network.advance(PARTING + 1)
    room.network.pump()
    assert room.front.connection.is_over and not room.there.far.connected
