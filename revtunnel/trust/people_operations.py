"""What an operator can see and do about people, tokens, groups and grants (people_operator.py)."""

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
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound

__all__ = ["ACTIONS", "PEOPLE_OPERATIONS"]

ACTIONS = ("list", "start", "end", "share", "observe")  # the words of grants.Action, which costs to import
_WHEN = "``2027-12-31``, or ``2027-12-31T18:00Z``, in UTC"
_USER = Argument("user", shown="USER")
_GROUP = Argument("group", shown="GROUP")
_NOTE = Argument("note", text="what people shall read beside it", shown="--note TEXT", optional=True)
_ROLE = Argument(
    "role",
    text="``admin``: may do everything that operators may; ``reader``: may look at it; "
    "``person``: what is granted (default)",
    shown="--role ROLE",
    optional=True,
    words=("person", "reader", "admin"),
)
_SCOPE = Argument(
    "scope",
    text="``all`` that the user may (default), ``read``: look only, ``own``: the "
    "user's own services and sessions only",
    shown="--scope SCOPE",
    optional=True,
    words=("all", "read", "own"),
)
_DAYS = Argument("days", Kind.NUMBER, "that the token is good; 0: 90", "--days N", optional=True, high=3660)
_TOKEN = (Argument("user"), Argument("id"), Argument("until"), Argument("token"), PROBLEM)
_USERS = (
    Column("user", Kind.TEXT, "name", "USER"),
    Column("note", Kind.TEXT, "as it was given", "NOTE"),
    Column("groups", Kind.LIST, "that the user is in", "GROUPS"),
    Column("tokens", Kind.NUMBER, "that the user has", "TOKENS"),
    Column("grants", Kind.NUMBER, "of the user's own, without those of groups", "GRANTS"),
    Column("role", Kind.TEXT, "``person``, ``reader`` or ``admin``", "ROLE"),
    Column("created", Kind.TIME, "when the user was made", "AGE"),
    Column("used", Kind.TIME, "when a token was used last; null: never", "USED"),
)  # fmt: skip
_GRANT = (
    Column("grant", Kind.TEXT, "its id", "GRANT"),
    Column("holder", Kind.TEXT, "a user, or ``@`` and a group", "HOLDER"),
    Column("device", Kind.TEXT, "pattern of serials, or ``label=`` and pattern of labels", "DEVICE"),
    Column("services", Kind.LIST, "names or patterns", "SERVICES"),
    Column("actions", Kind.LIST, f"of {', '.join(ACTIONS)}", "ACTIONS",
           lambda row: ", ".join(row["actions"])),
    Column("begins", Kind.TIME, "null: with its making", "FROM", lambda row: row["begins"] or ""),
    Column("until", Kind.TIME, "null: for ever", "UNTIL", lambda row: row["until"] or ""),
    Column("state", Kind.TEXT, "``in-force``, ``not-yet`` or ``over``", "STATE"),
    Column("created", Kind.TIME, "when it was made"),
    Column("by", Kind.TEXT, "who made it"),
)  # fmt: skip


PEOPLE_OPERATIONS = (
    Operation(
        "Users", "people.users", "people who may be granted sessions", answer=ROWS, key=("user",),
        command="users", columns=_USERS,
    ),
    Operation(
        "Tokens", "people.tokens", "the tokens of a user", "By their ids; what opens something is not kept.",
        (_USER,), ROWS, key=("id",), errors=(NotFound,), command="tokens", route="GET /users/{user}/tokens",
        columns=(
            Column("id", Kind.TEXT, "what it is called by; it opens nothing", "TOKEN"),
            Column("user", Kind.TEXT, "whose it is", "USER"),
            Column("note", Kind.TEXT, "as it was given", "NOTE"),
            Column("created", Kind.TIME, "when it was made", "AGE"),
            Column("until", Kind.TIME, "its end", "UNTIL", lambda row: row["until"]),
            Column("used", Kind.TIME, "when it was used last; null: never", "USED"),
            Column("scope", Kind.TEXT, "``all``, ``read``, ``own``; with ``browser``: one that is logged in",
                   "SCOPE"),
            Column("expired", Kind.YES_NO, "whether it is over", "EXPIRED"),
        ),
    ),
    Operation(
        "Groups", "people.groups", "groups of people", answer=ROWS, key=("group",), command="groups",
        columns=(
            Column("group", Kind.TEXT, "name, without the sign", "GROUP"),
            Column("note", Kind.TEXT, "as it was given", "NOTE"),
            Column("members", Kind.NUMBER, "users in it", "MEMBERS"),
            Column("grants", Kind.NUMBER, "that it has", "GRANTS"),
            Column("created", Kind.TIME, "when it was made", "AGE"),
        ),
    ),
    Operation(
        "Members", "people.members", "the users in a group", "", (_GROUP,), ROWS, key=("user",),
        errors=(NotFound,), command="members", columns=_USERS, route="GET /groups/{group}/members",
    ),
    Operation(
        "Grants", "people.grants", "who may do what to which devices", answer=ROWS, key=("holder", "grant"),
        command="grants", columns=_GRANT,
    ),
    Operation(
        "May", "people.may", "whether a user may do something, and by which grant",
        "Status 1 when not. With what each of the user's grants says to it.",
        (
            _USER,
            Argument("action", shown="ACTION", words=ACTIONS),
            Argument("serial", shown="SERIAL/SERVICE"),
            Argument("service", shown="SERIAL/SERVICE"),
            Argument("labels", Kind.LIST, "of the device, beside those of its record", "--label A,B",
                     optional=True),
            Argument("at", text=f"another time than now: {_WHEN}", shown="--at WHEN", optional=True),
        ),
        ROW, errors=(NotFound, Invalid), command="may", route="GET /users/{user}/may",
        columns=(
            Column("user", Kind.TEXT, "who was asked about"),
            Column("action", Kind.TEXT, "what he would do"),
            Column("serial", Kind.TEXT, "to which device"),
            Column("service", Kind.TEXT, "and which service"),
            Column("labels", Kind.LIST, "that the device has"),
            Column("at", Kind.TIME, "when"),
            Column("allowed", Kind.YES_NO, "the answer"),
            Column("grant", Kind.TEXT, "the one that allows it, or nothing"),
            Column("until", Kind.TIME, "then the question has to be put again; null: never"),
            Column("why", Kind.TEXT, "when not: ``no-grant``, ``not-yet``, ``over``"),
            Column("considered", Kind.LIST, "his grants and those of his groups, each with its ``misfit``"),
        ),
    ),
    Operation(
        "UserAdd", "people.user_add", "make a user, with a token, which is shown once",
        "The token stands alone on standard output.", (_USER, _NOTE, _DAYS, _ROLE), _TOKEN,
        role=CallerRole.OPERATOR, named=True, errors=(Invalid, Conflict), command="user add",
        route="POST /users",
    ),
    Operation(
        "User", "people.user", "one user", "", (_USER,), ROW, _USERS, errors=(NotFound,),
        route="GET /users/{user}",
    ),
    Operation(
        "UserEdit", "people.user_edit", "give a user another note or role", "What is not said stays.",
        (_USER, _NOTE, _ROLE), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound, Invalid), command="user edit",
        said=lambda row: ({"changed": row["user"]}, f"{row['user']} is changed"),
        route="PUT /users/{user}",
    ),
    Operation(
        "UserReset", "people.user_reset", "take password and second factor away from a user",
        "Browsers of the user are logged out; tokens stay.", (_USER,), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="user reset",
        said=lambda row: ({"reset": row["user"]}, f"{row['user']} has no password and no second factor"),
        route="DELETE /users/{user}/login",
    ),
    Operation(
        "UserRemove", "people.user_remove", "take a user away with tokens and grants",
        "What he has running ends.", (_USER,), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="user remove",
        route="DELETE /users/{user}",
        said=lambda row: ({"removed": row["user"]}, f"{row['user']} is nobody any more"),
    ),
    Operation(
        "TokenNew", "people.token_new", "give a user a further token, which is shown once",
        "The token stands alone on standard output.", (_USER, _NOTE, _DAYS, _SCOPE), _TOKEN,
        role=CallerRole.OPERATOR, named=True, errors=(NotFound, Invalid, Conflict), command="token new",
        route="POST /users/{user}/tokens",
    ),
    Operation(
        "TokenRevoke", "people.token_revoke", "let a token of a user count no more",
        "What was begun with it ends.",
        (_USER, Argument("token", text="its id (default: all tokens of the user)", shown="[TOKEN]",
                         optional=True)),
        (Argument("count", Kind.NUMBER), PROBLEM),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="token revoke",
        route="DELETE /users/{user}/tokens",
        said=lambda row: ({"user": row["user"], "revoked": row["count"]},
                          "{count} of {user}: revoked".format_map(row)),
    ),
    Operation(
        "GroupAdd", "people.group_add", "make a group of nobody", "", (_GROUP, _NOTE), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(Invalid, Conflict), command="group add",
        route="POST /groups",
        said=lambda row: ({"added": row["group"]},
                          "group {group} is there, and called @{group} in grants".format_map(row)),
    ),
    Operation(
        "GroupRemove", "people.group_remove", "take a group away with its grants; its members stay", "",
        (_GROUP,), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="group remove",
        route="DELETE /groups/{group}",
        said=lambda row: ({"removed": row["group"]}, f"group {row['group']} is no more"),
    ),
    Operation(
        "MemberAdd", "people.member_add", "put a user into a group", "", (_GROUP, _USER), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound, Conflict), command="member add",
        route="PUT /groups/{group}/members/{user}",
        said=lambda row: ({"group": row["group"], "added": row["user"]},
                          "{user} is in {group}".format_map(row)),
    ),
    Operation(
        "MemberRemove", "people.member_remove", "take a user out of a group", "", (_GROUP, _USER), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="member remove",
        route="DELETE /groups/{group}/members/{user}",
        said=lambda row: ({"group": row["group"], "removed": row["user"]},
                          "{user} is not in {group} any more".format_map(row)),
    ),
    Operation(
        "GrantAdd", "people.grant_add", "let a user, or @GROUP, do something to services of devices",
        "*DEVICE* is a serial or a pattern of serials, or ``label=`` and one of labels; *SERVICES* are names "
        "or patterns with commas between.",
        (
            Argument("holder", shown="HOLDER"),
            Argument("device", shown="DEVICE"),
            Argument("services", Kind.LIST, shown="SERVICES"),
            Argument("actions", Kind.LIST, f"of {', '.join(ACTIONS)} (default: list,start)", "--actions A,B",
                     optional=True),
            Argument("begins", text=f"from when on: {_WHEN}", shown="--from WHEN", optional=True),
            Argument("until", text=f"its end: {_WHEN}", shown="--until WHEN", optional=True),
        ),
        (Argument("grant"), PROBLEM),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound, Invalid, Conflict), command="grant",
        route="POST /grants",
        said=lambda row: ({"grant": row["grant"], "holder": row["holder"]},
                          "grant {grant} of {holder} counts".format_map(row)),
    ),
    Operation(
        "GrantRemove", "people.grant_remove", "let a grant count no more; what it alone allowed ends", "",
        (Argument("grant", shown="GRANT"),), (Argument("holder"), PROBLEM),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="grant remove",
        route="DELETE /grants/{grant}",
        said=lambda row: ({"removed": row["grant"], "holder": row["holder"]},
                          "grant {grant} of {holder} counts no more".format_map(row)),
    ),
)  # fmt: skip
