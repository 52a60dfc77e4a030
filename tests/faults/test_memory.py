"""A server whose memory the kernel limits (a cgroup, as MemoryMax does): readers that stall do not fill it.

What it may hold is computed from its settings: a first window, or a first reading, for each stalled client,
what ``pool`` adds for all of them, and the objects of a stream. Offered is far more.
"""

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.support import memory_cgroup
from tests.support.daemons import Lab
from tests.support.memory_cgroup import MemoryCgroup
from tests.support.traffic import (
    MIB,
    Patterned,
    Reader,
    connect,
    end_of,
    exchange,
    question,
    read_pattern,
    stands_still,
)

pytestmark = pytest.mark.slow

STALLED = 60  # clients of each of the two devices
EACH = 8 * MIB  # bytes that each of them asks for
POOL = 8 * MIB
OF_EACH = 64 * 1024 + 48 * 1024  # [link] first_window or [relay] first; the stream itself, both its ends
ROOM = 16 * MIB  # all else: what honest clients move, what malloc does not give back


@pytest.fixture
def group() -> Iterator[MemoryCgroup]:
    """A group for one server; nothing runs in it any more at the end."""
    if reason := memory_cgroup.reason_against():
        pytest.skip(f"no memory cgroup: {reason}")
    with memory_cgroup.memory_cgroup() as found:
        yield found


@pytest.fixture
def lab(group: MemoryCgroup, lab: Lab) -> Lab:
    """Its daemons end before the group is taken away."""
    return lab


@pytest.mark.parametrize("data", [pytest.param("link", marks=pytest.mark.long), "socket"])
def test_n7_stalled_readers_do_not_fill_a_limited_server(group: MemoryCgroup, lab: Lab, data: str) -> None:
    """Nobody is killed, others are served meanwhile, and who reads on gets every byte."""
    pools = {"limits": {"pool": POOL}, "relay": {"pool": POOL}}
    server = lab.server({"listener main": {"data": data}, **pools}, prefix=group.prefix).start()
    with Patterned() as service, contextlib.ExitStack() as stack:
        for serial in ("plc-1", "plc-2", "honest"):
            lab.agent(server, serial, offers={"bulk": service.target}).start()
        ports = [server.client_port(serial, "bulk") for serial in ("plc-1", "plc-2")]
        honest = server.client_port("honest", "bulk")
        exchange(honest, 1, MIB, MIB)
        group.limit(server.resident() + len(ports) * STALLED * OF_EACH + POOL + ROOM)
        stalled = []
        for number in range(2, 2 + len(ports) * STALLED):
            client = stack.enter_context(connect(ports[number % 2]))
            client.sendall(question(number, 0, EACH))
            stalled.append((number, client))
        service.record.wait_until(lambda: service.accepted > len(stalled), "streams", 60.0)
        stands_still(service)
        assert service.sent < len(stalled) * EACH  # all of them do stall
        exchange(honest, 1000, 8 * MIB, 8 * MIB)
        assert group.killed() == 0 and server.running
        for number, client in stalled[::40]:
            assert read_pattern(client, Reader(number + (1 << 31))) == EACH
        assert group.killed() == 0 and not server.events("link-down")


def test_n7_a_server_that_was_killed_for_its_memory_comes_back(group: MemoryCgroup, lab: Lab) -> None:
    """Too small a limit ends it, its clients are reset, and the next start has the same ports."""
    with Patterned() as service, contextlib.ExitStack() as stack:
        server = lab.server(prefix=group.prefix).start()
        soon = {"agent": {"retry_first": "0.2 s", "retry_most": "1 s"}}
        lab.agent(server, offers={"bulk": service.target}, settings=soon).start()
        port = server.client_port("plc-7", "bulk")
        exchange(port, 1, MIB, MIB)
        group.limit(group.used() + MIB)
        stalled = [stack.enter_context(connect(port)) for _ in range(40)]
        for number, client in enumerate(stalled):
            with contextlib.suppress(ConnectionError):
                client.sendall(question(number, 0, EACH))
        assert server.wait() == -signal.SIGKILL and group.killed()
        assert {end_of(client) for client in stalled} == {"reset"}
        group.limit(1024 * MIB)
        server.start()
        assert server.client_port("plc-7", "bulk") == port
        exchange(port, 100, MIB, MIB)
