"""The settings of ThingWorx devices: section [thingworx].

Source: docs/thingworx.rst; ours.
"""

from dataclasses import dataclass, field

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import NAME, yes_no
from revtunnel.ground.limits import EdgeLimits

__all__ = ["EdgeSettings"]


# fmt: off
@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Whether they come in, and what they get."""

    enabled: bool = setting(yes_no(), "no", "let devices with PTC's Edge SDK in at every [web NAME]")
    pool: str = setting(NAME, "default", "the [pool NAME] that gives its devices their client ports",
        live=True)
    limits: EdgeLimits = field(default_factory=EdgeLimits)
# fmt: on
