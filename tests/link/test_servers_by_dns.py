"""An agent that finds its servers by SRV records of a real name server, over TLS and loopback."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from revtunnel.ground.facts import LinkUp, ServerState
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.server_places import parse_server_place
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide
from revtunnel.sockets.tls.peer_verification import Identity, TlsRules
from revtunnel.sockets.ways.service_names import look_up
from tests.support.data_world import HOST, SERIAL, DataWorld
from tests.support.epoll import Names
from tests.support.name_server import Zone, served
from tests.support.throwaway_tls import Issuer

SERVICE = parse_server_place("_revtunnel._tcp.example")
GATES = {f"gate-{number}.example": [HOST] for number in (1, 2)}


class Site(DataWorld):
    """A server whose certificate names what a test says, and an agent that has only the name of a service."""

    def __init__(self, issuer: Issuer, zone: Zone, *names: str, server_name: str | None = None) -> None:
        super().__init__("socket", agent=AgentLimits(retry_first=0.1, retry_most=0.1))
        self.uplink.abort()
        self.until(lambda: not self.switchboard.links)
        of_server, of_device = issuer.server(*names), issuer.device(SERIAL)
        files = of_server.certificate_file, of_server.key_file, issuer.file
        identity = Identity(TlsRules(CertificateFiles(TlsSide.SERVER, *files), peer="required"))
        listener = self.switchboard.listeners["main"]
        self.switchboard.listeners["main"] = replace(listener, identity=identity)
        files = of_device.certificate_file, of_device.key_file, issuer.file
        way = ServerWay(Identity(TlsRules(CertificateFiles(TlsSide.DEVICE, *files))), server_name=server_name)
        self.reactor.installNameResolver(Names(**GATES))
        self.place, self.connector = SERVICE, ServerConnector(self.reactor, way)
        self.dns = self._stack.enter_context(served(self.loop, zone))
        self.uplink = self.make_uplink()
        self.uplink.rounds._look_up = partial(look_up, servers=[self.dns])
        self.agent_facts.clear()

    def away(self) -> list[str]:
        """Why it has no link."""
        return [fact.detail for fact in self.agent_facts if isinstance(fact, ServerState)]


@pytest.fixture
def zone() -> Iterator[Zone]:
    """Two records, of which the first leads nowhere; a test sets the port of the second."""
    return Zone({SERVICE.host: [(0, 0, 9, "gate-1.example", 0)]})


def test_a_link_and_its_data_sockets_by_dns(tmp_path: Path, zone: Zone) -> None:
    """The certificate names the domain that was written, not the host that DNS says."""
    with Site(Issuer(tmp_path), zone, "example") as site:
        zone.records[SERVICE.host].append((1, 0, site.port, "gate-2.example", 0))
        site.start()
        client, service = site.talk()
        site.carry(client, service, b"hello")
        assert site.away()[0].startswith("gate-1.example:9: ")
        (up,) = (fact for fact in site.agent_facts if isinstance(fact, LinkUp))
        assert (up.tls, up.peer) == ("TLSv1.3", f"{HOST}:{site.port}")


@pytest.mark.parametrize("names", [("gate-2.example",), ("_revtunnel._tcp.example",)])
def test_whom_dns_names_is_not_whom_a_certificate_may_name(
    tmp_path: Path, zone: Zone, names: tuple[str, ...]
) -> None:
    """Whoever can say what DNS says has a certificate of his own host; its authority signs many."""
    with Site(Issuer(tmp_path), zone, *names) as site:
        zone.records[SERVICE.host] = [(1, 0, site.port, "gate-2.example", 0)]
        site.uplink.start()
        site.until(site.away)
        assert "example" in site.away()[0] and "certificate" in site.away()[0]
        assert not site.switchboard.links


def test_a_name_that_is_told_counts_here_too(tmp_path: Path, zone: Zone) -> None:
    """``server_name``."""
    with Site(Issuer(tmp_path), zone, "cluster.example", server_name="cluster.example") as site:
        zone.records[SERVICE.host] = [(1, 0, site.port, "gate-2.example", 0)]
        site.start()


def test_a_service_that_is_not_offered_is_looked_for_again(tmp_path: Path, zone: Zone) -> None:
    """DNS is asked with each try, as the records' time says."""
    zone.records[SERVICE.host] = [(0, 0, 0, "", 3600)]
    with Site(Issuer(tmp_path), zone, "example") as site:
        site.uplink.start()
        site.until(site.away)
        words = "_revtunnel._tcp.example: DNS says that this service is not offered; next try in 0.0 s"
        assert site.away()[0] == words
        zone.records[SERVICE.host] = [(0, 0, site.port, "gate-2.example", 3600)]
        site.until(lambda: site.switchboard.links)
        asked = zone.asked
        site.switchboard.kick(SERIAL, "for a test", 0)
        site.until(lambda: not site.switchboard.links)
        site.until(lambda: site.switchboard.links)
        assert zone.asked == asked
