"""The systems that others wrote, each started as its own pages say, on loopback.

A system is started between a front port, where clients connect, and a target port, where the service
listens.  The process at the front has the role "server", the one at the target's side the role "agent".
"""

from __future__ import annotations

import atexit
import getpass
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Crew, CrewError

__all__ = ["LOCAL_PEERS", "PEERS", "System", "accepts", "free_ports"]

# above revtunnel's own pool, below the ephemeral ports of Linux, which the measured connections use up
PORTS = range(21000, 32000)
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
STUNNEL = shutil.which("stunnel4") or "stunnel"
HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"


def free_ports(count: int, adjacent: bool = False) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now; who loses a race for one fails to start."""
    for _ in range(200):
        first = random.choice(PORTS)
        ports = list(range(first, first + count)) if adjacent else random.sample(PORTS, count)
        if all(_is_free(port) for port in ports):
            return ports
    raise CrewError("no free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def accepts(port: int) -> bool:
    """Return whether somebody accepts connections on 127.0.0.1:port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class System:
    """One row of the table.  `kind`: direct, peer or ours."""

    name: str
    kind: str
    missing: Callable[[], str]  # why it cannot run here, "" when it can

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        """Start the processes; return the front ports, which together carry `width` connections."""
        raise NotImplementedError


def _certificate(crew: Crew) -> tuple[Path, Path]:
    """Make a certificate for the name "load" that signs itself, with a P-256 key; their files."""
    certificate, key = crew.folder / "certificate.pem", crew.folder / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=load", "-addext", "subjectAltName=DNS:load", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True, timeout=30)
    return certificate, key


@dataclass(frozen=True)
class Direct(System):
    """No system: the client connects to the service."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        return [target]


def _needs(*programs: str) -> Callable[[], str]:
    def missing() -> str:
        absent = [os.path.basename(name) for name in programs if shutil.which(name) is None]
        return f"{' and '.join(absent)} not found on PATH" if absent else ""

    return missing


HAPROXY_CONFIG = """\
global
    maxconn 3000
defaults
    mode tcp
    option splice-auto
    timeout connect 10s
    timeout client 10m
    timeout server 10m
listen relay
    bind 127.0.0.1:{front}
    server next 127.0.0.1:{target}
"""


@dataclass(frozen=True)
class HaproxyTwice(System):
    """Two processes in a row, as a server and an agent would stand."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        front, middle = free_ports(2)
        for role, port, onward in (("agent", middle, target), ("server", front, middle)):
            config = crew.folder / f"{role}.cfg"
            config.write_text(HAPROXY_CONFIG.format(front=port, target=onward))
            crew.start(role, [HAPROXY, "-db", "-f", config])
        return [front]


SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM {pam}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding yes
LogLevel ERROR
"""

SSH_OPTIONS = """\
BatchMode yes
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
GlobalKnownHostsFile /dev/null
ExitOnForwardFailure yes
LogLevel ERROR
Compression no
"""


def _sshd(crew: Crew, role: str, cipher: str = "") -> list[str | Path]:
    """Start a private sshd with throw-away keys; the words of an ssh to it, up to what it forwards."""
    port = free_ports(1)[0]
    for name in ("host", "user"):
        key = crew.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30)
    _separation_folder()
    pam = "yes" if os.geteuid() == 0 else "no"  # root's password may be locked, which only PAM lets pass
    config, options = crew.folder / "sshd_config", crew.folder / "ssh_config"
    config.write_text(SSHD_CONFIG.format(port=port, folder=crew.folder, pam=pam))
    options.write_text(SSH_OPTIONS)
    crew.start(role, [SSHD, "-D", "-e", "-f", config])
    crew.wait_until(lambda: accepts(port), "sshd")
    chosen = ["-c", cipher] if cipher else []
    login = ["-i", crew.folder / "user", "-p", str(port), f"{getpass.getuser()}@127.0.0.1"]
    return ["ssh", "-F", options, *chosen, "-N", "-T", *login]


@dataclass(frozen=True)
class SshReverse(System):
    """`ssh -R` to a private sshd; `cipher` empty: what the two agree on by default."""

    cipher: str = ""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        front = free_ports(1)[0]
        ssh = _sshd(crew, "server", self.cipher)
        crew.start("agent", [*ssh, "-R", f"127.0.0.1:{front}:127.0.0.1:{target}"])
        return [front]


@dataclass(frozen=True)
class SshLocal(System):
    """`ssh -L` to an sshd beside the device; `reverse`: to one in the middle, to which `ssh -R` dials."""

    reverse: bool = False

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        front, middle = free_ports(2)
        ssh = _sshd(crew, "server" if self.reverse else "agent")
        if self.reverse:
            crew.start("agent", [*ssh, "-R", f"127.0.0.1:{middle}:127.0.0.1:{target}"])
            crew.wait_until(lambda: accepts(middle), "ssh -R")
        crew.start(
            "server", [*ssh, "-L", f"127.0.0.1:{front}:127.0.0.1:{middle if self.reverse else target}"]
        )
        return [front]


def _separation_folder() -> None:
    """An sshd of root wants /run/sshd; make it for this run where the system's own sshd has not."""
    folder = Path("/run/sshd")
    if os.geteuid() == 0 and not folder.exists():
        folder.mkdir(mode=0o755)
        atexit.register(folder.rmdir)


FRP_SERVER = """\
bindAddr = "127.0.0.1"
proxyBindAddr = "127.0.0.1"
bindPort = {port}
transport.tcpMux = {mux}
"""

FRP_CLIENT = """\
serverAddr = "127.0.0.1"
serverPort = {port}
transport.tcpMux = {mux}
transport.tls.enable = {tls}
[[proxies]]
name = "load"
type = "tcp"
localIP = "127.0.0.1"
localPort = {target}
remotePort = {front}
"""


@dataclass(frozen=True)
class Frp(System):
    """Its default is TLS, whose certificate nobody verifies, and one connection for all clients (`mux`)."""

    mux: bool = True
    tls: bool = True

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        port, front = free_ports(2)
        values = {"port": port, "front": front, "target": target}
        values |= {"mux": str(self.mux).lower(), "tls": str(self.tls).lower()}
        (crew.folder / "frps.toml").write_text(FRP_SERVER.format(**values))
        (crew.folder / "frpc.toml").write_text(FRP_CLIENT.format(**values))
        crew.start("server", ["frps", "-c", crew.folder / "frps.toml"])
        crew.wait_until(lambda: accepts(port), "frps")
        crew.start("agent", ["frpc", "-c", crew.folder / "frpc.toml"])
        return [front]


RATHOLE_SERVER = """\
[server]
bind_addr = "127.0.0.1:{port}"
default_token = "benchmark"
[server.services.load]
bind_addr = "127.0.0.1:{front}"
"""

RATHOLE_CLIENT = """\
[client]
remote_addr = "127.0.0.1:{port}"
default_token = "benchmark"
[client.services.load]
local_addr = "127.0.0.1:{target}"
"""


RATHOLE_TLS = """\
[{side}.transport]
type = "tls"
[{side}.transport.tls]
{files}
"""


@dataclass(frozen=True)
class Rathole(System):
    """Plain TCP, its default; `tls`: the server's certificate is verified, the client has none."""

    tls: bool = False

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        port, front = free_ports(2)
        server, client = RATHOLE_SERVER, RATHOLE_CLIENT
        if self.tls:
            certificate, key = _certificate(crew)
            store = crew.folder / "identity.pfx"
            words = ["pkcs12", "-export", "-passout", "pass:load", "-inkey", key, "-in", certificate]
            subprocess.run(["openssl", *words, "-out", store], check=True, capture_output=True, timeout=30)
            shown = f'pkcs12 = "{store}"\npkcs12_password = "load"'
            verified = f'trusted_root = "{certificate}"\nhostname = "load"'
            server += RATHOLE_TLS.format(side="server", files=shown)
            client += RATHOLE_TLS.format(side="client", files=verified)
        for side, text in (("server", server), ("client", client)):
            (crew.folder / f"{side}.toml").write_text(text.format(port=port, front=front, target=target))
        crew.start("server", ["rathole", "--server", crew.folder / "server.toml"])
        crew.wait_until(lambda: accepts(port), "rathole")
        crew.start("agent", ["rathole", "--client", crew.folder / "client.toml"])
        return [front]


@dataclass(frozen=True)
class Bore(System):
    """Its control port is fixed: 7835."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        front = free_ports(1)[0]
        crew.start("server", ["bore", "server", "--bind-addr", "127.0.0.1"])
        crew.wait_until(lambda: accepts(7835), "bore server")
        crew.start(
            "agent", ["bore", "local", str(target), "-l", "127.0.0.1", "-t", "127.0.0.1", "-p", str(front)]
        )
        return [front]


@dataclass(frozen=True)
class Chisel(System):
    """HTTP upgrade, SSH inside; ``local``: the client is the person's, and the server beside the device."""

    local: bool = False

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        port, front = free_ports(2)
        far, near = ("agent", "server") if self.local else ("server", "agent")
        crew.start(far, ["chisel", "server", "--host", "127.0.0.1", "--port", str(port), "--reverse"])
        crew.wait_until(lambda: accepts(port), "chisel server")
        remote = f"{'' if self.local else 'R:'}127.0.0.1:{front}:127.0.0.1:{target}"
        crew.start(near, ["chisel", "client", f"http://127.0.0.1:{port}", remote])
        return [front]


@dataclass(frozen=True)
class Wstunnel(System):
    """WebSockets, one for each client; `scheme` wss: over TLS, its own certificate, which nobody verifies.

    `local`: the client is the person's, and the server beside the device.
    """

    scheme: str = "ws"
    local: bool = False

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        port, front = free_ports(2)
        url = f"{self.scheme}://127.0.0.1:{port}"
        far, near = ("agent", "server") if self.local else ("server", "agent")
        crew.start(far, ["wstunnel", "server", url])
        crew.wait_until(lambda: accepts(port), "wstunnel server")
        way = "-L" if self.local else "-R"
        crew.start(near, ["wstunnel", "client", way, f"tcp://127.0.0.1:{front}:127.0.0.1:{target}", url])
        return [front]


STUNNEL_CONFIG = """\
foreground = quiet
pid =
[relay]
client = {client}
accept = 127.0.0.1:{accept}
connect = 127.0.0.1:{connect}
{options}
"""


@dataclass(frozen=True)
class StunnelTwice(System):
    """TLS between two processes, the certificate verified against its own file."""

    def start(self, crew: Crew, target: int, width: int) -> list[int]:
        front, middle = free_ports(2)
        certificate, key = _certificate(crew)
        shown = f"cert = {certificate}\nkey = {key}"
        verified = f"CAfile = {certificate}\nverifyChain = yes\ncheckHost = load"
        for role, client, port, onward, options in (
            ("agent", "no", middle, target, shown),
            ("server", "yes", front, middle, verified),
        ):
            config = crew.folder / f"{role}.conf"
            config.write_text(
                STUNNEL_CONFIG.format(client=client, accept=port, connect=onward, options=options)
            )
            crew.start(role, [STUNNEL, config])
        return [front]


PEERS: tuple[System, ...] = (
    Direct("direct", "direct", lambda: ""),
    HaproxyTwice("haproxy x2", "peer", _needs(HAPROXY)),
    SshReverse(
        "ssh -R aes128-gcm", "peer", _needs("ssh", "ssh-keygen", SSHD), cipher="aes128-gcm@openssh.com"
    ),
    SshReverse("ssh -R default", "peer", _needs("ssh", "ssh-keygen", SSHD)),
    Frp("frp", "peer", _needs("frps", "frpc")),
    Frp("frp plain", "peer", _needs("frps", "frpc"), mux=False, tls=False),
    Frp("frp TLS", "peer", _needs("frps", "frpc"), mux=False),
    Rathole("rathole", "peer", _needs("rathole")),
    Rathole("rathole TLS", "peer", _needs("rathole", "openssl"), tls=True),
    Bore("bore", "peer", _needs("bore")),
    Chisel("chisel", "peer", _needs("chisel")),
    Wstunnel("wstunnel", "peer", _needs("wstunnel")),
    Wstunnel("wstunnel wss", "peer", _needs("wstunnel"), scheme="wss"),
    StunnelTwice("stunnel x2", "peer", _needs(STUNNEL, "openssl")),
)

LOCAL_PEERS: tuple[System, ...] = (
    PEERS[0],
    SshLocal("ssh -L", "peer", _needs("ssh", "ssh-keygen", SSHD)),
    SshLocal("ssh -L to ssh -R", "peer", _needs("ssh", "ssh-keygen", SSHD), reverse=True),
    Chisel("chisel", "peer", _needs("chisel"), local=True),
    Wstunnel("wstunnel", "peer", _needs("wstunnel"), local=True),
    Wstunnel("wstunnel wss", "peer", _needs("wstunnel"), scheme="wss", local=True),
)
