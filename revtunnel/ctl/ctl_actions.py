"""What each subcommand of revtunnelctl asks, and what it prints.

Rule of this file: standard output has what was asked for, as a table for people or as one line of JSON;
remarks go to standard error. Nothing the server says reaches a terminal raw. What is said of most subcommands
stands in their rows.

Source: docs/admin.rst.
"""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from revtunnel.ctl.command_line import arguments_of
from revtunnel.ctl.ctl_output import listing, print_json, remark, say, warn
from revtunnel.ctl.subcommands import COMMANDS
from revtunnel.ctl.tables import age, cell, clean, few, listed, table
from revtunnel.daemons.all_operations import OPERATIONS
from revtunnel.process.admin.admin_client import AdminClient
from revtunnel.process.admin.operation_form import ROW, ROWS, Row

__all__ = ["act"]

FAILED, UNAVAILABLE, TRY_AGAIN = 1, 69, 75  # exit status, see ctl.py


def act(client: AdminClient, options: Namespace) -> int:
    """Carry a subcommand out: the exit status."""
    if options.command == "enroll":
        from revtunnel.ctl.ctl_enroll import enroll

        return enroll(client, options)
    if options.command == "watch":
        return _watch(client, options)
    row = COMMANDS[options.command]
    arguments = arguments_of(row, options)
    if row.answer is ROWS:
        rows = client.rows(row, **arguments)
        lines = listed(row.columns, rows) if row.columns else [clean(each) for each in rows]
        return listing(options, row.command.split()[-1], rows, lines)
    answer = client.call(row, **arguments)
    warn(answer)
    if row.said is None:
        return _OWN[row.command](options, answer["row"] if row.answer is ROW else answer)
    value, text = row.said(arguments | answer)
    return say(options, value, clean(text))


def _ping(options: Namespace, row: Row) -> int:
    say(options, row, clean(row["state"]))
    return TRY_AGAIN if row["state"] == "draining" else 0


def _status(options: Namespace, row: Row) -> int:
    shown = [each for each in OPERATIONS["Status"].columns if each.head and each.name in row]
    lines = [f"{each.head + ':':<10}{cell(each, row)}" for each in shown]
    lines = [f"{line}, since {row['since']}" if line.startswith("up:") else line for line in lines]
    lines += [f"problem:  {each}" for each in row.get("problems", ())]
    lines = [clean(line) for line in lines]
    lines += _pools(row) if "ports" in row else _relays(row)
    if row["counts"]:
        lines += ["", *table(("SINCE THE START", "TIMES"), list(row["counts"].items()), right="TIMES")]
    return say(options, row, *lines)


def _pools(row: Row) -> list[str]:
    """How the ports of a server's pools stand."""
    heads = ("POOL", "SIZE", "FREE", "LEASED", "AWAY", "FIXED", "RESTING", "FOREIGN")
    keys = ("size", "free", "leased", "sticky", "fixed", "quarantined", "spoiled")
    pools = [(name, *(pool[key] for key in keys)) for name, pool in row["ports"].items()]
    return ["", *table(heads, pools, right=" ".join(heads[1:]))]


def _relays(row: Row) -> list[str]:
    """The relays of CAMEO, and what went nowhere."""
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


def _device(options: Namespace, row: Row) -> int:
    section = {"": "none, everything is allowed", "*": "[device *]"}
    lines = [
        f"{'serial:':<10}{row['serial']}, {'online' if row['online'] else 'away'}",
        f"{'record:':<10}{section.get(row['record'], '[device {record}]'.format_map(row))}",
        *(f"{name + ':':<10}{_allowed(row[name])}" for name in ("clients", "targets", "ports")),
        f"{'channels:':<10}{'any' if row['channels'] is None else row['channels']}",
        *([f"{'at once:':<10}{row['at_once']} of a service"] if row["at_once"] is not None else []),
        f"{'expires:':<10}{row['expires'] or 'never'}{', over' if row['expired'] else ''}",
    ]
    if row["labels"]:
        lines.append(f"{'labels:':<10}{_allowed(row['labels'])}")
    if row["muted"]:
        lines.append(f"{'muted:':<10}{row['muted']}")
    if row["locked"]:
        lines.append(f"{'locked:':<10}{_allowed(row['locked'])}")
    return say(options, row, *(clean(line) for line in lines))


def _allowed(entries: list[str] | None) -> str:
    """A list of a record; None is any."""
    return "any" if entries is None else ", ".join(entries) or "none"


def _reload(options: Namespace, row: Row) -> int:
    lines = [f"changed: {clean(name)}" for name in row["changed"]]
    lines += [f"needs a restart: {clean(name)}" for name in row["needs_restart"]]
    for error in row["errors"]:
        remark(error)
    if row["errors"] and not lines:
        remark("the settings are wrong; the old ones stay")
    elif row["errors"]:
        remark("all else is in force")
    elif not lines:
        lines = ["nothing has changed"]
    say(options, row, *lines)
    return FAILED if row["errors"] else 0


def _token(options: Namespace, row: Row) -> int:
    """A user's token, alone on standard output."""
    keys = ("user", "id", "until", "token")
    status = say(options, {key: row[key] for key in keys}, clean(row["token"]))
    if not options.json:
        remark("token {id} of {user}, good until {until}; it is shown here only".format_map(row))
    return status


def _may(options: Namespace, row: Row) -> int:
    what = "{user} may{0} {action} {serial}/{service}".format("" if row["allowed"] else " not", **row)
    until = f" until {row['until']}" if row["until"] else ""
    lines = [f"{what}: grant {row['grant']}{until}" if row["allowed"] else f"{what}: {row['why']}"]
    heads = ("GRANT", "HOLDER", "DEVICE", "SERVICES", "ACTIONS", "DOES NOT FIT")
    cells = [
        [*(each[key] for key in ("grant", "holder", "device")), few(each["services"]),
         ", ".join(each["actions"]), each["misfit"]]
        for each in row["considered"]
    ]  # fmt: skip
    say(options, row, *map(clean, lines), *(["", *table(heads, cells)] if cells else []))
    return 0 if row["allowed"] else FAILED


def _head(options: Namespace, row: Row) -> int:
    """What one keeps elsewhere, as ``audit verify --head`` wants it."""
    if row["problem"]:
        remark(f"the audit file takes no records: {row['problem']}")
    elif not row["file"] and not options.json:
        remark("there is no audit file")
    return say(options, row, *([clean("{seq}:{hash}".format_map(row))] if row["file"] else []))


_OWN: dict[str, Callable[[Namespace, Row], int]] = {
    "ping": _ping,
    "status": _status,
    "device": _device,
    "reload": _reload,
    "user add": _token,
    "token new": _token,
    "may": _may,
    "audit head": _head,
}


def _watch(client: AdminClient, options: Namespace) -> int:
    client.call(OPERATIONS["Watch"])
    shown: Callable[[Row], Any] = print_json if options.json else _print_fact
    for number, row in enumerate(client.facts(), 1):
        shown(row)
        if number == options.count:
            return 0
    remark("the server closed the connection")
    return UNAVAILABLE


def _print_fact(row: Row) -> None:
    """A fact as the log has it."""
    from revtunnel.process.logs import format_text  # imports Twisted's logger, 0.2 s of CPU

    known = row.get("level") in ("debug", "info", "warn", "error")
    flat = row if known else {**row, "level": "info"}
    text = format_text({**flat, "ts": clean(row.get("ts", "-")), "event": str(row.get("event"))})
    print(text.rstrip("\n"), flush=True)
