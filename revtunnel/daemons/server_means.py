"""What the settings of a server let it have: pools and fixed ports for its leases, sockets in all.

Rule of this file: it reads settings, and the limit of the process, and keeps nothing.

Source: ours; faults.md N1.
"""

import resource
from dataclasses import replace
from typing import TYPE_CHECKING

from revtunnel.daemons.legacy_devices import fixed_ports
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.fleet.pools import Pool, Use

if TYPE_CHECKING:
    from revtunnel.cluster.shared_ports import SharedPool

__all__ = ["descriptor_budget", "pools_of", "refusing", "reservations_of", "shared_pools"]

FOR_EVER = 3650 * 86400.0  # seconds


def pools_of(settings: ServerSettings) -> list[Pool]:
    """The pools of the allocator, each with the addresses that mappings of legacy devices name."""
    elsewhere = {
        each.client_port: each.client_host for _, each, _ in fixed_ports(settings) if each.client_host
    }
    pools = [replace(pool.pool, elsewhere=elsewhere) for pool in settings.pools]
    if settings.cluster.engine is not None:  # which says when a port is kept no longer
        pools = [replace(pool, sticky=FOR_EVER) for pool in pools]
    return pools + (settings.cccp.pools if settings.cccp is not None else [])


def shared_pools(settings: ServerSettings) -> "list[SharedPool]":
    """The pools that nodes with an engine share: all that have ranges."""
    from revtunnel.cluster.shared_ports import SharedPool

    fixed = {port: use for use, port in reservations_of(settings).items()}
    return [
        SharedPool(
            *(each.name, each.ranges, each.nodes == "all", each.sticky, each.quarantine),
            reserved={
                port: use
                for port, use in fixed.items()
                if any(low <= port <= high for low, high in each.ranges)
            },
        )
        for each in settings.pools
        if each.ranges
    ]


def reservations_of(settings: ServerSettings) -> dict[Use, int]:
    """Fixed ports: those of [reservations], and those that legacy mappings name."""
    fixed = {Use(entry.serial, entry.target): entry.port for entry in settings.reservations}
    return fixed | {use: mapping.client_port for _, mapping, use in fixed_ports(settings)}


def refusing(settings: ServerSettings) -> dict[str, bool]:
    """By pool, whether its ports are open, and refuse, while their device is away."""
    node = settings.cluster.node is not None
    return {each.name: each.absent != "close" or (node and each.nodes == "all") for each in settings.pools}


def descriptor_budget(settings: ServerSettings) -> int:
    """How many sockets clients, links and strangers may use together (faults.md N1)."""
    most, limits = resource.getrlimit(resource.RLIMIT_NOFILE)[0], settings.limits
    return max(1, min(int(most * limits.descriptors), most - limits.descriptors_kept))
