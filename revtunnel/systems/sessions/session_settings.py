"""What the settings of web listeners become, and what they must not say.

Rule of this file: no default; session_schema.py has those.

Source: docs/sessions.rst; ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from revtunnel.ground.networks import Network
from revtunnel.settings.inifile import Name, Table
from revtunnel.settings.sections import named_sections
from revtunnel.trust.tls_settings import ListenerTls, check_listener_tls, is_loopback

__all__ = ["WebSettings", "check_web", "web_flat", "web_settings"]


@dataclass(frozen=True, slots=True)
class WebSettings(ListenerTls):
    """One web listener; nobody is asked for a certificate there."""

    name: str
    address: tuple[tuple[str, int], ...]  # IP address and port; port 0 is any
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    proxy_protocol: str  # no, v1, v2, any
    proxy_from: tuple[Network, ...]


def web_settings(table: Table) -> tuple[WebSettings, ...]:
    """Every [web NAME] with an address."""
    found = []
    for values in named_sections(table, "web", None):
        kept: dict[str, Any] = {key: None if value == "none" else value for key, value in values.items()}
        if kept["address"]:
            found.append(WebSettings(authority=None, device_certificates="no", crl=None, **kept))
    return tuple(found)


def check_web(table: Table, listeners: tuple[WebSettings, ...]) -> None:
    """A listener that other machines reach speaks TLS, unless plaintext was asked for by name."""
    for listener in listeners:
        label = f"web {listener.name}"
        check_listener_tls(table, label, listener)
        wide = [host for host, _ in listener.address if not is_loopback(host)]
        if wide and not listener.tls and not listener.allow_plaintext:
            text = f"{wide[0]} is reached by other machines, and plaintext can be read and altered on the way"
            wanted = "tls = yes, or, if that is meant, allow_plaintext = yes"
            table.complain(label, "address", f"{text}, wanted: {wanted}")


def web_flat(listeners: tuple[WebSettings, ...]) -> Iterator[tuple[Name, Any]]:
    """Every setting with its name."""
    inherent = {"name", "authority", "device_certificates", "crl"}
    for listener in listeners:
        for field in fields(listener):
            if field.name not in inherent:
                yield (f"web {listener.name}", field.name), getattr(listener, field.name)
