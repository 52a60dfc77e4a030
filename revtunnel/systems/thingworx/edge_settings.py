"""The settings of ThingWorx devices as values."""

from dataclasses import dataclass, field

from revtunnel.ground.policy import EdgeLimits

__all__ = ["EdgeSettings"]


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """[thingworx]."""

    enabled: bool = False
    pool: str = "default"
    limits: EdgeLimits = field(default_factory=EdgeLimits)
