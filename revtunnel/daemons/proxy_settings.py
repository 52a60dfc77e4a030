"""Settings about proxies: the HTTP proxy that an agent goes through, and PROXY headers at either end.

Rule of this file: two different things share a name. The HTTP proxy is on an agent's way out
(``proxy``, ``proxy_credentials``). The PROXY protocol says whom a connection is for (``proxy_protocol``): an
agent says it to a service, a load balancer says it to the server (``proxy_from``).

Source: sockets/ways/proxy_choice.py; sockets/ways/proxy_header.py; ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from revtunnel.ground.origin import Origin
from revtunnel.ground.targets import Offer, Target
from revtunnel.settings.inifile import Table
from revtunnel.sockets.tls.certificates import private_file_fault
from revtunnel.sockets.ways.http_connect import ProxyCredentials
from revtunnel.sockets.ways.proxy_choice import (
    DIRECT,
    HttpProxy,
    ProxyChoice,
    from_environment,
    parse_credentials,
)
from revtunnel.sockets.ways.proxy_header import encode_header_v1, encode_header_v2
from revtunnel.sockets.ways.trusted_proxies import SenderSettings

__all__ = ["agent_proxy", "check_headers", "check_named", "check_senders", "headers_of"]


def check_senders(table: Table, label: str, settings: SenderSettings) -> None:
    """Headers are taken from those who are named, so somebody must be."""
    if settings.proxy_protocol != "no" and not settings.proxy_from and table.sound(label, "proxy_from"):
        table.complain(label, "proxy_from", "missing: with proxy_protocol the load balancer's address wanted")
    if settings.proxy_protocol == "no" and settings.proxy_from:
        table.complain(label, "proxy_from", "only with proxy_protocol = v1, v2 or any")


def check_headers(table: Table) -> None:
    """An agent's headers belong to services that it offers, and each has one version."""
    check_named(table, "proxy_protocol")
    versions = dict(table.get("agent", "proxy_protocol"))
    spoken: dict[Target, str | None] = {}
    for offer in table.get("agent", "local"):
        if spoken.setdefault(offer.target, versions.get(offer.name)) != versions.get(offer.name):
            text = f"{offer.name}: {offer.target} is offered twice, the same for both wanted"
            table.complain("agent", "proxy_protocol", text)


def check_named(table: Table, key: str) -> None:
    """What an agent's ``key`` says of services is of those in ``local``, by name, and once of each."""
    offered = {offer.name for offer in table.get("agent", "local")}
    names = [name for name, _ in table.get("agent", key)]
    for number, name in enumerate(names):
        if name in names[:number]:
            table.complain("agent", key, f"{name} stands there twice")
        elif name not in offered and table.sound("agent", "local"):
            table.complain("agent", key, f"{name}: local has no service of that name")


def headers_of(
    local: Sequence[Offer], protocol: Sequence[tuple[str, str]]
) -> dict[Target, Callable[[Origin | None], bytes]]:
    """What encodes the headers of an agent's services, for those that want one."""
    encoders = {"v1": encode_header_v1, "v2": encode_header_v2}
    versions = dict(protocol)
    return {offer.target: encoders[versions[offer.name]] for offer in local if offer.name in versions}


def agent_proxy(table: Table, environ: Mapping[str, str]) -> ProxyChoice:
    """How the agent's servers are reached; what is wrong with that is in the table."""
    wanted, path = table.get("agent", "proxy"), table.get("agent", "proxy_credentials")
    credentials = None if path is None else _credentials(table, path)
    if wanted == "none":
        if path is not None:
            table.complain("agent", "proxy_credentials", "of no use with proxy = none")
        return DIRECT
    if isinstance(wanted, HttpProxy):
        return ProxyChoice(replace(wanted, credentials=credentials))
    choice = from_environment(environ, credentials)
    for server in table.get("agent", "servers"):
        try:
            choice.proxy_for(server.host, server.port)
        except ValueError as error:
            table.complain("agent", "proxy", f"for server {server.host}, environment variable {error}")
            break
    return choice


def _credentials(table: Table, path: str) -> ProxyCredentials | None:
    """User and password out of their file; it must be closed to others."""
    fault = private_file_fault(path)
    if not fault:
        try:
            with open(path, encoding="utf-8") as file:
                return parse_credentials(file.read(4096))
        except (OSError, ValueError) as error:
            fault = "not UTF-8" if isinstance(error, UnicodeError) else str(error)
    table.complain("agent", "proxy_credentials", f"{path}: {fault}", passes=True)
    return None
