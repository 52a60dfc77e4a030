"""A turn of Twisted's epoll reactor that calls whom an event is for, and does nothing else.

The rules: what happens at an event is Twisted's own code, unless it is the plain case, readable and nothing
more, or it is for somebody of watch.py, who is told it as it is. What is left out is the logging context
(``system``) that Twisted makes anew for each event, which nobody reads here, and the question whether a
reader was closed without leaving the reactor: 1.8 of the 2.8 microseconds that an event costs before its
reader is called.

Another reactor, or one whose inside is not as it was, is left alone.

Source: ours; Twisted's epollreactor.doPoll and posixbase._doReadOrWrite, of which this is the same.
"""

import select
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

from revtunnel.sockets.watch import Watch

__all__ = ["shorten_turns"]

_INSIDE = ("_poller", "_selectables", "_doReadOrWrite", "_disconnectSelectable", "doIteration")


def shorten_turns(reactor: Any) -> bool:
    """Have the reactor take such turns from now on; False: it is not one that we know."""
    if not (type(reactor) is EPollReactor and all(hasattr(reactor, name) for name in _INSIDE)):
        return False
    Watch(reactor, reactor._poller, reactor._selectables)
    poll, selectables, other = reactor._poller.poll, reactor._selectables, reactor._doReadOrWrite
    find = selectables.get
    readable = select.EPOLLIN

    def turn(timeout: float | None) -> None:
        for number, event in poll(-1 if timeout is None else timeout, len(selectables)):
            reader = find(number)
            if reader is None:
                continue  # it left the reactor during this very turn
            happened = None if event == readable else getattr(reader, "happened", None)
            if event != readable and happened is None:
                other(reader, number, event)
                continue
            try:
                why = reader.doRead() if happened is None else happened(event)
            except BaseException as error:
                why = error
                log.err()
            if why:
                reactor._disconnectSelectable(reader, why, True)

    reactor.doIteration = turn  # type: ignore[method-assign]
    return True
