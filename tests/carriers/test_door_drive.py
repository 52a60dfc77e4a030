"""A server's clients at random, accepted by the data plane: beside Python, sanitized, ten thousand times."""

import gc
from pathlib import Path

import pytest

from tests.sockets.test_pump import built, held, run_sanitized
from tests.support.door_drive import drive, short_connections

pytestmark = pytest.mark.slow


@built
def test_what_becomes_of_clients_is_the_same_as_in_python() -> None:
    """Words, bytes, facts and ends."""
    assert drive(True, 1, 60) == drive(False, 1, 60)


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        ("address,undefined", "libasan.so"),
        pytest.param("thread", "libtsan.so", marks=pytest.mark.long),
    ],
)
def test_nothing_for_sanitizers(kind: str, library: str, tmp_path: Path) -> None:
    """No byte beyond its buffer, none after it was freed, nothing undefined; no race."""
    assert run_sanitized(tmp_path, kind, library, "tests.support.door_drive", "5", "30") == (0, "ok\n", "")


@built
@pytest.mark.long
def test_ten_thousand_clients_leave_nothing() -> None:
    """Descriptors, threads and memory are where they were after the first thousand."""
    gc.collect()
    found = [held() for _ in short_connections(11, 1000)]
    assert {each[1] for each in found} == {found[0][1]}
    assert max(each[0] for each in found) < found[0][0] + 200  # spare data sockets, both ends of them
    assert found[-1][2] < found[0][2] + 4096, found
