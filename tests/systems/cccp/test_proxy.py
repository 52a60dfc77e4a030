"""The end of a session by others than its two sides: whose bytes were dropped sees a reset, else an end."""

import socket
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from revtunnel.ground.limits import RelayLimits
from revtunnel.process.admin.refusals import NotFound
from tests.systems.cccp.test_cccp_operator import Site, system

__all__ = ["system"]

PIECE = bytes(1 << 16)


def fill(site: Site, sender: socket.socket) -> None:
    """Say more than anybody takes, until something is held."""
    sender.setblocking(False)

    def stuck() -> bool:
        with suppress(BlockingIOError):
            while True:
                sender.send(PIECE)
        relay = site.system.proxies.get("CLD-1").relay  # type: ignore[union-attr]
        return relay is not None and relay.held > 0

    site.loop.until(stuck, "held bytes")
    sender.settimeout(20)


def off(site: Site) -> None:
    """By the API."""
    site.system.operator.off("CLD-1")


def kick(site: Site) -> None:
    """By an operator."""
    site.operator.kick("CLD-1", 0, "anna")


def stop(site: Site) -> None:
    """The daemon stops."""
    site.system.proxies.stop()


@pytest.mark.parametrize("end", [off, kick, stop])
def test_nothing_was_dropped(system: Site, end: Any) -> None:
    """What was on its way arrives, then an end in order, for both."""
    device, client = system.pair("CLD-1", persistent=False)
    system.pass_on(client, device, b"x" * 1000)
    end(system)
    assert (system.loop.ending(client), system.loop.ending(device)) == ("end", "end")


@pytest.mark.parametrize("end", [off, kick, stop])
def test_bytes_for_the_client_were_dropped(system: Site, end: Any) -> None:
    """He sees a reset; the device, which lost nothing, an end."""
    device, client = system.pair("CLD-1", persistent=False)
    fill(system, device)
    end(system)
    assert (system.loop.ending(client), system.loop.ending(device)) == ("reset", "end")


@pytest.mark.parametrize("end", [off, kick, stop])
def test_bytes_for_the_device_were_dropped(system: Site, end: Any) -> None:
    """It sees a reset; the client, who lost nothing, an end."""
    device, client = system.pair("CLD-1", persistent=False)
    fill(system, client)
    end(system)
    assert (system.loop.ending(client), system.loop.ending(device)) == ("end", "reset")


def test_bytes_that_nobody_had_read_yet_were_dropped(system: Site) -> None:
    """They had come, and are not passed on any more."""
    device, client = system.pair("CLD-1", persistent=False)
    system.pass_on(client, device, b"x")
    device.sendall(b"answer")
    off(system)
    assert (system.loop.ending(client), system.loop.ending(device)) == ("reset", "end")


@pytest.mark.parametrize("who", ["device", "client"])
@pytest.mark.parametrize("said", [b"", b"early"])
def test_early_bytes_that_nobody_came_for(system: Site, who: str, said: bytes) -> None:
    """A session for once keeps them unread; they are dropped with its time-out."""
    port = system.on("CLD-1", persistent=False, timeout=0.2 if who == "device" else 0.0)
    one = system.device("CLD-1") if who == "device" else system.connect(port)
    system.loop.until(lambda: system.session("CLD-1")["state"] == who, who)
    one.sendall(said)
    system.loop.settle(quiet=0.03)
    if who == "client":
        off(system)
    assert system.loop.ending(one) == ("reset" if said else "end")


def test_what_is_thrown_away_by_the_rules_is_not_dropped(system: Site) -> None:
    """A side of a persistent session that is alone, and a parked device, are never listened to."""
    parked = system.device("CLD-2")
    alone = system.device("CLD-1")
    system.on("CLD-1", persistent=True)
    for each in (parked, alone):
        each.sendall(b"to nobody")
    system.loop.settle(quiet=0.03)
    off(system)
    system.operator.kick("CLD-2", 0, "anna")
    assert (system.loop.ending(alone), system.loop.ending(parked)) == ("end", "end")


def test_a_device_is_not_parked_with_half_a_message(system: Site) -> None:
    """Where /off leaves it connected: it is reset if bytes for it were dropped, and comes back."""
    part = system.system.part
    part = replace(part, projects=tuple(replace(each, off="park") for each in part.projects))
    system.system.take(part, RelayLimits(), system.system.projects_of(part))
    device, client = system.pair("CLD-1", persistent=False)
    fill(system, client)
    off(system)
    assert system.loop.ending(device) == "reset"
    with pytest.raises(NotFound):
        system.operator.kick("CLD-1", 0, "anna")


def test_a_persistent_client_misses_nothing_of_a_device_that_was_kicked(system: Site) -> None:
    """What was held for him comes before the next device's bytes."""
    device, client = system.pair("CLD-1")
    fill(system, device)
    relay = system.system.proxies.get("CLD-1").relay  # type: ignore[union-attr]
    assert relay is not None
    owed = relay.to_near + relay.held_for_near
    kick(system)
    again = system.device("CLD-1")
    system.loop.until(lambda: system.session("CLD-1")["state"] == "joined", "the pair")
    client.setblocking(False)
    heard = bytearray()

    def all_there() -> bool:
        with suppress(BlockingIOError):
            heard.extend(client.recv(1 << 20))
        return len(heard) >= owed + 4

    again.sendall(b"next")
    system.loop.until(all_there, "all of it")
    assert len(heard) == owed + 4 and heard.endswith(b"next")


def test_a_client_whom_an_operator_resets_takes_bytes_with_him(system: Site) -> None:
    """What he had said and the device did not get is dropped: it sees no end in order."""
    device, client = system.pair("CLD-1", persistent=False)
    fill(system, client)
    system.operator.close("CLD-1", 0, "anna")
    assert (system.loop.ending(client), system.loop.ending(device)) == ("reset", "reset")
