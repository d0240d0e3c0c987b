"""Mutated files, read by gpunn's readers in processes that may die."""

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hostile_damage import mutate
from hostile_files import Kind, damaged, kinds_of_files, scratch
from hostile_judge import SECONDS, Judge
from torture_trainings import start, wait


def files(n_files: int, rng: random.Random) -> Iterator[str]:
    """Read mutated files; yield whatever is no GpunnError, takes too long or too much."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        kinds = kinds_of_files(Path(folder))
        others = [good for kind in kinds.values() for good in kind.good]
        per_child = 500
        for name, kind in kinds.items():
            n_each = -(-n_files // len(kinds))
            n_left, n_refused, began = n_each, 0, time.monotonic()
            while n_left > 0:
                n, seed = min(per_child, n_left), rng.randrange(2**32)
                place = Path(folder, "mutant")
                place.mkdir()
                log = Path(folder, "log")
                log.write_text("")
                child = start(read_mutants, kind, place / kind.name, n, seed, others, log)
                status = wait(child)
                found = log.read_text().splitlines()
                n_refused += sum(int(line[1:]) for line in found if line.startswith("="))
                yield from (f"{name}: {line}" for line in found if not line.startswith("="))
                if status:
                    keep = Path(tempfile.gettempdir(), f"gpunn-torture-{seed}-{kind.name}")
                    if (place / kind.name).exists():
                        shutil.copy(place / kind.name, keep)
                    yield f"{name}: the reading process ended with {status}; see {keep}"
                shutil.rmtree(place)
                n_left -= n
            print(
                f"    {name}: {n_each} mutants, {n_refused} of {n_each * len(kind.reads)} readings "
                f"refused, {time.monotonic() - began:.0f} s",
                flush=True,
            )


def read_mutants(
    kind: Kind, path: Path, n_mutants: int, seed: int, others: list[bytes], log: Path
) -> None:
    """Read mutants in this process, and write to the log what should not have been."""
    rng, n_refused, judge = random.Random(seed), 0, Judge(kind)
    for number in range(n_mutants):
        for stale in path.parent.iterdir():
            stale.unlink()
        mutant = damaged(
            kind, rng.choice(kind.good), lambda data: mutate(data, rng.choice(others), rng), rng
        )
        path.write_bytes(mutant)
        signal.alarm(SECONDS)
        outcome = judge(path)
        signal.alarm(0)
        n_refused += outcome.n_refused
        if outcome.problem is not None:
            keep = Path(tempfile.gettempdir(), f"gpunn-torture-{seed}-{number}-{path.name}")
            keep.write_bytes(mutant)
            with log.open("a") as lines:
                lines.write(f"{' '.join(outcome.problem.split())}; see {keep}\n")
            if "of memory" in outcome.problem:
                return
    with log.open("a") as lines:
        lines.write(f"={n_refused}\n")
