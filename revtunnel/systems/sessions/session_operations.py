"""What an operator can do with remote sessions (session_operator.py)."""

from revtunnel.process.admin.operation_form import Argument, CallerRole, Kind, Operation
from revtunnel.process.admin.refusals import Busy, Conflict, Invalid, NotFound

__all__ = ["MINUTES", "SESSION_OPERATIONS"]

MINUTES = Argument("minutes", Kind.NUMBER, "that the link is good, 1 unless it is said", optional=True, low=1,
                   high=1440)  # fmt: skip

_SESSION = Argument("session", text="its id, or the beginning of it", shown="SESSION")
SESSION_OPERATIONS = (
    Operation(
        "SessionEnd", "remote.session_end", "end a remote session",
        "Everybody in it is cut, and told that it was an operator.", (_SESSION,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound, Invalid), command="session end",
        route="DELETE /sessions/{session}",
        said=lambda row: ({"ended": row["session"]}, f"session {row['session']} is ended"),
    ),
    Operation(
        "SessionShare", "remote.session_share", "let a second person into a remote session, once",
        "In its owner's name; the person needs a grant for its services. What is printed is good for as long "
        "as ``--minutes`` says; a browser opens it at ``/page/share.html``.",
        (
            _SESSION,
            Argument("person", text="user who is let in", shown="--with USER"),
            Argument("watch", Kind.YES_NO, "without connections (default)", "--watch", optional=True,
                     either=True),
            Argument("use", Kind.YES_NO, "with connections of his own", "--use", optional=True, either=True),
            Argument("take", Kind.YES_NO, "instead of its owner", "--take", optional=True, either=True),
            MINUTES._replace(shown="--minutes N"),
        ),
        (Argument("id"), Argument("nonce")),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound, Invalid, Conflict, Busy),
        command="session share", route="POST /sessions/{session}/share",
        said=lambda row: ({"session": row["id"], "nonce": row["nonce"]}, "{id}#{nonce}".format_map(row)),
    ),
    Operation(
        "SessionUnshare", "remote.session_unshare", "take back what somebody was let into a session by",
        "Links that wait are good no more, and connections of the person are cut. What the person is granted "
        "stays.",
        (_SESSION, Argument("person", text="user who was let in", shown="USER")),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound, Invalid), command="session unshare",
        route="DELETE /sessions/{session}/share/{person}",
        said=lambda row: ({"person": row["person"]}, f"{row['person']} is let in no more"),
    ),
)  # fmt: skip
