"""Write a model file, a checkpoint and a pickle of each kind: ``python make_files.py FOLDER``.

What it wrote with an earlier version lies beside it, and `test_earlier_files` reads that with the
present one. ``expected.npz`` holds what the earlier version predicted.
"""

import contextlib
import pickle
import sys
from pathlib import Path

import numpy as np

import gpunn

X = np.random.default_rng(0).uniform(size=(60, 5))
Y = np.arange(60) % 3
FIT = {"epochs": 4, "optimizer": "adam", "learning_rate": 0.01, "seed": 7, "batch_size": 16}


class _KilledError(Exception):
    """Stands for a process that ends in the middle of a training."""


class _Kill(gpunn.Callback):
    """Ends a training with no regard for order after its second epoch."""

    def on_epoch_end(self, network, record):
        """Raise."""
        if record.epoch == 2:
            raise _KilledError


def make_network(dtype="float64"):
    """Return the network whose training is interrupted."""
    return gpunn.Network(
        [5, 7, 4, 3],
        hidden_activation="tanh",
        output_activation="softmax",
        loss="cross_entropy",
        dtype=dtype,
        device="cpu",
        seed=3,
    )


def exact_network():
    """Return a network whose outputs are exact in float64, on any processor: small fractions."""
    network = gpunn.Network(
        [5, 4, 3], hidden_activation="relu", output_activation="identity", dtype="float64",
        device="cpu",
    )  # fmt: skip
    draw = np.random.default_rng(4)
    parameters = network.parameters()
    for name, array in parameters.items():
        parameters[name] = draw.integers(-8, 8, array.shape) / 8
    network.load_parameters(parameters)
    return network


def main(folder):
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    exact = exact_network()
    exact.save(folder / "exact.safetensors")
    expected["exact"] = exact.predict(np.round(X * 16) / 16)

    network = make_network("float32")
    network.scaling = gpunn.Scaling.per_feature(X)
    network.class_labels = [3, 5, 8]
    gpunn.fit(network, network.scaling.apply(X, "float32"), Y, **FIT)
    network.save(folder / "network.safetensors")
    expected["network"] = network.predict(X)

    three = gpunn.ThreeLayerNetwork(5, 6, 3, 0.2, device="cpu", seed=1)
    three.train(X, np.eye(3)[Y] * 0.98 + 0.01)
    three.save(folder / "three_layer.safetensors")
    expected["three_layer"] = three.predict(X)

    held_out = (X[:20], Y[:20])
    options = FIT | {"validation_data": held_out, "early_stopping": gpunn.EarlyStopping(3)}
    with contextlib.suppress(_KilledError):
        gpunn.fit(
            make_network(), X, Y, **options, callbacks=[_Kill()],
            checkpoints=gpunn.Checkpoints(folder / "checkpoints", every="3 steps"),
        )  # fmt: skip
    whole = make_network()
    gpunn.fit(whole, X, Y, **options)
    expected["resumed"] = whole.predict(X)

    options = {"max_iter": 5, "random_state": 0}
    classifier = gpunn.MLPClassifier((6,), **options)
    regressor = gpunn.MLPRegressor(hidden_layer_sizes=(6,), **options)
    words = np.array(list("abc"))[Y]
    for name, model, y in (("classifier", classifier, words), ("regressor", regressor, X[:, 0])):
        model.fit(X, y)
        model.save(folder / f"{name}.safetensors")
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(model))
        expected[name] = model.predict_proba(X) if name == "classifier" else model.predict(X)
        expected[f"{name}_loss_curve"] = np.array(model.loss_curve_)
        model.partial_fit(X, y)
        expected[f"{name}_after_partial_fit"] = np.array(model.loss_curve_)
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
