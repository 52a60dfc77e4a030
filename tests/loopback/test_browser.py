"""A page in a real browser at a service of a device: its bytes, its ends, and what it may not open."""

import contextlib
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Lab
from tests.support.services import Echo
from tests.support.web_people import Control, Person

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
]

PAGE = Path(__file__).resolve().parents[1] / "support" / "browser_page.html"


class Desk(ThreadingHTTPServer):
    """The site that has the page, and asks for nonces in the person's name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Desk)
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        self.control: Control
        self.session = ""

    @property
    def at(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Desk(BaseHTTPRequestHandler):
    server: Desk

    def do_GET(self) -> None:
        if self.path == "/nonce":
            answer = self.server.control.ask("nonce", session=self.server.session, browser=True)
            self._answer(answer["nonce"])
        else:
            self._answer(PAGE.read_text())

    def do_POST(self) -> None:
        self.server.said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer("")

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as desk:
        serving = threading.Thread(target=desk.serve_forever)
        serving.start()
        yield desk
        desk.shutdown()
        serving.join()


@contextlib.contextmanager
def browser(directory: Path, url: str) -> Iterator[None]:
    """Chromium at a page, without a screen, with a profile of its own."""
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    words += [
        "--disable-background-networking",
        "--no-proxy-server",
        f"--user-data-dir={directory / 'profile'}",
    ]
    with open(directory / "chromium.said", "wb") as said:
        command = [str(CHROMIUM), *words, "--remote-debugging-port=0", url]
        process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_page_at_a_service(lab: Lab, desk: Desk, tmp_path: Path) -> None:
    """1 MiB there and back, typed text; no page opens /control, and a page of another origin nothing."""
    with Echo() as echo:
        web = {"address": "127.0.0.1:0", "origins": f"http://{desk.at}"}
        server, _ = lab.pair({"web main": web}, echo=echo.target)
        ana = Person(server, "ana", ("plc-7", "*"))
        with ana.control() as control:
            desk.control = control
            desk.session, _ = control.start("echo")
            where = f"#127.0.0.1:{server.web_port}/{desk.session}"
            with browser(tmp_path, f"http://{desk.at}/ours{where}"):
                said = desk.said.get(timeout=120)
            assert said == {"echo": ["binary", 1 << 20, True], "typed": "ls \u00e9\r", "control": True}
            stranger = f"http://localhost:{desk.server_address[1]}/strange{where}"
            with browser(tmp_path, stranger):
                assert desk.said.get(timeout=120) == {"stranger": True}
        origins = [each for each in server.events("web-refused") if each["reason"] == "origin"]
        assert [each["path"] for each in origins] == ["/control", f"/session/raw/{desk.session}/echo"]
