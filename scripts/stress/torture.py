"""Kill trainings, take their disk away and damage files, and count what goes wrong.

    python scripts/stress/torture.py             in full: a quarter of an hour
    python scripts/stress/torture.py --quick     in short, as the test suite does
    python scripts/stress/torture.py kill files  some of it

Prints a table: what was done, how many times, what went wrong, which must be nothing. Exit status 1
if something did. Needs a POSIX system and, for `examples`, hypothesis.

kill      `kill -9` at a random moment, also while a checkpoint is written; then resume
full      the disk is full: a small one, or else files grow no further than some random size
removed   the folder of checkpoints is removed while a training writes there
forbidden the right to write there is taken away
files     mutated model, checkpoint, IDX, npz, npy, CSV and Parquet files, and pictures
examples  hypothesis: shapes, dtypes, layouts, strides, empty and single-row inputs
together  eight trainings at once, in threads and in processes
stream    200 million rows that are made as they are learnt from, or ten minutes of them
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator

from torture_files import files
from torture_kill import kill
from torture_places import HOW, forbidden, full, full_apart, removed
from torture_stream import stream
from torture_together import together


def examples(n_examples: int, rng: random.Random) -> Iterator[str]:
    """Call public functions with arrays of all shapes; yield what is wrong."""
    import torture_examples  # the only test that needs hypothesis

    return torture_examples.examples(n_examples, rng)


# What is done, and how often: in full, and in short. Each yields what went wrong.
TESTS: dict[str, tuple[Callable[[int, random.Random], Iterator[str]], int, int]] = {
    "kill": (kill, 200, 4),
    "full": (full, 20, 2),
    "removed": (removed, 20, 2),
    "forbidden": (forbidden, 20, 2),
    "files": (files, 100_000, 1_500),
    "examples": (examples, 10_000, 150),
    "together": (together, 50, 1),
    "stream": (stream, 200_000_000, 3_000_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", choices=[*TESTS, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random; default: 0")
    parser.add_argument("--apart", type=int, help=argparse.SUPPRESS)  # by `full`, to itself
    options = parser.parse_args()
    if options.apart:
        for problem in full_apart(options.apart, random.Random(options.seed)):
            print(f"WRONG: {problem}", flush=True)
        return 0
    rows, total = [], 0
    for name in options.tests or TESTS:
        test, *counts = TESTS[name]
        count = counts[options.quick]
        print(f"{name}: {count}", flush=True)
        began, problems = time.monotonic(), []
        for problem in test(count, random.Random(f"{options.seed} {name}")):
            problems.append(problem)
            print(f"    WRONG: {problem}", flush=True)
        rows.append((name, count, len(problems), time.monotonic() - began))
        total += len(problems)
    print(f"\n{'test':<12}{'runs':>9}{'wrong':>7}{'seconds':>9}")
    for name, count, n_problems, seconds in rows:
        how = f"  {HOW[name]}" if name in HOW else ""
        print(f"{name:<12}{count:>9,}{n_problems:>7}{seconds:>9.0f}{how}")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
