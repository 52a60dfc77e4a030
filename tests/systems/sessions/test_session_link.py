"""Both ends of a session's WebSocket, joined: channels, commands, and every way in which it ends."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Factory

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended
from revtunnel.systems.sessions.session_link import SessionMux, read_text, write_text
from tests.support.epoll import Loop
from tests.support.recorder import Recorder
from tests.support.session_ends import Session
from tests.support.world import Party, World, pattern

MIB = 1 << 20


class Made(Factory):
    """Services of one name; half-closeable, with push producers, as clients of devices are."""

    noisy = False

    def __init__(self, quick: str = "") -> None:
        self.quick = quick
        self.made: list[Party] = []

    def buildProtocol(self, addr: Any) -> Party:
        party = Party(f"service {len(self.made)}", self.quick)
        self.made.append(party)
        return party


Make = Callable[..., Session]


@pytest.fixture
def make(loop: Loop) -> Iterator[Make]:
    made: list[Session] = []

    def one(services: dict[str, Any], **options: Any) -> Session:
        made.append(Session(loop, services, **options))
        return made[-1]

    yield one
    for session in made:
        session.close()


def started(session: Session, service: str, factory: Made) -> tuple[Party, Party]:
    """A program whose service is there, and reads."""
    program = Party("program")
    before = len(factory.made)
    session.open(service, program)
    session.loop.until(lambda: len(factory.made) > before, "the service")
    party = factory.made[-1]
    party.read_on()  # which says OPENED
    session.loop.until(lambda: session.client.mux and session.client.mux.channels, "a channel")
    return program, party


@pytest.mark.parametrize("way", [{}, {"tls": True}, {"most": 999}], ids=str)
def test_bytes_and_ends_of_file_both_ways(make: Make, way: dict[str, Any]) -> None:
    """Bulk both ways, then each end of file by itself; nothing is lost, the channel ends in order."""
    ssh = Made()
    session = make({"ssh": ssh}, **way)
    program, service = started(session, "ssh", ssh)
    program.say_more(MIB)
    service.say_more(MIB)
    program.finish()
    session.loop.until(lambda: service.end_came and len(program.data) == MIB, "the first end of file")
    assert program.here and not program.end_came
    service.say(b"the answer comes behind the question's end")
    service.finish()
    session.loop.until(lambda: not program.here and not service.here, "both ends")
    assert service.data == program.sent
    assert program.data == service.sent
    assert not service.was_reset
    session.loop.until(lambda: session.at_server.ended and session.at_client.ended)
    assert session.at_server.ended == session.at_client.ended == [("ssh", "closed", "")]
    assert session.server.moved.to_device == MIB
    assert session.server.moved.to_client == len(service.sent)


def test_a_reset_is_a_reset_at_the_other_side(make: Make) -> None:
    """Either far program's reset reaches the other one; the session lives on."""
    http = Made()
    session = make({"http": http})
    program, service = started(session, "http", http)
    service.abort()
    session.loop.until(lambda: not program.here)
    assert program.was_reset
    program, service = started(session, "http", http)
    program.abort()
    session.loop.until(lambda: not service.here)
    assert service.was_reset
    program, service = started(session, "http", http)
    service.say(b"still here")
    session.loop.until(lambda: program.data == b"still here")
    session.loop.until(lambda: len(session.at_client.ended) == 2)
    assert {reason for _, reason, _ in session.at_client.ended} == {"reset-by-peer"}


def test_what_is_no_service_of_the_session_is_refused(make: Make) -> None:
    """The answer says so, and the program sees a reset."""
    session = make({"http": Made()})
    program = Party("program")
    session.open("ssh", program)
    session.loop.until(lambda: not program.here)
    assert program.was_reset
    assert session.at_client.ended == [("ssh", "not-allowed", "ssh is not a service of this session")]


def test_a_program_is_not_read_before_its_service_answered(make: Make) -> None:
    """Nothing is taken from it, and what it says goes to the service once that is there."""
    ssh = Made()
    session = make({"ssh": ssh})
    program = Party("program")
    session.open("ssh", program)
    session.loop.until(lambda: ssh.made)
    service = ssh.made[0]
    service.stop_reading()
    program.say(b"early")
    session.loop.settle()
    assert session.server.moved.to_device == 0
    service.read_on()
    session.loop.until(lambda: service.data == b"early")


def test_one_that_takes_nothing_holds_one_window_and_nobody_else(make: Make) -> None:
    """Eight programs, one service that does not read: the others get all, and the writer is stopped."""
    bulk = Made()
    session = make({"bulk": bulk})
    pairs = [started(session, "bulk", bulk) for _ in range(8)]
    pairs[0][1].stop_reading()
    for program, _ in pairs:
        program.say_more(2 * MIB)
    session.loop.until(lambda: all(len(service.data) == 2 * MIB for _, service in pairs[1:]), "the others")
    assert all(service.data == program.sent for program, service in pairs[1:])
    channel = next(iter(session.server.mux.channels.values()))  # type: ignore[union-attr]
    held = channel.window.held if channel.window is not None else 0
    assert 0 < held <= LinkLimits().open_window
    assert len(pairs[0][1].data) + held < 2 * MIB
    pairs[0][1].read_on()
    session.loop.until(lambda: len(pairs[0][1].data) == 2 * MIB, "the one that was stalled")
    assert pairs[0][1].data == pairs[0][0].sent


def test_a_program_that_takes_nothing_stops_its_service(make: Make) -> None:
    """The other direction: the service is told that it is full, and nothing is lost."""
    bulk = Made()
    session = make({"bulk": bulk})
    program, service = started(session, "bulk", bulk)
    program.stop_reading()
    for _ in range(512):
        if not service.full:
            service.say_more(64 * 1024)
        session.loop.reactor.iterate(0)
    session.loop.until(lambda: service.full, "the stop")
    service.finish()
    program.read_on()
    session.loop.until(lambda: program.end_came, "the end of file")
    assert program.data == service.sent


def test_commands_go_both_ways(make: Make) -> None:
    """Beside the bytes, in their order; and at the very end they are told before the end is."""
    session = make({})
    assert session.client.say({"listening": "ssh", "port": 22})
    assert session.server.say({"resume": {"nonce": "abc"}})
    session.loop.until(lambda: session.at_client.texts and session.at_server.texts)
    assert session.at_server.texts == [{"listening": "ssh", "port": 22}]
    session.server.say({"ended": {"word": "idle"}})
    session.server.finish(Ended.IDLE, "idle")
    session.loop.until(lambda: session.at_client.over)
    assert session.at_client.texts == [{"resume": {"nonce": "abc"}}, {"ended": {"word": "idle"}}]
    assert session.client.in_order  # no channel ran
    assert session.at_client.over == [("closed", "", 0)]
    assert session.at_server.over == [("idle", "", 0)]


def test_an_end_with_running_channels_is_no_clean_end(make: Make) -> None:
    """They are reset on both sides with the reason, and the close has its number and word."""
    ssh = Made()
    session = make({"ssh": ssh})
    program, service = started(session, "ssh", ssh)
    session.server.finish(Ended.OPERATOR, "owner")
    session.loop.until(lambda: session.at_client.over and not program.here and not service.here)
    assert program.was_reset and service.was_reset
    assert session.at_client.ended == [("ssh", "operator", "owner")]
    assert not session.client.in_order
    assert session.client.web is not None
    assert session.client.web.closed == (4000 + Ended.OPERATOR, "owner")


def test_the_client_may_end_it(make: Make) -> None:
    """With and without channels."""
    session = make({})
    session.client.finish(Ended.OPERATOR, "done")
    session.loop.until(lambda: session.at_server.over)
    assert session.server.in_order


def test_a_lost_connection_resets_all_and_is_no_end_in_order(make: Make) -> None:
    """Both far programs see a reset, both owners how many were cut."""
    ssh = Made()
    session = make({"ssh": ssh})
    program, service = started(session, "ssh", ssh)
    session.sever()
    session.loop.until(lambda: session.at_client.over and session.at_server.over)
    session.loop.until(lambda: not program.here and not service.here)
    assert program.was_reset and service.was_reset
    assert session.at_client.ended[0][1] == session.at_server.ended[0][1] == "link-lost"
    assert [(reason, cut) for reason, _, cut in session.at_server.over] == [("lost", 1)]
    assert not session.server.in_order and not session.client.in_order
    assert not session.server.say({"too": "late"})


def test_what_lacks_nothing_ends_in_order_also_when_the_connection_is_lost(make: Make) -> None:
    """The last bytes and the end of file were with us: a service that reads slowly gets them all."""
    ssh = Made()
    session = make({"ssh": ssh})
    program, service = started(session, "ssh", ssh)
    service.finish()
    service.stop_reading()
    program.say_more(1000)
    program.finish()
    session.loop.until(lambda: session.server.moved.to_device == 1000)
    session.loop.settle()
    session.sever()
    session.loop.until(lambda: session.at_server.over)
    service.read_on()
    session.loop.until(lambda: not service.here)
    assert service.was_reset or service.data == program.sent


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1]", "no JSON object"), ("{", "no JSON"), ('"' * 3, "no JSON"), ("[" * 9000, "no JSON")],
)
def test_a_bad_command_ends_it(make: Make, text: str, words: str) -> None:
    """With a sentence, and never as if it were in order."""
    session = make({})
    assert session.client.web is not None
    session.client.web.say(text)
    session.loop.until(lambda: session.at_server.over and session.at_client.over)
    reason, detail, _ = session.at_server.over[0]
    assert reason == "protocol"
    assert words in detail
    assert session.client.web.closed is not None
    assert session.client.web.closed[0] == 4000 + Ended.PROTOCOL
    assert not session.client.in_order


def test_a_flood_of_commands_ends_it(make: Make) -> None:
    """More than 64 in one turn."""
    session = make({})
    for _ in range(200):
        session.client.say({})
    session.loop.until(lambda: session.at_server.over)
    assert session.at_server.over[0][:2] == ("protocol", "more than 64 commands at once")


def test_commands_have_a_limit() -> None:
    """16 KiB, for both sides."""
    assert read_text(write_text({"a": "b" * 16_000})) == {"a": "b" * 16_000}
    with pytest.raises(LocalError):
        write_text({"a": "b" * 16_384})
    with pytest.raises(RemoteError):
        read_text('{"a":"' + "b" * 16_384 + '"}')


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\3ssh",
        b"\0\3ssh\0\26",
        b"\0\4ssh\0\0",
        b"\0\0\0\0",
        b"\0\3s h\0\0",
        b"\0\41" + b"a" * 33 + b"\0\0",
    ],
)
def test_a_connect_names_a_service_or_nothing(payload: bytes) -> None:
    """Anything else is refused; a name is taken as it is, with capital letters."""
    mux = SessionMux.__new__(SessionMux)
    assert mux.target_of(b"\0\5SSH_1\0\0").host == "SSH_1"
    with pytest.raises(RemoteError):
        mux.target_of(payload)


@pytest.mark.parametrize("wire", ["rt1", "legacy"])
def test_channels_of_a_device(make: Make, wire: str) -> None:
    """The far side is the one that all clients of devices have: gate, carrier, agent, service."""
    world = World(wire)
    left: list[Any] = []
    console = world.switchboard.client_streams.clients_by_name("plc-1", "console", left.append)
    session = make({"console": console})
    program = Party("program")

    def turn(condition: Callable[[], Any]) -> None:
        def both() -> Any:
            world.pump()
            return condition()

        session.loop.until(both)

    session.open("console", program)
    turn(lambda: world.services["console"])
    service = world.services["console"][0]
    program.say(pattern("a", 100_000))
    turn(lambda: len(service.data) == 100_000)
    service.say(pattern("b", 100_000))
    turn(lambda: len(program.data) == 100_000)
    assert service.data == pattern("a", 100_000)
    assert program.data == pattern("b", 100_000)
    program.finish()
    turn(lambda: service.end_came)
    service.say(b"the rest")
    service.close()
    turn(lambda: left and not program.here)
    assert program.data.endswith(b"the rest")
    assert not program.was_reset
    rows = world.switchboard.client_streams
    assert rows.count == 0


def test_a_device_that_is_away_is_said_to_be(make: Make) -> None:
    """The client's side learns the word that the server's log has."""
    world = World("rt1")
    session = make(
        {"console": world.switchboard.client_streams.clients_by_name("plc-9", "console", lambda _: None)}
    )
    program = Party("program")
    session.open("console", program)
    session.loop.until(lambda: not program.here)
    assert session.at_client.ended == [("console", "link-lost", "device-absent")]


def test_a_target_that_refuses_is_said_to(make: Make) -> None:
    """The agent's answer travels to the person's program, who was not told that the target is there."""
    world = World("rt1")
    world.reactor.faults["10.0.0.5", 23] = ConnectionRefusedError()
    session = make(
        {"console": world.switchboard.client_streams.clients_by_name("plc-1", "console", lambda _: None)}
    )
    program = Party("program")
    local, opened = session.open("console", program), []
    local.may_read = lambda: opened.append(True)  # type: ignore[method-assign]
    session.loop.until(lambda: (world.pump(), not program.here)[1])
    assert session.at_client.ended[0][1] in ("refused", "unreachable")
    assert not opened  # as a service that hung up would be


def test_many_channels_one_after_the_other(make: Make) -> None:
    """Numbers come back: more than a session has at once."""
    http = Made("reply")
    session = make({"http": http})
    for _ in range(300):
        program, count = Party("program"), len(http.made)
        session.open("http", program)
        program.finish()
        session.loop.until(lambda count=count: len(http.made) > count)  # type: ignore[misc]
        http.made[-1].read_on()
        session.loop.until(lambda program=program: not program.here)  # type: ignore[misc]
        assert program.data == http.made[-1].sent
    assert session.client.free > 200


def test_a_client_has_so_many_at_once(make: Make) -> None:
    """And says so when none is free, instead of asking."""
    http = Made()
    session = make({"http": http}, limits=LinkLimits(channels=2))
    for _ in range(2):
        session.open("http", Party("program"))
    assert session.client.free == 0
    assert session.client.open(Recorder(), "http") is None  # type: ignore[arg-type]
