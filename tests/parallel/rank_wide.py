"""A network whose parts fit the memory that a rank may have, and which as a whole does not."""

import resource
import sys

import numpy as np

import gpunn
from gpunn.errors import GpunnError
from gpunn.parallel.world import ranks_here

HIDDEN, MIB = 60_000, 2**20


def limit(n_mib):
    """Let this process have so many MiB of addresses more than it has now."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + n_mib * MIB,) * 2)


def main(path, n_mib):
    ranks = ranks_here()
    rng = np.random.default_rng(0)
    X, y = rng.random((64, 784), np.float32), rng.integers(10, size=64)
    gpunn.fit(gpunn.Network([784, 8, 10], device="cpu"), X, y, epochs=1)  # loads what there is
    whole = 4 * HIDDEN * (784 + 10 + 1)
    limit(int(n_mib))
    if path.endswith("none"):
        try:
            gpunn.Network([784, HIDDEN, 10], device="cpu")
        except (MemoryError, GpunnError):
            print("too wide", whole // MIB)
        return
    if ranks.size == 2:
        network = gpunn.Network([784, HIDDEN, 10], device="cpu")
        history = gpunn.fit(network, X, y, epochs=1, batch_size=32)
        network.save(path)
        loss = gpunn.evaluate(network, X, y).loss
        assert history.stopped == "finished"
    else:
        loss = gpunn.evaluate(gpunn.Network.load(path, "cpu"), X, y).loss
    losses = set(ranks.gather(loss))
    if ranks.is_first:
        print(*losses)


if __name__ == "__main__":
    main(*sys.argv[1:])
