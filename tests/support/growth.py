"""How much memory daemons take while something passes or waits: it is bounded, whatever the machine."""

from tests.support.daemons import Agent, Server
from tests.support.traffic import MIB

__all__ = ["Grown"]

BOUND = 64 * MIB  # how much a daemon may grow: memory, not time


class Grown:
    """How much each daemon has grown, at its peak, since this was made."""

    def __init__(self, *daemons: Server | Agent) -> None:
        self._base = {daemon.name: (daemon, daemon.resident()) for daemon in daemons}
        for daemon in daemons:
            daemon.forget_peak()

    def check(self) -> None:
        """AssertionError when one has grown beyond the bound."""
        grown = {name: daemon.peak_resident() - base for name, (daemon, base) in self._base.items()}
        assert all(each < BOUND for each in grown.values()), {k: v // 1024 for k, v in grown.items()}
