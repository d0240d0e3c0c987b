"""Trainings on ranks in which something goes wrong."""

import hashlib
import os
import sys
import time

import numpy as np

import gpunn
from gpunn.parallel.world import ranks_here


class Slow(gpunn.Callback):
    """Makes steps last, so that something can happen in them; says who has made the first."""

    begun = False

    def on_step_end(self, n_samples):
        if not self.begun:
            self.begun, pids = True, ranks_here().gather(os.getpid())
            if ranks_here().is_first:
                print("begins", *pids, flush=True)
        time.sleep(0.01)


class Raise(gpunn.Callback):
    """Raises on the last rank alone, or on all."""

    def __init__(self, everywhere):
        self.everywhere = everywhere

    def on_epoch_end(self, network, record):
        ranks = ranks_here()
        if self.everywhere or ranks.rank == ranks.size - 1:
            raise RuntimeError("a callback fails")


def main(what, folder):
    ranks = ranks_here()
    rng = np.random.default_rng(0)
    X, y = rng.random((300, 20)), rng.integers(5, size=300)
    if what == "other data" and ranks.rank == 1:
        X[17, 3] += 1
    network = gpunn.Network([20, 40, 5], dtype="float64", device="cpu")
    callbacks = [Slow()] if what == "slow" else []
    if what.startswith("raise"):
        callbacks = [Raise(what.endswith("all"))]
    gpunn.fit(
        network, X, y, epochs=4, batch_size=30, optimizer="adam", callbacks=callbacks,
        checkpoints=gpunn.Checkpoints(folder, "3 steps", resume=True),
    )  # fmt: skip
    numbers = b"".join(array.tobytes() for array in network.parameters().values())
    if ranks.is_first:
        print("ends", hashlib.sha256(numbers).hexdigest(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
