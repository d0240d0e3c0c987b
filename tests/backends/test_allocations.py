"""A training step works in memory that was there before it.

Every array of a step has a number for each sample or for each unit, and there are so many of one or
the other here that the smallest of them is larger than all of a step's Python objects together.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpunn
from gpunn.activations import ACTIVATIONS
from gpunn.losses import LOSSES
from gpunn.network.layers import Dropout
from gpunn.optimizers import OPTIMIZERS, Optimizer, get_optimizer
from gpunn.training.online import OnlineTrainer

pytestmark = pytest.mark.usefixtures("several_threads")

MOST_BYTES = 12_000
SHAPES = [
    pytest.param([7, 11, 9, 5], 4096, id="many samples"),
    pytest.param([7, 4096, 5], 3, id="many hidden units"),
    pytest.param([7, 11, 4096], 3, id="many outputs"),
    pytest.param([4096, 5], 3, id="no hidden layer"),
]
RULES = [
    (output, loss.name)
    for loss in LOSSES.values()
    for output in ACTIVATIONS
    if loss.required_activation in (None, output)
]
ESTIMATORS_RULES = [("softmax", "log_loss"), ("sigmoid", "binary_log_loss"), ("exp", "poisson")]


@pytest.fixture
def most_bytes() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Return what measures the most memory that a call holds at once, beyond what it found."""

    def measure(call: Callable[[], None]) -> int:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before

    # NumPy's own buffers, for broadcasting and for sums in float64, are of one size whatever the
    # arrays', and would hide ours.
    before = np.setbufsize(16)
    tracemalloc.start()
    yield measure
    tracemalloc.stop()
    np.setbufsize(before)


def make_step(
    sizes: list[int], n_samples: int, optimizer: Optimizer, **kwargs: Any
) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    network = gpunn.Network(sizes, device="cpu", **kwargs)
    inputs = rng.random((2 * n_samples, sizes[0])).astype(network.dtype)
    targets = rng.random((2 * n_samples, sizes[-1])).astype(network.dtype)
    order = rng.permutation(2 * n_samples)[:n_samples]
    batch, batch_targets = inputs[:n_samples].copy(), targets[:n_samples].copy()
    row_losses = np.zeros(n_samples)
    optimizer.prepare(network)

    def step() -> None:
        network.backend.take_rows(inputs, order, batch)
        network.backend.take_rows(targets, order, batch_targets)
        optimizer.begin_step(1e-3)
        network.step(batch, batch_targets, optimizer.update, row_losses)

    return step


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("sizes", "n_samples"), SHAPES)
def test_optimizers(
    most_bytes: Any, dtype: Any, sizes: list[int], n_samples: int, name: str
) -> None:
    optimizer = get_optimizer(name, weight_decay=0.1)
    step = make_step(sizes, n_samples, optimizer, dtype=dtype)
    step()  # the first step finds how much memory is needed
    assert most_bytes(step) < MOST_BYTES


@pytest.mark.parametrize(("output", "loss"), RULES + ESTIMATORS_RULES)
@pytest.mark.parametrize(("sizes", "n_samples"), SHAPES)
def test_outputs_and_errors(
    most_bytes: Any, sizes: list[int], n_samples: int, output: str, loss: str
) -> None:
    step = make_step(sizes, n_samples, get_optimizer("sgd"), output_activation=output, loss=loss)
    step()
    assert most_bytes(step) < MOST_BYTES


@pytest.mark.parametrize(("sizes", "n_samples"), SHAPES[:2])
def test_weights_of_samples_penalty_and_dropout(
    most_bytes: Any, sizes: list[int], n_samples: int
) -> None:
    network = gpunn.Network(sizes, hidden_activation="tanh", device="cpu")
    inputs = np.zeros((n_samples, sizes[0]), np.float32)
    targets = np.zeros((n_samples, sizes[-1]), np.float32)
    weights, row_losses = np.ones(n_samples, np.float32), np.zeros(n_samples)
    optimizer, penalty = get_optimizer("adam"), np.zeros(1)
    optimizer.prepare(network)
    dropout = Dropout(0.3, range(len(sizes) - 2))

    def step() -> None:
        for layer in network.layers:
            network.backend.add_squares(layer.weights, penalty, alpha=1.0)
        optimizer.begin_step(1e-3)
        network.step(
            inputs,
            targets,
            optimizer.update,
            row_losses,
            row_weights=weights,
            dropout=dropout,
        )

    step()
    assert most_bytes(step) < MOST_BYTES


@pytest.mark.parametrize("hidden", ACTIVATIONS)
@pytest.mark.parametrize(("sizes", "n_samples"), SHAPES)
def test_hidden_activations(most_bytes: Any, sizes: list[int], n_samples: int, hidden: str) -> None:
    step = make_step(sizes, n_samples, get_optimizer("sgd"), hidden_activation=hidden)
    step()
    assert most_bytes(step) < MOST_BYTES


# What a rule needs of its own has the size of the outputs: elsewhere two rules do for all.
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("sizes", "output", "loss"),
    [
        *(([7, 11, 4096], *rule) for rule in RULES),
        *(
            (sizes, *rule)
            for sizes in ([4096, 11, 5], [7, 4096, 5], [7, 4096, 9, 5])
            for rule in (("sigmoid", "squared_error"), ("softmax", "cross_entropy"))
        ),
    ],
)
def test_blocks(most_bytes: Any, sizes: list[int], output: str, loss: str, batch_size: int) -> None:
    network = gpunn.Network(sizes, output_activation=output, loss=loss, device="cpu")
    trainer = OnlineTrainer(network, batch_size)
    rng = np.random.default_rng(0)
    inputs = rng.random((trainer.block_rows, sizes[0]), dtype=np.float32)
    targets = rng.random((trainer.block_rows, sizes[-1]), dtype=np.float32)

    def learn() -> None:
        trainer.learn(inputs, targets, 1e-3)

    learn()
    assert most_bytes(learn) < MOST_BYTES


def test_the_measure_sees_an_array(most_bytes: Any) -> None:
    optimizer = get_optimizer("sgd")
    step = make_step([7, 11, 5], 4096, optimizer)
    step()

    def wasteful() -> None:
        step()
        np.zeros(4096, np.float32)

    assert most_bytes(wasteful) > MOST_BYTES
