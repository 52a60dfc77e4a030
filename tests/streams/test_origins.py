"""A service that is told who its client is, over loopback: by the link and by data sockets alike."""

from dataclasses import replace

import pytest

from revtunnel.ground.origin import Origin
from revtunnel.sockets.ways.proxy_header import encode_header_v1, encode_header_v2
from revtunnel.streams.commands import Feature
from revtunnel.streams.dialler import Header
from tests.support.data_world import DataWorld


@pytest.mark.parametrize("encode", [encode_header_v1, encode_header_v2])
@pytest.mark.parametrize("rule", ["link", "socket"])
def test_the_header_is_the_first_that_a_service_hears(rule: str, encode: Header) -> None:
    """With the client's own address and the port that it dialled; it is not counted as the client's."""
    with DataWorld(rule, header=encode) as world:
        for _ in range(2):  # the second one finds a warm socket
            client, service = world.talk()
            host, port = client.getsockname()
            header = encode(Origin(host, port, *client.getpeername()))
            assert world.hear(service, len(header)) == header
            world.carry(client, service, b"hello")
            world.carry(service, client, b"world")
            (row,) = world.switchboard.streams.page()
            assert (row.bytes_to_device, row.bytes_to_client) == (5, 5)
            assert row.carrier == rule
            client.close()
            assert world.ending(service) == "end of file"
            service.close()
            world.until(lambda: not world.switchboard.clients)


@pytest.mark.parametrize("rule", ["link", "socket"])
def test_a_server_that_cannot_say_it(rule: str) -> None:
    """The service is told that its client is unknown."""
    with DataWorld(rule, header=encode_header_v2) as world:
        listener = world.switchboard.listeners["main"]
        hello = replace(listener.hello, features=Feature.DATA_SOCKETS)
        world.switchboard.listeners["main"] = replace(listener, hello=hello)
        old = world.link
        old.dismiss("replaced", "for a test", 1)  # type: ignore[arg-type]
        world.until(lambda: world.switchboard.fleet.get("plc-1").link not in (None, old))  # type: ignore[union-attr]
        world.until(lambda: world.ports.of("plc-1"))
        client, service = world.talk()
        header = encode_header_v2(None)
        assert world.hear(service, len(header)) == header
        world.carry(client, service, b"hello")
