"""Fuzz for a while: ``python -m tests.fuzz --seconds 3600``, shared between the targets named, or all.

Where atheris is (the extra ``fuzz``), ``--atheris TARGET`` has it lead by coverage instead, and the options
behind ``--`` are libFuzzer's: ``python -m tests.fuzz --atheris zmtp -- -max_total_time=600``.
"""

import argparse
import importlib
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.harness import CORPUS, TARGETS, Finding, Target, fuzz, inputs_of, keep

ROUND = 15.0  # seconds of one target at a time


def main(words: list[str]) -> int:
    """Say how often each target ran; 1: something was found, and is in the corpus now."""
    ours, _, libfuzzer = " ".join(words).partition(" -- ")
    if "--atheris" in ours.split():
        import atheris

        with atheris.instrument_imports(include=["revtunnel"]):
            importlib.import_module("tests.fuzz.everything")
    importlib.import_module("tests.fuzz.everything")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition(":")[0])
    parser.add_argument("--seconds", type=float, default=3600.0, metavar="S", help="in all (%(default)g)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="other inputs with each")
    parser.add_argument("--atheris", action="store_true", help="lead one target by coverage")
    parser.add_argument("names", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    said = parser.parse_args(ours.split())
    unknown = [name for name in said.names if name not in TARGETS]
    if unknown or (said.atheris and len(said.names) != 1):
        parser.error(f"no target {unknown[0]}" if unknown else "one target wanted")
    chosen = [TARGETS[name] for name in said.names or TARGETS]
    if said.atheris:
        return _by_coverage(chosen[0], libfuzzer.split())
    return _by_turns(chosen, said.seconds, said.seed)


def _by_turns(chosen: list[Target], seconds: float, seed: int) -> int:
    """One after the other, until the time is over, with another seed in each round."""
    ran = dict.fromkeys((each.name for each in chosen), 0)
    begun, found = time.monotonic(), False
    print(f"seed {seed}, {len(chosen)} targets, {seconds:g} s", flush=True)
    while (left := seconds - (time.monotonic() - begun)) > 0:
        for each in chosen:
            done, findings = fuzz(each, seed, seconds=min(ROUND, left / len(chosen)))
            ran[each.name] += done
            for finding in findings:
                found = True
                _tell(each, finding)
        seed += 1
    for name, count in ran.items():
        print(f"{count:>12,}  {name}")
    print(f"{sum(ran.values()):>12,}  in all")
    return int(found)


def _tell(target: Target, finding: Finding) -> None:
    path = keep(target, finding)
    print(f"\n{target.name}: {path.relative_to(CORPUS.parent)}, {len(finding.data)} bytes", flush=True)
    traceback.print_exception(finding.error, file=sys.stdout)


def _by_coverage(target: Target, options: list[str]) -> int:
    """Never comes back: atheris ends the process."""
    import atheris

    def once(data: bytes) -> None:
        try:
            target.shape(data)
        except Exception as error:
            _tell(target, Finding(data, error))
            raise

    seeds = Path(tempfile.mkdtemp(prefix="revtunnel-fuzz-"))
    for number, data in enumerate(inputs_of(target)):
        (seeds / f"seed-{number}").write_bytes(data)
    atheris.Setup([sys.argv[0], *options, str(seeds)], once)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
