"""What every test may use: a directory of its own, and a check that a test gave everything back."""

import functools
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import depth

depth.register()

# pytest asks for Twisted's version before each test, and it takes 2 ms to read that from its file
importlib.metadata.version = functools.cache(importlib.metadata.version)


def open_descriptors() -> set[str]:
    """The descriptors of this process, each with what it is open on."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:  # the one that listed the directory
            continue
    return found


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own directory, as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves a descriptor open. Ask for it first, so that it ends last."""
    import twisted.internet.reactor  # noqa: F401  its own descriptors are no leak

    before = open_descriptors()
    yield
    left = open_descriptors() - before
    assert not left, f"left open: {sorted(left)}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Slow tests only: files without the word need not be read, which is most of the time of collecting."""
    asked = str(config.getoption("markexpr"))
    if asked.startswith(("slow", "long")) and collection_path.match("test_*.py"):
        return None if "slow" in collection_path.read_text("utf-8") else True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Packages are made and installed first: the longest files, which nobody should wait for at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/twistd/"))
