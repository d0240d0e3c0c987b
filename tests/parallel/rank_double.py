"""What ranks do that each have a GPU, over the double of CuPy and of NCCL."""

import sys

import fake_cuda
import fake_memory
import numpy as np

import gpunn
from gpunn.errors import DeviceError
from gpunn.parallel.world import ranks_here

SIZES = [12, 21, 3]


def trainings():
    """Yield a name, a network's layers and options, and what is asked of `fit`."""
    yield "hidden", SIZES, {}, {"optimizer": "momentum"}
    yield "dropout", SIZES, {}, {"dropout": 0.3}
    yield "data", SIZES, {"parallel": "data"}, {"optimizer": "momentum"}
    yield "deep", [12, 9, 8, 3], {}, {}


def main(out, n_gpus):
    fake_memory.N_DEVICES = int(n_gpus)
    ranks, rng = ranks_here(), np.random.default_rng(0)
    X, y = rng.random((50, 12)), rng.integers(3, size=50)
    results = {}
    with fake_cuda.installed():
        for name, sizes, options, asked in trainings():
            try:
                network = gpunn.Network(
                    sizes, output_activation="softmax", loss="cross_entropy", dtype="float64",
                    device="cuda", seed=3, **options,
                )  # fmt: skip
                gpunn.fit(network, X, y, epochs=2, batch_size=20, learning_rate=0.1, **asked)
            except DeviceError as error:
                print(error)
                return
            results[f"{name}/kind"] = network.sharing.kind
            results[f"{name}/devices"] = ranks.gather(network.backend.name)
            results[f"{name}/sent"] = getattr(ranks, "n_bytes_sent", 0)
            results[f"{name}/outputs"] = network.predict(X)
            for key, array in network.parameters().items():
                results[f"{name}/{key}"] = array
    if ranks.is_first:
        np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
