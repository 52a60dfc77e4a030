"""What revtunnel-cameo has beside what every daemon has: the peers of its relays (cameo_operator.py)."""

from revtunnel.process.admin.operation_form import (
    ROWS,
    Argument,
    CallerRole,
    Column,
    Kind,
    Operation,
    table_of,
)
from revtunnel.process.admin.process_operations import PROCESS_OPERATIONS, STATUS
from revtunnel.process.admin.refusals import NotFound

__all__ = ["CAMEO_OPERATIONS", "PEERS"]

_STATUS = STATUS._replace(columns=(
    Column("cameo_server", Kind.OBJECT, "CAMEO: connected, address, since, seconds"),
    Column("responder", Kind.OBJECT, "CAMEO: peers, messages, dropped (by reason), waiting_clients, "
           "unroutable (by name)"),
    Column("publisher", Kind.OBJECT, "CAMEO: peers, messages, dropped (by reason), publishers, topics"),
    Column("connections", Kind.NUMBER, "CAMEO: of both relays"),
    Column("waiting_bytes", Kind.BYTES, "CAMEO: that wait for peers"),
))  # fmt: skip
PEERS = Operation(
    "Peers", "peers", "peers of the CAMEO relays", "Messages and bytes of each, what waits, what was lost.",
    answer=ROWS, key=("peer",), command="peers",
    columns=(
        Column("peer", Kind.TEXT, "its address", "PEER"),
        Column("relay", Kind.TEXT, "``responder`` or ``publisher``", "RELAY"),
        Column("type", Kind.TEXT, "of its socket", "TYPE"),
        Column("identity", Kind.TEXT, "that it gave itself", "IDENTITY"),
        Column("outside", Kind.TEXT, "the section [cameo-outside NAME] it came in by, or nothing", "DOOR",
               lambda row: row["outside"] if row["let_in"] else "waits"),
        Column("local", Kind.YES_NO, "whether it is on this machine"),
        Column("let_in", Kind.YES_NO, "whether it takes part; else it waits"),
        Column("since", Kind.TIME, "when it came"),
        Column("seconds", Kind.SECONDS, "since then", "AGE"),
        Column("messages_from_peer", Kind.NUMBER, "so far", "FROM"),
        Column("messages_to_peer", Kind.NUMBER, "so far", "TO"),
        Column("bytes_from_peer", Kind.BYTES, "so far"),
        Column("bytes_to_peer", Kind.BYTES, "so far"),
        Column("waiting", Kind.NUMBER, "messages that wait for it", "WAITING"),
        Column("waiting_bytes", Kind.BYTES, "of those messages"),
        Column("dropped", Kind.NUMBER, "messages that it did not get", "LOST"),
        Column("topics", Kind.NUMBER, "that it has subscribed to"),
    ),
)  # fmt: skip
_CUT = Operation(
    "Cut", "cut", "end the connection of one peer of the CAMEO relays", "It may come back.",
    (Argument("peer", text="its address, as peers shows it", shown="PEER"),),
    role=CallerRole.OPERATOR, errors=(NotFound,), command="cut",
    said=lambda row: ({"cut": row["peer"]}, f"the connection of {row['peer']} is closed"),
)  # fmt: skip
CAMEO_OPERATIONS = table_of(*PROCESS_OPERATIONS, _STATUS, PEERS, _CUT)
