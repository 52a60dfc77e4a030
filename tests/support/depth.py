"""How deep a test goes is said by Hypothesis' profile, for its examples and for loops of our own.

``quick`` is the default; ``pytest --hypothesis-profile=full`` runs everything as often as its file says.
"""

from hypothesis import HealthCheck, settings

QUICK = 8  # examples of a property test under the quick profile; of a hundred, so percent for other tests


def register() -> None:
    """Makes both profiles known and loads the quick one; before any file with a property test is read.

    Neither asks for the time an example takes: a busy machine is no fault.
    """
    timeless = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("full", timeless, max_examples=100)
    settings.register_profile("quick", timeless, max_examples=QUICK)
    settings.load_profile("quick")


def deep(full: int, least: int = 3) -> int:
    """How often to do what is done ``full`` times under the full profile; never less often than ``least``."""
    return max(least, full * settings.default.max_examples // 100)
