"""What a start says and how it ends, without a process: words, statuses, log, and the root of the tree."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.application.service import MultiService, Service
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from revtunnel.daemons.run import AGENT, SERVER, Root, ending, main, make_observer
from revtunnel.ground.errors import SettingsError
from revtunnel.process.logs import LineObserver

Fault = Callable[[], Exception]


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (usage.UsageError("no such option"), 64, ["x: no such option", "x: try: x --help"]),
        (
            SettingsError(["a.ini:1: first", "a.ini:2: second"]),
            78,
            ["x: a.ini:1: first", "x: a.ini:2: second"],
        ),
        (OSError(13, "Permission denied"), 1, ["x: cannot start: [Errno 13] Permission denied"]),
        (
            CannotListenError("127.0.0.1", 1, OSError(98, "Address in use")),
            1,
            ["x: cannot start: Couldn't listen on 127.0.0.1:1: [Errno 98] Address in use."],
        ),
    ],
    ids=["usage", "settings", "system", "port"],
)
def test_what_an_operator_can_mend_is_lines_and_a_status(
    error: Exception, status: int, lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """On standard error, each with the daemon's name, and no traceback."""
    with pytest.raises(SystemExit) as ended, ending("x"):
        raise error
    assert ended.value.code == status
    assert capfd.readouterr().err.splitlines() == lines


def test_a_bug_stays_one() -> None:
    """With its traceback."""
    with pytest.raises(ZeroDivisionError), ending("x"):
        raise ZeroDivisionError


@pytest.mark.parametrize("words", [[], ["revtunnel-server"], ["nobody", "--help"]])
def test_c9_which_daemons_there_are(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Said to who names none of them."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 64
    assert "server, agent, cameo, cccp" in capfd.readouterr().err


@pytest.mark.parametrize("maker", [SERVER, AGENT], ids=["server", "agent"])
def test_c9_a_wrong_option_ends_with_the_way_to_help(maker: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """And with the status for usage."""
    options = maker.options()
    with pytest.raises(SystemExit) as ended:
        options.parseOptions(["--no-such-option"])
    assert ended.value.code == 64
    said = capfd.readouterr().err
    assert "no-such-option" in said and f"try: {maker.tapname} --help" in said
    assert options.getSynopsis().count(maker.tapname) == 1


class Options(dict[str, Any]):
    """Options of a daemon, perhaps of one that twistd starts."""

    def __init__(self, parent: dict[str, Any] | None = None, **words: str) -> None:
        super().__init__(words)
        self.parent = parent


def test_the_log_goes_where_twistd_says(tmp_path: Path) -> None:
    """Into the file of a daemon that does not stay, in its directory; nowhere of ours with syslog."""
    parent = {"rundir": str(tmp_path), "nodaemon": False}
    for more, name in (({}, "twistd.log"), ({"logfile": "my.log"}, "my.log")):
        observer = make_observer(Options({**parent, **more}))
        assert isinstance(observer, LineObserver)
        observer({"log_format": "here", "log_time": 0.0, "log_level": None, "log_namespace": "x"})
        observer._output.close()
        assert (tmp_path / name).exists()
    for way in ("syslog", "logger"):
        assert make_observer(Options({**parent, way: "yes"})) is None


def test_a_log_level_that_there_is_not() -> None:
    """A fault of the command line."""
    with pytest.raises(usage.UsageError, match="loud"):
        make_observer(Options(None, **{"log-level": "loud"}))


class Failing(Service):
    """It fails in one of the two steps of a start."""

    def __init__(self, early: bool) -> None:
        self._early = early

    def privilegedStartService(self) -> None:
        if self._early:
            raise OSError(98, "Address in use")

    def startService(self) -> None:
        if not self._early:
            raise OSError(98, "Address in use")


@pytest.mark.parametrize("early", [True, False], ids=["privileged", "start"])
def test_a_start_that_fails_ends_the_process_or_is_twistds(
    early: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the foreground it is a line and a status; one that is in the background already has a log for it."""
    for may_exit, kind in ((True, SystemExit), (False, OSError)):
        root = Root("x", Clock(), None, may_exit)
        Failing(early).setServiceParent(root)
        with pytest.raises(kind):
            root.privilegedStartService()
            root.startService()
    assert capfd.readouterr().err == "x: cannot start: [Errno 98] Address in use\n"


def test_the_root_brings_the_log_and_has_it_sum_up() -> None:
    """Twistd asks its application for an observer; what was suppressed is said every five seconds."""

    class Application(Componentized, MultiService):
        def __init__(self) -> None:
            Componentized.__init__(self)
            MultiService.__init__(self)

    sums: list[float] = []
    clock, application = Clock(), Application()
    observer: Any = SimpleNamespace(summarise=lambda: sums.append(clock.seconds()))
    root = Root("x", clock, observer, True)
    root.setServiceParent(application)
    assert application.getComponent(ILogObserver) is observer
    root.startService()
    clock.pump([2.5] * 5)
    assert sums == [0.0, 5.0, 10.0]
    root.stopService()
