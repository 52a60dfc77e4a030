"""All targets, by being imported."""

from tests.fuzz import doors, links, rooms, systems, texts  # noqa: F401
from tests.fuzz.harness import TARGETS

__all__ = ["TARGETS"]
