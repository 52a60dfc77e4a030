"""An agent's data sockets at random, on real sockets: beside Python, sanitized, and ten thousand times."""

import gc
from pathlib import Path

import pytest

from tests.sockets.test_pump import built, held, run_sanitized
from tests.support.dial_drive import drive, short_connections

pytestmark = pytest.mark.slow


@built
@pytest.mark.parametrize("seed", range(3))
def test_what_becomes_of_data_sockets_is_the_same_as_in_python(seed: int) -> None:
    """Words, bytes, facts and ends; whether one is taken back in time is nobody's."""
    assert drive("native", seed, 150) == drive("python", seed, 150)


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        ("address,undefined", "libasan.so"),
        pytest.param("thread", "libtsan.so", marks=pytest.mark.long),
    ],
)
def test_nothing_for_sanitizers(kind: str, library: str, tmp_path: Path) -> None:
    """No byte beyond its buffer, none after it was freed, nothing undefined; no race."""
    assert run_sanitized(tmp_path, kind, library, "tests.support.dial_drive", "5", "100") == (0, "ok\n", "")


@built
@pytest.mark.long
def test_ten_thousand_connections_leave_nothing() -> None:
    """Descriptors, threads and memory are where they were after the first thousand."""
    gc.collect()
    found = [held() for _ in short_connections(11, 1000)]
    assert {each[:2] for each in found} == {found[0][:2]}
    assert found[-1][2] < found[0][2] + 2048, found
