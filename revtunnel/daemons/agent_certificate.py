"""An agent's certificate while the agent runs: renewed in time or late, or got anew by a token in a file.

Rule of this file: whatever the certificate is like, the agent stays and has a way back to a good one.

Source: docs/admin.rst "Enrolment"; ours.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.ground.facts import Report, ServerState
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.server_connector import ServerConnector
from revtunnel.state.state_directory import openness
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.certificate_renewal import CertificateRenewal
from revtunnel.trust.enrolment import EnrolmentToken
from revtunnel.trust.token_watch import TokenWatch, enrol

__all__ = ["AgentCertificate"]


class AgentCertificate(MultiService):
    """Renewal and the watch for a token, where the certificate is one of enrolment or there is none.

    Args:
        renewed: a new one is on the disk, at the same place.
        enrolled: the same, and it may be the first one.
    """

    def __init__(
        self,
        reactor: Any,
        settings: AgentSettings,
        connector: ServerConnector,
        report: Report,
        renewed: Callable[[], None],
        enrolled: Callable[[], None],
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._settings = settings
        self._connector = connector
        self._report = report
        self._renewed = renewed
        self._keeper: CertificateRenewal | None = None
        self.take(settings)
        if self._may_enrol(settings):
            watch = TokenWatch(
                *(reactor, str(settings.token_file), settings.serial, self._link_ports),
                *(self._ask, report, enrolled),
            )
            watch.setServiceParent(self)

    def take(self, settings: AgentSettings) -> None:
        """Other settings from now on, perhaps with the first certificate."""
        self._settings = settings
        if self._keeper is not None:
            self._keeper.share = settings.renew_before
        elif settings.certificate is not None and settings.certificate == _kept(settings):
            files = AgentFiles(str(settings.state_directory), settings.serial)
            self._keeper = self._make_keeper(settings, files)
            self._keeper.setServiceParent(self)

    def warn(self, warnings: tuple[str, ...]) -> None:
        """Say what the operator should know of it, and of where its key is."""
        with suppress(FileNotFoundError):
            directory = self._settings.state_directory
            if self._keeper is not None and directory is not None and (found := openness(directory)):
                self._report(ServerState("state", found))
        for warning in warnings:
            self._report(ServerState("certificate", warning))

    def when_fit(self, start: Callable[[], None]) -> None:
        """Start; but while it has ended, not before it was tried to renew it: it lets nobody in."""
        keeper = self._keeper
        if keeper is None or not keeper.is_late:
            start()
            return

        def tried() -> None:
            keeper.tried = lambda: None
            start()

        keeper.tried = tried

    def told_late(self) -> None:
        """A server says that it has ended, whatever our clock says."""
        if self._keeper is not None:
            self._keeper.told_late()

    # -- inside

    def _make_keeper(self, settings: AgentSettings, files: AgentFiles) -> CertificateRenewal:
        cure = f"; revtunnelctl enroll {settings.serial} at the server makes a token"
        return CertificateRenewal(
            self._reactor,
            files,
            settings.serial,
            self._link_ports,
            self._connector.open,
            settings.renew_before,
            settings.limits.connect,
            self._report,
            self._renewed,
            random.random,
            f"{cure}, which may be put into {settings.token_file}" if settings.token_file else cure,
        )

    def _ask(self, token: EnrolmentToken, server: ServerPlace) -> "Deferred[Any]":
        settings = self._settings
        asked = self._reactor, token, settings, settings.proxy, server, settings.limits.connect
        return Deferred.fromCoroutine(enrol(*asked))

    def _link_ports(self) -> list[ServerPlace]:
        """The servers that enrol and renew."""
        return [each for each in self._settings.servers if not each.web]

    @staticmethod
    def _may_enrol(settings: AgentSettings) -> bool:
        asked = settings.token_file is not None and settings.state_directory is not None
        return asked and settings.tls != "no" and settings.certificate in (None, _kept(settings))


def _kept(settings: AgentSettings) -> str | None:
    """Where enrolment keeps the certificate."""
    directory = settings.state_directory
    return AgentFiles(directory, settings.serial).certificate if directory is not None else None
