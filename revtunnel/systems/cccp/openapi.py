"""The description of the CCCP API that machines read: OpenAPI 3.1, as the API really answers.

Rule of this file: what the API does and this does not say is a fault of one of them; the tests hold every
answer against it.

Source: TCXN CCCP, "Proxy Control API"; the OpenAPI specification 3.1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from revtunnel import __version__
from revtunnel.systems.cccp.parameters import ENTRY, SERIAL, TRUTHS
from revtunnel.systems.cccp.proxy_sessions import MAX_TIMEOUT, MAX_WHITELIST

__all__ = ["PAGE", "describe_api"]

PAGE = 200  # devices of a page at most
Schema = dict[str, Any]
_NOTHING = {"type": "object", "additionalProperties": False}
_NO_PROXY = {"404": "No proxy for this device."}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """All of these, and no others."""
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {**schema, "additionalProperties": False}


def _parameter(name: str, schema: Schema, text: str, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": text}


_TEXT, _TRUTH, _OR_NULL = {"type": "string"}, {"type": "boolean"}, {"type": ["string", "null"]}
_MESSAGE = _object(message=_TEXT)
_MESSAGE["properties"]["detail"] = _TEXT  # when ports rest: until when
_SERIAL = _parameter("serial", _TEXT | {"pattern": SERIAL}, "Serial number of the device.", True)
_DEVICE = _object(
    serial=_TEXT,
    connected=_TRUTH,
    address=_OR_NULL,
    in_use=_TRUTH,
    project=_TEXT,
    authenticated=_TRUTH,
    since=_OR_NULL,
    port={"type": ["integer", "null"]},
    persistent={"type": ["boolean", "null"]},
    client=_OR_NULL,
)


class _Call(NamedTuple):
    text: str
    good: Schema  # what it answers with 200
    parameters: Sequence[Schema] = ()
    faults: dict[str, str] = {}
    methods: Sequence[str] = ("get", "post")


_CALLS = {
    "/on": _Call(
        "Start a proxy for a device, or give the running one other options.",
        _object(host=_TEXT, port={"type": "integer", "minimum": 1, "maximum": 65535}),
        [
            _SERIAL,
            _parameter("persistent", _TEXT | {"enum": [*TRUTHS]}, "Both may come and go."),
            {
                **_parameter(
                    "ip_whitelist",
                    {
                        "type": "array",
                        "items": _TEXT | {"pattern": ENTRY},
                        "minItems": 1,
                        "maxItems": MAX_WHITELIST,
                    },
                    "Addresses or networks of clients, with commas between.",
                ),
                "style": "form",
                "explode": False,
            },
            _parameter(
                "timeout",
                {"type": "integer", "minimum": 0, "maximum": MAX_TIMEOUT},
                "Seconds within which the first client has to connect; 0: no limit.",
            ),
            _parameter(
                "wait",
                {"type": "integer", "minimum": 0},  # the most is set by the operator
                "Seconds to wait for the device, which is woken if the operator has set how.",
            ),
            _parameter("project", _TEXT, "Name of the project, where several take the serial."),
            _parameter("target", _TEXT, "Name of the service, for devices that offer several."),
        ],
        {
            "404": "No such device, project or target.",
            "503": "No available ports; or the proxy is stopping.",
            "504": "The device did not come within wait.",
        },
    ),
    "/off": _Call("Stop the proxy of a device.", _NOTHING, [_SERIAL], _NO_PROXY),
    "/status": _Call(
        "The proxy of a device.",
        _object(
            device_connected=_TRUTH, client_connected=_TRUTH, transferred={"type": "integer", "minimum": 0}
        ),
        [_SERIAL],
        _NO_PROXY,
    ),
    "/devices": _Call(
        "Devices that are registered, and devices with a proxy.",
        _object(devices={"type": "array", "items": _DEVICE}, next=_OR_NULL),
        [
            _parameter("after", _TEXT, "The next of the page before."),
            _parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE}, "Rows of a page."),
        ],
        methods=("get",),
    ),
    "/openapi.json": _Call("This description.", {"type": "object"}, methods=("get",)),
}
_FAULTS = {
    "400": "A parameter is missing or wrong.",
    "401": "A bearer token is wanted.",
    "403": "The request comes from a web page, or for another host.",
    "413": "The body is too large.",
    "500": "It could not be done.",
}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _operation(path: str, call: _Call, method: str, token: bool, wait: int) -> dict[str, Any]:
    faults = {**_FAULTS, **call.faults}
    if not token:
        del faults["401"]
    return {
        "operationId": f"{method}{path.title().replace('/', '').replace('.', '')}",
        "summary": call.text,
        "parameters": [
            {**each, "schema": {**each["schema"], "maximum": wait}} if each["name"] == "wait" else each
            for each in call.parameters
        ],
        "responses": {
            "200": _answer("Done.", call.good),
            **{code: _answer(text, _MESSAGE) for code, text in sorted(faults.items())},
        },
        **({"security": [{"token": []}]} if token else {}),
    }


def describe_api(token: bool, wait: int) -> dict[str, Any]:
    """The description; ``token``: a bearer token is wanted; ``wait``: seconds that a caller may wait."""
    paths = {
        path: {method: _operation(path, call, method, token, wait) for method in call.methods}
        for path, call in _CALLS.items()
    }
    schemes = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Proxy Control API",
            "version": __version__,
            "description": "Starts and stops proxy servers for devices; TCXN CCCP. "
            "With POST, parameters may also stand in a form.",
        },
        "paths": paths,
        **({"components": schemes} if schemes else {}),
    }
