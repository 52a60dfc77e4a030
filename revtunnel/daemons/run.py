"""How a daemon starts: as a ``twistd`` plugin and as a foreground command of the same name.

Rule of this file: it knows nothing of what the daemons do. Each daemon is a module with ``Options`` and
``makeService(options)``, imported only when it was chosen; what goes wrong on the way becomes a line on
standard error and an exit status, never a traceback, unless it is a bug.

====== ===============================================================================================
status when
====== ===============================================================================================
0      stopped in order; after ``--help``, ``--version``, ``--check-config``
1      could not start: port in use, no permission, address absent; a bug, with its traceback
64     wrong usage (``usage.UsageError``)
69     an agent with ``--once`` or ``--idle-end``: no server had a link for it; 75: no client came
78     wrong settings (``SettingsError``), one line each
====== ===============================================================================================

The same under ``twistd --nodaemon``. A daemonising twistd reports a failed start itself (status 1), because a
SystemExit there would leave its parent waiting for ever. Options of twistd itself are twistd's.

Source: sysexits.h for 64 and 78.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService, IServiceMaker, MultiService
from twisted.internet.task import LoopingCall
from twisted.plugin import IPlugin
from twisted.python import usage
from twisted.python.reflect import namedAny
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from revtunnel.process.log_output import LogOutput
    from revtunnel.process.logs import LineObserver

__all__ = [
    "AGENT",
    "CAMEO",
    "CCCP",
    "SERVER",
    "DaemonMaker",
    "agent",
    "cameo",
    "cccp",
    "main",
    "run",
    "server",
]

USAGE = 64
CONFIG = 78
FAILED = 1


@implementer(IPlugin, IServiceMaker)
class DaemonMaker:
    """A daemon that twistd and ``run`` can start.

    Args:
        name: of the plugin and the command.
        module: dotted name of the module with ``Options`` and ``makeService``.
        description: one line for ``twistd --help``.
    """

    def __init__(self, name: str, module: str, description: str) -> None:
        self.name = self.tapname = name
        self.module = module
        self.description = description

    def options(self) -> Any:
        """Fresh options of the daemon; parsing them ends the process on wrong usage."""
        name, daemon_options = self.name, namedAny(self.module).Options

        class Options(daemon_options):  # type: ignore[misc, valid-type]
            """The daemon's own options; wrong ones end the process."""

            def parseOptions(self, options: Sequence[str] | None = None) -> None:
                with ending(name):
                    super().parseOptions(options)

            def getSynopsis(self) -> str:
                """The daemon's own usage line, behind twistd's where twistd was called."""
                return str(super().getSynopsis()).replace(f"{name} Usage: {name} ", f"{name} ")

        Options.__doc__ = daemon_options.__doc__
        return Options()

    def makeService(self, options: Any) -> IService:
        """The daemon's service tree, with its log; the reactor is prepared before the tree is made.

        ``options.observer`` is the log's ``LineObserver``, or None: settings may say its form and level.
        """
        from twisted.internet import reactor

        from revtunnel.process.process import prepare_reactor, rotate_on_signal

        with ending(self.name):
            prepare_reactor(reactor)
            options.observer = make_observer(options)
            rotate_on_signal(reactor, options.observer.rotate if options.observer else lambda: None)
            root = Root(self.name, reactor, options.observer, may_exit=_stays(options))
            namedAny(self.module).makeService(options).setServiceParent(root)
        return root


class Root(MultiService):
    """The whole daemon: gives twistd the log observer, and turns a failed start into a clear line."""

    def __init__(self, name: str, reactor: Any, observer: "LineObserver | None", may_exit: bool) -> None:
        super().__init__()
        self._name = name
        self._observer = observer
        self._may_exit = may_exit
        self._summaries = LoopingCall(observer.summarise if observer is not None else lambda: None)
        self._summaries.clock = reactor

    def setServiceParent(self, parent: Any) -> None:
        """Called with twistd's Application, the place where it looks for a log observer."""
        from twisted.logger import ILogObserver

        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        self._starting(super().privilegedStartService)

    def startService(self) -> None:
        self._starting(super().startService)
        self._summaries.start(5.0)

    def stopService(self) -> Any:
        if self._summaries.running:
            self._summaries.stop()
        return super().stopService()

    def _starting(self, start: Callable[[], None]) -> None:
        if self._may_exit:
            with ending(self._name):
                start()
        else:
            start()


@contextmanager
def ending(name: str) -> "Iterator[None]":
    """Turn what the operator can mend into lines on standard error and an exit status."""
    from twisted.internet.error import CannotListenError

    from revtunnel.settings.inifile import SettingsError

    try:
        yield
    except usage.UsageError as error:
        _leave(name, USAGE, str(error), f"try: {name} --help")
    except SettingsError as error:
        _leave(name, CONFIG, *str(error).splitlines())
    except BrokenPipeError:  # whoever read our help or summary has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(FAILED) from None
    except (CannotListenError, OSError) as error:
        _leave(name, FAILED, f"cannot start: {error}")


def _leave(name: str, status: int, *lines: str) -> NoReturn:
    for line in lines:  # the log may own sys.stderr by now
        print(f"{name}: {line}", file=sys.__stderr__, flush=True)
    raise SystemExit(status)


def make_observer(options: Any) -> "LineObserver | None":
    """The log that options ask for: ``log-format`` text or json, ``log-level``; twistd's ``--logfile`` holds.

    None when twistd was told to use syslog or a logger of its own.
    """
    from revtunnel.process import logs

    twistd = options.parent or {}
    if twistd.get("syslog") or twistd.get("logger"):
        return None
    output = _log_output(options)
    form, level = options.get("log-format") or "text", options.get("log-level") or "info"
    try:
        return logs.LineObserver(output, form, time.monotonic, level)
    except ValueError as error:
        raise usage.UsageError(str(error)) from None


def _log_output(options: Any) -> "LogOutput":
    """Standard output, or twistd's log file."""
    from revtunnel.process.log_output import LogOutput, open_log

    twistd = options.parent or {}
    path = twistd.get("logfile")
    if path == "-" or (not path and _stays(options)):
        return LogOutput(1, os.environ)
    path = os.path.abspath(os.path.join(twistd.get("rundir", "."), path or "twistd.log"))
    descriptor = open_log(path)
    try:
        return LogOutput(descriptor, os.environ, path)
    finally:
        os.close(descriptor)


def _stays(options: Any) -> bool:
    """Whether the process stays in the foreground."""
    return options.parent is None or bool(options.parent.get("nodaemon"))


def run(maker: DaemonMaker, arguments: Sequence[str]) -> None:
    """Run a daemon in the foreground until it stops, without twistd's plugin search or pid file."""
    from twisted.scripts import twistd

    options = maker.options()
    options.parseOptions(list(arguments))
    config = twistd.ServerOptions()  # type: ignore[attr-defined]
    config.parseOptions(["--nodaemon", "--no_save", "--originalname", "--pidfile="])
    config.subCommand, config.subOptions = maker.tapname, options
    config.loadedPlugins = {maker.tapname: maker}
    twistd.runApp(config)


SERVER = DaemonMaker(
    "revtunnel-server", "revtunnel.daemons.server", "lets clients reach devices by their agents"
)
AGENT = DaemonMaker("revtunnel-agent", "revtunnel.daemons.agent", "dials out and offers a device's services")
CAMEO = DaemonMaker("revtunnel-cameo", "revtunnel.daemons.cameo", "the relays of a CAMEO site")
CCCP = DaemonMaker("revtunnel-cccp", "revtunnel.daemons.cccp", "proxies for devices that register, by HTTP")


def server() -> None:
    """The command ``revtunnel-server``."""
    run(SERVER, sys.argv[1:])


def agent() -> None:
    """The command ``revtunnel-agent``."""
    run(AGENT, sys.argv[1:])


def cameo() -> None:
    """The command ``revtunnel-cameo``."""
    run(CAMEO, sys.argv[1:])


def cccp() -> None:
    """The command ``revtunnel-cccp``."""
    run(CCCP, sys.argv[1:])


def main(arguments: Sequence[str]) -> None:
    """``python -m revtunnel.daemons.run server|agent|cameo|cccp ...``"""
    makers = {"server": SERVER, "agent": AGENT, "cameo": CAMEO, "cccp": CCCP}
    if not arguments or arguments[0] not in makers:
        _leave("revtunnel", USAGE, f"say which daemon to run: {', '.join(makers)}")
    run(makers[arguments[0]], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
