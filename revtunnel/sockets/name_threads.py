"""Names are resolved in threads of their own, which nobody waits for.

The rule: a resolver may hang for minutes, in C, where nothing can end it; so its threads are no others' (what
reads settings has the reactor's pool), and the process ends without them. The resolver is Twisted's own, by a
name that is not public.

Source: faults.md N32; issue "a resolver that hangs".
"""

from functools import partial
from threading import Thread
from typing import Any

from twisted.internet._resolver import GAIResolver
from twisted.python.threadpool import ThreadPool

__all__ = ["resolve_apart"]

THREADS = 10  # as many as Twisted gives its own pool


def resolve_apart(reactor: Any) -> None:
    """Have the reactor resolve names so from now on."""
    pool = ThreadPool(0, THREADS, "names")
    pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
    pool.start()
    reactor.installNameResolver(GAIResolver(reactor, lambda: pool))
