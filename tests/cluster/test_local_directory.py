"""The directory in memory is one like the others."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from revtunnel.cluster.directory import Directory
from revtunnel.cluster.local_directory import Board, LocalDirectory
from tests.cluster.directory_behaviour import DirectoryBehaviour


class InMemory:
    """Nodes of one process (directory_behaviour.World)."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.board = Board(lambda what, *told: self.clock.callLater(0, what, *told))

    def view(self, name: str) -> Directory:
        return LocalDirectory(self.board, name, f"{name}.example:2066")

    def result(self, waited: "Deferred[Any]") -> Any:
        found: list[Any] = []
        waited.addCallback(found.append)
        return found[0]

    def until(self, condition: Callable[[], bool]) -> None:
        self.clock.pump([0] * 10)
        assert condition()

    def die(self, view: Directory) -> None:
        view.stop()


class TestLocalDirectory(DirectoryBehaviour):
    """As all directories."""

    @pytest.fixture
    def world(self) -> InMemory:
        """One board."""
        return InMemory()
