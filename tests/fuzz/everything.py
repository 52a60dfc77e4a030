"""All targets, by being imported."""

from importlib.util import find_spec

from tests.fuzz import doors, links, rooms, systems, texts  # noqa: F401
from tests.fuzz.harness import TARGETS

if find_spec("jwt") is not None:
    from tests.fuzz import identity  # noqa: F401

__all__ = ["TARGETS"]
