"""Pictures for docs/web.rst: a server, devices and a person, as a browser shows them.

`python docs/pictures.py` writes docs/pictures/*.png. It wants chromium and the extra ``web``, starts all by
itself on loopback, and takes half a minute.
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.chromium import Chromium, Page  # noqa: E402
from tests.support.daemons import Lab, Server, laboratory  # noqa: E402
from tests.support.ports import port_block  # noqa: E402
from tests.support.services import Echo, Source  # noqa: E402
from tests.support.throwaway_tls import Issuer  # noqa: E402
from tests.support.traffic import connect  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
HERD = 240
READER = "import socket, time; s = socket.socket(fileno=0)\nwhile s.recv(20000): time.sleep(0.1)"
SETTINGS = {
    "server": {"name": "gate"},
    "limits": {"pending_per_source": 500},
    "pool default": {"ranges": port_block(600)},
    "device press-12": {"labels": "line=3, hall-b", "channels": "16"},
}


@contextlib.contextmanager
def herd(server: Server) -> Iterator[None]:
    """Many devices."""
    command = [sys.executable, "-m", "benchmarks.agents", "--port", str(server.port), "--count", str(HERD)]
    command += [
        "--offer",
        "ssh=127.0.0.1:22",
        "--offer",
        "http=127.0.0.1:80",
        "--software",
        "revtunnel 0.1.0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def take(page: Page, server: Server) -> None:
    """All of them."""
    home = f"https://localhost:{server.web_port}/#/"
    page.click("Log in by a token")
    page.type("[name=token]", server.control("user", "add", "ana", "--role", "admin")["token"])
    page.key("Enter")
    server.control("grant", "ana", "press-*", "*")
    page.wait(".count", f"{HERD + 1} devices")
    page.wait_gone(".count", "reading")
    page.wait_for("performance.now() > 12000", "a rate of all devices")
    page.click("To clients")
    page.wait("tbody td.rate", "0 B/s")
    page.click("To clients")
    page.wait("tbody tr[aria-rowindex='2'] td:nth-child(8)", "KiB/s")
    page.screenshot(PICTURES / "devices.png")
    page.resize(1060, 640, dark=True)
    page.go(f"{home}devices/press-12")
    page.wait(".mark", "down")
    page.wait(".chart .now", "KiB/s")
    page.screenshot(PICTURES / "device.png")
    page.resize(960, 480)
    page.click("Start session to ssh")
    page.click("Start")
    page.wait("dialog .state", "Nobody")
    page.screenshot(PICTURES / "session.png")
    page.click("Done")
    page.resize(360, 640, touch=True)
    page.go(home)
    page.wait("tbody td", "press-12")
    page.screenshot(PICTURES / "phone.png")


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as name,
        laboratory(Path(name)) as lab,
        Echo() as echo,
        Source(1 << 40) as flow,
    ):
        work(lab, echo, flow)


def work(lab: Lab, echo: Echo, flow: Source) -> None:
    """With everything in place."""
    issued = Issuer(lab.directory).server("localhost")
    files = {"tls": "yes", "certificate": issued.certificate_file, "certificate_key": issued.key_file}
    settings = {**SETTINGS, "web main": {"address": "127.0.0.1:0", **files}}
    server = lab.server(settings).start()
    offers = {"ssh": echo.target, "http": flow.target, "vnc": "127.0.0.1:9"}
    probe = {"agent": {"probe": "\n    ssh\n    vnc", "probe_interval": 1}}
    lab.agent(server, "press-12", offers=offers, settings=probe).start()
    with herd(server), Chromium(lab.directory) as browser:
        page = browser.page(f"https://localhost:{server.web_port}/", 1060, 520)
        page.wait("[name=user]")
        with (
            connect(server.client_port("press-12", "http")) as client,
            connect(server.client_port("press-12", "ssh")),
        ):
            reading = subprocess.Popen([sys.executable, "-c", READER], stdin=client)
            try:
                take(page, server)
            finally:
                reading.kill()
                reading.wait()


if __name__ == "__main__":
    main()
