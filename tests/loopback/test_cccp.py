"""Section 2 of the CCCP page, row by row, against the running daemon: plain sockets and an HTTP client."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.support.cccp_site import (
    Caller,
    CccpDaemon,
    closed,
    connect,
    refused,
    turned_away,
)
from tests.support.daemons import Agent, Daemon, Lab, laboratory
from tests.support.legacy_device import LegacyDevice
from tests.support.ports import free_ports, port_block
from tests.support.services import Echo
from tests.support.traffic import read_exactly

pytestmark = pytest.mark.slow


@pytest.fixture
def site(lab: Lab) -> CccpDaemon:
    """A daemon as it is shipped, but for ports."""
    return lab.add(CccpDaemon(lab.directory)).start()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CccpDaemon]:
    """One for all calls that must change nothing."""
    with laboratory(tmp_path_factory.mktemp("standing")) as lab:
        yield lab.add(CccpDaemon(lab.directory)).start()


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def silent(sock: socket.socket, seconds: float = 0.3) -> bool:
    """Whether nothing comes."""
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    return False


# ---- /on


def test_h7_on_twice_is_one_proxy(site: CccpDaemon) -> None:
    """The same port; a connected client stays; the new options hold."""
    device = site.device("CLD-1")
    port = site.on("CLD-1", timeout=30)
    client = connect(port)
    client.sendall(b"a")
    assert device.recv(1) == b"a"
    assert site.on("CLD-1", persistent="true", ip_whitelist="127.0.0.1", timeout=1) == port
    device.sendall(b"b")
    assert client.recv(1) == b"b"
    client.close()
    site.until_status("CLD-1", (True, False, 2))
    assert turned_away(port, "127.0.0.2") == "reset"
    again = connect(port)
    again.sendall(b"c")
    assert device.recv(1) == b"c"


def test_h7_a_time_out_is_set_anew_unless_a_client_is_connected(site: CccpDaemon) -> None:
    """Waiting, it counts from the last call; with a client it is none."""
    site.on("CLD-1", timeout=600)
    port = site.on("CLD-1", timeout=1)
    site.until_status("CLD-1", None)
    assert refused(port)
    client = connect(site.on("CLD-2", persistent="true", timeout=600))
    site.until_status("CLD-2", (False, True, 0))
    site.on("CLD-2", persistent="true", timeout=1)
    time.sleep(1.3)
    assert site.status("CLD-2") == (False, True, 0)
    client.close()


def test_device_before_on_is_parked_and_its_bytes_thrown_away(site: CccpDaemon) -> None:
    """Attached at once; what it said while it was parked is gone, what it says later is not."""
    device = site.device("CLD-1", b"early")
    device.sendall(b"while parked")
    time.sleep(0.2)
    port = site.on("CLD-1")
    assert site.status("CLD-1") == (True, False, 0)
    client = connect(port)
    site.until_status("CLD-1", (True, True, 0))
    device.sendall(b"now")
    assert client.recv(100) == b"now"
    assert silent(device)


def test_on_before_device(site: CccpDaemon) -> None:
    """The listener is open before the answer; the device may come later, in ten pieces."""
    port = site.on("CLD-123456")
    client = connect(port)
    client.sendall(b"request")
    assert site.status("CLD-123456") == (False, True, 0)
    device = connect(site.device_port)
    for byte in b"CLD-123456":
        device.sendall(bytes([byte]))
        time.sleep(0.01)
    device.sendall(b"\rglued")
    assert read_exactly(device, 7) == b"request"
    assert read_exactly(client, 5) == b"glued"
    site.until_status("CLD-123456", (True, True, 12))


def test_unknown_serials_where_the_operator_lists_them(lab: Lab) -> None:
    """/on says 404; R7: the device hears nothing, and is closed when its time is over."""
    settings = {"cccp": {"registration": "1 s"}, "cccp-project main": {"serials": "CLD-1, CLD-2"}}
    site = lab.add(CccpDaemon(lab.directory, settings)).start()
    assert site.ask("/on", serial="CLD-9") == (404, {"message": "No such device"})
    site.on("CLD-1")
    device = connect(site.device_port)
    device.sendall(b"CLD-9\rpayload")
    assert closed(device) in ("end", "reset")
    site.wait_event("registration-refused", reason="unknown", serial="CLD-9")


def test_r8_two_devices_of_one_serial_persistent(site: CccpDaemon) -> None:
    """The newest is swapped in under the client, who stays; an alarm is logged."""
    old = site.device("CLD-1")
    client = connect(site.on("CLD-1", persistent="true"))
    client.sendall(b"1")
    assert old.recv(1) == b"1"
    new = site.device("CLD-1")
    assert closed(old) == "end"
    client.sendall(b"2")
    assert new.recv(1) == b"2"
    new.sendall(b"3")
    assert client.recv(1) == b"3"
    site.until_status("CLD-1", (True, True, 3))
    assert site.events("duplicate-device", serial="CLD-1", stays="newest")


def test_r8_two_devices_of_one_serial_one_shot(site: CccpDaemon) -> None:
    """The session ends as if its device had closed; the new one is parked."""
    old = site.device("CLD-1")
    port = site.on("CLD-1")
    client = connect(port)
    site.until_status("CLD-1", (True, True, 0))
    new = site.device("CLD-1")
    assert closed(old) == closed(client) == "end"
    assert site.status("CLD-1") is None and refused(port)
    site.wait_event("proxy-ended", reason="device-replaced")
    client = connect(site.on("CLD-1"))
    new.sendall(b"new")
    assert client.recv(3) == b"new"


def test_r8_the_oldest_stays_where_the_listener_says_so(lab: Lab) -> None:
    """duplicate = oldest, and the alarm all the same."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp-project main": {"duplicate": "oldest"}})).start()
    old = site.device("CLD-1")
    new = connect(site.device_port)
    new.sendall(b"CLD-1\r")
    assert closed(new) == "reset"
    site.wait_event("duplicate-device", stays="oldest")
    client = connect(site.on("CLD-1"))
    client.sendall(b"x")
    assert old.recv(1) == b"x"


def test_bytes_before_pairing(lab: Lab) -> None:
    """Persistent: thrown away, not counted. One-shot: held by not reading. A setting throws them away too."""
    site = lab.add(CccpDaemon(lab.directory)).start()
    client = connect(site.on("P", persistent="true"))
    client.sendall(b"lost")
    time.sleep(0.2)
    device = site.device("P", b"glued")
    client.sendall(b"kept")
    assert device.recv(100) == b"kept"
    assert read_exactly(client, 5) == b"glued"  # it came when both were there
    client = connect(site.on("Q"))
    client.sendall(b"held")
    time.sleep(0.2)
    device = site.device("Q")
    assert read_exactly(device, 4) == b"held"
    site.until_status("Q", (True, True, 4))
    settings = {"cccp-project main": {"early_data": "discard"}}
    other = lab.add(CccpDaemon(lab.directory, settings, "other")).start()
    client = connect(other.on("R"))
    client.sendall(b"lost")
    time.sleep(0.2)
    device = other.device("R")
    client.sendall(b"kept")
    assert device.recv(100) == b"kept"


@pytest.mark.parametrize(("setting", "heard"), [("payload", b"\nxy"), ("swallow", b"xy")])
def test_r4_cr_lf(lab: Lab, setting: str, heard: bytes) -> None:
    """LF is payload unless one directly behind the return is swallowed, also when it comes later."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp-project main": {"line_feed": setting}})).start()
    for serial, pieces in (("A", [b"A\r\nxy"]), ("B", [b"B\r", b"\n", b"xy"])):
        client = connect(site.on(serial))
        device = connect(site.device_port)
        for piece in pieces:
            device.sendall(piece)
            time.sleep(0.1)
        assert read_exactly(client, len(heard)) == heard


def test_r1_r2_r3_r6_lines_that_are_none(lab: Lab) -> None:
    """Too slow, dripping, too long, not printable: closed, never answered, and the log stays plain."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"registration": "1 s"}})).start()
    mute, dripping = connect(site.device_port), connect(site.device_port)
    for bad in (b"x" * 65, b"\r", b"a b\r", b"\x1b[2J\r", b"../x\r", b"\x00\r", b"x" * (1 << 20)):
        other = connect(site.device_port)
        with suppress(ConnectionError):
            other.sendall(bad)
        assert closed(other) in ("end", "reset")
    begun = time.monotonic()
    while time.monotonic() - begun < 10:
        try:
            dripping.sendall(b"x")
        except ConnectionError:
            break
        time.sleep(0.3)
    assert time.monotonic() - begun < 10
    assert closed(mute) == "end"
    site.wait_event("registration-refused", 2, reason="silent")
    assert "\x1b" not in site.log_path.read_text()
    assert site.ask("/devices") == (200, {"devices": [], "next": None})


# ---- clients


def test_a_second_client_is_refused(site: CccpDaemon) -> None:
    """Accepted and closed at once; the first one does not notice."""
    device = site.device("CLD-1")
    port = site.on("CLD-1")
    first = connect(port)
    site.until_status("CLD-1", (True, True, 0))
    assert turned_away(port) == "reset"
    first.sendall(b"x")
    assert device.recv(1) == b"x"


def test_whitelist(site: CccpDaemon) -> None:
    """A refused client cancels no time-out and is not shown; networks and mapped addresses count."""
    allowed = "127.0.0.1,10.0.0.0/8"
    port = site.on("CLD-1", ip_whitelist=allowed)
    assert turned_away(port, "127.0.0.2") == "reset"
    assert site.status("CLD-1") == (False, False, 0)
    assert site.on("CLD-1", ip_whitelist=allowed, timeout=1) == port
    with suppress(ConnectionRefusedError):  # on a busy machine that second may be over
        assert turned_away(port, "127.0.0.2") == "reset"
    site.until_status("CLD-1", None)
    port = site.on("CLD-2", ip_whitelist="::ffff:127.0.0.1")
    client = connect(port)
    site.until_status("CLD-2", (False, True, 0))
    client.close()


def test_timeout(site: CccpDaemon) -> None:
    """Nobody came: as /off. Somebody came: never, also after he left a persistent proxy."""
    port = site.on("CLD-1", timeout=1)
    other = site.on("CLD-2", timeout=2, persistent="true")
    client = connect(other)
    site.until_status("CLD-2", (False, True, 0))
    client.close()
    site.until_status("CLD-2", (False, False, 0))
    site.until_status("CLD-1", None)
    assert refused(port)
    time.sleep(1.2)
    assert site.status("CLD-2") == (False, False, 0)
    site.wait_event("proxy-ended", reason="timed-out", serial="CLD-1")


@pytest.mark.parametrize("how", [socket.socket.close, reset, lambda sock: sock.shutdown(socket.SHUT_WR)])
@pytest.mark.parametrize("who", ["device", "client"])
def test_one_shot_ends_with_either_side(site: CccpDaemon, who: str, how: object) -> None:
    """What is on its way is delivered, then end of file; port and session are gone."""
    device = site.device("CLD-1")
    port = site.on("CLD-1")
    client = connect(port)
    site.until_status("CLD-1", (True, True, 0))
    leaver, stayer = (device, client) if who == "device" else (client, device)
    leaver.sendall(bytes(100_000))
    if how is reset:
        site.until_status("CLD-1", (True, True, 100_000))
    how(leaver)  # type: ignore[operator]
    assert len(read_exactly(stayer, 200_000)) == 100_000
    site.until_status("CLD-1", None)
    assert refused(port)
    ended = site.wait_event("proxy-ended", serial="CLD-1")
    assert (ended["reason"], ended["transferred"]) == (f"{who}-closed", 100_000)


@pytest.mark.parametrize("who", ["device", "client"])
def test_one_shot_ends_also_when_the_other_never_came(site: CccpDaemon, who: str) -> None:
    """The literal reading; unread bytes are lost with it."""
    port = site.on("CLD-1")
    sock = site.device("CLD-1") if who == "device" else connect(port)
    site.until_status("CLD-1", (who == "device", who == "client", 0))
    sock.sendall(b"unread")
    sock.close()
    site.until_status("CLD-1", None)
    assert refused(port)


def test_persistent_both_come_and_go(site: CccpDaemon) -> None:
    """Three times each; transferred goes on; the other side stays."""
    port = site.on("CLD-1", persistent="true")
    total = 0
    device, client = site.device("CLD-1"), connect(port)
    for turn in range(3):
        site.until_status("CLD-1", (True, True, total))
        client.sendall(b"x" * 10)
        assert len(read_exactly(device, 10)) == 10
        device.sendall(b"y" * 5)
        assert len(read_exactly(client, 5)) == 5
        total += 15
        site.until_status("CLD-1", (True, True, total))
        if turn % 2:
            reset(device)
            site.until_status("CLD-1", (False, True, total))
            client.sendall(b"lost")
            time.sleep(0.1)
            device = site.device("CLD-1")
        else:
            reset(client)
            site.until_status("CLD-1", (True, False, total))
            device.sendall(b"lost")
            time.sleep(0.1)
            client = connect(port)
    assert silent(device, 0.1) and silent(client, 0.1)


def test_transferred_counts_both_directions(site: CccpDaemon) -> None:
    """1000 up, 500 down; neither the serial nor what was thrown away."""
    device = site.device("CLD-1", b"glued")
    client = connect(site.on("CLD-1"))
    site.until_status("CLD-1", (True, True, 0))
    client.sendall(bytes(1000))
    device.sendall(bytes(500))
    assert len(read_exactly(device, 1000)) == 1000 and len(read_exactly(client, 500)) == 500
    site.until_status("CLD-1", (True, True, 1500))


# ---- /off


def test_h10_off_in_the_middle_of_a_transfer(site: CccpDaemon) -> None:
    """Both are closed, the client with a reset: bytes were held. The count is what our kernel took."""
    device = site.device("CLD-1")
    port = site.on("CLD-1")
    client = connect(port)
    sent = threading.Event()

    def pump() -> None:
        with suppress(OSError):
            while True:
                device.send(bytes(65536))
                sent.set()

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    assert sent.wait(10)
    assert len(read_exactly(client, 1_000_000)) == 1_000_000
    assert site.ask("/off", serial="CLD-1") == (200, {})
    assert site.status("CLD-1") is None and refused(port)
    rest = 0
    client.settimeout(10)
    with pytest.raises(ConnectionResetError):
        while piece := client.recv(65536):
            rest += len(piece)
    ended = site.wait_event("proxy-ended", serial="CLD-1")
    assert ended["reason"] == "off" and ended["transferred"] >= 1_000_000 + rest
    client.close()
    thread.join(10)
    assert not thread.is_alive()


def test_off_parks_the_device_where_the_project_says_so(lab: Lab) -> None:
    """off = park: it goes on being registered."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp-project main": {"off": "park"}})).start()
    device = site.device("CLD-1")
    for _ in range(2):
        client = connect(site.on("CLD-1"))
        site.until_status("CLD-1", (True, True, 0))
        client.sendall(b"x")
        assert device.recv(1) == b"x"
        assert site.ask("/off", serial="CLD-1") == (200, {})
        assert closed(client) == "end"


def test_h11_unknown_serials(site: CccpDaemon) -> None:
    """404 before, and after it ended."""
    for _ in range(2):
        for path in ("/off", "/status"):
            assert site.ask(path, serial="CLD-1") == (404, {"message": "No proxy for this device"})
        site.on("CLD-1")
        assert site.ask("/off", serial="CLD-1") == (200, {})


# ---- ports


def test_h8_h9_two_ports(lab: Lab) -> None:
    """200, 200, 503 with the very text; a port of another program is passed over; a freed one rests."""
    block = port_block(3)
    low = int(block.partition("-")[0])
    settings = {"cccp-project main": {"ranges": f"{low}-{low + 2}", "quarantine": "600 s"}}
    site = lab.add(CccpDaemon(lab.directory, settings))
    with socket.create_server(("127.0.0.1", low)):
        site.start()
        assert {site.on("A"), site.on("B")} == {low + 1, low + 2}
        status, body, headers = site.ask_raw("/on", serial="C")
        assert (status, body) == (503, b'{"message":"No available ports"}')
        assert headers["content-type"] == "application/json" and headers["cache-control"] == "no-store"
        assert site.ask("/off", serial="A")[0] == 200
        assert site.ask("/on", serial="C")[0] == 503
        assert site.status("C") is None


def test_h8_2000_cycles_leave_ports_and_descriptors_where_they_were(lab: Lab) -> None:
    """On and off, with and without sockets."""
    settings = {"cccp-project main": {"ranges": port_block(20)}}
    site = lab.add(CccpDaemon(lab.directory, settings)).start()

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{site.pid}/fd"))

    import http.client

    api = http.client.HTTPConnection("127.0.0.1", site.api_port, timeout=20)

    def call(target: str) -> int:
        api.request("GET", target)
        answer = api.getresponse()
        answer.read()
        return answer.status

    assert call("/on?serial=W") == call("/off?serial=W") == 200
    before = descriptors()
    for number in range(2000):
        assert call(f"/on?serial=S{number % 7}&persistent={'true' if number % 2 else 'false'}") == 200
        assert call(f"/off?serial=S{number % 7}") == 200
    site.wait_until(lambda: descriptors() <= before, "descriptors as before")
    ports = [call(f"/on?serial=T{number}") for number in range(21)]
    assert ports == [200] * 20 + [503]
    api.close()


# ---- restart


def test_a_restart_keeps_persistent_proxies_and_says_a_word_of_the_others(lab: Lab) -> None:
    """The same port and the same whitelist, after SIGTERM and after kill -9."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"drain": "0"}})).start()
    port = site.on("P", persistent="true", ip_whitelist="127.0.0.1")
    site.on("Q")
    for stop in (site.stop, site.kill):
        stop()
        assert refused(port)
        site.start()
        site.wait_event("proxy-started", serial="P", how="restart", port=port)
        device = site.device("P")
        assert turned_away(port, "127.0.0.2") == "reset"
        client = connect(port)
        client.sendall(b"again")
        assert read_exactly(device, 5) == b"again"
        if stop == site.stop:
            assert site.events("proxy-ended", serial="Q", reason="restarted")
        assert site.status("Q") is None
        site.on("Q")
        client.close()
        device.close()


def test_sigterm_waits_for_the_client(lab: Lab) -> None:
    """Nobody new is let in; the transfer that runs may end."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"drain": "20 s"}})).start()
    device = site.device("CLD-1")
    client = connect(site.on("CLD-1"))
    site.until_status("CLD-1", (True, True, 0))
    site.signal(signal.SIGTERM)
    site.wait_event("state", state="draining")
    client.sendall(b"still")
    assert read_exactly(device, 5) == b"still"
    client.close()
    assert site.wait() == 0


# ---- waiting and waking


def test_wait_for_an_absent_device(lab: Lab) -> None:
    """Answered when it comes; 504 when it does not, and then nothing is left running."""
    site = lab.add(CccpDaemon(lab.directory)).start()
    status, row = site.ask("/on", serial="CLD-1", wait=1)
    assert (status, row) == (504, {"message": "The device did not connect within 1 s"})
    assert site.status("CLD-1") is None
    answers: list[tuple[int, object]] = []
    caller = threading.Thread(target=lambda: answers.append(site.ask("/on", serial="CLD-2", wait=20)))
    caller.start()
    site.wait_event("proxy-started", serial="CLD-2")
    device = site.device("CLD-2")
    caller.join(20)
    device.close()
    assert answers[0][0] == 200


def test_the_wake_driver_is_run_for_a_request(lab: Lab) -> None:
    """Its last word is the serial; its failure is told to the caller, and is an event."""
    mark = lab.directory / "woken"
    script = lab.directory / "wake.sh"
    script.write_text(
        f"for last; do :; done\necho $last >> {mark}\n"
        "case $last in BAD) echo no such number >&2; exit 1;; SLOW) exec sleep 60;; esac\n"
    )
    command = f"/bin/sh {script} --now"
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"wake_command": command, "wake": "2 s"}})).start()
    status, row = site.ask("/on", serial="BAD", wait=5)
    assert status == 500 and "no such number" in row["message"]
    assert site.ask("/on", serial="SLOW", wait=3)[0] == 500
    assert site.ask("/on", serial="GOOD", wait=1)[0] == 504
    site.on("PLAIN")
    device = site.device("HERE")
    assert site.ask("/on", serial="HERE", wait=5)[0] == 200
    device.close()
    woken = mark.read_text().split()
    assert list(dict.fromkeys(woken)) == ["BAD", "SLOW", "GOOD"]
    assert woken.count("GOOD") == 1  # what failed is tried again
    outcomes = [(line["serial"], line["outcome"]) for line in site.events("wake-ended")]
    assert list(dict.fromkeys(outcomes)) == [("BAD", "failed"), ("SLOW", "timed-out"), ("GOOD", "done")]


@pytest.mark.parametrize("code", [204, 500])
def test_waking_by_post(lab: Lab, code: int) -> None:
    """The serial in a JSON object; any answer but 2xx is a failure that the caller is told."""
    posted: list[object] = []

    class Waker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(code)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Waker) as waker:
        threading.Thread(target=waker.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{waker.server_address[1]}/wake"
        site = lab.add(CccpDaemon(lab.directory, {"cccp": {"wake_url": url}})).start()
        status, row = site.ask("/on", serial="CLD-1", wait=2)
        waker.shutdown()
    assert status == (504 if code == 204 else 500)
    assert posted == [{"serial": "CLD-1"}] * len(posted) and (code == 500 or len(posted) == 1)
    assert code == 204 or "500" in row["message"]
    assert site.status("CLD-1") is None


@pytest.mark.parametrize("code", [200, 404])
def test_what_a_wake_url_answers_is_not_read_without_end(lab: Lab, code: int) -> None:
    """It is cut after 64 KiB, or at once where its status says no; the request has its answer then."""
    sent = list[int]()

    class Chatterbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(code)
            self.end_headers()
            with suppress(OSError):
                for _ in range(4096):
                    self.wfile.write(bytes(65536))
                    sent.append(65536)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Chatterbox) as waker:
        threading.Thread(target=waker.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{waker.server_address[1]}/wake"
        site = lab.add(CccpDaemon(lab.directory, {"cccp": {"wake_url": url}})).start()
        status, row = site.ask("/on", serial="CLD-1", wait=10)
        waker.shutdown()
    assert status == 500
    assert ("more than 65536 bytes" if code == 200 else "404") in row["message"]
    assert sum(sent) < 64 * 1024 * 1024


def test_parked_devices_have_limits(lab: Lab) -> None:
    """So many and so long; one with a proxy stays, and one that comes back is not one more."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"parked": 2, "parked_time": "2 s"}})).start()
    site.on("A", persistent="true")
    first, second = site.device("A"), site.device("B")
    third = connect(site.device_port)
    third.sendall(b"C\r")
    assert closed(third) == "reset"
    site.wait_event("registration-refused", reason="overloaded", serial="C")
    again = site.device("A")
    assert closed(first) == "end"
    assert closed(second) == "end"
    site.wait_event("device-gone", serial="B", reason="parked-too-long")
    assert site.status("A") == (True, False, 0)
    again.close()


# ---- the door


def test_h1_token(lab: Lab) -> None:
    """Without the right one nothing is done, and one in a query is never right."""
    path = lab.directory / "token"
    path.write_text("s3cret-s3cret-s3cret\n")
    path.chmod(0o600)
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"token_file": path}})).start()
    good = {"Authorization": "Bearer s3cret-s3cret-s3cret"}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret-s3cret-s3cret"}):
        status, body, answer = site.ask_raw("/on", headers=headers, serial="A")
        assert status == 401 and answer["www-authenticate"] == "Bearer" and json.loads(body)
    assert site.ask("/on", headers=good, serial="A", token="s3cret-s3cret-s3cret")[0] == 401
    assert site.ask("/status", headers=good, serial="A")[0] == 404
    assert site.ask("/on", headers=good, serial="A")[0] == 200
    assert "s3cret" not in site.log_path.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Cookie": "a=b"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:2080"},
    ],
)
def test_h2_no_web_page_can_call(standing: CccpDaemon, headers: dict[str, str]) -> None:
    """403 before any state."""
    assert standing.ask("/on", headers=headers, serial="A")[0] == 403
    assert standing.status("A") is None


@pytest.mark.parametrize(
    "query",
    [
        "",
        "serial=",
        "serial=a&serial=b",
        f"serial={'x' * 65}",
        f"serial={'x' * 10_000}",
        "serial=%00",
        "serial=%2e%2e",
        "serial=%C3%A9",
        "serial=%FF",
        "serial=a%20b",
        "serial=a&timeout=-1",
        "serial=a&timeout=1e9",
        "serial=a&timeout=86401",
        "serial=a&timeout=abc",
        "serial=a&timeout=NaN",
        "serial=a&timeout=",
        "serial=a&persistent=1",
        "serial=a&persistent=",
        "serial=a&ip_whitelist=",
        "serial=a&ip_whitelist=,",
        "serial=a&ip_whitelist=plc.example",
        "serial=a&ip_whitelist=10.0.0.1/255.0.0.0",
        "serial=a&ip_whitelist=" + ",".join(f"10.0.0.{each}" for each in range(65)),
        "&".join(f"a{each}=b" for each in range(100)),
    ],
)
def test_h3_h4_h5_h6_wrong_parameters(standing: CccpDaemon, query: str) -> None:
    """400 with a message, and nothing has happened."""
    status, row = standing.ask(f"/on?{query}")
    assert status == 400 and list(row) == ["message"]
    assert standing.ask("/devices") == (200, {"devices": [], "next": None})


def test_h4_h5_h6_right_parameters(site: CccpDaemon) -> None:
    """Every parameter alone and together, by GET and by POST, also in a form."""
    ports = {
        site.on("A"),
        site.on("B", persistent="TRUE"),
        site.on("C", timeout="0"),
        site.on("D", ip_whitelist="127.0.0.1,2001:db8::/32,::ffff:192.0.2.1"),
        site.on("E", persistent="false", timeout=60, ip_whitelist="127.0.0.0/8"),
    }
    assert len(ports) == 5
    assert site.ask("/on", "POST", serial="F")[0] == 200
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert site.ask("/off", "POST", form, "serial=F") == (200, {})
    low, high = (int(part) for part in str(site.settings["cccp-project main"]["ranges"]).split("-"))
    assert all(low <= port <= high for port in ports)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/on", 405),
        ("PUT", "/on", 405),
        ("DELETE", "/off", 405),
        ("OPTIONS", "/on", 405),
        ("POST", "/devices", 405),
        ("GET", "/", 404),
        ("GET", "/ON", 404),
        ("GET", "//on", 404),
        ("GET", "/on/", 404),
        ("GET", "/on/../on", 404),
    ],
)
def test_h13_methods_and_paths(standing: CccpDaemon, method: str, path: str, status: int) -> None:
    """And no side effect, of HEAD above all."""
    assert standing.ask_raw(path, method, serial="A")[0] == status
    assert standing.status("A") is None


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"GET /status?serial=a HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", {400, 431}),
        (b"GET /status?serial=a HTTP/1.1\r\n" + b"X: y\r\n" * 501 + b"\r\n", {400, 431}),
        (b"POST /off HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n", {413}),
        (b"POST /off HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", {400}),
        (
            b"POST /off HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            {400},
        ),
        (
            b"POST /off HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"3e8\r\n"
            + bytes(1000)
            + b"\r\n",
            set(),
        ),
        (b"nonsense\r\n\r\n", {400}),
    ],
)
def test_h14_heads_and_bodies_beyond_measure(standing: CccpDaemon, sent: bytes, statuses: set[int]) -> None:
    """Refused or closed; the next caller is answered."""
    caller = connect(standing.api_port)
    more = b"3e8\r\n" + bytes(1000) + b"\r\n"
    with suppress(ConnectionError):
        caller.sendall(sent)
        for _ in range(0 if statuses else 20):
            caller.sendall(more)
            time.sleep(0.01)
    answer = b""
    with suppress(ConnectionError):
        while piece := caller.recv(65536):
            answer += piece
    assert not (statuses and answer) or int(answer.split()[1]) in statuses  # or it was reset
    assert standing.status("a") is None


def test_h14_pipelined_requests_are_answered_in_turn(standing: CccpDaemon) -> None:
    """Three in one piece."""
    caller = connect(standing.api_port)
    one = b"GET /status?serial=a HTTP/1.1\r\nHost: localhost\r\n\r\n"
    caller.sendall(one * 2 + one.replace(b"Host", b"Connection: close\r\nHost"))
    answer = b""
    while piece := caller.recv(65536):
        answer += piece
    assert answer.count(b"HTTP/1.1 404") == 3


def test_h15_a_dripping_head_is_closed_in_time(lab: Lab) -> None:
    """The time is absolute; a connection kept alive gets it anew with each answer."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"header": "1 s"}})).start()
    caller = connect(site.api_port)
    begun = time.monotonic()
    with suppress(ConnectionError):
        caller.sendall(b"GET /status?serial=a HTTP/1.1\r\n")
        while time.monotonic() - begun < 15:
            caller.sendall(b"X: y\r\n")
            time.sleep(0.2)
    assert time.monotonic() - begun < 15


def test_h15_callers_who_read_nothing_are_cut(lab: Lab) -> None:
    """What they do not take keeps no place from the next caller."""
    site = lab.add(CccpDaemon(lab.directory, {"cccp": {"header": "2 s", "connections": 3}})).start()
    with ExitStack() as stack:
        for _ in range(3):
            caller = stack.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", site.api_port))
            caller.sendall(b"GET /openapi.json HTTP/1.1\r\n\r\n" * 600)  # 9 MB of answers
            assert caller.recv(1) == b"H"
        site.wait_until(lambda: answers(site), "an answer for the next caller")


def answers(site: CccpDaemon) -> bool:
    """Whether a caller gets an answer."""
    try:
        return site.ask("/openapi.json")[0] == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def test_h16_a_caller_who_leaves_before_the_answer(site: CccpDaemon) -> None:
    """Nothing is raised; the proxy stands."""
    caller = connect(site.api_port)
    caller.sendall(b"GET /on?serial=CLD-1&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    site.wait_event("proxy-started", serial="CLD-1")
    reset(caller)
    time.sleep(0.2)
    assert site.status("CLD-1") == (False, False, 0)
    assert site.ask("/off", serial="CLD-1") == (200, {})


def control(daemon: Daemon, *words: str, status: int = 0) -> Any:
    """What ``revtunnelctl --json`` answers, and with which exit status."""
    command = [sys.executable, "-m", "revtunnel.ctl.ctl", "--json", "--socket", str(daemon.admin_socket)]
    done = subprocess.run([*command, *words], env=daemon.environment(), capture_output=True, timeout=90)
    assert done.returncode == status, done
    return json.loads(done.stdout)


def test_an_operator_sees_and_ends_devices_sessions_and_pairs(site: CccpDaemon) -> None:
    """By revtunnelctl: each in its listing; a client is reset, a device closed, and the session waits on."""
    device = site.device("CLD-1")
    client = connect(site.on("CLD-1", persistent="true"))
    client.sendall(b"words")
    assert read_exactly(device, 5) == b"words"
    (row,) = control(site, "devices")["devices"]
    assert (row["serial"], row["link"], row["listener"], row["channels"]) == ("CLD-1", "cccp", "main", 1)
    (row,) = control(site, "sessions")["sessions"]
    assert (row["kind"], row["state"], row["bytes"], row["persistent"]) == ("cccp", "joined", 5, True)
    (row,) = control(site, "channels", "CLD-1")["channels"]
    assert (row["channel"], row["carrier"], row["bytes_to_device"]) == (0, "pair", 5)
    assert control(site, "close", "CLD-1", "0") == {"closed": {"serial": "CLD-1", "channel": 0}}
    assert closed(client) == "reset"
    assert control(site, "sessions")["sessions"][0]["state"] == "device"
    assert control(site, "kick", "CLD-1") == {"kicked": "CLD-1", "retry_after": 0}
    assert closed(device) == "end"
    (row,) = control(site, "devices")["devices"]
    assert (row["online"], row["channels_total"]) == (False, 1)
    assert control(site, "sessions")["sessions"][0]["state"] == "waiting"


def test_admin_door_and_exit_status(site: CccpDaemon) -> None:
    """revtunnelctl reaches it by its socket; wrong settings are 78."""
    site.on("CLD-1")
    row = control(site, "status")
    assert (row["proxies"], row["devices"]) == (1, 0)
    rows = control(site, "ports")["ports"]
    assert [(row["serial"], row["open"]) for row in rows] == [("CLD-1", True)]
    assert control(site, "reload")["errors"] == []
    bad = site.directory / "bad.ini"
    bad.write_text("[cccp]\nhttp = 0.0.0.0:2080\n[cccp-project main]\naddress = 0.0.0.0:2070\n")
    done = subprocess.run(
        [*site.command()[:-1], str(bad), "--check-config"],
        env=site.environment(),
        capture_output=True,
        timeout=90,
    )
    assert done.returncode == 78
    assert [line.split("]")[0][-12:] for line in done.stderr.decode().splitlines()]
    assert b"allow_without_token" in done.stderr and b"allow_open" in done.stderr


# ---- inside revtunnel-server


def test_on_reaches_every_kind_of_device_of_a_server(lab: Lab) -> None:
    """An rt1 agent's service by its serial, with CCCP's manners; and a device that registers beside it."""
    api, registration = free_ports(2)
    settings = {
        "cccp": {"enabled": "yes", "http": f"127.0.0.1:{api}"},
        "cccp-project main": {"address": f"127.0.0.1:{registration}", "ranges": port_block(20)},
    }
    server = lab.server(settings).start()
    with Echo() as echo:
        agent = lab.agent(server, "plc-7", offers={"echo": echo.target}).start()
        server.wait_link("plc-7")
        caller = Caller(api)
        port = caller.on("plc-7", persistent="true", ip_whitelist="127.0.0.1")
        assert caller.status("plc-7") == (True, False, 0)
        assert turned_away(port, "127.0.0.2") == "reset"
        client = connect(port)
        client.sendall(bytes(1000))
        assert len(read_exactly(client, 1000)) == 1000
        assert caller.status("plc-7") == (True, True, 2000)
        assert turned_away(port) == "reset"
        client.close()
        server.wait_until(lambda: caller.status("plc-7") == (True, False, 2000), "the client's leaving")
        assert caller.ask("/on", serial="plc-7", target="nothing")[0] == 404
        client = connect(port)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        agent.kill()
        server.wait_until(lambda: caller.status("plc-7") == (False, False, 2002), "the device's leaving")
        assert turned_away(port) == "reset"
        agent.start()
        server.wait_link("plc-7", 2)
        client = connect(port)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        assert caller.ask("/off", serial="plc-7") == (200, {})
        assert closed(client) in ("end", "reset") and refused(port)
    device = connect(registration)
    device.sendall(b"CLD-1\r")
    server.wait_event("device-registered", serial="CLD-1")
    client = connect(caller.on("CLD-1"))
    client.sendall(b"x")
    assert device.recv(1) == b"x"
    rows = control(server, "devices")["devices"]
    assert [(row["serial"], row["link"]) for row in rows] == [("CLD-1", "cccp"), ("plc-7", "rt1")]
    assert [(row["serial"], row["kind"]) for row in control(server, "sessions")["sessions"]] == [
        ("CLD-1", "cccp")
    ]
    status = control(server, "status")
    assert [status[name] for name in ("devices", "clients", "channels", "proxies")] == [2, 1, 1, 1]
    control(server, "enroll", "CLD-1", "--key")
    control(server, "revoke", "CLD-1")
    assert closed(device) == "end"
    assert closed(client) == "end"


def test_a_reload_that_cccp_cannot_take_changes_nothing_of_the_server(lab: Lab) -> None:
    """A project's certificate is none: the other ranges of the same file are not taken either."""
    api, registration = free_ports(2)
    old, new = port_block(20), port_block(20)
    settings = {
        "cccp": {"enabled": "yes", "http": f"127.0.0.1:{api}"},
        "cccp-project main": {"address": f"127.0.0.1:{registration}", "ranges": old},
    }
    server = lab.server(settings).start()
    garbage = lab.directory / "no.pem"
    garbage.write_text("no certificate")
    garbage.chmod(0o600)
    files = dict.fromkeys(("certificate", "certificate_key", "authority"), garbage)
    server.write(**{"cccp-project main": {"ranges": new, "tls": "yes", **files}})
    assert "no.pem" in str(control(server, "reload", status=1)["errors"])
    first, last = map(int, old.split("-"))
    assert first <= Caller(api).on("CLD-1") <= last


@pytest.mark.parametrize("kind", ["emo", "legacy"])
def test_on_reaches_devices_of_the_old_wires(lab: Lab, kind: str) -> None:
    """A machine of EMO that is an original one, and a ReadyAgent, each by its serial."""
    api, registration, machine = free_ports(3)
    listener: dict[str, object] = {"address": "127.0.0.1:0", "kind": kind}
    with Echo() as echo, ExitStack() as stack:
        if kind == "legacy":
            listener |= {"serial": "old-1", "mappings": [f"0 -> echo={echo.target}"]}
        server = lab.server(
            {
                "listener main": listener,
                "reservations": {"old-1/emo": machine} if kind == "emo" else {},
                "cccp": {"enabled": "yes", "http": f"127.0.0.1:{api}"},
                "cccp-project main": {
                    "address": f"127.0.0.1:{registration}",
                    "ranges": port_block(20),
                },
            }
        ).start()
        if kind == "emo":
            options = ["--emo", "--server-port", str(machine), "--modern", "no"]
            servers = [f"127.0.0.1:{server.port}"]
            lab.add(Agent(lab.directory, "old-1", servers, {"emo": echo.target}, options=options)).start()
        else:
            stack.enter_context(LegacyDevice(("127.0.0.1", server.port)))
        assert server.wait_link("old-1")["wire"] == kind
        caller = Caller(api)
        client = connect(caller.on("old-1"))
        client.sendall(bytes(1000))
        assert len(read_exactly(client, 1000)) == 1000
        assert caller.status("old-1") == (True, True, 2000)
        client.close()
        server.wait_until(lambda: caller.status("old-1") is None, "the end of the proxy")
        ended = server.wait_event("proxy-ended", serial="old-1")
        assert (ended["reason"], ended["transferred"]) == ("client-closed", 2000)


def test_r8_a_serial_that_comes_by_two_wires(lab: Lab) -> None:
    """The registered one is newer: an alarm, the linked one's client is cut, and no end stays unwatched."""
    api, registration = free_ports(2)
    server = lab.server(
        {
            "cccp": {"enabled": "yes", "http": f"127.0.0.1:{api}"},
            "cccp-project main": {"address": f"127.0.0.1:{registration}", "ranges": port_block(20)},
        }
    ).start()
    with Echo() as echo:
        agent = lab.agent(server, "plc-7", offers={"echo": echo.target}).start()
        server.wait_link("plc-7")
        caller = Caller(api)
        port = caller.on("plc-7", persistent="true")
        client = connect(port)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        agent.pause()  # or it is back at once, and the newest
        device = connect(registration)
        device.sendall(b"plc-7\r")
        told = server.wait_event("duplicate-device", serial="plc-7")
        assert (told["stays"], told["wire"], told["older_wire"]) == ("newest", "cccp", "rt1")
        assert closed(client) in ("end", "reset")
        agent.kill()
    server.wait_until(lambda: caller.status("plc-7") == (True, False, 2), "the device alone")
    (row,) = server.control("devices")["devices"]
    assert (row["serial"], row["online"], row["link"]) == ("plc-7", True, "cccp")
    client = connect(port)
    client.sendall(b"y")
    assert read_exactly(device, 1) == b"y"
    device.close()
    server.wait_until(lambda: caller.status("plc-7") == (False, True, 3), "the device's leaving")
    client.close()
    server.wait_until(lambda: caller.status("plc-7") == (False, False, 3), "the client's leaving")
