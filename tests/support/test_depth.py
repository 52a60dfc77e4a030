"""The depth of a test is the profile's, everywhere."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.depth import QUICK, deep

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["quick", "full"])
def percent(request: pytest.FixtureRequest) -> int:
    """Of a profile that is loaded for the test."""
    before = settings.get_current_profile_name()
    settings.load_profile(request.param)
    request.addfinalizer(lambda: settings.load_profile(before))
    return {"quick": QUICK, "full": 100}[request.param]


def test_a_profile_says_how_often(percent: int) -> None:
    """In proportion, and never less than the test needs; a property test that says nothing follows too."""
    assert deep(1000) == 10 * percent
    assert deep(3) == 3
    assert deep(1000, 500) == max(10 * percent, 500)
    tried = []

    @given(st.integers())
    def whatever(number: int) -> None:
        tried.append(number)

    whatever()
    assert len(tried) == percent


def test_the_shipped_run_is_in_full() -> None:
    """CI's run of the fast tests names the profile; a run that names none is quick."""
    lines = (TESTS.parent / "Makefile").read_text("utf-8").splitlines()
    assert [line for line in lines if "--hypothesis-profile=full" in line and "slow" not in line]


def test_no_file_has_a_number_of_its_own() -> None:
    """It would be as deep in both profiles."""
    fixed = re.compile(r"max_examples=\d")
    found = [path.name for path in sorted(TESTS.rglob("test_*.py")) if fixed.search(path.read_text("utf-8"))]
    assert found == []
