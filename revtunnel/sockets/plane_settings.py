"""Which data plane moves the bytes of joined sockets: the setting, and whether the extension was built.

Source: issue 16; ours.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import word

if TYPE_CHECKING:
    from revtunnel._pump import Pump

__all__ = ["PlaneSettings", "find_pump"]


def find_pump() -> "type[Pump] | None":
    """The extension's class; None: it was installed without a compiler."""
    try:
        from revtunnel._pump import Pump
    except ImportError:
        return None
    return Pump


# fmt: off
@dataclass(frozen=True, kw_only=True)
class PlaneSettings:
    """How bytes are moved."""

    data_plane: str = setting(word("auto", "python", "native"), "auto", "what moves "
        "the bytes of two sockets, plain or TLS, once they are joined, and opens the channels of plain "
        "links: native: a thread in C, which accepts clients at a server and dials at an agent where nothing "
        "is judged; python: what does all else, too; auto: native where it was built")
