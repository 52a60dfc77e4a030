"""A ReadyAgent device that nobody changed (the model, with each of its quirks) against our server."""

import contextlib
import hashlib
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.daemons import Lab, Server
from tests.support.legacy_device import LegacyDevice
from tests.support.ports import free_ports
from tests.support.services import Echo, Hanger, Refuser, Service, Source, reset
from tests.support.traffic import (
    MIB,
    Patterned,
    connect,
    end_of,
    end_of_new,
    exchange,
    read_exactly,
    wait_until,
)

pytestmark = pytest.mark.slow

SERIAL = "press-4"
QUIRKS: dict[str, dict[str, object]] = {
    "as it is": {},
    "echo CLOSE late": {"echo_delay": 0.3},
    "echo CLOSE very late": {"echo_delay": 1.5},
    "no echo CLOSE": {"echo_close": False},
    "split headers misparsed": {"split_header_misparse": True},
    "payloads skipped": {"skip_stray_payload": True},
    "connects beside": {"blocking_connect": False},
    "small reads": {"read_size": 100},
    "service half-closes pass": {"half_close_is_close": False},
    "no stray CLOSE": {"stray_close_on_reuse": False},
}


def legacy(
    lab: Lab,
    *services: Service,
    listener: dict[str, object] | None = None,
    link: dict[str, object] | None = None,
    **more: dict[str, object],
) -> Server:
    """A server with a legacy listener; ``services`` are its mappings, named s0, s1 and so on."""
    door = {
        "address": "127.0.0.1:0",
        "kind": "legacy",
        "serial": SERIAL,
        "mappings": [f"0 -> s{number}={each.target}" for number, each in enumerate(services)],
    }
    fast = {"probe": "0.2 s", "echo_wait": "1 s"}
    settings = {"listener main": {**door, **(listener or {})}, "link": {**fast, **(link or {})}}
    return lab.server(settings | more).start()


@contextlib.contextmanager
def linked(server: Server, **quirks: object) -> Iterator[LegacyDevice]:
    """A device whose link is up."""
    with LegacyDevice(("127.0.0.1", server.port), **quirks) as device:  # type: ignore[arg-type]
        assert server.wait_link(SERIAL)["wire"] == "legacy"
        yield device


def echoed(port: int, words: bytes) -> None:
    """One client's whole life."""
    with connect(port) as client:
        client.sendall(words)
        assert read_exactly(client, len(words)) == words


def in_turn(port: int, count: int) -> None:
    """So many clients, one after the other, each with words of its own."""
    for number in range(count):
        echoed(port, b"client %d" % number)


def beside_others(port: int, staying: int, passing: int) -> None:
    """Those that stay keep their bytes while others pass by, ending in order or with a reset."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(staying)]
        for number in range(passing):
            other = connect(port)
            other.sendall(b"passing by")
            (reset if number % 2 else socket.socket.close)(other)
        for number, client in enumerate(clients):
            client.sendall(b"%d stays" % number * 50)
        for number, client in enumerate(clients):
            words = b"%d stays" % number * 50
            assert read_exactly(client, len(words)) == words


@pytest.mark.parametrize("quirk", QUIRKS)
def test_every_client_gets_its_own(lab: Lab, quirk: str) -> None:
    """Eight numbers for all of them, in turn and side by side: no late CLOSE meets a new client."""
    count = {"echo CLOSE very late": 20, "no echo CLOSE": 12}.get(quirk, 200)
    with Echo() as echo:
        server = legacy(lab, echo, link={"channels": 8, "number_wait": "20 s"})
        with linked(server, **QUIRKS[quirk]):
            port = server.client_port(SERIAL, "s0")
            in_turn(port, count)
            beside_others(port, 5, count // 5)
            assert len(server.events("link-down")) == 0


@pytest.mark.parametrize("probe", ["yes", "no"])
@pytest.mark.parametrize("heartbeat", ["yes", "no"])
def test_bytes_both_ways(lab: Lab, probe: str, heartbeat: str) -> None:
    """Exact with the offer of rt1 and without it, with questions on number 0 and without them."""
    with Patterned() as service:
        server = legacy(lab, service, listener={"probe": probe, "heartbeat": heartbeat})
        with linked(server) as device:
            port = server.client_port(SERIAL, "s0")
            for seed in range(3):
                exchange(port, seed, 8 * MIB, 8 * MIB)
            assert bool(device.record.count("frame", "0x10", 1)) == (probe == "yes")
        assert not service.wrong


def test_two_mappings_on_one_link(lab: Lab) -> None:
    """Each port leads to its own service."""
    with Source(1000, seed=1) as first, Source(2000, seed=2) as second:
        server = legacy(lab, first, second)
        with linked(server):
            for number, service in enumerate((first, second)):
                with connect(server.client_port(SERIAL, f"s{number}")) as client:
                    data = read_exactly(client, 10_000)
                    assert hashlib.sha256(data).hexdigest() == service.digest


def test_devices_that_share_a_listener(lab: Lab) -> None:
    """Each by its address; one has services of its own, and one of their ports listens elsewhere."""
    (port,) = free_ports(1)
    with Source(1000, seed=1) as first, Source(2000, seed=2) as second:
        settings = {
            "listener main": {"kind": "legacy", "probe": "no", "mappings": f"0 -> s={first.target}"},
            "legacy-device plc-1": {"listener": "main", "source": "127.0.0.0/30"},
            "legacy-device plc-2": {
                "listener": "main",
                "source": "127.0.0.2",
                "mappings": f"127.0.0.9:{port} -> s={second.target}",
            },
        }
        server = lab.server(settings).start()
        where = ("127.0.0.1", server.port)
        with LegacyDevice(where, source="127.0.0.1"), LegacyDevice(where, source="127.0.0.2"):
            places = {
                first.digest: ("127.0.0.1", server.client_port("plc-1", "s")),
                second.digest: ("127.0.0.9", server.client_port("plc-2", "s")),
            }
            assert places[second.digest][1] == port
            for digest, place in places.items():
                with socket.create_connection(place, 20) as client:
                    assert hashlib.sha256(read_exactly(client, 10_000)).hexdigest() == digest
            with LegacyDevice(where, source="127.0.0.5") as stranger:
                refused = server.wait_event("link-refused")
                assert refused["detail"] == "no device of this listener comes from 127.0.0.5"
                stranger.record.wait("link lost")


def test_a_service_that_sends_and_closes(lab: Lab) -> None:
    """Everything that was under way reaches the client before the end of file."""
    with Source(4 * MIB) as service:
        server = legacy(lab, service)
        with linked(server), connect(server.client_port(SERIAL, "s0")) as client:
            data = b"".join(iter(lambda: client.recv(65536), b""))
            assert hashlib.sha256(data).hexdigest() == service.digest


def test_n30_a_refused_service(lab: Lab) -> None:
    """The wire has no word for it, but the client sees a reset and the log says refused.

    The device answers our questions before its CLOSE comes; how long that may take is for a busy machine.
    """
    with Refuser() as nobody, Echo() as echo:
        server = legacy(lab, nobody, echo, link={"legacy_refusal": "30 s"})
        with linked(server):
            assert end_of_new(server.client_port(SERIAL, "s0")) == "reset"
            assert server.wait_event("channel-ended")["reason"] == "refused"
            echoed(server.client_port(SERIAL, "s1"), b"go on")


def test_n31_a_connect_that_blocks_the_device(lab: Lab) -> None:
    """The real device stops for everybody then; when its connect ends, all others get what they sent."""
    with Hanger() as hanger, Echo() as echo:
        server = legacy(lab, hanger, echo)
        with linked(server) as device:
            stuck = connect(server.client_port(SERIAL, "s0"))
            device.record.wait("frame", "CONNECT", 1)
            port = server.client_port(SERIAL, "s1")
            waiting = [connect(port) for _ in range(10)]
            for number, client in enumerate(waiting):
                client.sendall(b"I wait %d" % number)
            time.sleep(0.5)
            assert echo.accepted == 0
            hanger.stop()
            for number, client in enumerate(waiting):
                assert read_exactly(client, 8) == b"I wait %d" % number
                client.close()
            assert end_of(stuck) == "reset"
            stuck.close()


@pytest.mark.parametrize("absent", ["close", "refuse"])
def test_a_severed_link(lab: Lab, absent: str) -> None:
    """Clients end at once with a reset, new ones are refused at once, and the port waits for the device."""
    with Echo() as echo:
        server = legacy(lab, echo)
        server.write(**{"pool default": {"absent": absent}})
        server.kill()
        server.start()
        with linked(server) as device, contextlib.ExitStack() as stack:
            port = server.client_port(SERIAL, "s0")
            clients = [stack.enter_context(connect(port)) for _ in range(5)]
            for client in clients:
                client.sendall(b"here")
                assert read_exactly(client, 4) == b"here"
            device.link.end()
            assert [end_of(client) for client in clients] == ["reset"] * 5
            wanted = {"close": "refused", "refuse": "reset"}[absent]
            wait_until(lambda: end_of_new(port) == wanted, f"{wanted} of new clients")
            device.tcp_remote_connect()
            server.wait_link(SERIAL, 2)
            assert server.client_port(SERIAL, "s0") == port
            wait_until(lambda: end_of_new_is_open(port), "return")
            echoed(port, b"and back")


class Waker:
    """A wake_command, whose words are kept in a file; ``fails`` is what it ends with."""

    def __init__(self, lab: Lab) -> None:
        self.told = lab.directory / "woken"
        self.fails = lab.directory / "fails"
        script = lab.directory / "wake"
        script.write_text(
            f'#!/bin/sh\necho "$@" >> {self.told}\nif test -e {self.fails}; then echo no modem; exit 1; fi\n'
        )
        script.chmod(0o700)
        self.listener = {"wake_command": f"{script} sms"}

    @property
    def calls(self) -> list[str]:
        """What it was told."""
        return self.told.read_text().splitlines() if self.told.exists() else []

    def wait(self, count: int) -> None:
        """Until it was run so often."""
        wait_until(lambda: len(self.calls) >= count, f"{count} wakes, not {self.calls}")


def test_a_device_is_woken_whenever_it_is_wanted(lab: Lab) -> None:
    """At the start, when its link is lost, after a restart, and when a client comes, who waits for it."""
    waker = Waker(lab)
    with Echo() as echo:
        often = {"wake_first": "1 s", "wake_most": "2 s"}
        waits: dict[str, dict[str, object]] = {"pool default": {"absent": "wait", "wake_wait": "10 min"}}
        server = legacy(lab, echo, listener=waker.listener, limits=often, **waits)
        waker.wait(1)
        assert set(waker.calls) == {f"sms {SERIAL}"}
        server.wait_event("wake-ended", serial=SERIAL, outcome="done")
        (away,) = server.control("devices")["devices"]
        assert (away["serial"], away["online"], away["targets"][0]["name"]) == (SERIAL, False, "s0")
        with linked(server) as device:
            port = server.client_port(SERIAL, "s0")
            echoed(port, b"here")
            before = len(waker.calls)
            device.stop()
            waker.wait(before + 1)
        with connect(port) as client:
            client.sendall(b"I wait")
            before = len(waker.calls)
            waker.wait(before + 1)
            waker.fails.touch()
            failed = server.wait_event("wake-ended", serial=SERIAL, outcome="failed")
            assert "no modem" in failed["detail"]
            with linked(server):
                assert read_exactly(client, 6) == b"I wait"


def test_a_client_that_waits_for_a_device_in_vain(lab: Lab) -> None:
    """One that is cut is noticed; another is reset when its time is over, which a reload may change."""
    with Echo() as echo:
        waits: dict[str, dict[str, object]] = {"pool default": {"absent": "wait", "wake_wait": "1 h"}}
        server = legacy(lab, echo, **waits)
        port = server.client_port(SERIAL, "s0")
        with connect(port) as client:
            wait_until(lambda: server.control("status")["clients"] == 1, "the client")
            reset(client)
            wait_until(lambda: server.control("status")["clients"] == 0, "its end")
        server.write(**{"pool default": {"wake_wait": "1 s"}})
        server.signal(signal.SIGHUP)
        assert "[pool default] wake_wait" in server.wait_event("settings-reloaded")["changed"]
        with connect(port) as client:
            assert end_of(client) == "reset"
        server.wait_event("client-refused", serial=SERIAL, reason="device-absent")


def end_of_new_is_open(port: int) -> bool:
    """Whether a new client is let in and answered."""
    try:
        echoed(port, b"?")
    except OSError:
        return False
    return True


def test_a_second_device_takes_the_place_of_the_first(lab: Lab) -> None:
    """``duplicate = newest``: the old link is closed, the same port serves the new one."""
    with Echo() as echo:
        server = legacy(lab, echo)
        with linked(server) as old:
            port = server.client_port(SERIAL, "s0")
            with LegacyDevice(("127.0.0.1", server.port)) as new:
                assert server.wait_link(SERIAL, 2)["replaced"] is True
                old.record.wait("link lost")
                assert server.client_port(SERIAL, "s0") == port
                echoed(port, b"new")
                new.record.wait("connected")


def test_n8_a_device_that_answers_nothing_is_dropped(lab: Lab) -> None:
    """Asked on number 0 in vain, the link ends when its patience does, and its clients with it."""
    fast = {"keepalive": "1 s", "answer": "1 s", "busy_keepalive": "1 s", "busy_answer": "1 s"}
    fast["legacy_answer"] = "2 s"
    with Echo() as echo:
        server = legacy(lab, echo, link=fast)
        with LegacyDevice(("127.0.0.1", server.port), close_unknown_data=False) as device:
            server.wait_event("link-down", serial=SERIAL, reason="silent")
            device.record.wait("link lost")


def test_a_quiet_device_without_heartbeat_stays(lab: Lab) -> None:
    """``heartbeat = no`` sends no question, and silence alone is no fault."""
    fast = {"keepalive": "1 s", "answer": "1 s", "busy_keepalive": "1 s", "busy_answer": "1 s"}
    with Echo() as echo:
        server = legacy(lab, echo, listener={"heartbeat": "no"}, link=fast)
        with linked(server, close_unknown_data=False) as device:
            time.sleep(4)
            echoed(server.client_port(SERIAL, "s0"), b"still here")
            assert not device.record.count("frame", "DATA", 0)


def test_f14_a_stranger_that_does_not_listen(lab: Lab) -> None:
    """Whatever comes first and is not LISTEN ends the connection at once; the listener goes on."""
    with Echo() as echo:
        server = legacy(lab, echo)
        for words in (b"GET / HTTP/1.1\r\n\r\n", bytes(4), b"\x16\x03\x01\x02\x00", b"\0\0\x01\0"):
            with connect(server.port) as stranger:
                stranger.sendall(words)
                assert end_of(stranger) != "still open"
        with linked(server):
            echoed(server.client_port(SERIAL, "s0"), b"fine")
