"""What listeners of kind emo serve, and what they share: machines that are here, and ports asked for in vain.

Source: ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from revtunnel.ground.limits import EmoLimits
from revtunnel.systems.emo.ports_in_vain import PortsInVain

__all__ = ["EmoListener"]


@dataclass(frozen=True, slots=True)
class EmoListener:
    """One listener: which port is reserved for which device and target.

    ``machines`` and ``in_vain``, one for all of them, have the command socket that registered each port, and
    what was asked for in vain.
    """

    ports: Mapping[int, tuple[str, str]]
    limits: EmoLimits = field(default_factory=EmoLimits)
    machines: dict[int, Any] = field(default_factory=dict)
    in_vain: PortsInVain = field(default_factory=PortsInVain)
