"""A real Chromium without a screen, told what to do by its DevTools protocol, and watched.

Rule of this file: what a person does comes in as keys, as text of a field, and as a press where he could
press; every wait is for something that shows; what a page complains of is kept in ``problems``, and what it
asks for in ``asked``.

::

    with Chromium(tmp_path) as browser:
        page = browser.page("http://127.0.0.1:2443/")
        page.wait("#user")
        page.type("#user", "ana")
        page.click("Log in")
        page.screenshot(path)

Source: https://chromedevtools.github.io/devtools-protocol/, stable version 1.3.
"""

import base64
import json
import shutil
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

__all__ = ["CHROMIUM", "Chromium", "Page"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60.0  # seconds for whatever has to show
LOOK = 0.05  # seconds between two looks
_WORDS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-proxy-server", "--remote-debugging-port=0", "--force-device-scale-factor=1", "--hide-scrollbars"),
    "--ignore-certificate-errors",
)
# presses what a person sees and can press; a dialog is over all else
_PRESSED = """(text) => {
  const over = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document;
  const seen = (each) => each.offsetParent !== null;
  const all = [...over.querySelectorAll("button, a, summary, label")].filter(seen);
  const words = (each) => each.textContent.trim();
  const named = (each) => each.getAttribute("aria-label") ?? words(each);
  const found = all.find((each) => named(each) === text) ?? all.find((each) => words(each) === text);
  if (!found || found.disabled) return null;
  found.scrollIntoView({block: "center"});
  const at = found.getBoundingClientRect();
  const x = at.x + at.width / 2, y = at.y + at.height / 2;
  const there = document.elementFromPoint(x, y);
  if (there !== found && !found.contains(there)) return null;
  found.focus();
  found.click();
  return true;
}"""


class DevToolsError(AssertionError):
    """A call that failed; a page that is just being left has no answers."""


class Chromium:
    """The browser: its process and a profile of its own below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes]
        self._web: ClientConnection
        self._open = ExitStack()
        self._number = 0
        self.pages: dict[str, Page] = {}  # by DevTools session

    def __enter__(self) -> Self:
        profile = self._directory / "profile"
        with open(self._directory / "chromium.said", "wb") as said:
            command = [str(CHROMIUM), *_WORDS, f"--user-data-dir={profile}", "about:blank"]
            self._process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
        try:
            port, path = _wait(lambda: _place(profile / "DevToolsActivePort"), "DevTools of Chromium")
            about: dict[str, Any] = {
                "compression": None,
                "max_size": None,
                "proxy": None,
                "ping_interval": None,
            }
            self._web = self._open.enter_context(connect(f"ws://127.0.0.1:{port}{path}", **about))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def page(
        self,
        url: str,
        width: int = 1280,
        height: int = 800,
        apart: bool = False,
        beside: "Page | None" = None,
    ) -> "Page":
        """A new tab; ``apart``: of somebody else, with cookies of his own; ``beside``: of whom another is."""
        context = beside.context if beside is not None else ""
        if apart:
            context = self.ask("Target.createBrowserContext")["browserContextId"]
        about = {"browserContextId": context} if context else {}
        target = self.ask("Target.createTarget", url="about:blank", **about)["targetId"]
        page = self._attach(target, context)
        page.resize(width, height)
        page.go(url)
        return page

    def clear(self) -> None:
        """Close all tabs, whoever has closed some already."""
        for page in self.pages.values():
            with suppress(DevToolsError):
                page.close()
        self.pages.clear()

    def opened(self, by: "Page") -> "Page":
        """The tab that a page has opened."""

        def fresh() -> list[str]:
            found = self.ask("Target.getTargets")["targetInfos"]
            return [each["targetId"] for each in found if each.get("openerId") == by._target]

        return self._attach(_wait(fresh, "a new tab")[0], by.context)

    def _attach(self, target: str, context: str) -> "Page":
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, target, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        return page

    def ask(self, method: str, session: str = "", **arguments: Any) -> dict[str, Any]:
        """One call; events that come meanwhile are kept by their pages."""
        self._number += 1
        call: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if session:
            call["sessionId"] = session
        self._web.send(json.dumps(call))
        while True:
            said = json.loads(self._web.recv(timeout=PATIENCE))
            if said.get("id") == self._number:
                if "error" in said:
                    raise DevToolsError(f"{method}: {said['error']}")
                found: dict[str, Any] = said["result"]
                return found
            page = self.pages.get(said.get("sessionId", ""))
            if page is not None:
                page.told(said.get("method", ""), said.get("params", {}))


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str, target: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self.context = context  # whose cookies; "": those of the browser itself
        self.problems: list[str] = []  # faults of scripts, violations of the policy, what failed to load
        self.asked: list[str] = []  # every address that was asked for

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """One call of DevTools."""
        return self._browser.ask(method, self._session, **arguments)

    def told(self, event: str, about: dict[str, Any]) -> None:
        """An event of DevTools."""
        if event == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Log.entryAdded" and about["entry"]["level"] == "error":
            entry = about["entry"]
            if entry["source"] != "network" or "/page/" in entry.get(
                "url", ""
            ):  # a refusal of the API is no fault
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")
        elif event == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])

    # -- what is done

    def close(self) -> None:
        """As a person closes a tab."""
        self._browser.ask("Target.closeTarget", targetId=self._target)

    def go(self, url: str) -> None:
        """Open another page."""
        self.ask("Page.navigate", url=url)

    def resize(self, width: int, height: int, dark: bool = False, touch: bool = False) -> None:
        """Another screen."""
        about = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.ask("Emulation.setDeviceMetricsOverride", **about)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def click(self, text: str) -> None:
        """Press what is named so, or says so, once nothing is over it; at one go, lest it move."""
        self.wait_for(f"({_PRESSED})({json.dumps(text)})", f"{text!r} to press")

    def type(self, selector: str, text: str) -> None:
        """Put a text into a field in place of what is there, as typing does."""
        self.wait(selector)
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.run(f"document.querySelector({json.dumps(selector)}).select?.()")
        if text:
            self.ask("Input.insertText", text=text)
        else:
            self.key("Backspace")

    def choose(self, selector: str, value: str) -> None:
        """Take one of a list."""
        self.wait(selector)
        at = f"document.querySelector({json.dumps(selector)})"
        self.run(
            f"{at}.value = {json.dumps(value)}; {at}.dispatchEvent(new Event('change', {{bubbles: true}}))"
        )

    def key(self, name: str) -> None:
        """Press a key."""
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "Backspace": 8, "Space": 32}[name]
        about = {"key": " " if name == "Space" else name, "code": name, "windowsVirtualKeyCode": code}
        text = {"Enter": "\r", "Space": " "}.get(name)
        self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    # -- what shows

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (script, found["exceptionDetails"])
        return found["result"].get("value")

    def wait_for(self, script: str, what: str) -> Any:
        """The value of an expression once it is something."""

        about = {"expression": script, "returnByValue": True, "awaitPromise": True}

        def look() -> Any:
            try:
                found = self.ask("Runtime.evaluate", **about)
            except DevToolsError:
                return None
            return found.get("result", {}).get("value") if "exceptionDetails" not in found else None

        try:
            return _wait(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.problems}; the page shows:\n{self.text()}") from None

    def wait(self, selector: str, text: str = "") -> str:
        """The text of an element, once there is one that has ``text`` in it."""
        script = f"""[...document.querySelectorAll({json.dumps(selector)})].map(
            (each) => each.textContent || " ").find((each) => each.includes({json.dumps(text)}))"""
        found: str = self.wait_for(script, f"{selector} with {text!r}")
        return found

    def wait_gone(self, selector: str, text: str = "") -> None:
        """Return when no element has that text any more."""
        script = f"""![...document.querySelectorAll({json.dumps(selector)})].some(
            (each) => each.textContent.includes({json.dumps(text)}))"""
        self.wait_for(script, f"{selector} without {text!r}")

    def text(self) -> str:
        """All that can be read."""
        return str(self.run("document.body?.innerText"))

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return int(self.run("document.scrollingElement.scrollWidth - innerWidth"))

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A picture of what can be seen, or of the whole page."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


def _place(path: Path) -> tuple[int, str] | None:
    try:
        port, at = path.read_text().splitlines()
        return int(port), at
    except (OSError, ValueError):
        return None


def _wait(look: Any, what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, f"no {what} in {PATIENCE:g} s"
        time.sleep(LOOK)
    return found
