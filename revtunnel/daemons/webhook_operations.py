"""What operators see of webhooks, and can do with them (webhooks.py)."""

from revtunnel.process.admin.operation_form import ROWS, Argument, CallerRole, Column, Kind, Operation
from revtunnel.process.admin.refusals import Conflict, NotFound

__all__ = ["WEBHOOK_OPERATIONS"]

_HOOK = Argument("hook", shown="HOOK")
_ID = Argument("id", text="of one; all of them if it is not said", shown="[ID]", optional=True)
_COUNT = (Argument("count", Kind.NUMBER),)
WEBHOOK_OPERATIONS = (
    Operation(
        "Webhooks", "webhooks.rows", "webhooks, and what waits for them", answer=ROWS, key=("hook",),
        command="webhooks",
        columns=(
            Column("hook", Kind.TEXT, "NAME of ``[webhook NAME]``", "HOOK"),
            Column("to", Kind.TEXT, "where it goes to, without the path", "TO"),
            Column("state", Kind.TEXT, "``well``, ``failing``, or ``gone``: the section is", "STATE"),
            Column("waiting", Kind.NUMBER, "messages that wait", "WAITING"),
            Column("dead", Kind.NUMBER, "dead letters that are kept", "DEAD"),
            Column("delivered", Kind.NUMBER, "messages since the start", "DELIVERED"),
            Column("failed", Kind.NUMBER, "tries since the start that failed", "FAILED"),
            Column("dropped", Kind.NUMBER, "facts since the start that found no room", "DROPPED"),
            Column("problem", Kind.TEXT, "why the last try failed, or nothing", "PROBLEM"),
        ),
    ),
    Operation(
        "WebhookDead", "webhooks.dead", "messages of a webhook that could not be delivered",
        "The oldest go first where there are too many.", (_HOOK,), ROWS, key=("id",), errors=(NotFound,),
        command="webhook dead", route="GET /webhooks/{hook}/dead",
        columns=(
            Column("id", Kind.TEXT, "``webhook-id`` of each try", "ID"),
            Column("event", Kind.TEXT, "name of the fact", "EVENT"),
            Column("made", Kind.TIME, "when it came to the queue", "MADE"),
            Column("why", Kind.TEXT, "why the last try failed", "WHY"),
        ),
    ),
    Operation(
        "WebhookRedeliver", "webhooks.redeliver", "post dead letters of a webhook again",
        "Behind what waits, with the ids that they had.", (_HOOK, _ID), _COUNT,
        role=CallerRole.OPERATOR, errors=(NotFound, Conflict), command="webhook redeliver",
        route="POST /webhooks/{hook}/redeliver",
        said=lambda row: ({"hook": row["hook"], "redelivered": row["count"]},
                          f"{row['count']} messages wait again for {row['hook']}"),
    ),
    Operation(
        "WebhookDrop", "webhooks.drop", "forget dead letters of a webhook",
        "Of one whose section is gone, all that waits as well.", (_HOOK, _ID), _COUNT,
        role=CallerRole.OPERATOR, errors=(NotFound,), command="webhook drop",
        route="POST /webhooks/{hook}/drop",
        said=lambda row: ({"hook": row["hook"], "dropped": row["count"]},
                          f"{row['count']} messages of {row['hook']} are forgotten"),
    ),
    Operation(
        "WebhookTest", "webhooks.test", "give a webhook a message of its own, ``webhook-test``", "", (_HOOK,),
        role=CallerRole.OPERATOR, errors=(NotFound, Conflict), command="webhook test",
        route="POST /webhooks/{hook}/test",
        said=lambda row: ({"tested": row["hook"]}, f"a message waits for {row['hook']}: see webhooks"),
    ),
)  # fmt: skip
