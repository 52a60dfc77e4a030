"""Programs of the site, as real processes: how they end, what they see, that they can be killed."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.process.programs import ProgramFailed, run
from tests.support.epoll import own_reactor

pytestmark = pytest.mark.slow


@pytest.fixture
def loop() -> Iterator[Any]:
    """A reactor that tells of processes."""
    with own_reactor() as made:
        made.reactor.startRunning(installSignalHandlers=True)
        yield made


def outcome(loop: Any, running: "Deferred[str]") -> Any:
    """What comes of it."""
    found: list[Any] = []
    running.addBoth(found.append)
    loop.until(lambda: found, "its end")
    return found[0]


def python(code: str) -> list[str]:
    """A program."""
    return [sys.executable, "-c", code]


def test_the_last_line_of_one_that_ends_well(loop: Any) -> None:
    """From either output, and of a flood only its end is kept."""
    for code in ("print('x' * 10_000_000); print('done')", "import sys; print('done', file=sys.stderr)"):
        assert outcome(loop, run(loop.reactor, python(code))) == "done"


def test_one_that_fails_says_how(loop: Any) -> None:
    """Its status and its last line; or why it is not there at all."""
    failure = outcome(loop, run(loop.reactor, python("print('the press is open'); raise SystemExit(3)")))
    error = failure.check(ProgramFailed) and failure.value
    assert error.said == "the press is open"
    assert str(error).startswith("exit code 3")
    failure = outcome(loop, run(loop.reactor, ["/nowhere/at/all"]))
    assert failure.check(ProgramFailed)


def test_it_sees_plain_words_and_no_environment_of_ours(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a shell would obey is obeyed."""
    monkeypatch.setenv("SECRET", "shh")
    code = "import os, sys; print(sys.argv[1:], sorted(os.environ), os.environ['PATH'])"
    said = outcome(loop, run(loop.reactor, [*python(code), "a; b", "$(c)"], {"WHO": "ana"}))
    assert said.startswith("['a; b', '$(c)'] ['")
    assert "'WHO'" in said and "SECRET" not in said
    assert said.endswith("/usr/local/bin:/usr/bin:/bin")


def test_what_it_began_is_killed_with_it(loop: Any, tmp_path: Path) -> None:
    """A script that did not end with exec leaves nobody behind, whether it lives itself or not."""
    for ends in ("wait", "exit 0"):
        alive = tmp_path / ends.partition(" ")[0]
        running = run(loop.reactor, ["/bin/sh", "-c", f"sleep 60 & echo $! >{alive}; {ends}"])
        loop.until(lambda at=alive: at.exists() and at.read_text().endswith("\n"), "its beginning")
        pid = int(alive.read_text())
        running.addErrback(lambda failure: None)
        running.cancel()
        loop.until(lambda pid=pid: not is_running(pid), "the end of what it began")


def is_running(pid: int) -> bool:
    """And is no zombie, which whoever is its parent now will reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_that_is_given_up_is_killed(loop: Any, tmp_path: Path) -> None:
    """At once, whatever it does with signals."""
    alive = tmp_path / "alive"
    code = f"""if True:
        import os, pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path({str(alive)!r}).write_text(str(os.getpid()))
        time.sleep(60)
    """
    running = run(loop.reactor, python(code))
    loop.until(lambda: alive.exists() and alive.read_text(), "its beginning")
    pid = int(alive.read_text())
    running.addErrback(lambda failure: None)
    running.cancel()
    loop.until(lambda: not Path(f"/proc/{pid}").exists(), "its end")
