"""The settings of ThingWorx devices; a part of the table in daemons/schema.py."""

from functools import partial

from revtunnel.ground.policy import KIB, MIB, EdgeLimits
from revtunnel.settings.schema_keys import Key, Section, limit_key
from revtunnel.settings.values import count, seconds, size, text, yes_no

__all__ = ["THINGWORX_SECTIONS"]

_edge = partial(limit_key, EdgeLimits)
_THINGWORX = (
    Key("enabled", yes_no(), "no", "let devices with PTC's Edge SDK in at every [web NAME]"),
    Key("pool", text("name", "1 to 32 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,32}"), "default",
        "the [pool NAME] that gives its devices their client ports"),
    _edge("tunnels", count("tunnels", 1, 255), "of one device at once, one for each client; of eight the SDK "
          "drops one now and then"),
    _edge("waiting", count("clients", 0, 65535), "clients of one device that wait for one"),
    _edge("wait", seconds(0.1, 600), "time that a client waits for a place, and for the device to bring it"),
    _edge("settle", seconds(0, 60), "time before the first byte to a device, which loses what comes at once"),
    _edge("hold", seconds(0.1, 3600), "silence after a client's end of file, which no tunnel can carry, "
          "before both ends are cut"),
    _edge("quiet", seconds(0, 60), "time without a byte after which the end of a service has overtaken none"),
    _edge("held", size(64 * KIB, 64 * MIB), "what a client may have to take before its tunnel is not read, "
          "which the SDK bears for 0.1 s"),
    _edge("first", seconds(1, 120), "time from the WebSocket to a good BIND, absolute"),
)  # fmt: skip
THINGWORX_SECTIONS = (
    Section("thingworx", "server", "ThingWorx devices: see docs/thingworx.rst. What each has is services in "
            "[device SERIAL].", _THINGWORX),
)  # fmt: skip
