"""What is written for people: the pages are sound, and what they promise is what the code says."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.rst", *(ROOT / "docs").glob("*.rst")])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_no_fault_that_docutils_finds(path: Path) -> None:
    """Neither an error nor a warning: what it would leave out, readers miss."""
    core = pytest.importorskip("docutils.core")
    told: list[str] = []

    class Stream:
        def write(self, text: str) -> None:
            told.append(text)

    settings = {
        "warning_stream": Stream(),
        "report_level": 2,
        "file_insertion_enabled": False,
        "_disable_config": True,
    }
    core.publish_doctree(path.read_text(encoding="utf-8"), str(path), settings_overrides=settings)
    assert "".join(told) == ""
