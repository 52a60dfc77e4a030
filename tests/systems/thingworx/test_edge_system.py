"""ThingWorx devices at a server: who comes in, golden bytes both ways, tunnels and every end of one."""

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from revtunnel.ground.facts import LinkRefused, LinkUp, PeerGlitch
from tests.support.edge_device import BINARY, CLOSE, TEXT, Broken, WebClient, auth, bind, head, request
from tests.support.edge_world import LIMITS, EdgeWorld, RawDevice, edge_world
from tests.support.epoll import Loop
from tests.support.services import Echo, Refuser, reset
from tests.support.traffic import read_exactly


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A service."""
    with Echo() as service:
        yield service


@pytest.fixture
def world(loop: Loop, echo: Echo) -> Iterator[EdgeWorld]:
    """A server."""
    with edge_world(loop, ("127.0.0.1", echo.port)) as world:
        yield world


def exchange(world: EdgeWorld, sock: socket.socket, data: bytes) -> bytes:
    """Say all of it, in pieces, and hear as much."""

    def run() -> bytes:
        heard = b""
        for at in range(0, len(data), 65536):
            sock.sendall(data[at : at + 65536])
            while len(heard) < min(len(data), at + 65536):
                piece = sock.recv(65536)
                assert piece, f"ended after {len(heard)}"
                heard += piece
        return heard

    return bytes(world.call(run))


# -- who comes in


def test_golden_bytes_of_auth_and_bind(world: EdgeWorld) -> None:
    """AUTH is answered with a session, BIND in it makes a device of it; byte for byte."""
    device = RawDevice(world, "Robot1", up=False)
    device.say(auth(device.key))
    answer = device.hear()
    session = answer[10:14]
    assert answer == bytes.fromhex("014000000001" + "00000000") + session + bytes.fromhex("00" + "00ff")
    assert session not in (b"\0\0\0\0", b"\xff\xff\xff\xff")
    device.say(
        bytes.fromhex("010a00000002" + "00000000")
        + session
        + bytes.fromhex("00" + "000001" + "06526f626f7431")
    )
    assert device.hear() == bytes.fromhex("014000000002" + "00000000") + session + bytes.fromhex(
        "00" + "00ff"
    )
    found = world.board.fleet.get("Robot1")
    assert found is not None and found.system == "thingworx" and found.authenticated
    assert found.offers == world.offers
    assert [(fact.serial, fact.wire) for fact in world.facts if isinstance(fact, LinkUp)] == [
        ("Robot1", "thingworx")
    ]


def test_no_key_no_websocket(world: EdgeWorld) -> None:
    """A key of nobody, at the link and at a tunnel: 401 before anything else."""
    for path in ("/Thingworx/WS", "/Thingworx/WSTunnelServer/" + "0" * 32):
        with pytest.raises(Broken, match="401"):
            world.call(lambda path=path: WebClient(world.dial(), path, "rtapp1_nobody"))
    assert not world.site.links


def test_the_key_in_auth_is_that_of_the_websocket(world: EdgeWorld) -> None:
    """81 for another one, and out."""
    other = world.keys.make("Robot2")
    device = RawDevice(world, "Robot1", up=False)
    device.say(auth(other))
    assert device.hear()[1] == 0x81
    assert world.call(device.web.receive)[0] == CLOSE
    (refused,) = [fact for fact in world.facts if isinstance(fact, LinkRefused)]
    assert (refused.serial, refused.reason) == ("Robot1", "denied")


def test_a_key_binds_its_own_serial_only(world: EdgeWorld) -> None:
    """83 for another name, and for its own beside another."""
    for names in (("Robot2",), ("Robot1", "Robot2"), ()):
        device = RawDevice(world, "Robot1", up=False)
        device.say(auth(device.key))
        session = int.from_bytes(device.hear()[10:14], "big")
        device.say(bind(session, *names))
        assert device.hear()[1] == 0x83
        assert world.call(device.web.receive)[0] == CLOSE
    assert len(world.board.fleet) == 0


def test_a_withdrawn_key_lets_nobody_in(world: EdgeWorld) -> None:
    """A key of which there is a newer one is nobody's."""
    old = world.keys.make("Robot1")
    world.keys.make("Robot1")
    with pytest.raises(Broken, match="401"):
        world.call(lambda: WebClient(world.dial(), "/Thingworx/WS", old))


def test_a_device_that_comes_again_takes_the_place(world: EdgeWorld) -> None:
    """Its older link is half-open, most often."""
    device = RawDevice(world, "Robot1")
    first, key = device.web, device.key
    second = world.call(lambda: WebClient(world.dial(), "/Thingworx/WS", key))
    second.send(BINARY, auth(key))
    session = int.from_bytes(world.call(second.receive)[1][10:14], "big")
    second.send(BINARY, bind(session, "Robot1"))
    assert world.call(second.receive)[1][1] == 0x40
    assert world.call(first.receive)[0] == CLOSE
    assert len(world.board.links) == 1


def test_silence_and_garbage_end_a_link(loop: Loop) -> None:
    """No BIND in time; a message of another version; one in another session."""
    with edge_world(loop, limits=replace(LIMITS, first=0.2)) as world:
        device = RawDevice(world, "Robot1", up=False)
        assert world.call(device.web.receive)[0] == CLOSE
    with edge_world(loop) as world:
        device = RawDevice(world, "Robot1")
        device.say(b"\2" + request(device.session, 9, "Robot1", "X")[1:])
        assert world.call(device.web.receive)[0] == CLOSE
        device = RawDevice(world, "Robot1")
        device.say(bind(device.session + 1, "Robot1", number=7))
        assert device.hear()[1] == 0x81
        assert world.call(device.web.receive)[0] == CLOSE


def test_what_is_a_platforms_is_answered_84(world: EdgeWorld) -> None:
    """Properties and other services: counted, one line at once; the link stays."""
    device = RawDevice(world, "Robot1")
    for number in range(10, 20):
        device.say(request(device.session, number, "Robot1", "UpdateSubscribedPropertyValues", values="1"))
        assert device.hear()[:6] == bytes((1, 0x84)) + number.to_bytes(4, "big")
    glitches = [fact.detail for fact in world.facts if isinstance(fact, PeerGlitch)]
    assert len(glitches) == 1 and "UpdateSubscribedPropertyValues" in glitches[0]
    (link,) = world.site.links
    assert link.strays == 10


def test_a_message_in_parts_is_taken(world: EdgeWorld) -> None:
    """Parts of 8,192 bytes; the whole is answered once."""
    device = RawDevice(world, "Robot1")
    whole = request(device.session, 30, "Robot1", "Long", text="x" * 9000)
    entity, body = whole[15:23], whole[23:]
    for number, piece in enumerate((body[:8000], body[8000:]), 1):
        part = number.to_bytes(2, "big") + b"\0\2\x1f\x40"
        device.say(whole[:14] + b"\1" + part + entity + piece)
    assert device.hear()[:6] == bytes((1, 0x84)) + (30).to_bytes(4, "big")


def test_unbind_ends_the_link(world: EdgeWorld) -> None:
    """A device that says it leaves has left."""
    device = RawDevice(world, "Robot1")
    device.say(bind(device.session, "Robot1", number=8, code=0x0B))
    assert device.hear()[1] == 0x40
    assert world.call(device.web.receive)[0] == CLOSE
    assert len(world.board.fleet) == 0


# -- tunnels


def test_a_megabyte_comes_back_exactly(world: EdgeWorld) -> None:
    """Through a tunnel and back; no frame passes what the device takes."""
    device = world.device()
    data = hashlib.shake_128(b"edge").digest(1 << 20)
    assert hashlib.sha256(exchange(world, world.client(), data)).digest() == hashlib.sha256(data).digest()
    assert device.failures == []
    (started,) = device.started
    assert started["idle_timeout"] == 86_400_000 and started["type"] == "tcp"
    assert len(started["tid"]) == 32


def test_each_client_has_a_tunnel_and_more_wait(world: EdgeWorld) -> None:
    """Eight at once, four that wait until one of them ends."""
    device = world.device()
    clients = [world.client() for _ in range(12)]
    world.loop.until(lambda: len(device.tunnels) == 8, "eight tunnels")
    for number, client in enumerate(clients[:8]):
        assert exchange(world, client, b"%d" % number * 5000) == b"%d" % number * 5000
    assert len(device.started) == 8
    for client in clients[:8]:
        client.close()
    for client in clients[8:]:
        assert exchange(world, client, b"later" * 1000) == b"later" * 1000
    assert len({started["tid"] for started in device.started}) == 12
    assert device.failures == []


def test_nothing_stands_behind_the_answer_to_a_tunnel(loop: Loop, echo: Echo) -> None:
    """The SDK drops what it reads together with it, so a client that speaks first waits."""
    with edge_world(loop, ("127.0.0.1", echo.port), replace(LIMITS, settle=0.5)) as world:
        device = world.device()
        clients = [world.client() for _ in range(4)]
        for client in clients:
            client.sendall(b"first")
        for client in clients:
            assert world.call(lambda client=client: client.recv(100)) == b"first"
        assert [tunnel.early for tunnel in device.tunnels.values()] == [0, 0, 0, 0]


def test_a_service_that_ends_is_an_end_of_file(loop: Loop) -> None:
    """Its last bytes come first, whatever connection is faster."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        edge_world(loop, listener.getsockname()) as world,
    ):
        device = world.device()
        client = world.client()
        service, _ = world.call(listener.accept)
        service.sendall(b"answer" * 20_000)
        service.close()
        heard = b""
        while piece := world.call(lambda: client.recv(65536)):
            heard += piece
        assert heard == b"answer" * 20_000
        world.loop.until(lambda: world.ended() == ["closed"], "its end")
        world.loop.until(lambda: not device.tunnels, "the end of the tunnel")
        assert device.failures == []


def test_a_refused_service_is_a_reset(loop: Loop) -> None:
    """The device cannot say so; an end without any byte is taken for it."""
    with Refuser() as refuser, edge_world(loop, ("127.0.0.1", refuser.port)) as world:
        world.device()
        client = world.client()
        with pytest.raises(ConnectionResetError):
            world.call(lambda: client.recv(10))
        assert world.ended() == ["refused"]


def test_a_drop_without_an_end_is_a_reset(world: EdgeWorld) -> None:
    """The WebSocket ends and DISCONNECT did not come: bytes may be missing."""
    device = RawDevice(world, "Robot1")
    client = world.client()
    web, _ = device.tunnel()
    web.send(TEXT, b"aGFsZg==")
    assert world.call(lambda: client.recv(10)) == b"half"
    web.sock.close()
    with pytest.raises(ConnectionResetError):
        world.call(lambda: client.recv(10))
    assert world.ended() == ["link-lost"]


def test_golden_bytes_of_disconnect(loop: Loop) -> None:
    """DISCONNECT is answered each time; then the device is told both words, and the client its end."""
    with edge_world(loop, limits=replace(LIMITS, quiet=3.0)) as world:
        device = RawDevice(world, "Robot1")
        client = world.client()
        web, tid = device.tunnel()
        web.send(TEXT, b"aGFsZg==")
        body = bytes.fromhex("0a06526f626f7431021554756e6e656c436f6d6d616e6446726f6d45646765000501")
        body += bytes.fromhex("03746964000000000107636f6d6d616e640000000000"[:-2])
        body += bytes.fromhex("0001000200") + bytes((len(tid),)) + tid.encode()
        body += bytes.fromhex("000a444953434f4e4e45435400")
        for number in (11, 12, 13):
            device.say(head(3, number, device.session) + body)
            assert device.hear()[:6] == bytes((1, 0x40)) + number.to_bytes(4, "big")
        web.send(TEXT, b"bW9yZQ==")
        assert world.call(lambda: read_exactly(client, 8)) == b"halfmore"
        loop.advance(3.0)
        service, fields = device.asked()
        assert (service, fields) == ("TunnelCommandToEdge", {"tid": tid, "command": "DISCONNECT"})
        service, fields = device.asked()
        assert service == "CompleteTunnel" and fields["tid"] == tid and fields["peer_name"]
        web.send(CLOSE, b"\x03\xe8Normal Close Tunnel stopped by edge")
        assert world.call(lambda: client.recv(100)) == b""
        assert world.ended() == ["closed"]


def test_cancel_is_a_reset_at_once(world: EdgeWorld) -> None:
    """Of a tunnel that runs, and of one that never came."""
    device = RawDevice(world, "Robot1")
    client = world.client()
    _, tid = device.tunnel()
    device.say(request(device.session, 21, "Robot1", "TunnelCommandFromEdge", tid=tid, command="CANCEL"))
    with pytest.raises(ConnectionResetError):
        world.call(lambda: client.recv(10))
    client = world.client()
    answers = [device.hear() for _ in range(3)]  # 40, and the two words for the first one
    assert answers[0][1] == 0x40
    _, fields = device.asked()
    device.say(
        request(device.session, 22, "Robot1", "TunnelCommandFromEdge", tid=fields["tid"], command="CANCEL")
    )
    with pytest.raises(ConnectionResetError):
        world.call(lambda: client.recv(10))
    assert world.words().count("client-refused") == 1


def test_a_clients_end_of_file_waits_for_the_service(loop: Loop) -> None:
    """There is no half-close: the answer comes whole, and who never answers is cut in the end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        edge_world(loop, listener.getsockname()) as world,
    ):
        world.device()
        client = world.client()
        service, _ = world.call(listener.accept)
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert world.call(lambda: service.recv(100)) == b"question"
        service.sendall(b"answer")
        service.close()
        assert world.call(lambda: client.recv(100)) == b"answer"
        assert world.call(lambda: client.recv(100)) == b""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        edge_world(loop, listener.getsockname(), replace(LIMITS, hold=0.1)) as world,
    ):
        world.device()
        client = world.client()
        service, _ = world.call(listener.accept)
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            world.call(lambda: client.recv(100))
        assert world.call(lambda: service.recv(100)) == b""
        assert world.ended() == ["idle"]


def test_a_refused_start_refuses_the_client(world: EdgeWorld) -> None:
    """An error for StartTunnel, and no tunnel in time."""
    device = world.device()
    device.refuses = True
    client = world.client()
    with pytest.raises(ConnectionResetError):
        world.call(lambda: client.recv(10))
    assert "client-refused" in world.words()


def test_a_tunnel_is_good_once_and_for_its_device_only(world: EdgeWorld) -> None:
    """403 for another device's key, 404 for a second time, or for a name that nobody was told."""
    other = world.keys.make("Robot2")
    device = RawDevice(world, "Robot1")
    world.client()
    _, fields = device.asked()
    assert world.site.sockets == 1
    path = f"/Thingworx/WSTunnelServer/{fields['tid']}"
    with pytest.raises(Broken, match="403"):
        world.call(lambda: WebClient(world.dial(), path, other))
    world.call(lambda: WebClient(world.dial(), path, device.key))
    assert world.site.sockets == 1
    for gone in (path, path[:-1], "/Thingworx/Other"):
        with pytest.raises(Broken, match="404"):
            world.call(lambda gone=gone: WebClient(world.dial(), gone, device.key))


def test_garbage_on_a_tunnel_is_a_reset(world: EdgeWorld) -> None:
    """What is no base64, and a binary message."""
    device = RawDevice(world, "Robot1")
    for opcode in (TEXT, BINARY):
        client = world.client()
        web, _ = device.tunnel()
        web.send(opcode, b"!!!")
        with pytest.raises(ConnectionResetError):
            world.call(lambda client=client: client.recv(10))
        assert [device.asked()[0] for _ in range(2)] == ["TunnelCommandToEdge", "CompleteTunnel"]
    assert world.ended() == ["protocol", "protocol"]


def test_a_lost_link_resets_its_streams(world: EdgeWorld) -> None:
    """Nothing could be told of them any more."""
    device = world.device()
    client = world.client()
    assert exchange(world, client, b"x" * 1000) == b"x" * 1000
    world.call(device.close)
    with pytest.raises(ConnectionResetError):
        world.call(lambda: client.recv(10))
    assert world.ended() == ["link-lost"]
    assert len(world.board.fleet) == 0


def test_a_client_that_leaves_ends_its_tunnel(world: EdgeWorld) -> None:
    """While it runs, and before it came."""
    device = world.device()
    client = world.client()
    assert exchange(world, client, b"x" * 1000) == b"x" * 1000
    reset(client)
    world.loop.until(lambda: not device.tunnels, "the end of the tunnel")
    assert world.ended() == ["reset-by-peer"]


def test_a_device_that_takes_nothing_pauses_its_client(world: EdgeWorld) -> None:
    """A few hundred KiB wait, and no more; once it reads again all comes."""
    device = RawDevice(world, "Robot1")
    client = world.client()
    web, _ = device.tunnel()
    client.setblocking(False)
    sent = 0

    def push() -> bool:
        nonlocal sent
        try:
            sent += client.send(b"y" * 65536)
        except BlockingIOError:
            return False
        return True

    def stuck() -> bool:
        while push():
            pass
        return sent > 0

    world.loop.settle(lambda: stuck() and sent, 0.3)
    (tunnel,) = next(iter(world.site.links)).carrier.tunnels.values()
    assert tunnel.blocked and tunnel.row().waiting_to_device < 200_000
    assert sent < 20_000_000
    got = 0
    while got < sent:
        got += len(world.call(web.receive)[1]) // 4 * 3
    assert abs(got - sent) < sent // 1000 + 8192


def test_drain_waits_for_tunnels_and_lets_go(world: EdgeWorld) -> None:
    """What runs goes on; then the link is closed."""
    device = RawDevice(world, "Robot1")
    client = world.client()
    web, _ = device.tunnel()
    drained: list[object] = []
    world.board.drain().addCallback(drained.append)
    web.send(TEXT, b"aGFsZg==")
    assert world.call(lambda: client.recv(10)) == b"half"
    assert not drained
    reset(client)
    world.loop.until(lambda: drained, "the end of the drain")
