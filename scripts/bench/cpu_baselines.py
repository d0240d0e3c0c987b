"""What bench_cpu.py times: the same training by gpunn and by the baselines beside it.

Each function makes the training of a cell ready, and returns what is then called with a number of
samples and goes through them once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from cpu_plan import Cell
from made_samples import N_INPUTS, N_OUTPUTS, Samples
from numpy.typing import NDArray

import gpunn
from gpunn.backends.base import Backend

Values = NDArray[Any]
Run = Callable[[int], object]
"""Train on the first so many samples, once through."""

BASELINES = {
    "numpy": "gpunn without fast",
    "plain": "plain loop",
    "torch": "PyTorch",
    "compile": "torch.compile",
    "sklearn": "scikit-learn",
}
LEARNING_RATE = 1e-4
"""Speed does not depend on it, as long as nothing overflows: the widest network sets how large."""


def gpunn_run(cell: Cell, samples: Samples, device: str | Backend = "cpu") -> Run:
    if cell.section == "online":
        network = gpunn.ThreeLayerNetwork(
            N_INPUTS, cell.hidden, N_OUTPUTS, LEARNING_RATE, device=device
        )
        return lambda n: network.train(samples.inputs[:n], samples.targets[:n])
    wide = gpunn.Network(
        [N_INPUTS, cell.hidden, N_OUTPUTS],
        hidden_activation=cell.activation,
        output_activation="softmax",
        loss="cross_entropy",
        device=device,
    )
    return lambda n: gpunn.fit(
        wide,
        samples.inputs[:n],
        samples.labels[:n],
        epochs=1,
        batch_size=cell.batch,
        optimizer=cell.optimizer,
        learning_rate=LEARNING_RATE,
    )


class PlainLoop:
    """A three-layer network as a reader of a textbook writes it down from the formulas.

    With ``o = s(W_2 h)``, ``h = s(W_1 x)`` and the sigmoid s, each sample's errors ``t - o`` go
    back as ``W_2^T (t - o)``, and a layer's weights change by
    ``lr * (error * output * (1 - output)) below^T``.
    """

    def __init__(self, hidden: int, learning_rate: float = LEARNING_RATE) -> None:
        generator = np.random.default_rng(0)
        self.learning_rate = learning_rate
        self.weights_1 = generator.normal(0.0, N_INPUTS**-0.5, (hidden, N_INPUTS))
        self.weights_2 = generator.normal(0.0, hidden**-0.5, (N_OUTPUTS, hidden))

    def train(self, inputs: Values, targets: Values) -> Values:
        """Learn from one sample; return its output errors from before."""
        x = np.array(inputs, ndmin=2).T
        t = np.array(targets, ndmin=2).T
        h = self.sigmoid(np.dot(self.weights_1, x))
        o = self.sigmoid(np.dot(self.weights_2, h))
        output_errors = t - o
        hidden_errors = np.dot(self.weights_2.T, output_errors)
        self.weights_2 += self.learning_rate * np.dot(output_errors * o * (1.0 - o), h.T)
        self.weights_1 += self.learning_rate * np.dot(hidden_errors * h * (1.0 - h), x.T)
        return output_errors[:, 0]

    @staticmethod
    def sigmoid(z: Values) -> Values:
        """Return the logistic function of z."""
        return 1.0 / (1.0 + np.exp(-z))


def plain_run(cell: Cell, samples: Samples) -> Run:
    loop = PlainLoop(cell.hidden)
    # Converted beforehand: how samples come into float64 is not what is measured. A loop that goes
    # through all weights for each sample does not notice when samples come round again.
    rows = samples.inputs[:2000].astype(np.float64)
    targets = samples.targets.astype(np.float64)

    def run(n: int) -> None:
        for i in range(n):
            loop.train(rows[i % len(rows)], targets[i])

    return run


def check_same_rule() -> None:
    """Make sure that the plain loop and `ThreeLayerNetwork` learn the same from samples.

    Raises
    ------
    AssertionError
        If they do not, as then their times say nothing.
    """
    samples, hidden, rate = Samples(20), 30, 0.3
    network = gpunn.ThreeLayerNetwork(N_INPUTS, hidden, N_OUTPUTS, rate, device="cpu")
    loop = PlainLoop(hidden, rate)
    start = network.parameters()
    loop.weights_1 = start["layers.0.weight"].astype(np.float64)
    loop.weights_2 = start["layers.1.weight"].astype(np.float64)
    theirs = [loop.train(*pair) for pair in zip(samples.inputs, samples.targets, strict=True)]
    ours = network.train(samples.inputs, samples.targets)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(
        network.parameters()["layers.0.weight"], loop.weights_1, atol=1e-4, rtol=1e-3
    )


def torch_run(cell: Cell, samples: Samples, *, fused: bool, mode: str | None = None) -> Run:
    """Return PyTorch's usual loop, eager or with the model compiled in some mode."""
    import torch
    from torch import nn

    online = cell.section == "online"
    layers: list[nn.Module] = [
        nn.Linear(N_INPUTS, cell.hidden, bias=not online),
        nn.ReLU() if cell.activation == "relu" else nn.Sigmoid(),
        nn.Linear(cell.hidden, N_OUTPUTS, bias=not online),
    ]
    model: Any = nn.Sequential(*layers, nn.Sigmoid()) if online else nn.Sequential(*layers)
    rule = torch.optim.Adam if cell.optimizer == "adam" else torch.optim.SGD
    # None leaves the choice to PyTorch, as in a loop that does not mention it.
    optimizer = rule(model.parameters(), lr=LEARNING_RATE, fused=True if fused else None)
    loss_of = nn.MSELoss() if online else nn.CrossEntropyLoss()
    inputs = torch.from_numpy(samples.inputs)
    targets = torch.from_numpy(samples.targets if online else samples.labels)
    if mode is not None:
        model = torch.compile(model, mode=mode)

    def run(n: int) -> None:
        # `ThreeLayerNetwork.train` takes samples in their order, so the online loop does too.
        order = None if online else torch.randperm(n)
        for start in range(0, n, cell.batch):
            batch: Any = slice(start, start + cell.batch)
            if order is not None:
                batch = order[batch]
            loss = loss_of(model(inputs[batch]), targets[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run


def sklearn_run(cell: Cell, samples: Samples) -> Run:
    """Return scikit-learn's own epoch: `partial_fit` goes through all batches once."""
    from sklearn.neural_network import MLPClassifier

    classifier = MLPClassifier(
        (cell.hidden,),
        activation="relu" if cell.activation == "relu" else "logistic",
        solver=cell.optimizer,
        alpha=0.0,
        batch_size=cell.batch,
        learning_rate="constant",
        learning_rate_init=LEARNING_RATE,
        shuffle=True,
        momentum=0.0,
        nesterovs_momentum=False,
        random_state=0,
    )
    first = slice(0, cell.batch)
    classes = np.arange(N_OUTPUTS)
    classifier.partial_fit(samples.inputs[first], samples.labels[first], classes=classes)
    assert classifier.coefs_[0].dtype == np.float32
    return lambda n: classifier.partial_fit(samples.inputs[:n], samples.labels[:n])
