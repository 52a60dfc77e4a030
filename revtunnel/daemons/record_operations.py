"""What an operator can lay down for one device, over the settings (kept_records.py)."""

from revtunnel.process.admin.device_operations import SERIAL
from revtunnel.process.admin.operation_form import PROBLEM, ROW, Argument, CallerRole, Column, Kind, Operation
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound

__all__ = ["RECORD_COLUMNS", "RECORD_OPERATIONS"]

_LIST, _NUMBER = Kind.LIST, Kind.NUMBER
RECORD_COLUMNS = (
    Column("clients", _LIST, "networks that may reach it; null: any"),
    Column("targets", _LIST, "what it may offer; null: anything"),
    Column("ports", _LIST, "that it may have; null: any"),
    Column("leases", _NUMBER, "client ports that it may hold"),
    Column("channels", _NUMBER, "at most; null: any"),
    Column("at_once", _NUMBER, "clients of one of its services; null: any"),
    Column("expires", Kind.TIME, "the day; null: never"),
    Column("labels", _LIST, "that grants may call it by"),
    Column("sessions", Kind.TEXT, "remote ones: ``any``, ``asked`` or ``no``"),
    Column("services", _LIST, "that it has, where it does not say so itself: ThingWorx, localproxy"),
    Column("web", _LIST, "services that are web pages, as NAME=KIND; else their names say it"),
    Column("web_host", Kind.TEXT, "what web pages are told as Host; ``target``: what the agent dials"),
)


def _said(name: str, kind: Kind, text: str, high: int = 65535, words: tuple[str, ...] = ()) -> Argument:
    shown = f"--{name.replace('_', '-')} {'LIST' if kind is _LIST else 'N' if kind is _NUMBER else 'WORD'}"
    return Argument(name, kind, text, shown, optional=True, high=high, words=words)


RECORD_OPERATIONS = (
    Operation(
        "RecordShow", "records.row", "the record of a device, and what of it operators have laid down", "",
        (SERIAL,), ROW, errors=(Invalid,), command="record show", route="GET /devices/{serial}/record",
        columns=(
            Column("serial", Kind.TEXT, "of the device"),
            Column("record", Kind.TEXT, "the section of the settings under it: a serial, ``*``, or nothing"),
            *RECORD_COLUMNS,
            Column("kept", Kind.OBJECT, "what operators have laid down: values by key, as a file has them"),
            Column("by", Kind.TEXT, "who did so last"),
            Column("since", Kind.TIME, "when; null: nobody"),
        ),
    ),
    Operation(
        "RecordEdit", "records.edit", "lay down what a device may do, over the settings",
        "Kept in the state file until it is reset, whatever a reload of the settings changes; all other keys "
        "stay as they are. What it allows no more is cut at once.",
        (
            SERIAL,
            _said("clients", _LIST, "networks that may reach it; any, none"),
            _said("targets", _LIST, "what it may offer: names, HOST:PORT; any, none"),
            _said("ports", _LIST, "client ports that it may have: PORT, LOW-HIGH; any, none"),
            _said("leases", _NUMBER, "client ports that it may hold"),
            _said("channels", _NUMBER, "at once; 0: what all may"),
            _said("at_once", _NUMBER, "clients of one of its services; 0: any"),
            _said("expires", Kind.TEXT, "its last day, YYYY-MM-DD; never"),
            _said("labels", _LIST, "that grants may call it by; an empty list: none"),
            _said("sessions", Kind.TEXT, "remote ones: any, asked or no"),
            _said("services", _LIST, "[NAME=]HOST:PORT of a ThingWorx device, or a localproxy"),
            _said("web", _LIST, "services that are web pages: NAME=http, NAME=https, NAME=https-any"),
            _said("web_host", Kind.TEXT, "what web pages are told as Host; target"),
        ),
        (PROBLEM,), role=CallerRole.OPERATOR, named=True, errors=(Invalid, Conflict), command="record edit",
        route="PATCH /devices/{serial}/record",
        said=lambda row: ({"changed": row["serial"]}, f"the record of {row['serial']} is changed"),
    ),
    Operation(
        "RecordReset", "records.reset", "have the record of a device as the settings have it again", "",
        (SERIAL, Argument("keys", _LIST, "only these of it", "--keys LIST", optional=True)),
        (PROBLEM,), role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="record reset",
        route="DELETE /devices/{serial}/record",
        said=lambda row: ({"reset": row["serial"]}, f"the record of {row['serial']} is that of the settings"),
    ),
)  # fmt: skip
