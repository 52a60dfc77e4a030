"""revtunnelctl at the door of the CAMEO relays: their part of ``status``, ``peers``, ``cut``.

Source: docs/admin.rst.
"""

from argparse import Namespace
from typing import Any

from revtunnel.ctl.ctl_output import listing, say
from revtunnel.ctl.tables import age, clean, table
from revtunnel.process.door.admin_client import AdminClient
from revtunnel.process.door.admin_commands import Cut, Peers

__all__ = ["cut", "peers", "relays"]


def relays(row: dict[str, Any]) -> list[str]:
    """The lines of a status about the relays, and about what went nowhere."""
    server = row["cameo_server"]
    there = (
        f"{clean(server['address'])}, {age(server['seconds'])}" if server["connected"] else "not connected"
    )
    parts = [(name, row[name]) for name in ("responder", "publisher")]
    cells = [(name, part["peers"], part["messages"], sum(part["dropped"].values())) for name, part in parts]
    heads = ("RELAY", "PEERS", "MESSAGES", "NOWHERE")
    lines = [f"{'server:':<10}{there}", "", *table(heads, cells, right=" ".join(heads[1:]))]
    reasons = [(f"{name}: {why}", times) for name, part in parts for why, times in part["dropped"].items()]
    reasons += [(f"to {clean(name)}", times) for name, times in row["responder"]["unroutable"].items()]
    return [*lines, "", *table(("NOWHERE", "MESSAGES"), reasons, right="MESSAGES")] if reasons else lines


async def peers(client: AdminClient, options: Namespace) -> int:
    """Who is connected."""
    rows = await client.rows(Peers)
    heads = ("PEER", "RELAY", "TYPE", "IDENTITY", "DOOR", "AGE", "FROM", "TO", "WAITING", "LOST")
    cells = [
        (
            row["peer"],
            row["relay"],
            row["type"],
            row["identity"] or "-",
            (row["outside"] or "-") if row["let_in"] else "waits",
            age(row["seconds"]),
            row["messages_from_peer"],
            row["messages_to_peer"],
            row["waiting"],
            row["dropped"],
        )
        for row in rows
    ]
    return listing(options, "peers", rows, table(heads, cells, right="AGE FROM TO WAITING LOST"))


async def cut(client: AdminClient, options: Namespace) -> int:
    """End the connection of one peer."""
    await client.call(Cut, peer=options.peer)
    return say(options, {"cut": options.peer}, f"the connection of {clean(options.peer)} is closed")
