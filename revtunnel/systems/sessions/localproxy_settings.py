"""The settings of AWS's localproxy at web listeners: section [localproxy].

Source: docs/localproxy.rst; ours.
"""

from dataclasses import dataclass

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import NAME, yes_no

__all__ = ["LocalproxySettings"]


# fmt: off
@dataclass(frozen=True, slots=True)
class LocalproxySettings:
    """Whether it may be a device, and what such a device gets."""

    devices: bool = setting(yes_no(), "no", "let it in as a device too, by the device's app key",
        live=True)
    pool: str = setting(NAME, "default", "the [pool NAME] that gives its devices their client ports",
        live=True)
# fmt: on
