"""How much work a call is: the lines of Python that it runs. Unlike time, that is the same on any machine."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["steps"]


def steps(call: Callable[..., Any], *arguments: Any) -> int:
    """The lines that run until ``call`` returns, in whatever it calls."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        call(*arguments)
    finally:
        sys.settrace(before)
    return count
