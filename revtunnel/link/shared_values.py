"""What many links have alike, made once: an idle device costs its server what is its own.

Source: ours.
"""

from dataclasses import replace
from functools import lru_cache

from revtunnel.ground.limits import LinkLimits

__all__ = ["limits_for", "names_of", "nobody_hears"]


def nobody_hears(waits: bool = False) -> None:
    """For who is no stranger any more."""


@lru_cache(256)
def names_of(names: tuple[str, ...]) -> frozenset[str]:
    """A set of names; devices of one kind offer the same and share it."""
    return frozenset(names)


@lru_cache(64)
def limits_for(limits: LinkLimits, largest_data: int) -> LinkLimits:
    """The limits of a link whose agent takes so many bytes in a DATA; links share them."""
    largest = min(limits.lone_frame, largest_data)
    return replace(limits, lone_frame=largest, frame=min(limits.frame, largest))
