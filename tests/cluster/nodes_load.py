"""Clients that take streams of any device at any node meanwhile, and judge each."""

import random
import threading
import time

from tests.cluster.nodes_lab import NodesLab

__all__ = ["Load"]

LARGE = 60_000  # words of a stream at most


class Load:
    """Clients that have streams of random devices at random nodes, and judge them."""

    def __init__(self, lab: NodesLab, count: int, seed: int) -> None:
        self.wrong: list[str] = []
        self.outcomes: dict[str, int] = {}
        self._lab = lab
        self._seed = seed
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(each,), daemon=True) for each in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        chance = random.Random(self._seed + client)
        while not self._stop.is_set():
            name, device = chance.choice([*self._lab.hosts]), chance.choice(self._lab.devices)
            try:
                outcome = self._lab.ask(name, device, client, chance.randrange(1, LARGE))
            except AssertionError as wrong:
                self.wrong.append(str(wrong))
                return
            with self._lock:
                self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            if outcome != "whole":
                time.sleep(0.05)

    def end(self) -> None:
        """No more streams."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
