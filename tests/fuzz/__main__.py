"""`make fuzz`: so many inputs, and what they came to, as JSON.

Lanes are processes of their own, each with a seed and a share of the inputs. What they learn is kept in `.cache/fuzz`, so
that the next run begins where this one ended; inputs that were a find are kept there too, each in a file that is named.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from bench import machine
from tests.fuzz import seeds

PROJECT = Path(__file__).resolve().parents[2]
KEPT = PROJECT / ".cache" / "fuzz"
LONGEST_INPUT = 4_096
"""Bytes: libFuzzer repeats and joins, and the targets repeat parts up to a megabyte."""

HANGS_AFTER_S = 20
SHOWN = 30
_DONE = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


def main() -> int:
    """Fuzz; zero when there was no find."""
    arguments = _parser().parse_args()
    corpus = KEPT / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds.write(corpus)
    started = time.monotonic()
    share = -(-arguments.inputs // arguments.lanes)
    lanes = [_lane(corpus, share, arguments.seed + number) for number in range(arguments.lanes)]
    told = [lane.communicate()[0] for lane in lanes]
    ends = [lane.returncode for lane in lanes]
    figures = {
        "inputs": sum(int(count) for text in told for count in _DONE.findall(text)),
        "finds": sum(end != 0 for end in ends),
        "corpus": sum(1 for _ in corpus.iterdir()),
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine.described(),
    }
    for text, end in zip(told, ends, strict=True):
        if end:
            print("\n".join(text.splitlines()[-SHOWN:]))  # noqa: T201  # whoever fuzzes reads it
    print(json.dumps(figures))  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if not any(ends) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser


def _lane(corpus: Path, inputs: int, seed: int) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "tests.fuzz.lane", str(corpus)),
        *(f"-runs={inputs}", f"-seed={seed}", f"-max_len={LONGEST_INPUT}", f"-timeout={HANGS_AFTER_S}"),
        *(f"-artifact_prefix={KEPT}/", "-rss_limit_mb=0", "-print_final_stats=1", "-verbosity=1"),
    ]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603  # our own


if __name__ == "__main__":
    sys.exit(main())
