"""What was asked for in vain: one row a port, bounded, until it is in vain no more."""

import pytest

from revtunnel.systems.emo.ports_in_vain import MOST, PortsInVain
from tests.systems.emo.test_emo_server import EmoWorld, machine


class _Wall:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_port_has_one_row_with_its_last_refusal() -> None:
    """Counted, with the first time and the last."""
    wall = _Wall()
    ports = PortsInVain(wall)
    ports.add(5010, "192.0.2.1", "no")
    wall.now += 60
    ports.add(5010, "192.0.2.2", "never")
    row = {"port": 5010, "address": "192.0.2.2", "why": "never", "times": 2}
    times = {"first": "2027-01-15T08:00:00Z", "last": "2027-01-15T08:01:00Z"}
    assert ports.in_vain() == ([row | times], None)
    ports.registered(5010)
    assert ports.in_vain() == ([], None)


def test_whoever_is_silent_for_longest_makes_way() -> None:
    """However many ports somebody tries; who still asks stays."""
    ports = PortsInVain()
    for port in range(MOST):
        ports.add(port, "", "")
    ports.add(0, "", "")
    ports.add(60_000, "", "")
    first, after = ports.in_vain()
    rest, end = ports.in_vain(after or -1)
    assert [row["port"] for row in first + rest] == [0, *range(2, MOST), 60_000]
    assert end is None


def test_only_what_is_newly_reserved_leaves() -> None:
    """A reserved port that is refused for another reason stays over a reload."""
    ports = PortsInVain()
    ports.reserved([5010])
    for port in (5010, 5011, 5012):
        ports.add(port, "", "")
    ports.reserved([5010, 5011])
    assert [row["port"] for row in ports.in_vain()[0]] == [5010, 5012]


@pytest.mark.parametrize("port", [22, 5013])
def test_a_command_socket_that_is_refused_is_listed(port: int) -> None:
    """With the words of the log; who registers is not."""
    world = EmoWorld()
    machine(world, b"C%06d\n" % port)
    (row,), _ = world.door.in_vain.in_vain()
    assert (row["port"], row["why"]) == (port, f"port {port} is reserved for no device here")
    assert row["address"] and ":" not in row["address"]
    world.door.in_vain.add(5011, "", "it was somebody else's")
    machine(world, b"C005011\n")
    assert [row["port"] for row in world.door.in_vain.in_vain()[0]] == [port]
