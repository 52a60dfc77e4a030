"""What every daemon with devices has: devices, sessions, channels, ports (device_listings.py)."""

from revtunnel.process.admin.operation_form import ROWS, Argument, CallerRole, Column, Kind, Operation, Row
from revtunnel.process.admin.process_operations import STATUS
from revtunnel.process.admin.refusals import NotFound

__all__ = ["CHANNELS", "DEVICES", "DEVICE_OPERATIONS", "PORTS", "SERIAL", "SESSIONS"]

SERIAL = Argument("serial", shown="SERIAL", form="[!-~]{1,64}")  # of every wire


def _port(target: Row) -> object:
    return "refused" if target.get("problem") else target["port"] or "-"


def _name(target: Row) -> str:
    return str(target["name"]) + " (down)" * (target.get("up") is False)


_OF_ONE = SERIAL._replace(shown="[SERIAL]", optional=True)
_STATUS = STATUS._replace(columns=(
    Column("devices", Kind.NUMBER, "that are here, by whatever wire", "devices"),
    Column("clients", Kind.NUMBER, "that are connected", "clients"),
    Column("channels", Kind.NUMBER, "that run", "channels"),
    Column("proxies", Kind.NUMBER, "CCCP: proxy sessions", "proxies"),
    Column("unregistered", Kind.NUMBER, "CCCP: connections that have not said their serial", "pending"),
    Column("ports", Kind.OBJECT, "by pool: size, free, leased, sticky, fixed, quarantined, spoiled"),
    Column("ledger_problem", Kind.TEXT, "why what was promised last is not on the disk, or nothing"),
))  # fmt: skip
DEVICES = Operation(
    "Devices", "devices", "devices that are here, were, or are known",
    "Of every wire: since when, link, address, targets, ports, bytes each way, round trip. Of all nodes, "
    "if it is a node of a cluster; of one that is at two, the newer.",
    (Argument("here", Kind.YES_NO, "only those of the node that is asked", "--here", optional=True),),
    answer=ROWS, key=("serial",), command="devices",
    columns=(
        Column("serial", Kind.TEXT, "of the device", "SERIAL"),
        Column("online", Kind.YES_NO, "whether it is here", "STATE",
               lambda row: ("online" if row["online"] else "away") + ", muted" * bool(row["muted"])
               + f", two holders: {row['conflict']}" * bool(row["conflict"])),
        Column("since", Kind.TIME, "when it came, or left; of one that never came, the start", "SINCE"),
        Column("link", Kind.TEXT, "its wire: ``rt1``, ``legacy``, ``emo``, ``cccp``, ``thingworx``, "
               "``localproxy``; nothing: away", "LINK",
               lambda row: row["link"] + " by web" * (row["way"] == "web")
               + ((row["online"] and row["node"] and f" at {row['node']}") or "")),
        Column("node", Kind.TEXT, "the node of the cluster that says so, or nothing"),
        Column("way", Kind.TEXT, "``port``: to a link port; ``web``: by WebSocket to a web listener"),
        Column("listener", Kind.TEXT, "where it came in: a listener, or a project of CCCP"),
        Column("address", Kind.TEXT, "where it came from", "ADDRESS"),
        Column("conflict", Kind.TEXT, "where the two machines are that take its link from each other, "
               "until 10 minutes after the last time; or nothing"),
        Column("authenticated", Kind.YES_NO, "whether it has proved its serial"),
        Column("tls", Kind.TEXT, "version of TLS, or nothing"),
        Column("certificate", Kind.TEXT, "SHA-256 of the one it showed, or nothing"),
        Column("certificate_until", Kind.TIME, "the end of that"),
        Column("software", Kind.TEXT, "what it says it is"),
        Column("targets", Kind.LIST, "what it offers: name, target, port (null: none is promised), problem "
               "(why clients cannot come in, or nothing), up (whether it answers; null: nobody looks) and "
               "detail (what was found) of each",
               "TARGETS", lambda row: [_name(target) for target in row["targets"]]),
        Column("", Kind.LIST, "", "PORTS", lambda row: [_port(target) for target in row["targets"]]),
        Column("muted", Kind.TEXT, "why it takes no remote sessions, or nothing: it does"),
        Column("labels", Kind.LIST, "that grants may call it by; null: its daemon has none"),
        Column("channels", Kind.NUMBER, "that run", "CHANNELS"),
        Column("channels_total", Kind.NUMBER, "since the start"),
        Column("links_total", Kind.NUMBER, "since the start"),
        Column("bytes_to_device", Kind.BYTES, "since the start, running channels included", "TO-DEVICE"),
        Column("bytes_to_client", Kind.BYTES, "the same, the other way", "TO-CLIENT"),
        Column("round_trip", Kind.TRIP, "of the link; null: not known", "ROUND-TRIP"),
    ),
)  # fmt: skip
PORTS = Operation(
    "Ports", "ports", "client ports: whose, and how they stand",
    "As *SERIAL/TARGET* -> *PORT*, each ``reserved`` (its device is here), ``sticky`` (kept for a device "
    "that is away), ``quarantined`` (given back, not given again yet), ``spoiled`` (another program has it) "
    "or ``unclaimed`` (reserved in the settings, never opened).",
    answer=ROWS, key=("port",), command="ports",
    columns=(
        Column("serial", Kind.TEXT, "whose it is", "TARGET -> PORT",
               lambda row: "{serial}/{target} -> {port}".format_map(row)),
        Column("target", Kind.TEXT, "and of which target"),
        Column("port", Kind.NUMBER, "its number"),
        Column("state", Kind.TEXT, "one of the words above", "STATE",
               lambda row: row["state"] + ", fixed" * row["fixed"]),
        Column("open", Kind.YES_NO, "whether clients are taken there", "OPEN"),
        Column("address", Kind.TEXT, "where it is bound", "ADDRESS"),
        Column("pool", Kind.TEXT, "where it is from", "POOL"),
        Column("fixed", Kind.YES_NO, "whether it is reserved"),
        Column("since", Kind.TIME, "of the state"),
        Column("left", Kind.SECONDS, "until the state ends; null: it stays", "ENDS-IN"),
    ),
)  # fmt: skip
CHANNELS = Operation(
    "Channels", "channels", "running channels", "Of all devices, or of one: each is a client and its stream.",
    (_OF_ONE,), ROWS, key=("serial", "channel"), command="channels",
    columns=(
        Column("serial", Kind.TEXT, "its device", "SERIAL"),
        Column("channel", Kind.NUMBER, "its number among those of the device; CCCP: 0", "CHANNEL"),
        Column("target", Kind.TEXT, "what the client reaches", "TARGET"),
        Column("client", Kind.TEXT, "its address", "CLIENT"),
        Column("carrier", Kind.TEXT, "``link``, ``socket`` (a data socket), ``pair`` or ``device`` "
               "(CCCP: of a proxy, of a session) or ``tunnel`` (ThingWorx)", "CARRIER"),
        Column("state", Kind.TEXT, "of its life", "STATE"),
        Column("since", Kind.TIME, "when the client came"),
        Column("seconds", Kind.SECONDS, "since then", "AGE"),
        Column("bytes_to_device", Kind.BYTES, "that passed", "TO-DEVICE"),
        Column("bytes_to_client", Kind.BYTES, "that passed", "TO-CLIENT"),
        Column("waiting_to_device", Kind.BYTES, "that wait", "WAITING",
               lambda row: row["waiting_to_device"] + row["waiting_to_client"]),
        Column("waiting_to_client", Kind.BYTES, "that wait"),
    ),
)  # fmt: skip
SESSIONS = Operation(
    "Sessions", "sessions", "granted uses of devices: of people, proxy sessions, and clients of ports",
    "Of all devices, or of one. A proxy session of CCCP, and a person's, is there with a client or without.",
    (_OF_ONE,), ROWS, key=("serial", "channel"), command="sessions",
    columns=(
        Column("serial", Kind.TEXT, "its device", "SERIAL"),
        Column("channel", Kind.NUMBER, "the number of its channel; of a proxy session 0; remote: its own"),
        Column("kind", Kind.TEXT, "``cccp``: a proxy session; ``port``: a client of a promised port; "
               "``remote``: a person's", "KIND"),
        Column("state", Kind.TEXT, "cccp: who is here, ``waiting`` (nobody), ``device``, ``client``, "
               "``joined``; port: the channel's; remote: ``initializing``, ``created``, ``started``",
               "STATE"),
        Column("target", Kind.TEXT, "what is reached", "TARGET"),
        Column("port", Kind.NUMBER, "where clients come in", "PORT"),
        Column("client", Kind.TEXT, "its address, or nothing", "CLIENT"),
        Column("since", Kind.TIME, "when it was granted", "SINCE"),
        Column("until", Kind.TIME, "the first client has to be there by then; null: no such limit"),
        Column("bytes", Kind.BYTES, "so far, both ways together", "BYTES"),
        Column("persistent", Kind.YES_NO, "cccp: whether it outlives its client", "PERSISTENT"),
        Column("project", Kind.TEXT, "cccp: its project", "PROJECT"),
        Column("user", Kind.TEXT, "remote: whose it is", "USER"),
        Column("session", Kind.TEXT, "remote: its id", "SESSION"),
        Column("people", Kind.LIST, "remote: users who are connected now"),
    ),
)  # fmt: skip
_CLOSE = Operation(
    "Close", "close", "end one channel",
    "Its client sees a reset. To a session of CCCP (channel 0) that is as if the client had left.",
    (SERIAL, Argument("channel", Kind.NUMBER, shown="CHANNEL")),
    role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="close",
    route="DELETE /channels/{serial}/{channel}",
    said=lambda row: ({"closed": row}, "channel {channel} of {serial} is closed".format_map(row)),
)  # fmt: skip
_KICK = Operation(
    "Kick", "kick", "end a device's link; it comes back by itself",
    "By whatever wire it is here. A device of CCCP cannot be told to stay away.",
    (SERIAL, Argument("retry_after", Kind.NUMBER, "seconds it shall stay away", "--retry-after S", default=0,
                      high=65535)),
    role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="kick",
    route="POST /devices/{serial}/kick",
    said=lambda row: ({"kicked": row["serial"], "retry_after": row["retry_after"]},
                      f"the link of {row['serial']} is closed"),
)  # fmt: skip
DEVICE_OPERATIONS = (_STATUS, DEVICES, PORTS, CHANNELS, SESSIONS, _CLOSE, _KICK)
