"""What ranks do that should do the same, and do not; each says what it is told."""

import sys

import numpy as np

import gpunn
from gpunn.errors import ParameterError
from gpunn.parallel.world import ranks_here


def network(seed=0, parallel="hidden"):
    return gpunn.Network([6, 5, 3], dtype="float64", device="cpu", seed=seed, parallel=parallel)


def cases(folder, rank):
    """Yield a name and something that is not the same on all ranks."""
    rng = np.random.default_rng(0)
    X, y = rng.random((12, 6)), rng.integers(3, size=12)
    own, fewer = X.copy(), X[: 12 - rank]
    own[7, 2] += rank
    shared, both = network(), network(parallel="data")
    labels = (y + rank * (np.arange(12) == 4)) % 3
    yield "predict", lambda: shared.predict(own)
    yield "predict fewer", lambda: shared.predict(fewer)
    yield "evaluate", lambda: gpunn.evaluate(shared, X, labels)
    yield "gradients", lambda: shared.loss_and_gradients(own, np.eye(3)[y])
    yield "input gradients", lambda: shared.loss_and_input_gradients(X, np.eye(3)[labels])
    other = network(rank, "none").parameters()
    yield "load parameters", lambda: shared.load_parameters(other)
    both.load_parameters(other)
    yield "fit", lambda: gpunn.fit(both, X, y, epochs=1)
    yield "seed", lambda: network(None)
    yield "save", lambda: shared.save(f"{folder}/{rank}")
    network(rank, "none").save(f"{folder}/own-{rank}")
    yield "load", lambda: gpunn.Network.load(f"{folder}/own-{rank}", "cpu")
    how = ("hidden", "data")[rank]
    yield "load how", lambda: gpunn.Network.load(f"{folder}/own-0", "cpu", parallel=how)


def ends(rank):
    """Let one rank end as if all were done."""
    if rank == 1:
        sys.exit(3)
    network().predict(np.zeros((2, 6)))


def main(folder):
    ranks = ranks_here()
    if folder == "ends":
        ends(ranks.rank)
    for name, differ in cases(folder, ranks.rank):
        try:
            differ()
            said = "nothing"
        except ParameterError as error:
            said = str(error)
        told = ranks.gather(said)
        if ranks.is_first:
            print(f"{name}: {told[0]}" if len(set(told)) == 1 else f"{name} differs: {told}")
    # What is different from rank to rank where each has the whole network is nobody's business.
    network(parallel="data").predict(np.full((2, 6), ranks.rank))


if __name__ == "__main__":
    main(*sys.argv[1:])
