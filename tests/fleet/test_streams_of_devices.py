"""One owner of all streams: what it lists and ends, also of carriers whose connection is gone."""

from revtunnel.fleet.streams_of_devices import StreamsOfDevices
from revtunnel.ground.reasons import Ended
from tests.support.world import World


def test_a_question_about_one_device_is_answered_from_its_own_carriers() -> None:
    """Rows come by serial and number; the end of one device's streams is no other's."""
    world = World(serials=("plc-2", "plc-1"))
    streams = world.switchboard.streams
    for serial in ("plc-2", "plc-1", "plc-1"):
        world.client(serial, "web")
    world.pump()
    assert [(row.serial, row.number) for row in streams.page()] == [("plc-1", 1), ("plc-1", 2), ("plc-2", 1)]
    assert (streams.running("plc-1"), streams.running("nobody"), len(streams)) == (2, 0, 3)
    assert sorted(streams.serials()) == ["plc-1", "plc-2"]

    assert streams.end("plc-1", 2, Ended.OPERATOR, "a test")
    assert not streams.end("plc-1", 3, Ended.OPERATOR, "a test")
    assert streams.end_all(Ended.OPERATOR, "a test", "plc-1")
    assert not streams.end_all(Ended.OPERATOR, "a test", "nobody")
    world.pump()
    assert [row.serial for row in streams.page()] == ["plc-2"]
    assert world.ended() == ["operator", "operator"]


def test_a_carrier_goes_with_its_connection_or_with_its_last_stream() -> None:
    """What runs keeps it; a device without one is in nobody's list."""
    world = World()
    streams, carrier = StreamsOfDevices(), world.server_link().carrier
    streams.add(carrier)
    streams.leave(carrier)
    assert streams.serials() == []

    client = world.client("plc-1", "web")
    world.pump()
    streams.add(carrier)
    streams.leave(carrier)
    assert streams.serials() == ["plc-1"] and carrier.on_rest is not None
    carrier.on_rest()
    assert streams.serials() == [] and carrier.on_rest is None
    client.abort()
    world.pump()
