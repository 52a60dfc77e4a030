"""What revtunnel-server has beside what every daemon with devices has (operator.py)."""

from revtunnel.cluster.node_operations import NODES
from revtunnel.daemons.webhook_operations import WEBHOOK_OPERATIONS
from revtunnel.process.admin.device_operations import DEVICE_OPERATIONS, SERIAL
from revtunnel.process.admin.operation_form import (
    PROBLEM,
    ROW,
    ROWS,
    Argument,
    CallerRole,
    Column,
    Kind,
    Operation,
    Row,
    table_of,
)
from revtunnel.process.admin.process_operations import PROCESS_OPERATIONS, STATUS
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound
from revtunnel.systems.sessions.session_operations import SESSION_OPERATIONS
from revtunnel.trust.people_operations import PEOPLE_OPERATIONS

__all__ = ["APP_KEY", "AUTHORITY", "CERTIFY", "ENROLL", "SERVER_OPERATIONS", "TOKEN"]


def _revoked(row: Row) -> tuple[Row, str]:
    serial = row["serial"]
    if row["lift"]:
        return {"lifted": serial}, f"{serial}: certificates of another authority count again"
    return {"revoked": serial}, f"{serial} has no key and no certificate any more"


def _at(port: int) -> str:
    return f"clients at port {port}" if port else "without a port for clients: see devices"


_REPLACE = Argument("replace", Kind.YES_NO)
_STATUS = STATUS._replace(columns=(
    Column("links", Kind.NUMBER, "that are up"),
    Column("penalties", Kind.NUMBER, "addresses and serials that are locked out"),
    Column("forked", Kind.LIST, "devices, a certificate of which was renewed for two keys"),
    Column("users", Kind.NUMBER, "people who may be granted sessions"),
    Column("muted", Kind.NUMBER, "devices that take no remote sessions"),
    Column("remote_sessions", Kind.NUMBER, "that people have now"),
    Column("audit_problem", Kind.TEXT, "why the audit file takes no records, or nothing"),
))  # fmt: skip
_RECORD = Operation(
    "Record", "record", "what one device may do: its record",
    "With the section it is from, and the addresses that are locked out of its serial "
    "because they failed to prove it.", (SERIAL,), ROW, errors=(Invalid,), command="device",
    route="GET /devices/{serial}",
    columns=(
        Column("serial", Kind.TEXT, "of the device"),
        Column("online", Kind.YES_NO, "whether it is here"),
        Column("record", Kind.TEXT, "the section: a serial, ``*``, or nothing"),
        Column("clients", Kind.LIST, "networks that may reach it; null: any"),
        Column("targets", Kind.LIST, "what it may offer; null: anything"),
        Column("ports", Kind.LIST, "that it may have; null: any"),
        Column("leases", Kind.NUMBER, "client ports that it may hold"),
        Column("channels", Kind.NUMBER, "at most; null: any"),
        Column("at_once", Kind.NUMBER, "clients of one of its services; null: any"),
        Column("expires", Kind.TIME, "the day; null: never"),
        Column("expired", Kind.YES_NO, "whether that is over"),
        Column("labels", Kind.LIST, "that grants may call it by"),
        Column("sessions", Kind.TEXT, "remote ones: ``any``, ``asked`` or ``no``"),
        Column("muted", Kind.TEXT, "why it takes no remote sessions, or nothing: it does"),
        Column("services", Kind.LIST, "that it has, where it does not say so itself: ThingWorx, localproxy"),
        Column("web", Kind.LIST, "services that are web pages, as NAME=KIND; else their names say it"),
        Column("web_host", Kind.TEXT, "what web pages are told as Host; ``target``: what the agent dials"),
        Column("locked", Kind.LIST, "networks that are locked out of its serial"),
    ),
)  # fmt: skip
_RELEASE = Operation(
    "Release", "release", "give back the port of an absent device's target",
    "It rests for the quarantine of its pool, then it is free.",
    (SERIAL._replace(shown="SERIAL/TARGET"), Argument("target", shown="SERIAL/TARGET")),
    (Argument("port", Kind.NUMBER),),
    role=CallerRole.OPERATOR, named=True, errors=(NotFound, Conflict), command="release",
    route="DELETE /ports/{serial}/{target}",
    said=lambda row: ({"released": "{serial}/{target}".format_map(row), "port": row["port"]},
                      "port {port} of {serial}/{target} is given back".format_map(row)),
)  # fmt: skip
_RESERVE = Operation(
    "Reserve", "kept.reserve", "reserve a port for a target of a device, until it is given back",
    "The one that it has, or a free one of the pool, if none is named; for a device that was never here too. "
    "Those of the settings are the settings'.",
    (SERIAL._replace(shown="SERIAL/TARGET"), Argument("target", shown="SERIAL/TARGET"),
     Argument("port", Kind.NUMBER, "this one", "--port PORT", optional=True, high=65535),
     Argument("pool", text="where a free one is taken from; default", shown="--pool NAME", optional=True)),
    (Argument("port", Kind.NUMBER),),
    role=CallerRole.OPERATOR, named=True, errors=(Invalid, Conflict), command="reserve",
    route="POST /ports/{serial}/{target}",
    said=lambda row: ({"reserved": "{serial}/{target}".format_map(row), "port": row["port"]},
                      "port {port} is reserved for {serial}/{target}".format_map(row)),
)  # fmt: skip
_UNRESERVE = Operation(
    "Unreserve", "kept.unreserve", "give a port back that was reserved so",
    "Whoever has it keeps it as other devices keep theirs.",
    (SERIAL._replace(shown="SERIAL/TARGET"), Argument("target", shown="SERIAL/TARGET")),
    (Argument("port", Kind.NUMBER),),
    role=CallerRole.OPERATOR, named=True, errors=(Invalid, NotFound), command="unreserve",
    route="POST /ports/{serial}/{target}/unreserve",
    said=lambda row: ({"unreserved": "{serial}/{target}".format_map(row), "port": row["port"]},
                      "port {port} is not reserved for {serial}/{target} any more".format_map(row)),
)  # fmt: skip
_IN_VAIN = Operation(
    "PortsInVain", "emo.in_vain", "ports that machines of EMO asked for in vain",
    "The 256 that were asked for last, each until it is reserved or registered, or the server ends.",
    answer=ROWS, key=("port",), command="ports-in-vain", route="GET /ports/in-vain",
    columns=(
        Column("port", Kind.NUMBER, "that was asked for", "PORT"),
        Column("address", Kind.TEXT, "where the last one came from", "ADDRESS"),
        Column("why", Kind.TEXT, "it was refused", "WHY"),
        Column("times", Kind.NUMBER, "so often", "TIMES"),
        Column("first", Kind.TIME, "the first time", "FIRST"),
        Column("last", Kind.TIME, "the last time", "LAST"),
    ),
)  # fmt: skip
_OFFERS = (
    Operation(
        "Offer", "offers.add", "have a device's agent offer one service more",
        "Only what ``remote_offers`` in ``[agent]`` beside the device allows. Until that agent ends.",
        (SERIAL, Argument("offer", shown="[NAME=]HOST:PORT")), (Argument("port", Kind.NUMBER),),
        role=CallerRole.OPERATOR, named=True, errors=(Invalid, NotFound, Conflict, Busy), command="offer",
        said=lambda row: (
            {"offered": row["offer"], "serial": row["serial"], "port": row["port"]},
            f"{row['serial']} offers {row['offer']}, {_at(row['port'])}",
        ),
    ),
    Operation(
        "Unoffer", "offers.remove", "have a device's agent offer one service less",
        "Where ``remote_offers`` in ``[agent]`` is not ``none``. Until that agent ends; connections that run "
        "stay.",
        (SERIAL, Argument("name", shown="NAME")),
        role=CallerRole.OPERATOR, named=True, errors=(Invalid, NotFound, Conflict, Busy), command="unoffer",
        said=lambda row: (
            {"unoffered": row["name"], "serial": row["serial"]},
            f"{row['serial']} does not offer {row['name']} any more",
        ),
    ),
)  # fmt: skip
_ENROLLED = Operation(
    "Enrolled", "enrolled", "serials that have a device key or an app key", answer=ROWS, command="enrolled"
)
ENROLL = Operation(
    "Enroll", "enroll", "make a device key", "", (SERIAL, _REPLACE), (Argument("key"), PROBLEM),
    route="POST /devices/{serial}/key", role=CallerRole.OPERATOR, named=True, errors=(Invalid, Conflict),
)  # fmt: skip
APP_KEY = Operation(
    "AppKey", "app_key", "make the app key of a ThingWorx device", "", (SERIAL, _REPLACE),
    (Argument("key"), PROBLEM), route="POST /devices/{serial}/app-key",
    role=CallerRole.OPERATOR, named=True, errors=(Invalid, Conflict),
)  # fmt: skip
AUTHORITY = Operation(
    "Authority", "authority", "the certificate authority of the server", answer=ROW, errors=(NotFound,),
    columns=(
        Column("directory", Kind.TEXT, "where its files are"),
        Column("fingerprint", Kind.TEXT, "SHA-256 of its certificate"),
        Column("until", Kind.TIME, "the end of that"),
        Column("tokens", Kind.NUMBER, "that wait to be used"),
        Column("certificates", Kind.NUMBER, "that it has issued"),
    ),
)  # fmt: skip
TOKEN = Operation(
    "Token", "token", "make a one-time token for an agent", 'Where the agent should dial is "" if not known.',
    (SERIAL, _REPLACE), (Argument("token"), Argument("server"), PROBLEM),
    route="POST /devices/{serial}/token",
    role=CallerRole.OPERATOR, named=True, errors=(Invalid, NotFound, Conflict, Busy),
)  # fmt: skip
CERTIFY = Operation(
    "Certify", "certify", "make a certificate from a request", "PKCS #10 in DER or PEM; the answer is DER.",
    (SERIAL, Argument("request", Kind.RAW), _REPLACE),
    (Argument("certificate", Kind.RAW), Argument("authority", Kind.RAW), PROBLEM),
    route="POST /devices/{serial}/certificate",
    role=CallerRole.OPERATOR, named=True, errors=(Invalid, NotFound, Conflict),
)  # fmt: skip
_REVOKE = Operation(
    "Revoke", "revoke", "withdraw key, certificates and token of a device and cut it off",
    "Those of our own authority stay revoked whatever is lifted.",
    (SERIAL, Argument("lift", Kind.YES_NO, "let its certificates of another authority count again", "--lift",
                      optional=True)),
    (PROBLEM,),
    role=CallerRole.OPERATOR, named=True, errors=(Invalid, NotFound), command="revoke", said=_revoked,
    route="POST /devices/{serial}/revoke",
)  # fmt: skip
_MUTES = (
    Operation(
        "Muted", "mutes.muted", "devices that take no remote sessions", answer=ROWS, key=("serial",),
        command="muted",
        columns=(
            Column("serial", Kind.TEXT, "of the device", "SERIAL"),
            Column("why", Kind.TEXT, "as it was given", "WHY"),
            Column("by", Kind.TEXT, "who said so", "BY"),
            Column("since", Kind.TIME, "when", "SINCE"),
        ),
    ),
    Operation(
        "Mute", "mutes.mute", "refuse remote sessions to a device, and end those that run",
        "Until it is unmuted, also over a restart. Clients of ports are not concerned.",
        (SERIAL, Argument("why", text="what people shall read", shown="--why TEXT", optional=True)),
        (PROBLEM,), role=CallerRole.OPERATOR, named=True, errors=(Invalid, Conflict), command="mute",
        route="PUT /muted/{serial}",
        said=lambda row: ({"muted": row["serial"]}, f"{row['serial']} takes no remote sessions"),
    ),
    Operation(
        "Unmute", "mutes.unmute", "let a device take remote sessions again", "", (SERIAL,), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="unmute",
        route="DELETE /muted/{serial}",
        said=lambda row: ({"unmuted": row["serial"]}, f"{row['serial']} takes remote sessions again"),
    ),
)  # fmt: skip
_AUDIT_HEAD = Operation(
    "AuditHead", "audit.head", "the newest record of the audit file, by number and hash",
    "Kept elsewhere, they prove all before it: see ``audit verify --head``.",
    answer=ROW, command="audit head", route="GET /audit/head",
    columns=(
        Column("file", Kind.TEXT, "its path, or nothing: there is none"),
        Column("seq", Kind.NUMBER, "number of the newest record"),
        Column("hash", Kind.TEXT, "SHA-256 of it"),
        Column("open", Kind.NUMBER, "sessions whose end is not in it yet"),
        Column("problem", Kind.TEXT, "why it takes no records, or nothing"),
    ),
)  # fmt: skip
SERVER_OPERATIONS = table_of(
    *PROCESS_OPERATIONS, *DEVICE_OPERATIONS, _STATUS, _RECORD, _RELEASE, _RESERVE, _UNRESERVE, _IN_VAIN,
    *_OFFERS, _ENROLLED, ENROLL, APP_KEY, AUTHORITY, TOKEN, CERTIFY, _REVOKE, *PEOPLE_OPERATIONS,
    *SESSION_OPERATIONS, *_MUTES, _AUDIT_HEAD, *WEBHOOK_OPERATIONS, NODES,
)  # fmt: skip
