"""Requests to the CAMEO server by an outside listener: which are refused, which answers change.

Rule of this file: only what goes to the name of the server, or comes from it, is looked at; whatever is not
rewritten passes byte for byte. Where a policy holds, what cannot be read is refused. A question for a port is
never answered with -1, which would be taken for one: it is dropped.

The numbers are CAMEO's message types (``common/messages/Messages``).

Source: wire/cameo.md sections 1 and 5 ("Optional policy", "Port rewriting rule").
"""

import json
from collections.abc import Mapping
from typing import Any

from revtunnel.systems.cameo.zmtp_messages import encode_message, split_frames

__all__ = ["PORT_QUESTIONS", "READ_ONLY", "UNREADABLE", "refusal", "request_type", "translated"]

# start, stop, write to, kill, set, store, remove: everything that changes something at the site
READ_ONLY = frozenset((3, 4, 11, 12, 15, 20, *range(23, 32), 33))
# questions for the ports of the relays, which are what is translated; 36 is also PING, to responders
RELAY_PORTS = frozenset((36, 17))
# whose answers are ports: output, status, relays, the server's bookkeeping of ports
PORT_QUESTIONS = frozenset((8, 9, 13, 17, 18, 29, 30, 31, 32, 36))
UNREADABLE = -1
LARGEST = 1024 * 1024  # bytes of JSON that are read


def request_type(rest: bytes) -> int:
    """The ``type`` of a request, of which these are the frames behind the envelope; or UNREADABLE.

    A second ``type`` in the object is unreadable too: another reader may take the other one.
    """
    found, names = _object(split_frames(rest)[0])
    value = found.get("type")
    if names.count("type") != 1 or not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return UNREADABLE
    return value


def refusal(kind: int) -> bytes | None:
    """The frames of the answer to a request that is refused; None: it gets none."""
    if kind in PORT_QUESTIONS or kind == UNREADABLE:
        return None
    return encode_message([json.dumps({"value": -1, "message": f"refused: request {kind}"}).encode()])


def translated(rest: bytes, kind: int | None, ports: Mapping[int, int]) -> bytes:
    """An answer of the server with the port in it replaced, if it answers a question for one."""
    if kind not in RELAY_PORTS:
        return rest
    frames = split_frames(rest)
    answer, _ = _object(frames[0])
    value = answer.get("value")
    if not isinstance(value, int) or isinstance(value, bool) or value not in ports:
        return rest
    return encode_message([json.dumps({**answer, "value": ports[value]}).encode(), *frames[1:]])


def _object(text: bytes) -> tuple[dict[str, Any], list[str]]:
    """A JSON object and its names as often as they stand there; both empty: it is none."""
    names: list[str] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names[:] = [name for name, _ in pairs]  # the outermost object comes last
        return dict(pairs)

    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=made) if len(text) <= LARGEST else None
    except (ValueError, RecursionError):
        found = None
    return (found, names) if isinstance(found, dict) else ({}, [])
