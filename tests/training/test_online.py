"""Blocks of samples against the plain loop, which is the oracle: same samples, same order.

Both sum the same terms in another order. A weight after k steps is a sum of k updates of size
``rate * |delta| * |x|``, and every weighted sum has K = n_inputs + (samples before it in its block)
terms. Each step's relative rounding, about ``(K + 2) eps`` of those sizes, enters the next step
through at most the network's own sensitivity, so differences grow no faster than the number of
steps for the small step sizes used here: ``n_steps * (K + 2) * eps`` bounds them with room.
"""

import fake_cuda
import numpy as np
import pytest
from conftest import assert_same, bound, make_backend

import gpunn
from gpunn.network import Network
from gpunn.network.layers import add_gradient
from gpunn.training.online import LARGEST_STEP, OnlineTrainer

pytestmark = pytest.mark.usefixtures("several_threads")

PAIRS = [
    ("sigmoid", "squared_error"),
    ("sigmoid", "binary_cross_entropy"),
    ("softmax", "cross_entropy"),
    ("softmax", "squared_error"),
    ("identity", "mean_squared_error"),
    ("tanh", "sum_of_squares"),
    ("relu", "squared_error"),
]


def plain_loop(network, X, T, rate, batch_size=1):
    """Train step by step, by `Network.step` alone; return each sample's error, summed."""
    backend = network.backend
    losses = backend.zeros((batch_size,), np.float64)
    inputs, targets = network.as_samples(X, T)

    def descend(index, layer, delta, below):
        alpha = -rate / delta.shape[0]
        add_gradient(backend, delta, below, layer.weights, layer.biases, alpha=alpha)

    for start in range(0, len(X), batch_size):
        rows = slice(start, start + batch_size)
        network.step(inputs[rows], targets[rows], descend, losses)
    return backend.to_host(losses).sum()


def in_blocks(network, X, T, rate, batch_size=1):
    """Train by blocks; return each sample's error, summed."""
    trainer = OnlineTrainer(network, batch_size)
    inputs, targets = network.as_samples(X, T)
    losses = network.backend.zeros((trainer.block_rows,), np.float64)
    for rows in trainer.blocks(len(X)):
        trainer.learn(
            inputs[rows], targets[rows], rate, row_losses=losses[: rows.stop - rows.start]
        )
    return network.backend.to_host(losses).sum()


def samples(rng, n, n_inputs, n_outputs):
    return rng.uniform(-1, 1, (n, n_inputs)), rng.dirichlet(np.ones(n_outputs), n)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("sizes", [(7, 3), (7, 5, 3), (7, 6, 5, 3)], ids=str)
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_blocks_equal_the_plain_loop(rng, pair, biases, sizes, batch_size):
    """Any first layer, any depth, each error: more than two blocks, and a part of one."""
    X, T = samples(rng, 150, 7, 3)
    kinds = {"output_activation": pair[0], "loss": pair[1], "biases": biases, "dtype": "float64"}
    one, other = (Network(sizes, device=make_backend("cpu"), **kinds) for _ in "ab")
    assert in_blocks(other, X, T, 0.1, batch_size) == pytest.approx(
        plain_loop(one, X, T, 0.1, batch_size), rel=bound(one, 150)
    )
    assert_same(one, other, 150)


@pytest.mark.parametrize("hidden", ["tanh", "relu", "identity", "softmax"])
def test_blocks_equal_the_plain_loop_for_every_hidden_activation(rng, hidden):
    X, T = samples(rng, 150, 7, 3)
    one, other = (
        Network((7, 9, 3), hidden_activation=hidden, dtype="float64", device=make_backend("cpu"))
        for _ in "ab"
    )
    plain_loop(one, X, T, 0.1)
    in_blocks(other, X, T, 0.1)
    assert_same(one, other, 150)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_blocks_equal_the_plain_loop_on_every_device(backend, dtype, rng, batch_size):
    X, T = samples(rng, 72, 6, 2)
    one, other = (Network((6, 5, 2), dtype=dtype, device=backend) for _ in "ab")
    plain_loop(one, X, T, 0.1, batch_size)
    in_blocks(other, X, T, 0.1, batch_size)
    assert_same(one, other, 72)


@pytest.mark.parametrize("n_hidden", [1, 200, 300, 700])
def test_the_textbooks_rule_in_blocks_equals_the_plain_loop(dtype, rng, n_hidden):
    """Also where a row has one unit, or so many that other formulas and threads are used."""
    X, T = samples(rng, 200, 20, 4)
    one, other = (
        gpunn.ThreeLayerNetwork(20, n_hidden, 4, 0.1, dtype=dtype, device=make_backend("cpu"))
        for _ in "ab"
    )
    plain_loop(one, X, T, 0.1)
    errors = other.train(X, T)
    assert_same(one, other, 200)
    assert errors.shape == T.shape


def test_errors_are_those_from_before_each_sample_was_learnt_from(rng):
    X, T = samples(rng, 70, 5, 2)
    one, other = (
        gpunn.ThreeLayerNetwork(5, 4, 2, 0.3, dtype="float64", device=make_backend("cpu"))
        for _ in "ab"
    )
    together = one.train(X, T)
    alone = [other.train(x, t) for x, t in zip(X, T, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=bound(one, 70))


def test_several_thousand_samples_in_float32_stay_with_the_plain_loop(rng):
    X, T = samples(rng, 4000, 50, 5)
    one, other = (Network((50, 40, 5), device=make_backend("cpu")) for _ in "ab")
    plain_loop(one, X, T, 0.05)
    in_blocks(other, X, T, 0.05)
    assert_same(one, other, 4000)
    # The bound allows for the worst; what happens is random rounding, far below it.
    difference = max(
        np.abs(other.parameters()[name] - values).max() for name, values in one.parameters().items()
    )
    assert difference < 1e-4


def test_blocks_and_plain_loop_are_as_accurate_on_mnist(mnist_dir):
    data = gpunn.load_dataset("mnist", mnist_dir.parent)
    scaling = gpunn.Scaling.to_range(0, 255, 0.01, 1.0, target_low=0.01, target_high=0.99)
    X, X_test = (scaling.apply(part, "float32") for part in (data.inputs[:8000], data.test_inputs))
    T = scaling.encode_labels(data.labels[:8000], 10, "float32")
    accuracies = []
    for train in (plain_loop, in_blocks):
        network = gpunn.ThreeLayerNetwork(784, 100, 10, 0.1, device=make_backend("cpu"))
        train(network, X, T, 0.1)
        accuracies.append(gpunn.evaluate(network, X_test, data.test_labels).accuracy)
    assert accuracies[0] > 0.9
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.001)


@pytest.mark.parametrize("batch_size", [1, 5, LARGEST_STEP])
def test_fit_uses_blocks_unasked_and_gets_what_single_steps_get(rng, batch_size):
    """Weight decay of next to nothing takes the plain path, for it needs each step by itself."""
    X, T = samples(rng, 150, 6, 3)
    one, other = (Network((6, 5, 3), dtype="float64", device=make_backend("cpu")) for _ in "ab")
    options = {"epochs": 2, "batch_size": batch_size, "learning_rate": 0.1}
    plain = gpunn.fit(one, X, T, optimizer=gpunn.SGD(weight_decay=1e-300), **options)
    blocks = gpunn.fit(other, X, T, **options)
    assert_same(one, other, 300)
    assert blocks.train_loss == pytest.approx(plain.train_loss, rel=bound(one, 300))


def test_a_step_size_that_changes_within_a_block_is_followed(rng):
    from gpunn.optimizers import cosine, step_decay

    X, T = samples(rng, 100, 6, 3)
    for schedule in (cosine(0.2, epochs=2), step_decay(0.2, every=0.3, factor=0.5)):
        one, other = (Network((6, 5, 3), dtype="float64", device=make_backend("cpu")) for _ in "ab")
        options = {"epochs": 2, "batch_size": 1, "learning_rate": schedule}
        gpunn.fit(one, X, T, optimizer=gpunn.SGD(weight_decay=1e-300), **options)
        gpunn.fit(other, X, T, **options)
        assert_same(one, other, 200)


def test_a_block_crosses_nothing(double, rng):
    network = Network((6, 5, 2), device=double)
    trainer = OnlineTrainer(network)
    inputs, targets = network.as_samples(*samples(rng, 70, 6, 2))
    with fake_cuda.no_crossings():
        for rows in trainer.blocks(70):
            trainer.learn(inputs[rows], targets[rows], 0.1)


def test_blas_has_its_threads_back_after_a_block(rng):
    backend = make_backend("cpu")
    before = backend._blas.n_threads
    network = gpunn.ThreeLayerNetwork(6, 5, 2, 0.1, device=backend)
    network.train(*samples(rng, 70, 6, 2))
    assert backend._blas.n_threads == before
