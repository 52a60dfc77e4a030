"""axe-core over what a page of Chromium shows: what keeps somebody with a screen reader, or weak eyes, out.

::

    assert faults(page) == []

axe-core is in tests/support/axe as published; SOURCES.txt has version, licence and hashes. It runs in the
page by DevTools, so that the page's own policy stays as it is.
"""

import json
from functools import cache
from pathlib import Path

from tests.support.chromium import Page

__all__ = ["faults"]

# of WCAG 2.2 AA, and what axe-core itself calls good practice
_RUN = """(async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return JSON.stringify(found.violations
    .filter((each) => ["serious", "critical"].includes(each.impact))
    .flatMap((each) => each.nodes.map((node) => [each.id, ...node.target,
      ...node.failureSummary.split("\\n").slice(1).map((line) => line.trim())].join(": "))));
})()"""


@cache
def _source() -> str:
    return (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")


def faults(page: Page) -> list[str]:
    """Those that are serious or critical, as rule, place and what to do."""
    if not page.run("typeof axe === 'object'"):
        page.ask("Runtime.evaluate", expression=_source())
    found: list[str] = json.loads(page.run(_RUN))
    return found
