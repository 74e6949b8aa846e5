"""`make fuzz`: so many inputs, and what they came to, as JSON.

Each target has a process and a share of the inputs. What a run learns is kept in `.cache/fuzz`, so that the next one
begins where it ended; an input that was a find is kept there too, and its file is named.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import machine
from tests.fuzz import seeds

PROJECT = Path(__file__).resolve().parents[2]
KEPT = PROJECT / ".cache" / "fuzz"
SHARES = {
    "framing": 0.30,
    "native": 0.24,
    "decoder": 0.24,
    "connect_json": 0.10,
    "key": 0.04,
    "grammar": 0.04,
    "guard": 0.04,
}
"""Of the inputs. A schema costs ten times what a record does, and comes once where records come by the million."""

LONGEST_INPUT = 4_096
"""Bytes: libFuzzer repeats and joins, and the targets repeat parts up to a megabyte."""

HANGS_AFTER_S = 20
LINES_SHOWN = 30
_DONE = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


class Ran(NamedTuple):
    """What fuzzing a target came to.

    Attributes:
        inputs: Run.
        found: Nothing, or the last lines of what the process said.
    """

    inputs: int
    found: str


def main() -> int:
    """Fuzz; zero when there was no find."""
    arguments = _parser().parse_args()
    started = time.monotonic()
    with ThreadPoolExecutor(arguments.lanes) as lanes:
        jobs = {
            target: lanes.submit(_run, target, round(arguments.inputs * share), arguments.seed)
            for target, share in SHARES.items()
        }
    ran = {target: job.result() for target, job in jobs.items()}
    for target, each in ran.items():
        if each.found:
            print(f"{target}:\n{each.found}")  # noqa: T201  # whoever fuzzes reads it
    figures = {
        "inputs": sum(each.inputs for each in ran.values()),
        "targets": {target: each.inputs for target, each in ran.items()},
        "finds": sum(bool(each.found) for each in ran.values()),
        "seconds": round(time.monotonic() - started),
        "machine": machine.described(),
    }
    print(json.dumps(figures))  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return int(any(each.found for each in ran.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser


def _run(target: str, inputs: int, seed: int) -> Ran:
    corpus = KEPT / target
    corpus.mkdir(parents=True, exist_ok=True)
    seeds.write(corpus, target)
    command = [
        *(sys.executable, "-m", "tests.fuzz.lane", target, str(corpus)),
        *(f"-runs={inputs}", f"-seed={seed}", f"-max_len={LONGEST_INPUT}", f"-timeout={HANGS_AFTER_S}"),
        *(f"-artifact_prefix={KEPT}/{target}-", "-rss_limit_mb=0", "-print_final_stats=1", "-reduce_inputs=0"),
    ]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603  # our own
    said = ended.stderr + ended.stdout
    inputs = sum(map(int, _DONE.findall(said)))
    return Ran(inputs, "\n".join(said.splitlines()[-LINES_SHOWN:]) if ended.returncode else "")


if __name__ == "__main__":
    sys.exit(main())
