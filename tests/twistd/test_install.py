"""docs/operations.rst, "Install", line by line, on two machines that are layers above this one."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.namespaces import SERVER, Net, inside, moved
from tests.faults.namespaces import reason_against as reason_against_networks
from tests.support.overlay_root import OverlayRoot, reason_against
from tests.support.packing import OFFLINE, ROOT, packed_wheel
from tests.support.services import Echo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

GATE = "10.1.0.1"
CTL = "/opt/revtunnel/bin/revtunnelctl"
TOKEN = r"rttok1_[A-Za-z0-9_.-]+"


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    if reason := reason_against_networks() or reason_against("systemctl", "python3"):
        pytest.skip(f"no machine of its own: {reason}")


def written(begin: str, end: str) -> list[list[str]]:
    """The literal blocks between two places of the page, as lines."""
    text = (ROOT / "docs" / "operations.rst").read_text(encoding="utf-8")
    text = text.partition(begin)[2].partition(end)[0]
    return [
        [line[4:] for line in block.splitlines()]
        for block in re.findall(r"::\n\n((?:    .*\n|\n(?=    ))+)", text)
    ]


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as found:
        found.address(found.server, "to-c", f"{GATE}/16")
        found.address(found.client, "to-s", "10.1.0.2/16")
        found.address(found.agent, "lo", "10.41.51.152/32")
        yield found


@pytest.fixture
def machines(net: Net, tmp_path: Path) -> Iterator[tuple[OverlayRoot, OverlayRoot]]:
    """The server's and the agent's, before the first line; the second gets its result."""
    with OverlayRoot(tmp_path / "gate") as gate, OverlayRoot(tmp_path / "site") as site:
        gate.write("etc/hosts", "127.0.0.1 localhost\n")
        site.write("etc/hosts", f"127.0.0.1 localhost\n{SERVER} gate.example\n")
        yield gate, site


class Console(Echo):
    """The device's telnet, where the page's agent expects it."""

    def listen(self) -> socket.socket:
        return socket.create_server(("10.41.51.152", 23))


def install(machine: OverlayRoot, line: str, tmp_path: Path) -> None:
    """The line with pip, which finds the wheel of this clone."""
    wheel = packed_wheel(tmp_path)
    machine.write(f"wheels/{wheel.name}", "")
    machine.path(f"wheels/{wheel.name}").write_bytes(wheel.read_bytes())
    links = f"/wheels {os.environ.get('PIP_FIND_LINKS', '')}"
    done = machine.run(f"({line}) || echo FAILED", PIP_FIND_LINKS=links)
    if OFFLINE.search(done):
        pytest.skip("the package registry cannot be reached")
    assert "FAILED" not in done, done


def test_the_page_line_by_line(net: Net, machines: tuple[OverlayRoot, OverlayRoot], tmp_path: Path) -> None:
    """From nothing to a client of a device behind another machine; then all is taken away."""
    at_server, beside_device, block, away = written("Install\n---", "Packages\n---")
    gate, site = machines
    assert at_server[0] == beside_device[0]
    install(gate, at_server[0], tmp_path)
    shutil.copytree(gate.path("opt/revtunnel"), site.path("opt/revtunnel"), symlinks=True)
    gate.prefix, site.prefix = net.prefix(net.server), net.prefix(net.agent)

    *_, enrolled = [gate.run(line) for line in at_server[1:]]
    token = re.search(TOKEN, enrolled)
    assert token is not None
    assert gate.run("stat -c %U /var/lib/revtunnel/authority/authority.key").split() == ["revtunnel"]
    for line in beside_device[1:]:
        site.run(line.replace("rttok1_...", token[0]))
    made = site.run("stat -c '%U %a' /var/lib/revtunnel-agent/plc-7/plc-7.pem")
    assert made.split() == ["revtunnel-agent", "600"]

    with moved(Console(), net.agent):
        gate.wait_log("revtunnel-server", "listener-opened")
        port = re.search(r"plc-7/tcp-23\D+(\d+)", gate.run(f"{CTL} ports"))
        assert port is not None
        with inside(net.client, lambda: socket.create_connection((GATE, int(port[1])), 20)) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"

    path = gate.path("etc/revtunnel/revtunnel.ini")
    path.write_text("\n".join([path.read_text(), *block, ""]))
    gate.run("systemctl reload revtunnel-server")
    gate.wait_log("revtunnel-server", "settings-reloaded changed=")
    assert "kept /etc/revtunnel/revtunnel.ini" in gate.run(f"{CTL} install-units --public gate.example")

    assert "enabled" in gate.run(away[1], fails=True)
    removed = [gate.run(line) for line in away][-1]
    assert "kept /etc/revtunnel/revtunnel.ini" in removed
    assert "removed /etc/systemd/system/revtunnel-server.service" in removed
    found = gate.run("find /etc/systemd /etc/sysusers.d /etc/tmpfiles.d /etc/revtunnel -name '*revtunnel*.*'")
    assert found.split() == ["/etc/revtunnel/revtunnel.ini"]
