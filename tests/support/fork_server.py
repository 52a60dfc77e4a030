"""Programs of revtunnel started by fork from one process that has imported all of it.

Rule of this file: what is started is what ``python -m MODULE`` would be, with its descriptors, environment
and exit status, only sooner: to import Twisted and OpenSSL takes a second of CPU, and the slow suite starts a
thousand programs. What a start itself does (plugins, what is imported, a wrong call) is tested with programs
that were started in the ordinary way: tests/twistd.

Each pytest process has one such server, started when it is first needed; it ends with its socket.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Forked", "output_of", "spawn"]

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = 1 << 20  # bytes, the most that a command line and an environment take
EARLY = ("PYTHON", "LD_", "MALLOC_", "OPENSSL_", "LC_", "LANG", "TZ")  # of an environment, before any module
AT_FIRST = {**os.environ}  # a test may change that of its process
NEVER = "revtunnel.daemons.agent_file_start"  # runs when it is imported


class Forked:
    """A program that runs: what of ``subprocess.Popen`` tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: Any = None
        self.stdout: Any = None
        self.stderr: Any = None
        self._ended = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        if self.returncode is None and _readable(self._ended, 0):
            self.returncode = os.waitstatus_to_exitcode(_server().ask({"reap": self.pid})["status"])
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None and not _readable(self._ended, timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """As SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """As SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.wait()


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] = ".",
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = subprocess.DEVNULL,
    stderr: Any = subprocess.DEVNULL,
    descriptors_most: int = 0,
) -> "Forked | subprocess.Popen[bytes]":
    """As ``Popen``; ``descriptors_most`` is the RLIMIT_NOFILE, 0 is the test's own."""
    if not _can_fork(command, env):
        limit = functools.partial(_limit, descriptors_most) if descriptors_most else None
        streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen([*command], env=env, cwd=cwd, preexec_fn=limit, **streams)
    ours: list[Any] = []
    theirs = []
    for number, stream in enumerate((stdin, stdout, stderr)):
        mine, other = _stream(stream, number)
        ours.append(mine)
        theirs.append(other)
    words = {"module": command[2], "arguments": [*command[3:]], "env": {**env}, "cwd": os.path.abspath(cwd)}
    found = Forked(_server().ask(words | {"most": descriptors_most}, theirs)["pid"])
    for descriptor in theirs:
        os.close(descriptor)
    found.stdin, found.stdout, found.stderr = ours
    return found


def output_of(command: Sequence[str], timeout: float = 60, **how: Any) -> bytes:
    """Standard output of a program that ends by itself; standard error is the test's.

    Raises:
        subprocess.CalledProcessError: it ended with another status than 0.
    """
    with open(os.dup(2), "wb") as errors, spawn(command, stdout=subprocess.PIPE, stderr=errors, **how) as run:
        assert run.stdout is not None
        said = _read_all(run.stdout, command, run, timeout)
        status = run.wait(timeout)
    if status:
        raise subprocess.CalledProcessError(status, command, said)
    return said


def _read_all(pipe: Any, command: Sequence[str], run: Any, timeout: float) -> bytes:
    end, said = time.monotonic() + timeout, b""
    while _readable(pipe.fileno(), max(0.0, end - time.monotonic())):
        if not (data := os.read(pipe.fileno(), 1 << 16)):
            return said
        said += data
    run.kill()
    raise subprocess.TimeoutExpired([*command], timeout, said)


def _can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """A module of ours, and nothing that is read when a process begins is another than it was here."""
    ours = [*command[:2]] == [sys.executable, "-m"] and command[2].startswith("revtunnel.")
    return ours and _read_early(env) == _read_early(AT_FIRST)


def _read_early(env: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {name: value for name, value in env.items() if name.startswith(EARLY)}
    paths = env.get("PYTHONPATH", "").split(os.pathsep)
    return {**found, "PYTHONPATH": {*filter(None, paths)} - {str(ROOT)}}


def _stream(stream: Any, number: int) -> tuple[Any, int]:
    """What we keep of a stream, and the descriptor for the other side."""
    if stream == subprocess.PIPE:
        reading, writing = os.pipe()
        return (open(writing, "wb", 0), reading) if number == 0 else (open(reading, "rb"), writing)
    if stream == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    return None, os.dup(stream if isinstance(stream, int) else stream.fileno())


def _readable(descriptor: int, timeout: float | None) -> bool:
    """Within so many seconds; ``select`` knows no descriptor above 1,023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def _limit(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class ForkServer:
    """The process, seen from a test's."""

    def __init__(self) -> None:
        self._asked = 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env={**AT_FIRST, "PYTHONPATH": os.pathsep.join([str(ROOT), AT_FIRST.get("PYTHONPATH", "")])},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def ask(self, words: Mapping[str, object], descriptors: Sequence[int] = ()) -> Any:
        """Its answer; not one for a test whose time was over before it came."""
        self._asked += 1
        socket.send_fds(self._socket, [json.dumps({**words, "number": self._asked}).encode()], descriptors)
        while (answer := json.loads(self._socket.recv(MESSAGE)))["number"] != self._asked:
            pass
        return answer


@functools.cache
def _server() -> ForkServer:
    return ForkServer()


# ---- in the process itself


def serve(control: socket.socket) -> None:
    """Start what is asked for, until the test's process has ended; returns in each program as well."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MESSAGE, 3)
        if not data:
            raise SystemExit
        words = json.loads(data)
        if "reap" in words:
            answer: dict[str, Any] = {"status": os.waitpid(words["reap"], 0)[1]}
        elif pid := os.fork():
            answer = {"pid": pid}
        else:
            become(words, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(json.dumps({**answer, "number": words["number"]}).encode())


def become(words: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Turn the copy of this process into the program that was asked for."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(words["env"])
    os.chdir(words["cwd"])
    if words["most"]:
        _limit(words["most"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    sys.argv[1:] = words["arguments"]
    sys.modules.pop(words["module"], None)
    gc.enable()
    runpy.run_module(words["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import everything, then serve."""
    import revtunnel

    gc.disable()
    sys.modules["twisted.internet.reactor"] = None  # type: ignore[assignment]  # each program installs its own
    for module in pkgutil.walk_packages(revtunnel.__path__, "revtunnel."):
        if module.name != NEVER:
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    del sys.modules["twisted.internet.reactor"]
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
