"""What makes an absent device connect, as settings say it; wake.py does it.

Rule of this file: it is imported by whoever reads settings, so it imports little.

Source: issue "CCCP" (Offline intent); ours.
"""

from dataclasses import dataclass
from typing import NamedTuple

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import COMMAND, text

__all__ = ["ONE_WANTED", "WakeRules", "WakeSettings"]

URL = text("URL", "empty, http://... or https://...", r"(https?://[!-~]{1,2000})?")
ONE_WANTED = "wake_command is set as well, one of them wanted"


# fmt: off
@dataclass(frozen=True, kw_only=True)
class WakeSettings:
    """A command, or a URL, or neither."""

    wake_command: str = setting(COMMAND, "", "run for an absent device when a caller waits for it; its "
        "serial is added as the last word", live=True)
    wake_url: str = setting(URL, "", 'instead of that: where {"serial": ...} is posted', live=True)
# fmt: on


class WakeRules(NamedTuple):
    """What is run for a device, and how."""

    command: str = ""
    url: str = ""  # where there is no command
    seconds: float = 20.0  # that it may take
    most: int = 16  # that run at once

    def __bool__(self) -> bool:
        return bool(self.command or self.url)
