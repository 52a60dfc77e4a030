"""An address that fails at one node has failed at all, where nodes have a secret.

Rule of this file: failures are told together, with each renewal of the lease, and kept nowhere: who does not
hear of them in time knows only what he saw himself. A message is sealed, is of a node's run that lives, and
counts once: the numbers of one run grow. What a serial is locked out for stays at its node.

Source: issue "Many cores, many nodes" part 1; faults.md "Pre-auth limits"; ours.
"""

import json
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.record_seal import OpenRecords
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.redis_scripts import PUBLISH
from revtunnel.fleet.penalties import Penalties
from revtunnel.ground.networks import Network, network_of

__all__ = ["SharedPenalties"]

MOST = 1000  # addresses in one message; what more fail meanwhile is not told


class SharedPenalties:
    """Joins a node's penalties with those of the others. ``seconds``: the clock that they count by."""

    def __init__(
        self, directory: RedisDirectory, penalties: Penalties, seal: OpenRecords, seconds: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._penalties = penalties
        self._seal = seal
        self._seconds = seconds
        self._failed: dict[str, float] = {}  # seconds by address, not told yet
        self._number = 0
        self._heard: dict[str, tuple[int, int]] = {}  # by node: its run, and the last number of that
        penalties.told = self._count
        directory.renewed, directory.told = self._tell, self._learn

    def _count(self, source: Network, weight: float) -> None:
        name = str(source)
        if name in self._failed or len(self._failed) < MOST:
            self._failed[name] = self._failed.get(name, 0.0) + weight

    def _tell(self) -> None:
        if not self._failed:
            return
        self._number += 1
        me, failed, self._failed = self._directory.me, self._failed, {}
        id = f"penalties:{me.name}:{me.epoch}:{self._number}"
        sealed = self._seal.name(id), self._seal.close(id, json.dumps(failed))
        told = Deferred.fromCoroutine(self._directory.call(PUBLISH, *sealed))
        told.addErrback(Failure.trap, DirectoryAway)

    def _learn(self, name: str, value: str) -> None:
        opened = self._seal.open(name, value)
        words = opened[0].split(":") if opened is not None else []
        if opened is None or words[0] != "penalties":
            return
        node, run = words[1], (int(words[2]), int(words[3]))
        lives = any((each.name, each.epoch) == (node, run[0]) for each in self._directory.nodes())
        if node == self._directory.me.name or not lives or run <= self._heard.get(node, (0, 0)):
            return
        self._heard[node] = run
        for source, weight in json.loads(opened[1]).items():
            self._penalties.owe(network_of(source), weight, self._seconds())
