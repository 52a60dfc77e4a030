"""The settings of web listeners, and what they must not say.

Source: docs/sessions.rst; ours.
"""

import re
from dataclasses import dataclass

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import (
    NAME,
    SettingKind,
    listening,
    many,
    networks,
    nothing,
    read_range,
    word,
    yes_no,
)
from revtunnel.ground.networks import Network, is_loopback
from revtunnel.ground.targets import is_literal
from revtunnel.settings.inifile import Table
from revtunnel.sockets.ways.trusted_proxies import SenderSettings
from revtunnel.trust.tls_settings import ServerTls
from revtunnel.trust.tls_settings_checks import check_listener_tls, check_plaintext

__all__ = ["WebSettings", "web_settings"]


def read_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: a host name wanted")
    return text.lower().rstrip(".")


def read_origin(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:_-]{1,262}", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: an origin such as https://desk.example wanted, without a path")
    return text.lower()


_HOSTS = many("host name", read_host, 0, 64)
_ORIGINS = many("origin", read_origin, 0, 64)
_NAME_OR_NONE = SettingKind(
    "host name", "none, or a host name", lambda text: "" if text == "none" else read_host(text)
)
_PORTS = nothing("none", SettingKind("ports", "none, or LOW-HIGH", read_range))
_AUTO = word("auto", "yes", "no")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class WebSettings(ServerTls, SenderSettings):
    """One web listener, for people and perhaps for agents; nobody is asked for a certificate there."""

    address: tuple[tuple[str, int], ...] = setting(listening(0), "", "where people's programs and web pages "
        "come in, such as 127.0.0.1:2443, 0.0.0.0:2443; port 0: any free one; empty: nowhere", live=True)
    hosts: tuple[str, ...] = setting(_HOSTS, "", "names by which people reach it, as in Host; addresses and "
        "localhost always may be", live=True)
    origins: tuple[str, ...] = setting(_ORIGINS, "", "web pages that may open connections, such as "
        "https://desk.example, beside those from the listener's own address", live=True)
    forwarded_from: tuple[Network, ...] = setting(networks(256), "", "load balancers that speak HTTP and "
        "name the client in X-Forwarded-For, such as 127.0.0.1; of all others that header is ignored",
        live=True)
    agents: bool = setting(yes_no(), "no", "whether agents come in here too, by WebSocket at /link: the "
        "servers of [agent] are wss://HOST then", live=True)
    keys: str = setting(word("required", "enrolled"), "required", "of agents; required: everybody must prove "
        "the key of his serial; enrolled: a serial that has a key must, others are let in, which is for a "
        "listener that no other machine reaches, by a balancer neither", live=True)
    data: str = setting(word("link", "socket", "auto"), "auto", "what carries their channels, as in "
        "[listener NAME]; data sockets are WebSockets too", live=True)
    pool: str = setting(NAME, "default", "the [pool NAME] that gives their devices client ports", live=True)
    api: str = setting(_AUTO, "auto", "the HTTP API for people, /api/; auto: with TLS, and where no other "
        "machine comes in", live=True)
    page: str = setting(_AUTO, "auto", "the page for people, with logins by password, /; brings the API "
        "along; auto: as api, if argon2-cffi is there", live=True)
    plain_cookies: bool = setting(yes_no(), "no", "INSECURE: browsers log in without TLS, for trials on "
        "loopback", live=True)
    device_names: str = setting(_NAME_OR_NONE, "none", "web pages of devices are at SERIAL--SERVICE.NAME, "
        "NAME such as pages.example: DNS and certificate have *.NAME, and no other host is below it",
        live=True)
    device_ports: tuple[int, int] | None = setting(_PORTS, "none", "web pages of devices are at a port each "
        "of these, LOW-HIGH, while their session lasts; nothing else has them", live=True)
    device_host: str = setting(_NAME_OR_NONE, "none", "the name that device_ports have in browsers: one of "
        "its own, in DNS and certificate, for cookies know no ports", live=True)
    metrics: str = setting(word("auto", "token", "open", "no"), "auto", "/metrics for Prometheus; token: "
        "for readers, by their token; open: for everybody who gets here; auto: token, as api, if "
        "prometheus_client is there", live=True)
    metrics_devices: bool = setting(yes_no(), "no", "/metrics of each device too, by its serial; many "
        "devices make that large", live=True)
# fmt: on

    @property
    def is_safe(self) -> bool:
        """Whether nobody reads what goes by: TLS, or no other machine."""
        return self.tls or all(is_loopback(host) for host, _ in self.address)


def web_settings(table: Table) -> tuple[WebSettings, ...]:
    """Every [web NAME] with an address; one that other machines reach speaks TLS, or was meant not to."""
    found = tuple(each for each in table.parts(WebSettings, None) if each.address)
    for listener in found:
        label = f"web {listener.name}"
        check_listener_tls(table, label, listener)
        wide = [host for host, _ in listener.address if not is_loopback(host)]
        if wide:
            check_plaintext(table, label, wide[0], listener)
        if wide and listener.plain_cookies:
            table.complain(
                label, "plain_cookies", f"{wide[0]} is reached by other machines, loopback addresses wanted"
            )
        for key, words in _page_faults(listener, {host for each in found for host in each.hosts}):
            table.complain(label, key, words)
        if wide and listener.agents and listener.keys == "enrolled":
            table.complain(
                label, "keys", f"{wide[0]} lets devices without keys in from other machines, required wanted"
            )
    return found


def _page_faults(listener: WebSettings, ours: set[str]) -> list[tuple[str, str]]:
    """What would put a device's page where ours are, ``ours`` by all listeners, or where our cookies go."""
    names, host, faults = listener.device_names, listener.device_host, []
    below = [each for each in (*sorted(ours), host) if names and each.endswith(f".{names}")]
    if below:
        faults.append(("device_names", f"{below[0]} is below {names}, where only devices are"))
    if (listener.device_ports is None) != (not host):
        faults.append(("device_ports", "device_ports and device_host are set together"))
    elif listener.device_ports is not None and names:
        faults.append(("device_ports", "either device_names or device_ports wanted"))
    if host and (host in (*ours, "localhost") or is_literal(host)):
        faults.append(("device_host", f"{host} is where our own page is: its cookies would go to every port"))
    if is_literal(names):
        faults.append(("device_names", f"{names}: a name wanted, no address"))
    return faults
