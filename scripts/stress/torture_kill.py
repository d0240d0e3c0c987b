"""Trainings that are killed at a random moment, and resumed until one gets through."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator

from torture_trainings import KINDS, bits, reference, start, train_and_save, wait, workplace

from gpunn import Checkpoints, Network
from gpunn.training.checkpoints import read_checkpoint


def kill(n_runs: int, rng: random.Random) -> Iterator[str]:
    """Kill trainings until one gets through; yield what went wrong."""
    n_kills = n_writing = 0
    with workplace() as place:
        expected = reference(place)
        for run in range(n_runs):
            kind, folder, out = run % len(KINDS), place / f"run-{run}", place / f"out-{run}"
            weights, duration = expected[kind]
            for attempt in range(6):
                child = start(train_and_save, kind, folder, out)
                if attempt < 5:
                    time.sleep(rng.uniform(0, duration if attempt else 0.9 * duration))
                    os.kill(child, signal.SIGKILL)
                status = wait(child)
                if status == 0:
                    break
                if status != -signal.SIGKILL:
                    yield f"run {run}: a resumed training ended with {status}"
                    break
                n_kills += 1
                n_writing += any(folder.glob(".*.tmp"))
                for path in Checkpoints(folder).paths():
                    read_checkpoint(path)
            if status == 0 and bits(Network.load(out, "cpu")) != weights:
                yield f"run {run}: other weights"
            if any(folder.glob(".*")):
                yield f"run {run}: something unfinished was left behind"
            shutil.rmtree(folder, ignore_errors=True)
    print(f"    {n_kills} kills, {n_writing} of them while a checkpoint was written", flush=True)
