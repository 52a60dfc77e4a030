"""What each person can see of himself by the HTTP API, and change (account_operator.py)."""

from revtunnel.process.admin.operation_form import (
    PROBLEM,
    ROW,
    ROWS,
    Argument,
    CallerRole,
    Column,
    Kind,
    Operation,
)
from revtunnel.process.admin.refusals import Busy, Conflict, Denied, Invalid, NotFound

__all__ = ["ACCOUNT_OPERATIONS"]

_NOBODY = CallerRole.NOBODY
_CODE = Argument("code", text="that the authenticator shows", form="[0-9]{6}")
ACCOUNT_OPERATIONS = (
    Operation(
        "My", "account.about", "who asks, and what he may", answer=ROW, role=_NOBODY, route="GET /my",
        columns=(
            Column("user", Kind.TEXT, "name"),
            Column("role", Kind.TEXT, "``person``, ``reader`` or ``admin``"),
            Column("note", Kind.TEXT, "as it was given"),
            Column("groups", Kind.LIST, "that the user is in"),
            Column("scope", Kind.TEXT, "of the token: ``all``, ``read``, ``own``; with ``browser``"),
            Column("token", Kind.TEXT, "its id"),
            Column("until", Kind.TIME, "its end"),
            Column("password", Kind.YES_NO, "whether there is one"),
            Column("second_factor", Kind.YES_NO, "whether there is one"),
            Column("csrf", Kind.TEXT, "what a browser says with changes, as X-CSRF-Token; or nothing"),
            Column("server", Kind.TEXT, "name of the server"),
            Column("version", Kind.TEXT, "of revtunnel"),
        ),
    ),
    Operation(
        "MyPassword", "account.password", "take another password", "The old one is wanted, if there is one.",
        (Argument("password", text="12 to 256 characters"), Argument("current", optional=True)), (PROBLEM,),
        role=_NOBODY, errors=(Invalid, Denied, Busy, Conflict), route="PUT /my/password",
    ),
    Operation(
        "MyFactorNew", "account.factor_new", "ask for a second factor, which is shown once",
        "It counts once one of its codes was shown.", (), (Argument("secret"), Argument("uri")), role=_NOBODY,
        errors=(Denied, Conflict), route="POST /my/second-factor",
    ),
    Operation(
        "MyFactor", "account.factor", "let the second factor count", "", (_CODE,), (PROBLEM,), role=_NOBODY,
        errors=(Denied, Conflict), route="PUT /my/second-factor",
    ),
    Operation(
        "MyFactorRemove", "account.factor_remove", "do without the second factor", "", (_CODE,), (PROBLEM,),
        role=_NOBODY, errors=(Denied, NotFound), route="POST /my/second-factor/remove",
    ),
    Operation(
        "MyTokens", "account.tokens", "his tokens, and browsers that are logged in", answer=ROWS,
        key=("id",), role=_NOBODY, route="GET /my/tokens",
        columns=(
            Column("id", Kind.TEXT, "what it is called by; it opens nothing"),
            Column("user", Kind.TEXT, "whose it is"),
            Column("note", Kind.TEXT, "as it was given; of a browser how and where from"),
            Column("created", Kind.TIME, "when it was made"),
            Column("until", Kind.TIME, "its end"),
            Column("used", Kind.TIME, "when it was used last; null: never"),
            Column("scope", Kind.TEXT, "``all``, ``read``, ``own``; with ``browser``: one that is logged in"),
            Column("expired", Kind.YES_NO, "whether it is over"),
        ),
    ),
    Operation(
        "MyTokenNew", "account.token_new", "take a further token, which is shown once", "",
        (
            Argument("note", text="what it is for", optional=True),
            Argument("days", Kind.NUMBER, "that it is good; 0: 90", optional=True, high=3660),
            Argument("scope", text="``all``, ``read`` or ``own``", optional=True,
                     words=("all", "read", "own")),
        ),
        (Argument("user"), Argument("id"), Argument("until"), Argument("token"), PROBLEM),
        role=_NOBODY, errors=(Denied, Invalid, Conflict), route="POST /my/tokens",
    ),
    Operation(
        "MyTokenRevoke", "account.token_revoke", "let a token count no more, or log a browser out",
        "What was begun with it ends.", (Argument("token", text="its id"),), (PROBLEM,), role=_NOBODY,
        errors=(Denied, NotFound), route="DELETE /my/tokens/{token}",
    ),
)  # fmt: skip
