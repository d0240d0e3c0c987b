"""Kill a random rank at a random moment, and resume: nothing may hang, be lost, or differ.

    python scripts/stress/rank_kill.py --runs 50

trains a small network on 2 to 4 ranks, kills one of them with SIGKILL, and goes on with the same
number of ranks until the training is through. Its weights must have the same bits as those of a
training that was left alone. The seed of the moments is printed.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

NUMBERS = (2, 3, 4)
LONGEST = 30.0
"""Seconds after a kill in which all ranks must have ended."""


def start(n_ranks: int, folder: Path) -> subprocess.Popen[str]:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [str(mpiexec) if mpiexec.exists() else "mpiexec", "-n", str(n_ranks)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "GPUNN_RANK_SECONDS": "20"}
    return subprocess.Popen(
        [*command, sys.executable, __file__, "--train", str(folder)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def train(folder: str) -> None:
    """Train on the ranks that there are; the first one says the processes and the weights."""
    import numpy as np

    import gpunn
    from gpunn.parallel.world import ranks_here

    ranks, rng = ranks_here(), np.random.default_rng(0)
    pids = ranks.gather(os.getpid())
    if ranks.is_first:
        print("begins", *pids, flush=True)
    X, y = rng.random((2000, 50)), rng.integers(10, size=2000)
    network = gpunn.Network([50, 200, 10], dtype="float64", device="cpu")
    gpunn.fit(
        network, X, y, epochs=4, batch_size=20, optimizer="adam",
        validation_data=(X[:200], y[:200]), dropout=0.1,
        checkpoints=gpunn.Checkpoints(folder, "7 steps", resume=True),
    )  # fmt: skip
    numbers = b"".join(array.tobytes() for array in network.parameters().values())
    if ranks.is_first:
        print("ends", hashlib.sha256(numbers).hexdigest(), flush=True)


def finish(process: subprocess.Popen[str]) -> tuple[str | None, float]:
    """Return the hash of the weights, if the training is through, and how long it took to end."""
    began = time.monotonic()
    out, _ = process.communicate(timeout=10 * LONGEST)
    found = re.search(r"ends (\w{64})", out)
    return (found[1] if found else None), time.monotonic() - began


def torture(n_runs: int, rng: random.Random, place: Path) -> int:
    expected, lasts, wrong, kills, longest = {}, {}, 0, 0, 0.0
    for n in NUMBERS:
        process = start(n, place / f"whole-{n}")
        process.stdout.readline()
        expected[n], lasts[n] = finish(process)
    for run in range(n_runs):
        n, folder, found = rng.choice(NUMBERS), place / f"run-{run}", None
        for attempt in range(4):
            process = start(n, folder)
            pids = list(map(int, process.stdout.readline().split()[1:]))
            if attempt == 3:
                found, _ = finish(process)
                break
            time.sleep(rng.uniform(0, lasts[n]))
            try:
                os.kill(rng.choice(pids), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
            found, seconds = finish(process)
            longest = max(longest, seconds)
            if found is not None:
                break
        left = [path.name for path in folder.glob(".*")]
        if found != expected[n] or left:
            wrong += 1
            print(f"run {run} on {n} ranks: {found} and not {expected[n]}; left: {left}")
        shutil.rmtree(folder, ignore_errors=True)
        print(f"run {run}: {n} ranks, {kills} kills so far, {wrong} wrong", flush=True)
    print(f"{n_runs} runs, {kills} kills, {wrong} wrong; the longest end took {longest:.1f} s")
    return int(wrong > 0 or longest > LONGEST)


def main() -> int:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50, help="trainings that are killed")
    parser.add_argument("--seed", type=int, default=None, help="of the moments")
    parser.add_argument("--train", help="what the ranks do")
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return 0
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as place:
        return torture(options.runs, random.Random(seed), Path(place))


if __name__ == "__main__":
    sys.exit(main())
