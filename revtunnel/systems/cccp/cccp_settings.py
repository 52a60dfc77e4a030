"""The settings of CCCP: sections [cccp] and [cccp-project ...], for revtunnel-cccp and for revtunnel-server.

Rule of this file: who may register and who may call from other machines has to be said by name.

Source: twisted.md section 7; wire/cccp.md section 2; faults.md "Bind defaults"; ours.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from revtunnel.fleet.pools import Pool
from revtunnel.ground.policy import CccpLimits
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.settings.inifile import SECTION_OF, Name, SettingsError, Surroundings, Table, read_files
from revtunnel.settings.sections import (
    admin_settings,
    check_people,
    differences,
    named_sections,
    part_of,
    socket_beside,
)
from revtunnel.sockets.tls.credentials import private_file_fault
from revtunnel.systems.cccp.http_api import HttpApiRules
from revtunnel.systems.cccp.registered_devices import Project
from revtunnel.systems.cccp.wake import WakeRules
from revtunnel.trust.tls_settings import ListenerTls, check_listener_tls, is_loopback

__all__ = [
    "CccpPart",
    "CccpSettings",
    "ProjectSettings",
    "cccp_changes",
    "cccp_flat",
    "cccp_part",
    "load_cccp",
]

TOKEN = "revtunnel-cccp.token"  # in $CREDENTIALS_DIRECTORY
LEAST_TOKEN = 16  # characters


@dataclass(frozen=True, slots=True)
class ProjectSettings(ListenerTls):
    """Devices of one project, and the ports of their clients."""

    name: str
    address: tuple[tuple[str, int], ...]
    ranges: tuple[tuple[int, int], ...]
    bind: str
    quarantine: float
    sticky: float
    duplicate: str  # newest, oldest
    line_feed: str  # payload, swallow
    early_data: str  # hold, discard
    off: str  # close, park
    timeout: float
    serials: tuple[str, ...]
    allow_open: bool

    @property
    def pool(self) -> Pool:
        """Its ports, for the allocator."""
        return Pool(f"cccp-{self.name}", self.ranges, self.bind, self.quarantine, self.sticky)

    def project(self, identity: Any = None) -> Project:
        """What holds for its devices."""
        return Project(
            self.name,
            self.pool.name,
            self.duplicate == "newest",
            self.line_feed == "swallow",
            self.early_data == "hold",
            self.off == "park",
            self.timeout,
            frozenset(self.serials),
            identity,
        )


@dataclass(frozen=True, slots=True)
class CccpPart:
    """What both daemons are told."""

    http: tuple[tuple[str, int], ...]
    host: str  # "": the address a request came in on
    hosts: tuple[str, ...]
    token: bytes | None  # SHA-256
    wake_command: str
    wake_url: str
    projects: tuple[ProjectSettings, ...]
    limits: CccpLimits

    @property
    def rules(self) -> HttpApiRules:
        """For the API."""
        return HttpApiRules(self.token, self.host, frozenset(self.hosts))

    @property
    def wake(self) -> WakeRules:
        """For the wake driver."""
        return WakeRules(self.wake_command, self.wake_url, self.limits.wake, self.limits.wakes)

    @property
    def pools(self) -> list[Pool]:
        """For the allocator."""
        return [project.pool for project in self.projects]


@dataclass(frozen=True, slots=True)
class CccpSettings:
    """All that revtunnel-cccp is told."""

    part: CccpPart
    state_directory: str | None
    allow_open_state: bool
    log_format: str
    log_level: str
    admin: AdminSettings
    files: tuple[str, ...]


def load_cccp(
    path: str | None = None, overrides: Mapping[Name, Any] | None = None, around: Surroundings | None = None
) -> CccpSettings:
    """The settings of the daemon; arguments and errors as those of ``load_server``."""
    around = around or Surroundings.here()
    table = read_files(path, overrides, around)
    state = table.get("cccp", "state_directory")
    settings = CccpSettings(
        part=cccp_part(table, around),
        state_directory={"auto": around.state_directory(), "none": None}.get(state, state),
        allow_open_state=table.get("cccp", "allow_open_state"),
        log_format=table.get("cccp", "log_format"),
        log_level=table.get("cccp", "log_level"),
        admin=admin_settings(table, socket_beside(table, "cccp", around)),
        files=tuple(table.files),
    )
    check_people(table)
    if table.errors:
        raise SettingsError(table.errors)
    return settings


def cccp_part(table: Table, around: Surroundings) -> CccpPart:
    """What both daemons take from the table; what is wrong with it is noted there."""
    host = table.get("cccp", "host")
    part = CccpPart(
        http=table.get("cccp", "http"),
        host="" if host == "auto" else host,
        hosts=table.get("cccp", "hosts"),
        token=_token(table, around),
        wake_command=table.get("cccp", "wake_command"),
        wake_url=table.get("cccp", "wake_url"),
        projects=tuple(_projects(table)),
        limits=part_of(table, CccpLimits),
    )
    _check_door(table, part)
    for project in part.projects:
        label = f"cccp-project {project.name}"
        check_listener_tls(table, label, project)
        _check_width(table, label, project)
    return part


def _projects(table: Table) -> Iterator[ProjectSettings]:
    for values in named_sections(table, "cccp-project", "main"):
        kept: dict[str, Any] = {key: None if value == "none" else value for key, value in values.items()}
        yield ProjectSettings(**kept)


def _token(table: Table, around: Surroundings) -> bytes | None:
    path = table.get("cccp", "token_file")
    if path == "auto":
        path = os.path.join(around.environ.get("CREDENTIALS_DIRECTORY", ""), TOKEN)
        path = path if os.path.isabs(path) and os.path.exists(path) else "none"
    if path == "none":
        return None
    fault = private_file_fault(path)
    text = b""
    if fault is None:
        with open(path, "rb") as file:
            text = file.read(4097).strip()
        if not LEAST_TOKEN <= len(text) <= 4096 or not text.isascii() or len(text.split()) != 1:
            fault = f"one word of {LEAST_TOKEN} to 4096 characters wanted"
    if fault is not None:
        table.complain("cccp", "token_file", f"{path}: {fault}")
    return hashlib.sha256(text).digest()


def _check_door(table: Table, part: CccpPart) -> None:
    wide = [host for host, _ in part.http if not is_loopback(host)]
    if wide and part.token is None and not table.get("cccp", "allow_without_token"):
        wanted = "token_file = PATH, or, if that is meant, allow_without_token = yes"
        table.complain(
            "cccp", "http", f"{wide[0]} lets other machines call without a token, wanted: {wanted}"
        )
    if part.wake_command and part.wake_url:
        table.complain("cccp", "wake_url", "wake_command is set as well, one of them wanted")


def _check_width(table: Table, label: str, project: ProjectSettings) -> None:
    """Whom a listener that other machines reach lets in, and whether in plain."""
    wide = [host for host, _ in project.address if not is_loopback(host)]
    if not wide:
        return
    if not project.certified and not project.allow_open:
        wanted = "tls = yes with device_certificates = required, or, if that is meant, allow_open = yes"
        table.complain(label, "address", f"{wide[0]} lets anybody register any serial, wanted: {wanted}")
    if not project.tls and not project.allow_plaintext:
        text = f"{wide[0]} is reached by other machines, and plaintext can be read and altered on the way"
        table.complain(
            label, "address", f"{text}, wanted: tls = yes, or, if that is meant, allow_plaintext = yes"
        )


# ---- what changed


def cccp_changes(old: CccpSettings, new: CccpSettings) -> tuple[list[str], list[str]]:
    """Names of settings that differ, as ``differences`` says them."""
    return differences(_flat(old), _flat(new))


def _flat(settings: CccpSettings) -> Iterator[tuple[Name, Any]]:
    yield from cccp_flat(settings.part)
    for name in ("state_directory", "allow_open_state", "log_format", "log_level"):
        yield ("cccp", name), getattr(settings, name)
    yield ("cccp", "admin_socket"), settings.admin.socket
    for name in ("mode", "operators", "readers"):
        yield ("admin", name), getattr(settings.admin, name)


def cccp_flat(part: CccpPart) -> Iterable[tuple[Name, Any]]:
    """Every setting of the part with its name."""
    for name in ("http", "host", "hosts", "wake_command", "wake_url"):
        yield ("cccp", name), getattr(part, name)
    yield ("cccp", "token_file"), part.token
    for key in SECTION_OF["cccp"].keys:
        if key.part is CccpLimits:
            yield ("cccp", key.name), getattr(part.limits, key.name)
    for project in part.projects:
        for field in fields(project):
            if field.name != "name":
                yield (f"cccp-project {project.name}", field.name), getattr(project, field.name)
