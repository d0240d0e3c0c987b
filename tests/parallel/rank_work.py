"""What the ranks of a test do: trainings of every kind, whose results the first rank keeps."""

import sys
from pathlib import Path

import numpy as np

import gpunn
from gpunn.data.idx_files import read_idx
from gpunn.parallel.world import ranks_here
from gpunn.training.fitting import weights_fingerprint

SIZES = [784, 60, 10]


def samples(folder):
    """Return some images of MNIST, or where it is not there, numbers."""
    if folder != "-":
        X = next(Path(folder).glob("train-images*"))
        y = next(Path(folder).glob("train-labels*"))
        return read_idx(X)[:303].reshape(-1, 784) / 255.0, read_idx(y)[:303].astype(int)
    rng = np.random.default_rng(0)
    return rng.random((303, 784)), rng.integers(10, size=303)


def network(sizes=SIZES, **options):
    given = {
        "output_activation": "softmax", "loss": "cross_entropy", "dtype": "float64",
        "device": "cpu", "seed": 3,
    }  # fmt: skip
    return gpunn.Network(sizes, **{**given, **options})


def trainings(X, y):
    """Yield a name, a network, and what is asked of `fit`."""
    weights = np.random.default_rng(5).random(len(X))
    yield "plain", network(), {}
    yield "units that do not divide", network([784, 61, 10]), {"optimizer": "momentum"}
    yield "adam and dropout", network(), {"optimizer": "adam", "dropout": 0.3}
    yield (
        "decay and validation",
        network(initializer="standard_normal"),
        {
            "optimizer": gpunn.Momentum(nesterov=True, weight_decay=0.01),
            "validation_data": (X[:100], y[:100]),
            "early_stopping": gpunn.EarlyStopping(patience=1),
        },
    )
    yield "weights", network(), {"sample_weight": weights, "class_weight": {3: 2.0}}
    yield "one by one", network(biases=False), {"batch_size": 1}
    yield "few at a time", network(), {"batch_size": 10}
    textbook = gpunn.ThreeLayerNetwork(784, 60, 10, 0.1, dtype="float64", device="cpu")
    yield "the textbook's", textbook, {"batch_size": 1}
    stream = gpunn.Stream([(X[:200], y[:200]), (X[200:], y[200:])], buffer_rows=150)
    yield "a stream", network(), {"stream": stream}
    yield "softmax hidden", network(hidden_activation="softmax"), {}
    yield "by samples", network(parallel="data"), {"optimizer": "adam", "dropout": 0.2}
    yield "deep", network([784, 30, 20, 10]), {"optimizer": gpunn.SGD(0.01), "dropout": 0.2}
    yield "smaller than the ranks", network([784, 30, 20, 10]), {"batch_size": 2}


def main(out, folder, model):
    ranks, results = ranks_here(), {}
    X, y = samples(folder)
    if ranks.is_first:
        results["ranks"] = ranks.size
    for name, net, options in trainings(X, y):
        options = {"epochs": 2, "batch_size": 100, "learning_rate": 0.05, "seed": 1, **options}
        n = 30 if options["batch_size"] < 5 else len(X)
        stream = options.pop("stream", None)
        given = (X[:n], y[:n]) if stream is None else (stream,)
        history = gpunn.fit(net, *given, **options)
        for key, array in net.parameters().items():
            results[f"{name}/{key}"] = array
        results[f"{name}/losses"] = [*history.train_loss, *history.validation_loss]
        results[f"{name}/kind"] = net.sharing.kind
        results[f"{name}/held"] = net.n_held
        tested = gpunn.evaluate(net, X[:100], y[:100])
        results[f"{name}/tested"] = [tested.loss, tested.accuracy]
        results[f"{name}/outputs"] = net.predict(X[:50])
        results[f"{name}/fingerprint"] = weights_fingerprint(net)
    net = network(hidden_activation="tanh", output_activation="tanh", loss="squared_error")
    targets = np.eye(10)[y[:50]] * 0.9
    loss, gradients = net.loss_and_gradients(X[:50], targets)
    results["gradients/loss"] = loss
    for key, array in gradients.items():
        results[f"gradients/{key}"] = array
    results["gradients/inputs"] = net.loss_and_input_gradients(X[:50], targets)[1]
    results["inverse/found"] = net.backquery(targets[:3])
    net.load_parameters({key: array * 2 for key, array in net.parameters().items()})
    results["loaded/outputs"] = net.predict(X[:50])
    wide = network([20, 10_000, 3], initializer="standard_normal")
    for key, array in wide.parameters().items():
        results[f"wide/{key}"] = array
    wide.save(f"{out}.safetensors")
    if model != "-":
        net = gpunn.Network.load(model, "cpu")
        results["from file/outputs"] = net.predict(X[:50, :20])
        results["from file/held"] = net.n_held
    for hidden in (1000, 8000):
        net, before = network([784, hidden, 10]), getattr(ranks, "n_bytes_sent", 0)
        gpunn.fit(net, X[:200], y[:200], epochs=1, batch_size=100)
        results[f"bytes/{hidden}"] = (getattr(ranks, "n_bytes_sent", 0) - before) / 2
    if ranks.is_first:
        np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
