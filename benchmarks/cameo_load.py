"""Processes of the CAMEO benchmark: libzmq peers (pyzmq), and the relays that pyzmq itself makes.

`python -m benchmarks.cameo_load ROLE PORT...`; a role ends when it is killed. `receiver` talks: for each line
`COUNT SIZE` on standard input it empties its socket, says "ready", receives until half a second of silence
(or COUNT messages), and prints how many came and the seconds from the first to the last.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import zmq

__all__ = ["ROLES", "SERVER", "connected"]

SERVER = b"0:0"
SILENCE = 500  # milliseconds
LARGE = 65536  # bytes from which pyzmq's frames cost less than copies


def connected(context: Any, kind: int, port: int, identity: bytes = b"") -> Any:
    """A socket without limits of its own."""
    made = context.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    if identity:
        made.setsockopt(zmq.ROUTING_ID, identity)
    made.connect(f"tcp://127.0.0.1:{port}")
    return made


def _bound(context: Any, kind: int, port: int) -> Any:
    made = context.socket(kind)
    made.bind(f"tcp://127.0.0.1:{port}")
    return made


def backend(port: int) -> None:
    """Answers requests as a CAMEO server does: echoes the frames."""
    _echo(connected(zmq.Context(), zmq.ROUTER, port, SERVER))


def worker(port: int) -> None:
    """The same behind a plain broker, where a client's id is all that comes in front."""
    _echo(connected(zmq.Context(), zmq.DEALER, port))


def _echo(peer: Any) -> None:
    copy = True
    while True:
        frames = peer.recv_multipart(copy=copy)
        peer.send_multipart(frames, copy=copy)
        copy = len(frames[-1]) < LARGE


def receiver(port: int) -> None:
    """A subscriber that measures."""
    subscriber = connected(zmq.Context(), zmq.SUB, port)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"t")
    subscriber.setsockopt(zmq.RCVTIMEO, SILENCE)
    for line in sys.stdin:
        count, size = map(int, line.split())
        receive, copy = subscriber.recv_multipart, size < LARGE
        while subscriber.poll(100):
            receive(copy=False)
        print("ready", flush=True)
        subscriber.poll(10_000)
        started = last = time.perf_counter()
        seen = 0
        while seen < count:
            try:
                receive(copy=copy)
            except zmq.Again:
                break
            seen += 1
            if not seen % 64 or count - seen < 64:
                last = time.perf_counter()
        print(seen, last - started, flush=True)


def swap(port: int) -> None:
    """CAMEO's responder relay in pyzmq: two frames change places, in a thread."""
    router = zmq.Context().socket(zmq.ROUTER)
    router.setsockopt(zmq.ROUTING_ID, b"R")
    router.bind(f"tcp://127.0.0.1:{port}")

    def work() -> None:
        while True:
            frames = router.recv_multipart()
            if len(frames) >= 5:
                router.send_multipart([frames[2], b"", frames[0], b"", *frames[4:]])

    _in_thread(work)


def broker(clients: int, workers: int) -> None:
    """zmq.proxy between clients and workers: no names, so no CAMEO, but the plain cost of a hop in libzmq."""
    context = zmq.Context()
    _in_thread(zmq.proxy, _bound(context, zmq.ROUTER, clients), _bound(context, zmq.DEALER, workers))


def forwarder(subscribers: int, publishers: int) -> None:
    """CAMEO's publisher relay: zmq.proxy between XSUB and XPUB."""
    context = zmq.Context()
    _in_thread(zmq.proxy, _bound(context, zmq.XSUB, publishers), _bound(context, zmq.XPUB, subscribers))


def _in_thread(work: Any, *arguments: Any) -> None:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    thread.join()


ROLES = {each.__name__: each for each in (backend, worker, receiver, swap, broker, forwarder)}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*map(int, sys.argv[2:]))
