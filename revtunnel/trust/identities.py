"""The certificates that the listeners of a server show: read at the start, and again on SIGHUP.

Rule of this file: new files count for later connections, all of them or none; a link that is up goes on with
what it began with.

Source: faults.md "TLS"; ours.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from revtunnel.ground.errors import SettingsError
from revtunnel.sockets.tls.certificates import FaultyFiles
from revtunnel.sockets.tls.peer_verification import Identity, never_revoked
from revtunnel.trust.tls_settings import ServerTls
from revtunnel.trust.tls_settings_checks import listener_rules

__all__ = ["Identities"]

FILES = "certificate files"


class Identities:
    """One identity for each listener with TLS, by its name; ``section`` is that of its settings."""

    def __init__(
        self,
        revoked: Callable[[str, str], bool] = never_revoked,
        section: str = "listener",
        grace: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``grace``: seconds for which devices may renew a certificate that has ended."""
        self._revoked = revoked
        self._section = section
        self._grace = grace
        self._found: dict[str, Identity] = {}

    def of(self, name: str) -> Identity | None:
        """That of a listener; None: it is plain."""
        return self._found.get(name)

    @property
    def warnings(self) -> list[str]:
        """What the operator should know of the files."""
        return [text for identity in self._found.values() for text in identity.credentials.warnings]

    def read(self, listeners: Iterable[ServerTls], enrols: bool = False) -> "Identities":
        """Those that the files give now.

        Args:
            enrols: devices without a certificate may ask for one, so TLS lets them in where it is required of
                links; ``AgentListener.certified_only`` keeps them to that.

        Raises:
            SettingsError: with every fault of every file.
        """
        fresh, errors = Identities(self._revoked, self._section, self._grace), []
        for listener in listeners:
            rules = listener_rules(listener)
            if rules is None:
                continue
            if enrols and getattr(listener, "certified", False):
                rules = replace(rules, peer="optional")
            try:
                fresh._found[listener.name] = Identity(rules, self._revoked, self._grace)
            except FaultyFiles as error:
                errors += [f"[{self._section} {listener.name}] {key}: {text}" for key, text in error.faults]
        if errors:
            raise SettingsError(errors, passes=True)
        return fresh

    def changed(self, before: "Identities") -> list[str]:
        """Listeners whose files hold something else than before, as names of settings."""
        return [
            f"[{self._section} {name}] {FILES}"
            for name, identity in self._found.items()
            if (old := before.of(name)) is not None
            and old.credentials.fingerprints != identity.credentials.fingerprints
        ]
