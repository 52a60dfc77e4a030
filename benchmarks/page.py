"""The page for people over a large fleet: what a browser waits for, and what ten of them cost the server.

`python -m benchmarks.page [--devices 10000] [--browsers 10] [--seconds 60]` starts a server, plain agents by
the thousand (agents.py) and a Chromium, all on loopback, and prints figures, none of which is judged. Each
browser is a context of its own with a login of its own: it reads all devices, the stream of events, and what
is in sight every 5 s. Wants the extra ``web``, chromium, and about twice as many descriptors as devices.

Long tasks are those over 50 ms, as browsers count them; bytes are what came over the connection.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.chromium import Chromium, Page
from tests.support.daemons import Server, laboratory

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
PER_USER = 5  # browsers of one user; 8 streams of events are the most
# what a step costs the page until it is drawn, in ms
TIMED = """(async () => {{ const begun = performance.now(); {step};
  await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
  return performance.now() - begun; }})()"""
LONG = """new Promise((told) => { const found = [];
  new PerformanceObserver((list) => found.push(...list.getEntries().map((each) => Math.round(each.duration))))
    .observe({type: "longtask", buffered: true});
  setTimeout(() => told(found), 300); })"""
BYTES = """performance.getEntriesByType("navigation").concat(performance.getEntriesByType("resource"))
  .reduce((sum, each) => sum + each.transferSize, 0)"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
TYPED = "it.value = {text!r}; it.dispatchEvent(new Event('input'))"


@contextlib.contextmanager
def herd(server: Server, count: int) -> Iterator[None]:
    """So many devices."""
    command = [sys.executable, "-m", "benchmarks.agents", "--port", str(server.port), "--count", str(count)]
    command += ["--offer", "ssh=127.0.0.1:22", "--software", "revtunnel 0.1.0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        tell("devices", process.stdout.readline().decode().strip())
        yield
    finally:
        process.kill()
        process.communicate()


def tell(name: str, value: Any) -> None:
    """One figure, at once; what daemons say in the end is for nobody."""
    shown = f"{value:10.1f}" if isinstance(value, int | float) else f"{value!s:>10}"
    print(f"{name:<36}{shown}", file=sys.__stdout__, flush=True)


def cpu(server: Server) -> float:
    """Seconds of CPU that the server has had."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def log_in(browser: Chromium, server: Server, token: str) -> Page:
    """The list of devices, of somebody new."""
    page = browser.page(f"http://127.0.0.1:{server.web_port}/#/", apart=True)
    page.click("Log in by a token")
    page.type("[name=token]", token)
    page.key("Enter")
    page.wait("header .live", "live")
    return page


def read(page: Page, count: int) -> None:
    """Until all devices are there."""
    page.wait(".count", f"{count:,} devices")
    page.wait_gone(".count", "reading")


def timed(page: Page, step: str) -> float:
    """Milliseconds of a step."""
    return float(page.run(TIMED.format(step=step)))


def one_browser(page: Page, server: Server, count: int) -> dict[str, Any]:
    """What somebody waits for."""
    read(page, count)
    before = cpu(server)
    page.ask("Page.reload")
    page.wait("tbody td a")
    first = page.run("performance.now()")
    read(page, count)
    found: dict[str, Any] = {
        "first paint, ms": page.run(PAINT),
        "first rows, ms": first,
        "all rows, ms": page.run("performance.now()"),
        "server's CPU for that, s": round(cpu(server) - before, 2),
        "bytes, KiB": page.run(BYTES) / 1024,
        "long tasks, ms": page.run(LONG),
    }
    field = "const it = document.querySelector('#search')"
    text = f"plc-{count * 7 // 9:05}"
    found["one found among all, ms"] = timed(page, f"{field}; {TYPED.format(text=text)}")
    page.wait(".count", "1 of ")
    found["all shown again, ms"] = timed(page, f"{field}; {TYPED.format(text='')}")
    for column in ("Serial", "Clients", "State"):
        press = f"[...document.querySelectorAll('th button')].find((each) => each.textContent === '{column}')"
        if page.run(f"Boolean({press})"):
            found[f"sorted by {column}, ms"] = timed(page, f"{press}.click()")
    found["to the end of the list, ms"] = timed(page, "scrollTo(0, document.scrollingElement.scrollHeight)")
    page.run("scrollTo(0, 0)")
    return found


def measure(server: Server, browser: Chromium, options: argparse.Namespace) -> None:
    """All of it, printed."""

    def token(number: int) -> str:
        name = f"u{number // PER_USER}"
        made = server.control("token", "new", name) if number % PER_USER else None
        return str((made or server.control("user", "add", name, "--role", "reader"))["token"])

    def idle() -> float:
        before = cpu(server)
        time.sleep(options.seconds)  # the time over which it is measured
        return 100 * (cpu(server) - before) / options.seconds

    tell("server without a browser, % CPU", idle())
    pages = [log_in(browser, server, token(0))]
    for name, value in one_browser(pages[0], server, options.devices).items():
        tell(name, value)
    tell("server with 1 browser, % CPU", idle())
    for number in range(1, options.browsers):
        pages.append(log_in(browser, server, token(number)))
        read(pages[-1], options.devices)
    tell(f"server with {len(pages)} browsers, % CPU", idle())
    for page in pages:
        assert page.problems == [], page.problems


def main() -> None:
    """The command line."""
    first = str(__doc__).splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=first)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each look at the server's CPU")
    options = parser.parse_args()
    about = {
        "web main": {"address": "127.0.0.1:0"},
        "limits": {"pending_per_source": 500},
        "pool default": {"ranges": f"10000-{10_000 + options.devices // 2}"},
    }
    with (
        contextlib.redirect_stdout(None),
        tempfile.TemporaryDirectory() as name,
        laboratory(Path(name)) as lab,
        Chromium(Path(name)) as browser,
    ):
        server = lab.server(about).start()
        with herd(server, options.devices):
            measure(server, browser, options)


if __name__ == "__main__":
    main()
