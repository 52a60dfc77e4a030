"""The files of the page: where they are, what comes with them, and that nothing else is reached."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.web.resource import Resource

from revtunnel.process.web.page_files import PageFiles
from revtunnel.process.web.web_rules import API, PAGE
from tests.support.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """One with a page of the test's own."""
    (tmp_path / "index.html").write_text("<!doctype html>" + "x" * 2000)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "app.js").write_text("export {};")
    desk = Desk(frozenset({API}))
    desk.rules = replace(desk.rules, parts=frozenset({PAGE}))
    files = PageFiles(tmp_path)
    files.headers["lib/app.js"] = {"X-Own": "1"}
    desk.listener.pages.put("", files.root)
    desk.listener.pages.put("page", files)
    return desk


def test_files_come_with_a_strict_policy_and_a_tag(desk: Desk) -> None:
    """Compressed where that is asked for; not again where it is the same."""
    index = desk.ask("GET", "/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    policy = index.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert index.headers["cache-control"] == "no-cache"
    small = desk.ask("GET", "/", "", None, "Accept-Encoding: br, gzip")
    assert (gzip.decompress(small.body), small.headers["content-encoding"]) == (index.body, "gzip")
    same = desk.ask("GET", "/", "", None, f"If-None-Match: {index.headers['etag']}")
    assert (same.status, same.body) == (304, b"")
    assert desk.ask("HEAD", "/").body == b""
    script = desk.ask("GET", "/page/lib/app.js")
    assert (script.headers["content-type"], script.headers["x-own"]) == (
        "text/javascript; charset=utf-8",
        "1",
    )
    assert script.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/page", "/page/", "/page/x.js", "/page/../page/lib/app.js", "/page/%2e%2e/index.html", "/page/lib",
     "/page//lib/app.js", "/page/lib%2Fapp.js%00", "/index.html", "/page/lib/app.js/"],
)  # fmt: skip
def test_nothing_else_is_there(desk: Desk, path: str) -> None:
    """No folder, no name of the disk."""
    assert desk.ask("GET", path).status == 404


def test_files_are_only_read(desk: Desk) -> None:
    """405 for the rest."""
    assert desk.ask("POST", "/page/lib/app.js").word == "method"


def test_the_package_has_a_page() -> None:
    """It stands in the installed package, and is no larger than a page may be."""
    files: Any = PageFiles()
    assert isinstance(files.root, Resource)
    assert "index.html" in files._files
