"""What each subcommand of revtunnelctl asks, and what it prints.

Rule of this file: standard output has what was asked for, as a table for people or as one line of JSON;
remarks go to standard error. Nothing the server says reaches a terminal raw.

Source: docs/admin.rst.
"""

import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.ctl.ctl_cameo import cut, peers, relays
from revtunnel.ctl.ctl_enroll import enroll, revoke
from revtunnel.ctl.ctl_output import listing, print_json, remark, say
from revtunnel.ctl.tables import age, clean, few, size, table, trip, wall_seconds
from revtunnel.process.door.admin_client import AdminClient
from revtunnel.process.door.admin_commands import (
    Channels,
    Close,
    Devices,
    Drain,
    Enrolled,
    Kick,
    LogLevel,
    Ping,
    Ports,
    Record,
    Release,
    Reload,
    Status,
)
from revtunnel.process.logs import format_text

__all__ = ["ACTIONS"]

FAILED, UNAVAILABLE, TRY_AGAIN = 1, 69, 75  # exit status, see ctl.py


def _since(text: str) -> float | None:
    """Seconds since a time that the server wrote; its clock is ours."""
    then = wall_seconds(text)
    return None if then is None else time.time() - then


# ---- looking


async def _ping(client: AdminClient, options: Namespace) -> int:
    row = (await client.call(Ping))["row"]
    say(options, row, clean(row["state"]))
    return TRY_AGAIN if row["state"] == "draining" else 0


async def _status(client: AdminClient, options: Namespace) -> int:
    row = (await client.call(Status))["row"]
    plain = ("name", "version", "state", "devices", "clients", "channels")
    lines = [f"{name + ':':<10}{clean(row[name])}" for name in plain if name in row]
    lines.insert(3, f"{'up:':<10}{age(row['uptime'])}, since {clean(row['since'])}")
    if row.get("ledger_problem"):
        lines.append(f"problem:  the ledger is not on the disk: {clean(row['ledger_problem'])}")
    lines += _pools(row) if "ports" in row else relays(row)
    if row["counts"]:
        lines += ["", *table(("SINCE THE START", "TIMES"), list(row["counts"].items()), right="TIMES")]
    return say(options, row, *lines)


def _pools(row: dict[str, Any]) -> list[str]:
    """How the ports of a server's pools stand."""
    heads = ("POOL", "SIZE", "FREE", "LEASED", "AWAY", "FIXED", "RESTING", "FOREIGN")
    keys = ("size", "free", "leased", "sticky", "fixed", "quarantined", "spoiled")
    pools = [(name, *(pool[key] for key in keys)) for name, pool in row["ports"].items()]
    return ["", *table(heads, pools, right=" ".join(heads[1:]))]


async def _devices(client: AdminClient, options: Namespace) -> int:
    rows = await client.rows(Devices)
    heads = ("SERIAL", "STATE", "SINCE", "LINK", "ADDRESS", "TARGETS", "PORTS", "CHANNELS",
             "TO-DEVICE", "TO-CLIENT", "ROUND-TRIP")  # fmt: skip
    cells = [
        (
            row["serial"],
            "online" if row["online"] else "away",
            age(_since(row["since"])),
            row["link"],
            row["address"],
            few([target["name"] for target in row["targets"]]),
            few([target["port"] or "-" for target in row["targets"]]),
            row["channels"],
            size(row["bytes_to_device"]),
            size(row["bytes_to_client"]),
            trip(row["round_trip"]),
        )
        for row in rows
    ]
    lines = table(heads, cells, right="SINCE CHANNELS TO-DEVICE TO-CLIENT ROUND-TRIP")
    return listing(options, "devices", rows, lines)


async def _device(client: AdminClient, options: Namespace) -> int:
    row = (await client.call(Record, serial=options.serial))["row"]
    where = {"": "none, everything is allowed", "*": "[device *]"}.get(
        row["record"], f"[device {row['record']}]"
    )
    lines = [
        f"{'serial:':<10}{clean(row['serial'])}, {'online' if row['online'] else 'away'}",
        f"{'record:':<10}{clean(where)}",
        *(f"{name + ':':<10}{_allowed(row[name])}" for name in ("clients", "targets", "ports")),
        f"{'channels:':<10}{'any' if row['channels'] is None else row['channels']}",
        f"{'expires:':<10}{clean(row['expires'] or 'never')}{', over' if row['expired'] else ''}",
    ]
    if row["locked"]:
        lines.append(f"{'locked:':<10}{_allowed(row['locked'])}")
    return say(options, row, *lines)


def _allowed(entries: list[str] | None) -> str:
    """A list of a record; None is any."""
    return "any" if entries is None else clean(", ".join(entries) or "none")


async def _ports(client: AdminClient, options: Namespace) -> int:
    rows = await client.rows(Ports)
    heads = ("TARGET -> PORT", "STATE", "OPEN", "ADDRESS", "POOL", "ENDS-IN")
    cells = [
        (
            f"{row['serial']}/{row['target']} -> {row['port']}",
            f"{row['state']}{', fixed' if row['fixed'] else ''}",
            "yes" if row["open"] else "no",
            row["address"],
            row["pool"],
            age(row["left"]),
        )
        for row in rows
    ]
    return listing(options, "ports", rows, table(heads, cells, right="ENDS-IN"))


async def _channels(client: AdminClient, options: Namespace) -> int:
    rows = await client.rows(Channels, serial=options.serial)
    heads = ("SERIAL", "CHANNEL", "TARGET", "CLIENT", "CARRIER", "STATE", "AGE", "TO-DEVICE",
             "TO-CLIENT", "WAITING")  # fmt: skip
    cells = [
        (
            row["serial"],
            row["channel"],
            row["target"],
            row["client"],
            row["carrier"],
            row["state"],
            age(row["seconds"]),
            size(row["bytes_to_device"]),
            size(row["bytes_to_client"]),
            size(row["waiting_to_device"] + row["waiting_to_client"]),
        )
        for row in rows
    ]
    lines = table(heads, cells, right="CHANNEL AGE TO-DEVICE TO-CLIENT WAITING")
    return listing(options, "channels", rows, lines)


async def _enrolled(client: AdminClient, options: Namespace) -> int:
    rows = await client.rows(Enrolled)
    return listing(options, "enrolled", rows, [clean(row) for row in rows])


async def _watch(client: AdminClient, options: Namespace) -> int:
    done: Deferred[int] = Deferred()
    left = [options.count]

    def end(result: Any) -> None:
        if not done.called:
            done.callback(result) if isinstance(result, int) else done.errback(result)

    def seen(row: dict[str, Any]) -> None:
        if done.called:
            return
        try:
            print_json(row) if options.json else print(_line(row), flush=True)
        except OSError as error:  # our reader left; said where the command ends
            end(error)
            return
        if left[0] is not None:
            left[0] -= 1
            if not left[0]:
                end(0)

    client.closed.addCallback(lambda _: end(UNAVAILABLE))
    await client.watch(seen)
    status = await done
    if status == UNAVAILABLE:
        remark("the server closed the connection")
    return status


def _line(row: dict[str, Any]) -> str:
    """A fact as the log has it."""
    known = row.get("level") in ("debug", "info", "warn", "error")
    flat = row if known else {**row, "level": "info"}
    return format_text({**flat, "ts": clean(row.get("ts", "-")), "event": str(row.get("event"))}).rstrip("\n")


# ---- changing


async def _close(client: AdminClient, options: Namespace) -> int:
    await client.call(Close, serial=options.serial, channel=options.channel)
    row = {"closed": {"serial": options.serial, "channel": options.channel}}
    return say(options, row, f"channel {options.channel} of {options.serial} is closed")


async def _kick(client: AdminClient, options: Namespace) -> int:
    await client.call(Kick, serial=options.serial, retry_after=options.retry_after)
    row = {"kicked": options.serial, "retry_after": options.retry_after}
    return say(options, row, f"the link of {options.serial} is closed")


async def _release(client: AdminClient, options: Namespace) -> int:
    serial, target = options.use
    port = (await client.call(Release, serial=serial, target=target))["port"]
    row = {"released": f"{serial}/{target}", "port": port}
    return say(options, row, f"port {port} of {serial}/{target} is given back")


async def _drain(client: AdminClient, options: Namespace) -> int:
    await client.call(Drain)
    return say(options, {"draining": True}, "the server takes no new ones and ends when the old have ended")


async def _reload(client: AdminClient, options: Namespace) -> int:
    row = (await client.call(Reload))["row"]
    lines = [f"changed: {clean(name)}" for name in row["changed"]]
    lines += [f"needs a restart: {clean(name)}" for name in row["needs_restart"]]
    if row["errors"]:
        lines = []
        for error in row["errors"]:
            remark(error)
        remark("the settings are wrong; the old ones stay")
    elif not lines:
        lines = ["nothing has changed"]
    say(options, row, *lines)
    return FAILED if row["errors"] else 0


async def _log_level(client: AdminClient, options: Namespace) -> int:
    await client.call(LogLevel, least=options.level)
    return say(options, {"log_level": options.level}, f"logged from {options.level} on")


ACTIONS: dict[str, Callable[[AdminClient, Namespace], Awaitable[int]]] = {
    "ping": _ping,
    "status": _status,
    "devices": _devices,
    "device": _device,
    "ports": _ports,
    "channels": _channels,
    "enrolled": _enrolled,
    "peers": peers,
    "watch": _watch,
    "close": _close,
    "cut": cut,
    "kick": _kick,
    "release": _release,
    "enroll": enroll,
    "revoke": revoke,
    "drain": _drain,
    "reload": _reload,
    "log-level": _log_level,
}
