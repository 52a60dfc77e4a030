"""Proxy sessions in the ledger: what a restart takes up, and what it says of the rest.

Rule of this file: a session that comes back has every option it had, its whitelist among them, or it does not
come back.

Source: issue "CCCP" (Restart); ours.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from revtunnel.ground.networks import network_of
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.proxy import RunningProxy
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions

__all__ = ["Kept", "SessionBook"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One session of an earlier start."""

    serial: str
    project: str
    port: int
    options: ProxyOptions


class SessionBook:
    """``proxies.SessionStore`` over the ledger."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger

    def keep(self, proxy: RunningProxy) -> None:
        """Remember it as it is now."""
        session, options = proxy.session, proxy.session.options
        said = {
            "persistent": options.persistent,
            "whitelist": [str(network) for network in options.whitelist],
            "timeout": options.timeout if session.until is not None else 0,
            "target": options.target,
        }
        row = (session.serial, proxy.project.name, proxy.port.number, json.dumps(said))
        self._ledger.change([("sessions", session.serial, row)])

    def drop(self, serial: str) -> None:
        """Forget it."""
        self._ledger.change([("sessions", serial, None)])

    def load(self) -> Iterator[Kept]:
        """Those that the last start left; what makes no sense is dropped, and warned of.

        Raises:
            LedgerError: the file cannot be read.
        """
        for serial, project, port, text in self._ledger.select(
            "SELECT serial, project, port, options FROM sessions"
        ):
            try:
                yield Kept(serial, project, port, _options(json.loads(text)))
            except (ValueError, KeyError, TypeError):
                self._ledger.warnings.append(f"the ledger's session of {serial!a} makes no sense")
                self.drop(serial)


def _options(said: dict[str, object]) -> ProxyOptions:
    whitelist = said["whitelist"]
    if not isinstance(whitelist, list) or not isinstance(said["persistent"], bool):
        raise TypeError("not what we wrote")
    return ProxyOptions(
        said["persistent"],
        tuple(network_of(str(entry)) for entry in whitelist),
        float(str(said["timeout"])),
        str(said["target"]),
    )
