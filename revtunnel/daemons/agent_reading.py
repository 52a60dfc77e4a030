"""From ini files and the command line to the settings of an agent; every fault is found before sockets open.

Rule of this file: all errors at once, each as ``FILE:LINE: [section] key: what is wrong, what is wanted``;
nothing here opens a socket or writes a file, and all of it may run in a thread.

Source: twisted.md section 7; faults.md C5, C6; ours for the rest.
"""

import os
from dataclasses import fields
from functools import partial

from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.daemons.proxy_settings import agent_proxy, check_headers, check_named
from revtunnel.daemons.schema import load
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import parse_serial
from revtunnel.ground.targets import told_apart, twice
from revtunnel.settings.inifile import MissingSettings, Surroundings, Table
from revtunnel.sockets.tls.certificates import private_file_fault
from revtunnel.trust.agent_files import with_kept_files
from revtunnel.trust.tls_settings import AgentTls
from revtunnel.trust.tls_settings_checks import check_agent_tls

__all__ = ["load_agent", "read_agent"]


def read_agent(table: Table, around: Surroundings) -> AgentSettings:
    """The settings of an agent.

    Raises:
        SettingsError: with every error of every file.
        MissingSettings: no error, but servers, local or a serial are missing.
    """
    key_file = table.get("agent", "key_file")
    key_file = around.credential() if key_file == "auto" else key_file
    if ("agent", "local") in table.values:
        table.values["agent", "local"] = told_apart(table.values["agent", "local"])
    _check_agent(table, key_file)
    state = around.kept_in(table.get("agent", "state_directory"))
    written = table.part(AgentTls, state_directory=state)
    tls = with_kept_files(written, table.get("agent", "serial"), around.host_name)
    check_headers(table)
    check_named(table, "at_once")
    check_named(table, "probe")
    proxy = agent_proxy(table, around.environ)
    serial, missing = _identity(table, around, check_agent_tls(table, tls))
    if table.errors or missing:
        raise table.fault if table.errors else MissingSettings(missing)
    return table.part(
        AgentSettings,
        **{field.name: getattr(tls, field.name) for field in fields(tls) if field.name != "token_file"},
        serial=serial,
        key_file=key_file,
        token_file=_token_file(table.get("agent", "token_file"), state, serial),
        proxy=proxy,
        files=tuple(table.files),
    )


load_agent = partial(load, read_agent)


def _token_file(written: str | None, state: str | None, serial: str) -> str | None:
    if written != "auto":
        return written
    return os.path.join(state, f"{serial}.token") if state is not None else None


def _identity(table: Table, around: Surroundings, certified: str) -> tuple[str, list[str]]:
    """The serial, and what is missing; ``certified`` is the one of the certificate, or ``""``."""
    missing = []
    if not table.get("agent", "servers"):
        missing.append("no server: --server HOST:PORT or --server wss://HOST wanted, or servers in [agent]")
    if not table.get("agent", "local"):
        missing.append("no service to offer: --local [NAME=]HOST:PORT wanted, or local in [agent]")
    serial = table.get("agent", "serial")
    if certified and serial not in ("auto", certified):
        table.complain("agent", "serial", f"{serial}: the certificate is for device {certified}")
    if serial == "auto" and certified:
        serial = certified
    elif serial == "auto":
        try:
            serial = parse_serial(around.host_name)
        except RemoteError:
            missing.append(
                f"host name {around.host_name[:80]!a} is no serial: --serial wanted, or serial in [agent]"
            )
    return str(serial), missing


def _check_agent(table: Table, key_file: str | None) -> None:
    offers = table.get("agent", "local")
    most = table.get("link", "offers")
    if double := twice([offer.name for offer in offers]):
        table.complain("agent", "local", f"two offers are named {double}, NAME=HOST:PORT wanted")
    if len(offers) > most and table.sound("link", "offers"):
        table.complain("agent", "local", f"{len(offers)} offers, at most {most} wanted: offers in [link]")
    port = table.get("agent", "server_port")
    if table.get("agent", "emo") and (len(offers) != 1 or not port):
        table.complain("agent", "emo", "one service in local and a server_port wanted with it")
    elif port and not table.get("agent", "emo"):
        table.complain("agent", "server_port", "only with emo = yes")
    if table.get("agent", "follow") == "verified" and table.get("agent", "tls") == "no":
        table.complain("agent", "follow", "verified: of no use with tls = no, configured or no wanted")
    _check_web(table)
    _check_consent(table)
    if key_file is not None and (fault := private_file_fault(key_file)):
        table.complain("agent", "key_file", f"{key_file}: {fault}")


def _check_web(table: Table) -> None:
    """Web listeners take rt1 and nothing else."""
    old = next((wire for wire in ("legacy", "emo") if table.get("agent", wire)), "")
    web = next((server for server in table.get("agent", "servers") if server.web), None)
    if old and web is not None:
        table.complain("agent", "servers", f"{web}: with {old} = yes HOST:PORT wanted")


def _check_consent(table: Table) -> None:
    command = table.get("agent", "consent_command")
    if table.get("agent", "sessions") == "ask" and not command and table.sound("agent", "consent_command"):
        table.complain("agent", "sessions", "ask: consent_command wanted with it")
    old = "legacy" if table.get("agent", "legacy") else "emo"
    rt1 = not table.get("agent", old) or (old == "emo" and table.get("agent", "modern") != "no")
    if table.get("agent", "sessions") != "allow" and not rt1:
        text = "a server of that wire does not say what a connection is for, sessions = allow wanted"
        table.complain("agent", "sessions", f"with {old} = yes {text}")
