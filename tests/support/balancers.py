"""nginx and haproxy before a web listener, set up as docs/sessions.rst says.

Rule of this file: a block of the page is found by its first line, a comment, and changed in nothing but its
ports, files and the addresses that it listens at.

::

    ways = {way.name: way for way in WAYS}
    with ways["nginx"].run(directory, port, server.web_port): ...
"""

import configparser
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WAYS", "Way"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sessions.rst"
READY = 20.0  # seconds
PLACES = ("gate.pem", "gate.key", "gate-and-key.pem")
_NGINX = """\
daemon off; pid {root}/nginx.pid; error_log {root}/nginx.log; events {{}}
http {{
    access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    {block}
}}
"""


def block(first: str) -> str:
    """The literal block of the page that begins with this comment."""
    lines = PAGE.read_text().split("\n")
    start = lines.index(f"    # {first}")
    end = next(at for at in range(start, len(lines)) if lines[at] and not lines[at].startswith("    "))
    return "\n".join(line[4:] for line in lines[start:end])


@dataclass(frozen=True)
class Way:
    """One of the ways of the page; ``tls_at_server``: the balancer passes TLS on."""

    name: str
    program: str
    config: str
    settings_block: str
    tls_at_server: bool = False

    @property
    def missing(self) -> bool:
        """Whether this machine has not got it."""
        return self._path is None

    @property
    def _path(self) -> str | None:
        return shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin:/sbin")

    def settings(self, directory: Path) -> dict[str, dict[str, object]]:
        """Of the server, on a free port; certificate files are in the directory."""
        parser = configparser.ConfigParser()
        parser.read_string(_moved(block(self.settings_block), directory))
        parser["web main"]["address"] = "127.0.0.1:0"
        return {title: dict(parser[title]) for title in parser.sections()}

    @contextlib.contextmanager
    def run(self, directory: Path, port: int, behind: int) -> Iterator[None]:
        """It listens at ``port`` of loopback and leads to ``behind`` until the end of ``with``."""
        text = _moved(block(self.config), directory).replace("127.0.0.1:2443", f"127.0.0.1:{behind}")
        text = text.replace("listen 443", f"listen 127.0.0.1:{port}").replace(
            "bind :443", f"bind 127.0.0.1:{port}"
        )
        path = directory / f"{self.program}.cfg"
        words = ["-db", "-f", str(path)]
        if self.program == "nginx":
            text = _NGINX.format(root=directory, block=text)
            words = ["-p", str(directory), "-c", str(path)]
        path.write_text(text + "\n")
        log = directory / f"{self.program}.said"
        with open(log, "wb") as said:
            process = subprocess.Popen([str(self._path), *words], stdout=said, stderr=said)
        try:
            end = time.monotonic() + READY
            while not _listens(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, f"{self.program} does not listen"
                time.sleep(0.05)
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(10)


def _moved(text: str, directory: Path) -> str:
    for name in PLACES:
        text = text.replace(f"/etc/revtunnel/{name}", str(directory / name))
    return text


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


WAYS = (
    Way("nginx", "nginx", "nginx, in its http block", "revtunnel.ini behind nginx"),
    Way("haproxy", "haproxy", "haproxy.cfg, TLS ends here", "revtunnel.ini behind HAProxy, plain"),
    Way("haproxy-tcp", "haproxy", "haproxy.cfg, TLS goes through", "revtunnel.ini behind HAProxy, TLS", True),
)
