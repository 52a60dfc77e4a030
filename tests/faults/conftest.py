"""The daemons of a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Lab, laboratory


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Servers and agents as processes; stopped at the end, and a traceback in a log fails the test."""
    with laboratory(tmp_path) as found:
        yield found
