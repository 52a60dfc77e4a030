"""The description of the CCCP API that machines read: OpenAPI 3.1, as the door really answers.

Rule of this file: what the door does and this does not say is a fault of one of them; the tests hold every
answer against it.

Source: TCXN CCCP, "Proxy Control API"; the OpenAPI specification 3.1.
"""

from typing import Any

from revtunnel import __version__
from revtunnel.systems.cccp.sessions import MAX_TIMEOUT

__all__ = ["describe_api"]

SERIAL = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[!-~]{1,64}$"}
_MESSAGE = {
    "type": "object",
    "properties": {"message": {"type": "string"}},
    "required": ["message"],
    "additionalProperties": False,
}
_ON = {
    "type": "object",
    "properties": {"host": {"type": "string"}, "port": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "required": ["host", "port"],
    "additionalProperties": False,
}
_STATUS = {
    "type": "object",
    "properties": {
        "device_connected": {"type": "boolean"},
        "client_connected": {"type": "boolean"},
        "transferred": {"type": "integer", "minimum": 0},
    },
    "required": ["device_connected", "client_connected", "transferred"],
    "additionalProperties": False,
}
_OR_NULL = {"type": ["string", "null"]}
_DEVICE = {
    "type": "object",
    "properties": {
        "serial": {"type": "string"},
        "connected": {"type": "boolean"},
        "address": _OR_NULL,
        "project": {"type": "string"},
        "authenticated": {"type": "boolean"},
        "since": _OR_NULL,
        "port": {"type": ["integer", "null"]},
        "persistent": {"type": ["boolean", "null"]},
        "client": _OR_NULL,
    },
    "required": [
        "serial",
        "connected",
        "address",
        "project",
        "authenticated",
        "since",
        "port",
        "persistent",
        "client",
    ],
    "additionalProperties": False,
}
_DEVICES = {
    "type": "object",
    "properties": {"devices": {"type": "array", "items": _DEVICE}, "next": _OR_NULL},
    "required": ["devices", "next"],
    "additionalProperties": False,
}
_NOTHING = {"type": "object", "additionalProperties": False}


def _parameter(name: str, schema: dict[str, Any], text: str, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": text}


_SERIAL = _parameter("serial", SERIAL, "Serial number of the device.", True)
_PARAMETERS = {
    "/on": [
        _SERIAL,
        _parameter("persistent", {"type": "string", "enum": ["true", "false"]}, "Both may come and go."),
        _parameter(
            "ip_whitelist",
            {"type": "string", "minLength": 1},
            "Addresses or networks of clients, with commas between; at most 64.",
        ),
        _parameter(
            "timeout",
            {"type": "integer", "minimum": 0, "maximum": MAX_TIMEOUT},
            "Seconds within which the first client has to connect; 0: no limit.",
        ),
        _parameter(
            "wait",
            {"type": "number", "minimum": 0, "maximum": 3600},
            "Seconds to wait for the device, which is woken if the operator has set how.",
        ),
        _parameter("project", {"type": "string"}, "Name of the project, where several take the serial."),
        _parameter("target", {"type": "string"}, "Name of the service, for devices that offer several."),
    ],
    "/off": [_SERIAL],
    "/status": [_SERIAL],
    "/devices": [
        _parameter("after", {"type": "string"}, "The next of the page before."),
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 200}, "Rows of a page."),
    ],
    "/openapi.json": [],
}
_TEXTS = {
    "/on": "Start a proxy for a device, or give the running one other options.",
    "/off": "Stop the proxy of a device.",
    "/status": "The proxy of a device.",
    "/devices": "Devices that are registered, and devices with a proxy.",
    "/openapi.json": "This description.",
}
_GOOD: dict[str, dict[str, Any]] = {
    "/on": _ON,
    "/off": _NOTHING,
    "/status": _STATUS,
    "/devices": _DEVICES,
    "/openapi.json": {"type": "object"},
}
_FAULTS = {
    "400": "A parameter is missing or wrong.",
    "401": "A bearer token is wanted.",
    "403": "The request comes from a web page, or for another host.",
    "413": "The body is too large.",
    "500": "It could not be done.",
}
_MORE = {
    "/on": {
        "404": "No such device, project or target.",
        "503": "No available ports; or the proxy is stopping.",
        "504": "The device did not come within wait.",
    },
    "/off": {"404": "No proxy for this device."},
    "/status": {"404": "No proxy for this device."},
    "/devices": {},
    "/openapi.json": {},
}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _operation(path: str, method: str, token: bool) -> dict[str, Any]:
    faults = {**_FAULTS, **_MORE[path]}
    if not token:
        del faults["401"]
    return {
        "operationId": f"{method}{path.title().replace('/', '').replace('.', '')}",
        "summary": _TEXTS[path],
        "parameters": _PARAMETERS[path],
        "responses": {
            "200": _answer("Done.", _GOOD[path]),
            **{code: _answer(text, _MESSAGE) for code, text in sorted(faults.items())},
        },
        **({"security": [{"token": []}]} if token else {}),
    }


def describe_api(token: bool) -> dict[str, Any]:
    """The description; ``token``: a bearer token is wanted."""
    paths = {
        path: {
            method: _operation(path, method, token)
            for method in (("get", "post") if path in ("/on", "/off", "/status") else ("get",))
        }
        for path in _PARAMETERS
    }
    schemes = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Proxy Control API",
            "version": __version__,
            "description": "Starts and stops proxy servers for devices; TCXN CCCP.",
        },
        "paths": paths,
        **({"components": schemes} if schemes else {}),
    }
