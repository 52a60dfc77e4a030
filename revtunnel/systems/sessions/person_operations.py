"""What each person can see and do about services and sessions by the HTTP API (person_operator.py)."""

from revtunnel.process.admin.operation_form import ROW, ROWS, Argument, CallerRole, Column, Kind, Operation
from revtunnel.process.admin.refusals import Busy, Conflict, Denied, Invalid, NotFound

__all__ = ["PERSON_OPERATIONS"]

_NOBODY = CallerRole.NOBODY
_SESSION = Argument("session", form="[0-9a-f]{32}")
_STARTED = (
    Column("session", Kind.TEXT, "its id"),
    Column("nonce", Kind.TEXT, "what a program comes in with, once: docs/sessions.rst"),
    Column("services", Kind.LIST, "each with ``name`` and ``port``"),
    Column("state", Kind.TEXT, "``created``, or ``started``"),
    Column("idle", Kind.SECONDS, "without bytes, after which it ends"),
    Column("maximum", Kind.SECONDS, "after which it ends in any case"),
)
PERSON_OPERATIONS = (
    Operation(
        "MyServices", "sessions.services", "services that he may see", answer=ROWS,
        key=("device",), role=_NOBODY, route="GET /my/services",
        text="Of every device that is here or was, by device.",
        columns=(
            Column("device", Kind.TEXT, "serial"),
            Column("service", Kind.TEXT, "name of what the device offers"),
            Column("port", Kind.NUMBER, "that the agent dials"),
            Column("web", Kind.YES_NO, "whether it is a web page"),
            Column("online", Kind.YES_NO, "whether sessions can be started"),
            Column("labels", Kind.OBJECT, "of the device, by name"),
        ),
    ),
    Operation(
        "MySessions", "sessions.sessions", "sessions that he has, or may watch", answer=ROWS,
        key=("session",), role=_NOBODY, route="GET /my/sessions",
        columns=(
            Column("session", Kind.TEXT, "its id"),
            Column("user", Kind.TEXT, "whose it is"),
            Column("device", Kind.TEXT, "serial"),
            Column("services", Kind.LIST, "names"),
            Column("state", Kind.TEXT, "``initializing``, ``created`` or ``started``"),
            Column("since", Kind.TIME, "when it was asked for"),
            Column("private", Kind.YES_NO, "whether nobody else is let in"),
            Column("people", Kind.LIST, "who is connected, and as what"),
            Column("bytes_to_device", Kind.BYTES, "so far"),
            Column("bytes_to_client", Kind.BYTES, "so far"),
        ),
    ),
    Operation(
        "MySessionStart", "sessions.start", "start a session",
        "Where the device's site is asked first, the answer waits for it.",
        (
            Argument("device", text="serial"),
            Argument("services", Kind.LIST, "names, 1 to 64"),
            Argument("private", Kind.YES_NO, "nobody else is let in", optional=True),
            Argument("take_over", Kind.YES_NO, "others may take it over", optional=True),
        ),
        ROW, _STARTED, role=_NOBODY, errors=(Invalid, Denied, NotFound, Conflict, Busy),
        route="POST /my/sessions",
    ),
    Operation(
        "MySessionEnd", "sessions.end", "end a session of his own, or another's where he may", "",
        (_SESSION,),
        role=_NOBODY, errors=(NotFound,), route="DELETE /my/sessions/{session}",
    ),
    Operation(
        "MySessionShare", "sessions.share", "let a second person into a session, once", "",
        (
            _SESSION,
            Argument("person", text="user who is let in"),
            Argument("role", text="what the person may do there", words=("watch", "use", "take")),
        ),
        (Argument("nonce"), Argument("url")), role=_NOBODY,
        errors=(NotFound, Denied, Conflict, Busy), route="POST /my/sessions/{session}/share",
    ),
    Operation(
        "MySessionNonce", "sessions.nonce", "what one more connection to a session comes in with, once",
        "In a browser it replaces none.",
        (_SESSION, Argument("browser", Kind.YES_NO, "whether it is for a page", optional=True)),
        (Argument("nonce"),), role=_NOBODY, errors=(NotFound, Conflict, Busy),
        route="POST /my/sessions/{session}/nonce",
    ),
    Operation(
        "MySessionPage", "sessions.page", "where the web page of a service opens in a browser, once",
        "The address is good for half a minute, and lets in whoever opens it: docs/web.rst.",
        (_SESSION, Argument("service", text="its name", form="[A-Za-z0-9._-]{1,32}")),
        (Argument("url"),), role=_NOBODY, errors=(NotFound, Conflict, Busy),
        route="POST /my/sessions/{session}/page",
    ),
)  # fmt: skip
