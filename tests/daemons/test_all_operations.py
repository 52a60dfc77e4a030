"""The table of operations: the wire is the released one, and each daemon does what its rows say."""

import inspect
import re
from typing import Any

import pytest

from revtunnel.cluster.cluster_system import Cluster
from revtunnel.daemons.all_operations import DAEMONS, OPERATIONS
from revtunnel.daemons.kept_ports import KeptPorts
from revtunnel.daemons.kept_records import KeptRecords
from revtunnel.daemons.offer_changes import OfferChanges
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.webhooks import Webhooks
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_form import ROW, ROWS, Argument, CallerRole, Kind, Operation
from revtunnel.state.session_audit import SessionAudit
from revtunnel.systems.cameo.cameo_operator import CameoOperator
from revtunnel.systems.cccp.cccp_operator import CccpOperator
from revtunnel.systems.emo.ports_in_vain import PortsInVain
from revtunnel.systems.sessions.session_operator import SessionOperator
from revtunnel.trust.grants import Action
from revtunnel.trust.host_keys import HostKeys
from revtunnel.trust.mutes import Mutes
from revtunnel.trust.people_operations import ACTIONS
from revtunnel.trust.people_operator import PeopleOperator
from tests.support.room import Room

# arguments, answer, role: ? may be missing; programs of others speak this
WIRE = {
    "Ping": ("", "row:text", "READER"),
    "Status": ("", "row:text", "READER"),
    "Devices": ("?here:yes or no ?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Record": ("serial:text", "row:text", "READER"),
    "Ports": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Channels": ("?serial:text ?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Sessions": ("?serial:text ?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Enrolled": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Peers": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Watch": ("", "", "READER"),
    "Close": ("serial:text channel:number", "", "OPERATOR"),
    "Cut": ("peer:text", "", "OPERATOR"),
    "Kick": ("serial:text retry_after:number", "", "OPERATOR"),
    "Release": ("serial:text target:text", "port:number", "OPERATOR"),
    "Reserve": ("serial:text target:text ?port:number ?pool:text", "port:number", "OPERATOR"),
    "Unreserve": ("serial:text target:text", "port:number", "OPERATOR"),
    "PortsInVain": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Offer": ("serial:text offer:text", "port:number", "OPERATOR"),
    "Unoffer": ("serial:text name:text", "", "OPERATOR"),
    "Enroll": ("serial:text replace:yes or no", "key:text ?problem:text", "OPERATOR"),
    "AppKey": ("serial:text replace:yes or no", "key:text ?problem:text", "OPERATOR"),
    "Authority": ("", "row:text", "READER"),
    "Token": ("serial:text replace:yes or no", "token:text server:text ?problem:text", "OPERATOR"),
    "Certify": (
        "serial:text request:raw replace:yes or no",
        "certificate:raw authority:raw ?problem:text",
        "OPERATOR",
    ),
    "Revoke": ("serial:text ?lift:yes or no", "?problem:text", "OPERATOR"),
    "Drain": ("?node:text", "", "OPERATOR"),
    "Reload": ("", "row:text", "OPERATOR"),
    "LogLevel": ("least:text", "", "OPERATOR"),
    "Users": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Tokens": ("user:text ?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Groups": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Members": ("group:text ?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Grants": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "May": (
        "user:text action:text serial:text service:text ?labels:list ?at:text",
        "row:text",
        "READER",
    ),
    "UserAdd": (
        "user:text ?note:text ?days:number ?role:text",
        "user:text id:text until:text token:text ?problem:text",
        "OPERATOR",
    ),
    "User": ("user:text", "row:text", "READER"),
    "UserEdit": ("user:text ?note:text ?role:text", "?problem:text", "OPERATOR"),
    "UserReset": ("user:text", "?problem:text", "OPERATOR"),
    "UserRemove": ("user:text", "?problem:text", "OPERATOR"),
    "TokenNew": (
        "user:text ?note:text ?days:number ?scope:text",
        "user:text id:text until:text token:text ?problem:text",
        "OPERATOR",
    ),
    "TokenRevoke": ("user:text ?token:text", "count:number ?problem:text", "OPERATOR"),
    "GroupAdd": ("group:text ?note:text", "?problem:text", "OPERATOR"),
    "GroupRemove": ("group:text", "?problem:text", "OPERATOR"),
    "MemberAdd": ("group:text user:text", "?problem:text", "OPERATOR"),
    "MemberRemove": ("group:text user:text", "?problem:text", "OPERATOR"),
    "GrantAdd": (
        "holder:text device:text services:list ?actions:list ?begins:text ?until:text",
        "grant:text ?problem:text",
        "OPERATOR",
    ),
    "GrantRemove": ("grant:text", "holder:text ?problem:text", "OPERATOR"),
    "Muted": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "Mute": ("serial:text ?why:text", "?problem:text", "OPERATOR"),
    "Unmute": ("serial:text", "?problem:text", "OPERATOR"),
    "AuditHead": ("", "row:text", "READER"),
    "Nodes": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "SessionEnd": ("session:text", "", "OPERATOR"),
    "SessionShare": (
        "session:text person:text ?watch:yes or no ?use:yes or no ?take:yes or no ?minutes:number",
        "id:text nonce:text",
        "OPERATOR",
    ),
    "Webhooks": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "WebhookDead": ("hook:text ?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "WebhookRedeliver": ("hook:text ?id:text", "count:number", "OPERATOR"),
    "WebhookDrop": ("hook:text ?id:text", "count:number", "OPERATOR"),
    "WebhookTest": ("hook:text", "", "OPERATOR"),
    "RecordShow": ("serial:text", "row:text", "READER"),
    "RecordEdit": (
        "serial:text ?clients:list ?targets:list ?ports:list ?leases:number ?channels:number ?at_once:number"
        " ?expires:text ?labels:list ?sessions:text ?services:list ?web:list ?web_host:text",
        "?problem:text",
        "OPERATOR",
    ),
    "RecordReset": ("serial:text ?keys:list", "?problem:text", "OPERATOR"),
    "HostKeys": ("?after:text ?limit:number", "rows:text ?after:text", "READER"),
    "HostKeyForget": ("serial:text service:text", "?problem:text", "OPERATOR"),
    "SessionUnshare": ("session:text person:text", "", "OPERATOR"),
}
PARTS: dict[str, type] = {  # of an operator
    "people": PeopleOperator,
    "mutes": Mutes,
    "kept": KeptPorts,
    "emo": PortsInVain,
    "records": KeptRecords,
    "host_keys": HostKeys,
    "offers": OfferChanges,
    "audit": SessionAudit,
    "remote": SessionOperator,
    "cluster": Cluster,
    "webhooks": Webhooks,
}
OPERATORS: dict[str, type[DaemonOperator]] = {
    "revtunnel-server": Operator,
    "revtunnel-cccp": CccpOperator,
    "revtunnel-cameo": CameoOperator,
}
ROWS_OF = [(name, row) for name, table in DAEMONS.items() for row in table.values()]


def test_the_wire_is_the_released_one() -> None:
    """Names, arguments, answers and roles; what is new is added here, what is here stays."""

    def shown(fields: tuple[Argument, ...]) -> str:
        return " ".join(f"{'?' if each.optional else ''}{each.name}:{each.kind.words}" for each in fields)

    assert {
        name: (shown(row.asked), shown(row.answer), row.role.name) for name, row in OPERATIONS.items()
    } == WIRE


def test_each_daemon_has_its_table() -> None:
    """The rows of a daemon are those of its operator."""
    assert {name: operator.operations for name, operator in OPERATORS.items()} == DAEMONS


@pytest.mark.parametrize(("daemon", "row"), ROWS_OF, ids=[f"{daemon} {row.name}" for daemon, row in ROWS_OF])
def test_every_row_has_a_method_that_takes_its_arguments(daemon: str, row: Operation) -> None:
    """With the same names, with who asks where he is named, and it ends as it says."""
    part, _, name = row.method.rpartition(".")
    method = getattr(PARTS[part] if part else OPERATORS[daemon], name)
    if row.name != "Watch":  # the door's: the method gets whoever is told
        takes = inspect.signature(method).parameters.values()
        names = {each.name for each in takes if each.kind is not each.VAR_KEYWORD} - {"self"}
        asked = {each.name for each in row.asked} | ({"by"} if row.named else set())
        assert names == asked or (len(names) < len([*takes]) - 1 and names < asked)
    raised = set(re.findall(r"^ +((?:[A-Z]\w+(?:, )?)+): ", inspect.getdoc(method) or "", re.MULTILINE))
    said = {name for names in raised for name in names.split(", ")} - {"Raises", "Args"}
    assert said <= {error.__name__ for error in row.errors}


def test_rows_are_as_the_columns_say() -> None:
    """Every listing and row of a server has exactly the declared keys, with values of their kind."""
    room = Room()
    client, _ = room.talk("console")
    client.say(b"x")
    room.pump()
    operator = room.operator
    operator.people.user_add("ana", "root")
    operator.people.group_add("night", "root")
    operator.people.grant_add("ana", "plc-*", ["web"], "root")
    operator.mutes.mute("plc-9", "root", "a press is being mended")
    operator.emo.add(5010, "192.0.2.7", "port 5010 is reserved for no device here")
    found: dict[str, Any] = {
        "Devices": operator.devices()[0][0],
        "Ports": operator.ports()[0][0],
        "Channels": operator.channels()[0][0],
        "PortsInVain": operator.emo.in_vain()[0][0],
        "Record": operator.record("plc-1"),
        "Ping": operator.ping(),
        "Status": operator.status(),
        "AuditHead": operator.audit.head(),
        "Users": operator.people.users()[0][0],
        "Tokens": operator.people.tokens("ana")[0][0],
        "Groups": operator.people.groups()[0][0],
        "Grants": operator.people.grants()[0][0],
        "May": operator.people.may("ana", "start", "plc-1", "web"),
        "Muted": operator.mutes.muted()[0][0],
    }
    for name, row in found.items():
        columns = {each.name: each.kind for each in operator.operations[name].columns if each.name}
        if name == "Status":  # with CCCP it has more
            columns = {each: columns[each] for each in columns if each not in ("proxies", "unregistered")}
        assert row.keys() == columns.keys(), name
        for key, kind in columns.items():
            assert row[key] is None or isinstance(row[key], TYPES[kind]), (name, key)


TYPES: dict[Kind, tuple[type, ...]] = {
    Kind.TEXT: (str,),
    Kind.NUMBER: (int,),
    Kind.YES_NO: (bool,),
    Kind.BYTES: (int,),
    Kind.SECONDS: (int, float),
    Kind.TRIP: (float,),
    Kind.TIME: (str,),
    Kind.LIST: (list, tuple),
    Kind.OBJECT: (dict,),
}


def test_a_listing_has_a_cursor_of_its_columns() -> None:
    """One number, one text, or both; a row without columns is its own cursor."""
    for row in OPERATIONS.values():
        assert (row.answer is ROWS) >= bool(row.key)
        kinds = {each.name: each.kind for each in row.columns}
        shape = [kinds[name] for name in row.key]
        texts, numbers = [Kind.TEXT], [Kind.NUMBER]
        assert shape in ([], texts, numbers, texts + numbers, texts + texts)
        assert (row.answer is not ROW) or row.columns


def test_words_of_actions_are_those_of_grants() -> None:
    """They stand twice, because importing grants costs what no command has time for."""
    assert tuple(action.value for action in Action) == ACTIONS


def test_what_changes_something_is_an_operators() -> None:
    """And what only looks says nothing of who asked."""
    for row in OPERATIONS.values():
        assert row.role in (CallerRole.READER, CallerRole.OPERATOR)
        assert row.role is CallerRole.OPERATOR or not row.named
