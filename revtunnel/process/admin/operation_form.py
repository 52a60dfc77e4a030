"""The form of an operation: one thing that an operator can see or do, declared once for every interface.

Rule of this file: the form only; a daemon's rows stand beside its operator. AMP commands, ``revtunnelctl``,
the pages about both and the audit line are made from these rows. ``revtunnelctl`` imports them for every
command, so they and whatever declares them import the standard library only, and no dataclasses (25 ms).

Source: ours; docs/admin.rst.
"""

from collections.abc import Callable
from enum import Enum, IntEnum, auto
from typing import Any, NamedTuple

from revtunnel.process.admin.refusals import OperatorError

__all__ = [
    "MAX_PATH",
    "PAGE",
    "PROBLEM",
    "ROW",
    "ROWS",
    "Argument",
    "CallerRole",
    "Column",
    "Kind",
    "Operation",
    "Row",
    "table_of",
]

PAGE = 200  # rows of one answer at most
MAX_PATH = 107  # bytes of a UNIX socket's path

Row = dict[str, Any]


class CallerRole(IntEnum):
    """What a caller may do; each may what the one before it may."""

    NOBODY = 0  # what is his own, of people
    READER = 1  # look
    OPERATOR = 2  # change things


class Kind(Enum):
    """What a value is. The first five may be arguments, four of them of an answer; rows have all but RAW."""

    TEXT = auto()
    NUMBER = auto()
    YES_NO = auto()
    RAW = auto()  # bytes
    LIST = auto()  # of texts; as an argument with commas between
    BYTES = auto()  # a number of them
    SECONDS = auto()  # a length of time
    TRIP = auto()  # a short one
    TIME = auto()  # UTC
    OBJECT = auto()

    @property
    def words(self) -> str:
        """For people."""
        return self.name.lower().replace("_", " or ")


class Argument(NamedTuple):
    """An argument, or a value of an answer.

    Attributes:
        name: on the wire.
        text: for people, behind an option of ``--help`` and in the manual.
        shown: on the command line: ``SERIAL``, ``[SERIAL]``, ``NAME ...``, ``--retry-after S``, ``--lift``;
            the same ``SERIAL/TARGET`` for two arguments that make one word; "": not there.
        low, high: limits of a number, held by the interface.
        form: a pattern that a text has to match, held by the interface; "": any.
        words: the only ones that the command line takes.
        either: excludes the others of its operation that are so.
    """

    name: str
    kind: Kind = Kind.TEXT
    text: str = ""
    shown: str = ""
    optional: bool = False
    default: Any = None  # of the command line
    low: int = 0
    high: int = 2**31 - 1
    form: str = ""
    words: tuple[str, ...] = ()
    either: bool = False


class Column(NamedTuple):
    """One key of a row. ``head``: of its column where people read it; ``cell``: what stands there instead."""

    name: str  # "": only people read it
    kind: Kind
    text: str
    head: str = ""
    cell: Callable[[Row], Any] | None = None


PROBLEM = Argument("problem", text="why it is not on the server's disk, though it counts", optional=True)
ROW = (Argument("row"),)  # one JSON object
ROWS = (Argument("rows"), Argument("after", optional=True))  # a JSON array, and the cursor of the next page


class Operation(NamedTuple):
    """One row of the table.

    Attributes:
        name: on the wire.
        method: of the daemon's operator, or ``people.users``: of a part of it. An argument that is missing
            has the method's own default. A listing's gets ``after`` and ``limit`` too and gives rows and the
            cursor to go on with; its arguments on the wire have both.
        help: one line for ``revtunnelctl --help``.
        text: for the manual, with ``literals`` and *words to be filled in*.
        key: the columns that make the cursor of a listing; none: its rows are plain text.
        named: the method is told as ``by`` who asks.
        errors: that it may end with, beside Denied, and Invalid where an argument is wrong.
        command: of ``revtunnelctl``; "": none, or part of another one.
        said: what ``revtunnelctl`` prints of arguments and answer, for programs and for people.
        route: method and path of the HTTP API, with arguments in braces; "": made of the name.
    """

    name: str
    method: str
    help: str
    text: str = ""
    arguments: tuple[Argument, ...] = ()
    answer: tuple[Argument, ...] = ()
    columns: tuple[Column, ...] = ()
    key: tuple[str, ...] = ()
    role: CallerRole = CallerRole.READER
    named: bool = False
    errors: tuple[type[OperatorError], ...] = ()
    command: str = ""
    said: Callable[[Row], tuple[Row, str]] | None = None
    route: str = ""

    @property
    def asked(self) -> tuple[Argument, ...]:
        """The arguments on the wire."""
        page = Argument("after", optional=True), Argument("limit", Kind.NUMBER, optional=True)
        return (*self.arguments, *page) if self.answer is ROWS else self.arguments

    def row(self, source: object, **known: Any) -> Row:
        """One row: what is known of a column, else the attribute of its name, else nothing of its kind."""
        return {
            each.name: known[each.name]
            if each.name in known
            else getattr(source, each.name, "" if each.kind is Kind.TEXT else None)
            for each in self.columns
            if each.name
        }


def table_of(*rows: Operation) -> dict[str, Operation]:
    """Operations by name; columns of one that is there twice are put together."""
    table: dict[str, Operation] = {}
    for row in rows:
        before = table.get(row.name, row)
        fresh = [column for column in row.columns if column not in before.columns]
        table[row.name] = before._replace(columns=(*before.columns, *fresh))
    return table
