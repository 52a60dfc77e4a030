"""The extension on real sockets and its own thread: beside Python, sanitized, and ten thousand times."""

import gc
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import PlainEnd, ends_with_reset
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.sockets.relay import Relay
from tests.sockets.test_relay import CARRIERS
from tests.support.pump_drive import Drive, tcp_sockets

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "revtunnel").glob("_pump*.c"))
built = pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")


@built
@pytest.mark.parametrize("tls", CARRIERS, ids=str)
def test_what_becomes_of_streams_is_the_same_as_in_python(tls: tuple[bool, bool]) -> None:
    """Keyed bytes, ends of file, resets, kicks; which of two comes first when both are due is nobody's."""
    became = []
    for after in (None, 0, 3):
        drive = Drive(after)
        became.append(drive.run(1, 40, tls=tls))
        drive.close()
    for one, *others in zip(*became, strict=True):
        assert one[0] == "end" or {each[1] for each in (one, *others)} <= {"ended", "cut"}
        assert {each[0] for each in others} == {one[0]}
        assert one[0] != "end" or {one, *others} == {("end", "ended")}


def sanitized(place: Path, kind: str, library: str, *also: str | Path) -> tuple[Path, str]:
    """The extension built with a sanitizer, and what is loaded before Python; skips where there is none.

    ``also``: words for the compiler.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not on PATH")
    found = subprocess.run(
        [compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    headers = Path(sysconfig.get_path("include"))
    if not (os.path.isabs(found) and Path(headers, "Python.h").exists()):
        pytest.skip(f"no {library}, or no headers of Python")
    target = place / "_pump.so"
    options = ["-std=c11", "-O1", "-g", f"-fsanitize={kind}", "-fno-sanitize-recover=undefined"]
    options += ["-shared", "-fPIC", "-pthread", f"-I{headers}"]
    subprocess.run([compiler, *options, *also, *SOURCES, "-o", target], check=True)
    return target, found


def run_sanitized(
    place: Path, kind: str, library: str, module: str, *words: str, also: Sequence[str | Path] = ()
) -> tuple[int, str, str]:
    """What a module says that drives such a build: its status, its output, and what it complains of."""
    target, preload = sanitized(place, kind, library, *also)
    done = subprocess.run(
        [sys.executable, "-m", module, target, *words],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        ("address,undefined", "libasan.so"),
        pytest.param("thread", "libtsan.so", marks=pytest.mark.long),
    ],
)
def test_nothing_for_sanitizers(kind: str, library: str, tmp_path: Path) -> None:
    """No byte beyond its buffer, none after it was freed, nothing undefined; no race."""
    assert run_sanitized(tmp_path, kind, library, "tests.support.pump_drive", "5", "15") == (0, "ok\n", "")


def held() -> tuple[int, int, int]:
    """Descriptors, threads and KiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), pages * 4


def short_connections(drive: Drive, count: int) -> None:
    """So many at once: a byte there, a byte back, both ends of file; every third is reset instead."""
    ended: list[Ended] = []
    programs = []
    for _ in range(count):
        (client, near), (service, far) = tcp_sockets(), tcp_sockets()
        relay = Relay(
            drive.reactor, PlainEnd(near), PlainEnd(far), lambda how, _: ended.append(how), RelayLimits()
        )
        relay.start()
        client.send(b"?")
        service.send(b"!")
        programs.append((client, service))
    for number, (client, service) in enumerate(programs):
        if number % 3 == 0:
            ends_with_reset(client)
        client.close()
        service.close()
    while len(ended) < count:
        drive.reactor.iterate(0.01)


ENDING = """
import atexit, os, sys
from twisted.internet.epollreactor import EPollReactor
from revtunnel.sockets.data_plane import DataPlane

threads = lambda: print(len(os.listdir("/proc/self/task")), flush=True)
atexit.register(threads)  # the last of all
plane = DataPlane(EPollReactor())
plane.begin()
threads()
if os.fork() == 0:
    sys.exit()  # a child has no such thread, and does not wait for it
os.wait()
"""


@built
def test_the_thread_ends_before_the_interpreter_does() -> None:
    """Which would free the TLS engines under it, and OpenSSL itself."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n1\n1\n", "")


@built
@pytest.mark.long
def test_ten_thousand_pairs_leave_nothing() -> None:
    """Descriptors, threads and memory are where they were after the first thousand."""
    gc.collect()  # of what other tests had
    drive = Drive(0)
    found = []
    for _ in range(11):
        for _ in range(20):
            short_connections(drive, 50)
        found.append(held())
    assert {each[:2] for each in found} == {found[0][:2]}
    assert found[-1][2] < found[0][2] + 2048, found
    drive.close()
