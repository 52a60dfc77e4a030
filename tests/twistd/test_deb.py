"""The Debian package: built by packaging/build-deb, installed, used and purged on a machine of its own."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.namespaces import Net
from tests.faults.namespaces import reason_against as reason_against_networks
from tests.support.overlay_root import OverlayRoot, reason_against
from tests.support.packing import ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PYTHON = "/usr/bin/python3"
INI = "/etc/revtunnel/revtunnel.ini"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file."""
    missing = [name for name in ("dpkg-deb", "dpkg", "gzip", PYTHON) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run([PYTHON, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode:
        pytest.skip(f"not installed: venv of {PYTHON}")
    place = tmp_path_factory.mktemp("deb")
    return Path(run(ROOT / "packaging" / "build-deb", place, cwd=place).strip())


@pytest.fixture
def machine(tmp_path: Path, package: Path) -> Iterator[OverlayRoot]:
    """One that has the file, and a network of its own."""
    if reason := reason_against_networks() or reason_against("dpkg", "systemctl"):
        pytest.skip(f"no machine of its own: {reason}")
    with Net() as net, OverlayRoot(tmp_path / "machine") as found:
        found.prefix = net.prefix(net.server)
        shutil.copy(package, found.path("revtunnel.deb"))
        yield found


def test_what_is_in_it(package: Path) -> None:
    """Programs, units, manuals and completion where Debian looks for them; all of it root's."""
    listed = run("dpkg-deb", "--contents", package, cwd=package.parent)
    names = {line.split()[5].removeprefix(".") for line in listed.splitlines()}
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
    for wanted in (
        "/usr/bin/revtunnel-server",
        "/usr/bin/revtunnel-connect",
        "/usr/bin/cameo-rep-proxy",
        "/usr/lib/systemd/system/revtunnel-agent@.service",
        "/usr/lib/sysusers.d/revtunnel.conf",
        "/usr/lib/tmpfiles.d/revtunnel.conf",
        "/usr/share/man/man8/revtunnel-server.8.gz",
        "/usr/share/bash-completion/completions/revtunnelctl",
        "/usr/share/applications/revtunnel-connect.desktop",
        "/usr/share/doc/revtunnel/operations.rst",
        "/usr/lib/revtunnel/twisted/plugins/revtunnel_plugins.py",
        INI,
    ):
        assert wanted in names
    assert run("dpkg-deb", "--info", package, "conffiles", cwd=package.parent) == f"{INI}\n"
    fields = run("dpkg-deb", "--field", package, "Depends", cwd=package.parent)
    assert "python3 (>= 3." in fields and "python3 (<< 3." in fields


def test_it_is_installed_used_and_purged(machine: OverlayRoot) -> None:
    """A server runs from it; what somebody has set outlives a new version; a purge leaves users alone."""
    machine.run("dpkg -i /revtunnel.deb")
    assert machine.run(f"stat -c '%U:%G %a' {INI}").split() == ["root:revtunnel", "640"]
    assert machine.run("revtunnelctl --version").startswith("revtunnelctl ")

    text = (ROOT / "docs" / "operations.rst").read_text(encoding="utf-8").partition("\nPackages\n---")[2]
    install, settle, start = [line.strip() for line in text.partition("::\n\n")[2].splitlines()[:3]]
    assert install == "dpkg -i revtunnel_*.deb"
    said = machine.run(settle)
    wrote = [line for line in said.splitlines() if not line.startswith("revtunnelctl: ")]
    assert wrote == ["wrote /etc/revtunnel/conf.d/public.ini"]
    machine.run(start)
    assert "revtunnel-agent --enroll rttok1_" in machine.run("revtunnelctl enroll plc-7")
    machine.run("systemctl disable --now revtunnel-server")

    machine.run(f"echo '# mine' >> {INI}")
    machine.run("dpkg -i /revtunnel.deb")
    assert "# mine" in machine.run(f"cat {INI}")

    machine.run("dpkg --remove revtunnel")
    assert not machine.path("usr/bin/revtunnel-server").exists()
    assert "# mine" in machine.run(f"cat {INI}")
    assert machine.path("var/lib/revtunnel/authority").exists()
    machine.run("dpkg --purge revtunnel")
    left = machine.run("find /etc /usr /var/lib -name '*revtunnel*'").split()
    assert [path for path in left if not path.startswith("/var/lib/systemd")] == []
    assert "revtunnel:" in machine.run("getent passwd revtunnel")


def test_a_service_that_is_enabled_is_stopped_first(machine: OverlayRoot) -> None:
    """No link to a unit that is gone stays."""
    machine.run("dpkg -i /revtunnel.deb")
    machine.run("systemctl enable --now revtunnel-server")
    machine.run("dpkg --purge revtunnel")
    assert not list(machine.path("run/systemctl-model").glob("*.pid"))
    assert not list(machine.path("etc/systemd/system").glob("*.wants/revtunnel*"))
