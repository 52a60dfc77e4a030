"""The settings of AWS's localproxy at web listeners, and what they become."""

from dataclasses import dataclass

from revtunnel.settings.schema_keys import Key, Section
from revtunnel.settings.values import text, yes_no

__all__ = ["LOCALPROXY_SECTIONS", "LocalproxySettings"]


@dataclass(frozen=True, slots=True)
class LocalproxySettings:
    """[localproxy]."""

    devices: bool = False
    pool: str = "default"


LOCALPROXY_SECTIONS = (
    Section("localproxy", "server", "AWS's localproxy, at every [web NAME]: see docs/localproxy.rst.", (
        Key("devices", yes_no(), "no", "let it in as a device too, by the device's app key"),
        Key("pool", text("name", "1 to 32 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,32}"), "default",
            "the [pool NAME] that gives its devices their client ports"),
    )),
)  # fmt: skip
