"""revtunnelctl install-units: a host set up for the daemons as services of systemd, and that undone.

Rule of this file: what somebody has changed is neither replaced nor removed. What was written stands with its
hash in ``/etc/revtunnel/.installed.json``; users, state directories and what is in them stay for ever. Users
and directories are made by systemd's own tools, from the shipped files.

Source: sysusers.d(5), tmpfiles.d(5), systemd.unit(5); docs/operations.rst "Install"; ours.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from argparse import Namespace
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import revtunnel
from revtunnel.ctl.ctl_files import Wrong
from revtunnel.ctl.ctl_output import remark, say
from revtunnel.ctl.tables import clean
from revtunnel.daemons.own_authority import PUBLIC, public_settings
from revtunnel.daemons.schema import find
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.targets import place
from revtunnel.state.atomic_file import make_directory, write_whole
from revtunnel.trust.authority import Unfit, read_names
from revtunnel.trust.authority_settings import AuthoritySettings

__all__ = ["install_units", "settings_file", "shipped"]

UNITS = ("revtunnel-server", "revtunnel-agent@", "revtunnel-cameo", "revtunnel-cccp")
ETC, STATE, AGENT_STATE = "etc/revtunnel", "var/lib/revtunnel", "var/lib/revtunnel-agent"
LIST = f"{ETC}/.installed.json"
UNSEEN = ("/home/", "/root/", "/run/user/")  # by a unit with ProtectHome=yes
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PROGRAMS = re.compile(r"/[A-Za-z0-9._/+@-]+", re.ASCII)
INI = """\
# Settings of revtunnel-server on this machine. What stands nowhere has its default; all that there is:
# revtunnel.ini(5), and {reference}
# conf.d/*.ini beside this file is read after it. To try them, and to have them taken:
#   {programs}/revtunnel-server --check-config
#   systemctl reload revtunnel-server
"""


def shipped(name: str) -> Path:
    """A file that came with the program: in a clone, beside the modules, or where pip has put it.

    Raises:
        Wrong: it did not come.
    """
    beside = Path(revtunnel.__file__).parents[1]
    if (beside / "setup.cfg").exists():
        return next((beside / "etc").rglob(name))
    for directory in ("share/revtunnel", "share/revtunnel/systemd", "lib/systemd/system"):  # pip --target
        if (beside / directory / name).exists():
            return beside / directory / name
    with suppress(importlib.metadata.PackageNotFoundError):
        for each in importlib.metadata.files("revtunnel") or ():
            if each.name == name and Path(str(each.locate())).exists():
                return Path(str(each.locate())).resolve()
    raise Wrong(f"{name}: it was not installed with the program")


def settings_file(programs: str, reference: Path | str) -> str:
    """What stands in the settings file before anything is set: no section, so that any may be added."""
    return INI.format(programs=programs, reference=reference)


def install_units(options: Namespace) -> int:
    """Carry the subcommand out.

    Raises:
        Wrong: it cannot be done; the text says why.
        SettingsError: what shall be set is wrong.
    """
    root = os.path.abspath(options.root or "/")
    try:
        host = Host(root)
        if options.remove:
            host.remove()
        else:
            _install(host, options)
    except OSError as error:
        raise Wrong(f"{error.filename or root}: {error.strerror}") from None
    lines = [f"{word} {clean(path)}" for word, paths in host.done.items() for path in paths]
    return say(options, host.done, *lines)


class Host:
    """The files of one machine, below ``root``, and what was done to them, by its word."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.done: dict[str, list[str]] = {word: [] for word in ("wrote", "kept", "removed")}
        self._written: dict[str, str] = {}
        try:
            with open(self.path(LIST), encoding="ascii") as file:
                self._written = dict(json.load(file))
        except FileNotFoundError:
            pass
        except (ValueError, TypeError):
            raise Wrong(f"{self.path(LIST)}: damaged; without it all files count as changed") from None

    @property
    def runs(self) -> bool:
        """Whether it is this machine, with systemd."""
        return self.root == "/" and os.path.isdir("/run/systemd/system")

    def path(self, name: str) -> str:
        """Where a file is now."""
        return os.path.join(self.root, name)

    def write(self, name: str, text: str) -> None:
        """Write a file, unless somebody has changed it."""
        data, path = text.encode(), self.path(name)
        found = self._hash(path)
        if found is None and self._hash(self.path(name.replace("etc/", "usr/lib/", 1))) == _hash(data):
            return  # a package has brought it
        if found not in (None, _hash(data), self._written.get(name)):
            self.done["kept"].append(f"/{name}")
            return
        self._written[name] = _hash(data)
        if found != _hash(data):
            make_directory(os.path.dirname(path), 0o755)
            write_whole(path, data, 0o644)
            self.done["wrote"].append(f"/{name}")

    def keep_list(self) -> None:
        """Put on the disk what was written."""
        write_whole(self.path(LIST), json.dumps(self._written, indent=1).encode(), 0o644)

    def remove(self) -> None:
        """Take away what was written, and directories that are empty then."""
        wanted = sorted(
            each.stem for each in Path(self.path("etc/systemd/system")).glob("*.wants/revtunnel-*")
        )
        if wanted:
            raise Wrong(f"enabled: {' '.join(wanted)}; systemctl disable --now them first")
        for name, written in self._written.items():
            path = self.path(name)
            found = self._hash(path)
            if found == written:
                os.unlink(path)
            if found is not None:
                self.done["removed" if found == written else "kept"].append(f"/{name}")
        with suppress(FileNotFoundError):
            os.unlink(self.path(LIST))
        for name in (f"{ETC}/conf.d", f"{ETC}/agents", ETC):
            with suppress(OSError):
                os.rmdir(self.path(name))
        self.done["kept"] += [f"/{name}" for name in (STATE, AGENT_STATE) if os.path.isdir(self.path(name))]
        self.reload()

    def systemd(self, tool: str, *options: str) -> None:
        """Have one of systemd's tools do what our file for it says."""
        where = [] if self.root == "/" else [f"--root={self.root}"]
        try:
            done = subprocess.run(
                [tool, *options, *where, "revtunnel.conf"], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise Wrong(f"{tool} is not here; these units are for hosts with systemd") from None
        if done.returncode:
            raise Wrong(f"{tool}: {done.stderr.strip()}")

    def reload(self) -> None:
        """Let systemd read the units."""
        if self.runs:
            subprocess.run(["systemctl", "daemon-reload"], check=False)

    @staticmethod
    def _hash(path: str) -> str | None:
        """None: there is no such file."""
        try:
            with open(path, "rb") as file:
                return _hash(file.read())
        except FileNotFoundError:
            return None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _install(host: Host, options: Namespace) -> None:
    programs = _programs()
    names = options.public.split(",") if options.public else []
    settings = {}
    if names:
        settings["conf.d/public.ini"] = _public(names, options.clients)
    if options.agent or options.server or options.local:
        settings[f"agents/{options.agent}.ini"] = _agent(options)
    if options.clients and not names:
        raise Wrong("--clients goes with --public")
    for unit in UNITS:
        text = shipped(f"{unit}.service").read_text(encoding="utf-8")
        host.write(f"etc/systemd/system/{unit}.service", text.replace("=/usr/bin/", f"={programs}/"))
    for kind in ("sysusers", "tmpfiles"):
        text = shipped(f"revtunnel.{kind}.conf").read_text(encoding="utf-8")
        host.write(f"etc/{kind}.d/revtunnel.conf", text)
    host.write(f"{ETC}/revtunnel.ini", settings_file(programs, shipped("revtunnel.ini")))
    for name, text in settings.items():
        host.write(f"{ETC}/{name}", text)
    host.keep_list()
    host.systemd("systemd-sysusers")
    host.systemd("systemd-tmpfiles", "--create")
    if names:  # in a directory that is the server's own by now, and so is all that is made there
        public_settings(
            names, AuthoritySettings(directory=host.path(f"{STATE}/authority")), datetime.now(UTC)
        )
    if options.agent:
        make_directory(host.path(f"{AGENT_STATE}/{options.agent}"), 0o700)
    host.reload()
    if not options.json:
        _say_next(programs, options)


def _programs() -> str:
    """The directory of the programs.

    Raises:
        Wrong: a unit could not start them there.
    """
    beside = os.path.dirname(os.path.realpath(sys.argv[0]))
    for directory in (beside, sysconfig.get_path("scripts")):
        if os.access(os.path.join(directory, "revtunnel-server"), os.X_OK):
            break
    else:
        raise Wrong(f"{directory}: revtunnel-server is not there")
    if f"{directory}/".startswith(UNSEEN):
        raise Wrong(f"{directory}: no service sees that; install into /opt/revtunnel, say")
    if not _PROGRAMS.fullmatch(directory):
        raise Wrong(f"{directory[:200]!a}: a path without blanks and special characters wanted")
    return directory


def _public(names: list[str], clients: str | None) -> str:
    """Settings of a server that other machines reach."""
    try:
        first = str(read_names(names)[0])
    except Unfit as error:
        raise SettingsError([f"--public: {error}"]) from None
    where = f"/{STATE}/authority/servers"
    lines = ["[listener main]", f"address = {place(*PUBLIC)}", "tls = yes"]
    lines += [f"certificate = {where}/{first}.pem", f"certificate_key = {where}/{first}.key"]
    lines += [f"authority = {where}/authority.pem"]
    if clients:
        lines += [
            "",
            "[pool default]",
            f"bind = {PUBLIC[0]}",
            f"clients = {_sound('pool', 'clients', clients)}",
        ]
    return "\n".join([*lines, ""])


def _agent(options: Namespace) -> str:
    """Settings of an agent's instance."""
    if not options.agent:
        raise Wrong("--server and --local go with --agent")
    if not _INSTANCE.fullmatch(options.agent):
        raise Wrong(f"--agent {options.agent[:80]!a}: 1 to 64 of A-Z a-z 0-9 . _ - wanted")
    if not (options.server and options.local):
        raise Wrong("--agent: --server HOST:PORT and --local HOST:PORT wanted with it")
    lines = ["[agent]", f"serial = {options.agent}"]
    lines += [f"servers = {_sound('agent', 'servers', options.server)}"]
    lines += [f"local = {_sound('agent', 'local', options.local)}"]
    lines += ["# where its service keeps key and certificate, and where root has to put them"]
    lines += [f"state_directory = /{AGENT_STATE}/{options.agent}"]
    return "\n".join([*lines, ""])


def _sound(section: str, key: str, text: str) -> str:
    """A value that can be read.

    Raises:
        SettingsError: it cannot.
    """
    try:
        find(section, key).kind.read(text)
    except ValueError as error:
        raise SettingsError([f"--{'server' if key == 'servers' else key}: {error}"]) from None
    return text


def _say_next(programs: str, options: Namespace) -> None:
    own = shutil.which("revtunnelctl") or ""
    ctl = "revtunnelctl" if os.path.dirname(os.path.realpath(own)) == programs else f"{programs}/revtunnelctl"
    if options.agent:
        remark("next, with a token of the server's revtunnelctl enroll:")
        ini = f"/{ETC}/agents/{options.agent}.ini"
        remark(f"  {programs}/revtunnel-agent --config {ini} --enroll TOKEN --enroll-only")
        remark(f"  systemctl enable --now revtunnel-agent@{options.agent}")
    else:
        remark("next: systemctl enable --now revtunnel-server")
        if options.public:
            remark(f"then, for each device: {ctl} enroll SERIAL")
