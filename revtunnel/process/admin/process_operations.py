"""What every daemon with an admin socket has: looked at, watched, drained, reloaded (daemon_operator.py)."""

from revtunnel.process.admin.operation_form import ROW, Argument, CallerRole, Column, Kind, Operation
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound

__all__ = ["DRAIN", "PROCESS_OPERATIONS", "STATUS", "WATCH"]

_ALIVE = (
    Column("name", Kind.TEXT, "of the daemon, as the settings say, or of the host", "name"),
    Column("version", Kind.TEXT, "of revtunnel", "version"),
    Column("state", Kind.TEXT, "``running`` or ``draining``", "state"),
)
STATUS = Operation(
    "Status", "status", "the server as a whole: counts, state, problems", answer=ROW, command="status",
    columns=(
        *_ALIVE,
        Column("uptime", Kind.SECONDS, "since the start", "up"),
        Column("since", Kind.TIME, "of the start"),
        Column("data_plane", Kind.TEXT, "of a server: what moves the bytes of joined sockets, "
               "``python`` or ``native``", "data"),
        Column("problems", Kind.LIST, "what fails for an outside reason and is tried again, and why"),
        Column("counts", Kind.OBJECT, "how often each fact happened since the start, some by their reason"),
    ),
)  # fmt: skip
PROCESS_OPERATIONS = (
    STATUS,
    Operation(
        "Ping", "ping", "is the server alive; status 75 while it drains", answer=ROW, command="ping",
        columns=_ALIVE,
    ),
    WATCH := Operation(
        "Watch", "watch", "print what happens, as it happens", "One line each, as the log has it.",
        errors=(Conflict,), command="watch", route="GET /events",
        columns=(
            Column("ts", Kind.TIME, "when it happened"),
            Column("level", Kind.TEXT, "``debug``, ``info``, ``warn`` or ``error``"),
            Column("event", Kind.TEXT, "its name; the other keys are its fields, as in the log"),
        ),
    ),
    DRAIN := Operation(
        "Drain", "drain", "stop the server in order, as SIGTERM does",
        "No new clients; running channels may end. With ``--node`` another node of its cluster: agents leave "
        "it for others.",
        (Argument("node", text="that node of the cluster", shown="--node NAME", optional=True),),
        role=CallerRole.OPERATOR, errors=(NotFound,), command="drain",
        said=lambda row: ({"draining": True},
                          f"{row.get('node') or 'the server'} takes no new ones and ends when the old have "
                          "ended"),
    ),
    Operation(
        "Reload", "reload", "read the settings again, as SIGHUP does; status 1 when they are wrong",
        "Says what changed and what needs a restart; when anything is wrong, what, and changes nothing. A "
        "listener that cannot be opened is told too, with status 1; all else is in force then.",
        answer=ROW, role=CallerRole.OPERATOR, errors=(Busy, Conflict), command="reload",
        columns=(
            Column("changed", Kind.LIST, "settings that are in force now"),
            Column("needs_restart", Kind.LIST, "settings that are not, before the next start"),
            Column("errors", Kind.LIST, "what is wrong, with file and line, and nothing has changed; or "
                   "listeners that could not be opened, and all else is in force"),
        ),
    ),
    Operation(
        "LogLevel", "log_level", "log from this level on", "Until the next restart or reload.",
        (Argument("least", shown="LEVEL", words=("debug", "info", "warn", "error")),),
        role=CallerRole.OPERATOR, errors=(Invalid,), command="log-level", route="PUT /log-level",
        said=lambda row: ({"log_level": row["least"]}, f"logged from {row['least']} on"),
    ),
)  # fmt: skip
