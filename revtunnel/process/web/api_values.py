"""The arguments of operations as HTTP has them: texts of a path or a query, values of a JSON body.

Rule of this file: what is not of its kind, is there twice, or is not known, is refused by its name; then the
limits of the operation's own row are held. Bytes are base64.

Source: RFC 8259; process/admin/operation_form.py; ours.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from revtunnel.process.admin.admin_boxes import check
from revtunnel.process.admin.operation_form import Argument, Kind, Row
from revtunnel.process.admin.refusals import Invalid

__all__ = ["MAX_CHOICE", "MAX_TEXT", "WHOLE", "checked", "query_of", "read_body", "read_texts"]

MAX_TEXT = 256  # characters of one text, and texts of one list
MAX_CHOICE = 80  # characters of a pattern that chooses rows
MAX_FIELDS = 32
WHOLE = "-?(?:0|[1-9][0-9]{0,14})"
_TRUTHS = {"true": True, "false": False}


def query_of(raw: bytes) -> dict[str, str]:
    """The fields of a query.

    Raises:
        Invalid: it cannot be read, or says something twice.
    """
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Invalid("the query cannot be read") from None
    return _single(pairs)


def read_body(raw: bytes) -> dict[str, Any]:
    """The members of a JSON object.

    Raises:
        Invalid: it is none, or has a member twice.
    """
    try:
        found = json.loads(raw, object_pairs_hook=_single, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Invalid("the body is no JSON") from None
    if not isinstance(found, dict):
        raise Invalid("the body: a JSON object wanted")
    return found


def read_texts(fields: Iterable[Argument], texts: Mapping[str, str]) -> Row:
    """Arguments that came as texts, those of them that are there."""
    return {
        each.name: _of(each, texts[each.name], _TEXTS[each.kind]) for each in fields if each.name in texts
    }


def checked(fields: Iterable[Argument], texts: Mapping[str, str], body: Mapping[str, Any]) -> Row:
    """All arguments of an operation; None in place of one that may be missing and is.

    Raises:
        Invalid: one is missing, unknown, not of its kind or beyond its limits.
    """
    known = {each.name: each for each in fields}
    for name in (*texts, *body):
        if name not in known:
            raise Invalid(f"{name[:80]!a} is not known here")
    found = read_texts(known.values(), texts)
    for name, value in body.items():
        found[name] = _of(known[name], value, _VALUES[known[name].kind])
    for name, field in known.items():
        if name not in found:
            if not field.optional:
                raise Invalid(f"{name} is missing")
            found[name] = None
    return found


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Invalid("something is given twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _of(field: Argument, said: Any, read: Callable[[Any], Any]) -> Any:
    try:
        value = read(said)
    except (ValueError, KeyError, TypeError):
        raise Invalid(f"{field.name} {str(said)[:80]!a}: {field.kind.words} wanted") from None
    check(field, value)
    if field.words and value not in field.words:
        raise Invalid(f"{field.name} {str(value)[:80]!a}: one of {', '.join(field.words)} wanted")
    return value


def _text(said: Any) -> str:
    """A text that can be written down anywhere: no lone surrogate, no NUL, nothing long."""
    if not isinstance(said, str) or len(said) > MAX_TEXT or "\0" in said:
        raise ValueError
    said.encode()
    return said


def _whole(said: str) -> int:
    if not re.fullmatch(WHOLE, said, re.ASCII):
        raise ValueError
    return int(said)


def _number(said: Any) -> int:
    if isinstance(said, bool) or not isinstance(said, int):
        raise TypeError
    return said


def _truth(said: Any) -> bool:
    if not isinstance(said, bool):
        raise TypeError
    return said


def _list(said: Any) -> list[str]:
    if not isinstance(said, list) or len(said) > MAX_TEXT:
        raise TypeError
    return [_text(each) for each in said]


def _bytes(said: Any) -> bytes:
    if not isinstance(said, str):
        raise TypeError
    return base64.b64decode(said, validate=True)


_TEXTS: dict[Kind, Callable[[str], Any]] = {
    Kind.TEXT: _text,
    Kind.NUMBER: _whole,
    Kind.YES_NO: _TRUTHS.__getitem__,
    Kind.LIST: lambda said: [each for each in _text(said).split(",") if each],
    Kind.RAW: _bytes,
}
_VALUES: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _text,
    Kind.NUMBER: _number,
    Kind.YES_NO: _truth,
    Kind.LIST: _list,
    Kind.RAW: _bytes,
}
