"""The whole way on one machine: a device, its agent, the server, and a client that only knows host and port.

Then a person who was granted the device reaches it by a local port, and the audit file says so.
Between agent and server all is mutual TLS, with certificates of an authority that the demonstration makes.
Every step is printed with the command a person would type. Server and agent are real processes in a directory
of their own; nothing is left behind. Exit status 0 when every byte was right, 1 when not.
"""

import hashlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SERIAL = "plc-7"
IN_TURN, AT_ONCE, BURST = (
    20,
    40,
    200,
)  # requests one after the other; clients at the same time; their requests
WAIT = 20.0  # seconds for a process to be ready or to end
MODULES = {
    "revtunnel-server": ["revtunnel.daemons.run", "server"],
    "revtunnel-agent": ["revtunnel.daemons.run", "agent"],
    "revtunnel-cccp": ["revtunnel.daemons.run", "cccp"],
    "revtunnelctl": ["revtunnel.ctl.ctl"],
    "revtunnel-connect": ["revtunnel.connect.connect"],
}


class Wrong(Exception):
    """The demonstration did not go as it must; the text says what."""


def probe(number: int) -> bytes:
    """What the device answers to request ``number``: up to 64 KiB that both ends can compute."""
    block = hashlib.sha256(str(number).encode()).digest()
    return f"<probe serial='{SERIAL}' number='{number}'/>\n".encode() + block * (number * 331 % 2048)


class Device(BaseHTTPRequestHandler):
    """A machine's web server: GET /probe?NUMBER."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path, _, number = self.path.partition("?")
        known = path == "/probe" and number.isdecimal()
        body = probe(int(number)) if known else b"no such page\n"
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the demonstration counts for itself."""


class Devices(ThreadingHTTPServer):
    """The device's listening end, with room for a burst."""

    daemon_threads = True
    request_queue_size = 256


def say(text: str) -> None:
    """One step, for people."""
    print(f"\n== {text}", flush=True)


def command(name: str, *arguments: str, shown: bool = True) -> list[str]:
    """How this environment starts a command of ours; printed as a person would type it."""
    if shown:
        print(f"$ {shlex.join([name, *arguments])}", flush=True)
    return [sys.executable, "-m", *MODULES[name], *arguments]


def free_port() -> int:
    """A port of this machine that nobody has now."""
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port


@contextmanager
def device() -> Iterator[int]:
    """The device, beside the agent; gives its port."""
    with Devices(("127.0.0.1", 0), Device) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def daemon(place: Path, name: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon in the background, its log in a file; SIGTERM ends it, and it must end with status 0."""
    with open(place / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command(name, *arguments), cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process
        process.terminate()
        status = process.wait(WAIT)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    print(f"{name} ended with status {status}")
    if status != 0:
        raise Wrong(f"{name} ended with status {status}")


def control(*arguments: str, shown: bool = True) -> str:
    """What revtunnelctl prints; Wrong when it fails."""
    call = command("revtunnelctl", *arguments, shown=shown)
    done = subprocess.run(call, capture_output=True, text=True, timeout=WAIT)
    if done.returncode:
        raise Wrong(f"revtunnelctl: {done.stderr.strip()}")
    return done.stdout


def fetch(port: int, numbers: list[int]) -> int:
    """Ask for each number over one connection, check every byte; gives how many bytes came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    total = 0
    for number in numbers:
        connection.request("GET", f"/probe?{number}")
        body = connection.getresponse().read()
        if body != probe(number):
            raise Wrong(f"answer {number} was not what the device sent: {len(body)} bytes")
        total += len(body)
    connection.close()
    return total


def client_port(deadline: float) -> int:
    """The port that stands for the device's web server, once the agent is there."""
    said, found = "nothing yet", None
    while found is None and time.monotonic() < deadline:
        try:
            said = control("ports", "--json", shown=said == "nothing yet")
            rows = [
                row for row in json.loads(said)["ports"] if (row["serial"], row["target"]) == (SERIAL, "http")
            ]
            found = next((int(row["port"]) for row in rows if row["open"]), None)
        except Wrong as error:  # the server is still starting
            said = str(error)
        time.sleep(0.0 if found else 0.3)
    if found is None:
        raise Wrong(f"the device did not appear; the last thing heard was: {said}")
    print(said)
    return found


def settings(place: Path) -> None:
    """Write the settings of server and agent and point everything at them; make the certificates."""
    path = place / "revtunnel.ini"
    path.write_text(
        f"[server]\nstate_directory = {place / 'state'}\n\n[admin]\nsocket = {place / 'admin.sock'}\n\n"
        f"[authority]\ndirectory = {place / 'authority'}\n\n[agent]\nstate_directory = {place / 'agent'}\n\n"
        f"[listener main]\naddress = 127.0.0.1:{free_port()}\n"
    )
    os.environ["REVTUNNEL_CONFIG"] = str(path)
    print(f"$ export REVTUNNEL_CONFIG={path}")
    say("an authority, and a certificate for the server")
    print(control("ca", "init"))
    lines = control("ca", "issue-server", "127.0.0.1")
    people = "".join(line for line in lines.splitlines(True) if line.startswith("certificate"))
    with open(path, "a") as file:
        file.write(f"tls = yes\n{lines}\n[web main]\naddress = 127.0.0.1:{free_port()}\ntls = yes\n{people}")
    print(path.read_text())


def enrolled(place: Path) -> list[str]:
    """A one-time token for the device: what is pasted beside it, without the command's name."""
    deadline = time.monotonic() + WAIT
    while not (place / "admin.sock").exists():
        if time.monotonic() > deadline:
            raise Wrong("the server did not start")
        time.sleep(0.1)
    line = control("enroll", SERIAL, "--token")
    print(line)
    _, *words = shlex.split(line)
    return words


def through(port: int) -> None:
    """Use the device from the client's side: in turn, then many clients at once."""
    say(f"a client that knows only 127.0.0.1:{port} asks {IN_TURN} times in turn")
    started = time.monotonic()
    total = sum(fetch(port, [number]) for number in range(IN_TURN))
    print(f"{IN_TURN} connections, {total} bytes, every byte right, {time.monotonic() - started:.2f} s")

    say(f"{AT_ONCE} clients at the same time, {BURST} requests")
    started = time.monotonic()
    shares = [list(range(first, BURST, AT_ONCE)) for first in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        total = sum(pool.map(lambda numbers: fetch(port, numbers), shares))
    print(f"{AT_ONCE} connections, {total} bytes, every byte right, {time.monotonic() - started:.2f} s")


def gate(place: Path) -> str:
    """Where people come in, as the settings say it."""
    text = (place / "revtunnel.ini").read_text()
    return "https://" + text.partition("[web main]\naddress = ")[2].partition("\n")[0]


def connect(*arguments: str, said: str | None = None) -> str:
    """What revtunnel-connect prints; ``said`` is its standard input. Wrong when it fails."""
    call = command("revtunnel-connect", *arguments)
    done = subprocess.run(call, input=said or "", capture_output=True, text=True, timeout=WAIT)
    if done.returncode:
        raise Wrong(f"revtunnel-connect: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def session(place: Path) -> Iterator[int]:
    """A session of hers, which Ctrl-C ends; gives the local port that stands for the device's web server."""
    call = command("revtunnel-connect", f"{SERIAL}/http")
    with (
        open(place / "revtunnel-connect.log", "wb") as log,
        subprocess.Popen(
            call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        ) as program,
    ):
        try:
            assert program.stdout is not None
            begun, at = program.stdout.readline(), program.stdout.readline()
            print(begun + at)
            if not at:
                raise Wrong("revtunnel-connect gave no port")
            yield int(at.rpartition(":")[2])
            program.send_signal(signal.SIGINT)
            status = program.wait(WAIT)
        finally:
            program.kill()
    print(f"^C\nrevtunnel-connect ended with status {status}")
    if status:
        raise Wrong(f"revtunnel-connect ended with status {status}")


def show_person(place: Path) -> None:
    """A user, a grant, a session with a local port, and what the audit file keeps of it."""
    say("a person: a user, a token that is shown once, and a grant of this device's web server")
    token = control("user", "add", "ana").strip()
    print(f"{token[:12]}...")
    print(control("grant", "ana", "plc-*", "http", "--actions", "list,start"))
    say("she logs in, sees what she may reach, and brings it to a port of her own machine")
    authority = str(place / "authority" / "authority.pem")
    os.environ["XDG_CONFIG_HOME"] = str(place)
    print(connect("login", gate(place), "--ca", authority, said=token))
    print(connect("list"))
    with session(place) as port:
        total = sum(fetch(port, [number]) for number in range(IN_TURN))
        print(f"{IN_TURN} connections to 127.0.0.1:{port}, {total} bytes, every byte right\n")
        print(control("sessions"))
    audited(place, total)


def audited(place: Path, total: int) -> None:
    """Look at what was written down, and that it would be seen if somebody changed it."""
    say("who did what, and how long: the audit file")
    print(control("audit", "head"))
    print(control("audit", "verify"))
    lines = (place / "state" / "audit.jsonl").read_text("ascii").splitlines()
    rows = {row["event"]: (row, line) for line in lines if (row := json.loads(line))}
    if not {"session-opened", "session-closed"} <= rows.keys():
        raise Wrong(f"the audit file has only {sorted(rows)}")
    print(rows["session-opened"][1], rows["session-closed"][1], sep="\n\n")
    closed = rows["session-closed"][0]
    if closed["user"] != "ana" or closed["cause"] != "owner" or closed["bytes_to_client"] < total:
        raise Wrong("the audit file says something else of this session")


def show(place: Path, stack: ExitStack) -> None:
    """All steps, in order; what was started ends with the stack, the last one first."""
    say("settings: everything in a directory that goes away at the end")
    settings(place)
    say("a device: a small web server that only the agent can name")
    local = stack.enter_context(device())
    print(f"device at 127.0.0.1:{local}")
    say("the server, in the open")
    stack.enter_context(daemon(place, "revtunnel-server"))
    say("one line to paste beside the device")
    words = enrolled(place)
    say("the agent, beside the device, dials out, gets its certificate and comes back with it")
    stack.enter_context(daemon(place, "revtunnel-agent", *words, "--local", f"http=127.0.0.1:{local}"))
    say("which port stands for the device's web server?")
    port = client_port(time.monotonic() + WAIT)
    through(port)
    say("what the operator sees")
    print(control("devices"))
    print(control("ports"))
    show_person(place)
    say("the end: agent, then server, each draining first")


def ask(api: int, path: str) -> dict[str, Any]:
    """One call of the control API, shown as one would type it."""
    print(f"$ curl 'http://127.0.0.1:{api}{path}'", flush=True)
    connection = http.client.HTTPConnection("127.0.0.1", api, timeout=WAIT)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    print(body.decode())
    if answer.status != 200:
        raise Wrong(f"{path}: {answer.status}")
    row: dict[str, Any] = json.loads(body)
    return row


def reached(port: int) -> socket.socket:
    """A connection to a daemon that may still be starting."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), WAIT)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def show_cccp(place: Path, stack: ExitStack) -> None:
    """A device that knows one line only, and the API that gives it a port."""
    devices, api, client = free_port(), free_port(), free_port()
    say("TCXN CCCP: a device registers with its serial, a caller starts a proxy for it")
    words = ["--devices", f"127.0.0.1:{devices}", "--http", f"127.0.0.1:{api}", "--ports", str(client)]
    words += ["--state-directory", str(place / "cccp"), "--admin-socket", str(place / "cccp.sock")]
    stack.enter_context(daemon(place, "revtunnel-cccp", *words))
    thing = stack.enter_context(reached(devices))
    thing.sendall(b"CLD-123456\r")
    reached(api).close()
    port = ask(api, "/on?serial=CLD-123456")["port"]
    with socket.create_connection(("127.0.0.1", port), WAIT) as scada:
        scada.sendall(probe(7))
        heard = b""
        while len(heard) < len(probe(7)) and (piece := thing.recv(65536)):
            heard += piece
        thing.sendall(heard[::-1])
        back = b""
        while len(back) < len(heard) and (piece := scada.recv(65536)):
            back += piece
        if heard != probe(7) or back != heard[::-1]:
            raise Wrong(f"{len(heard)} bytes to the device and {len(back)} back, not all of them right")
        row = ask(api, "/status?serial=CLD-123456")
        if row != {"device_connected": True, "client_connected": True, "transferred": 2 * len(heard)}:
            raise Wrong(f"/status says {row}")
        ask(api, "/off?serial=CLD-123456")
        if scada.recv(1) or thing.recv(1):
            raise Wrong("bytes after /off")


def main() -> int:
    """Run it; on a fault print what the daemons logged."""
    with tempfile.TemporaryDirectory(prefix="revtunnel-demo-") as directory:
        place = Path(directory)
        try:
            with ExitStack() as stack:
                show(place, stack)
            with ExitStack() as stack:
                show_cccp(place, stack)
        except (Wrong, OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            print(f"\nWRONG: {error}", file=sys.stderr)
            for log in sorted(place.glob("*.log")):
                print(f"\n-- {log.name}\n{log.read_text(errors='replace')}", file=sys.stderr)
            return 1
    print("\nall right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
