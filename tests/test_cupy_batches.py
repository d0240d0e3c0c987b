"""The kernel that learns many mini-batches in a launch, against single steps on the same device.

On the double of CuPy the kernel's own source runs, twice, with its threads and blocks in either
order; see `host_cupy`. The bounds are those of test_online.py: both sum the same terms in another
order.
"""

from typing import Any

import numpy as np
import pytest
from conftest import DEVICES, make_backend
from test_cupy_online import HIDDEN, PAIRS, samples, twins
from test_online import assert_same, bound

import gpunn
from gpunn.backend import Backend, BatchLearner
from gpunn.network import Network
from gpunn.optimizers import SGD


@pytest.fixture(params=DEVICES[1:])
def gpu(request: pytest.FixtureRequest) -> Backend:
    """A GPU, or the double of one."""
    return make_backend(request.param)


def learner_of(network: Network, batch_size: int) -> BatchLearner | None:
    return network.backend.make_batch_learner(
        batch_size, *network.layers, network.loss, textbook_rule=network.textbook_rule
    )


def step_by_step(
    network: Network, X: Any, T: Any, order: Any, batch_size: int, rate: float, decay: float
) -> Any:
    """Learn by `Network.step` alone; return the errors, summed by place in the batch."""
    losses = network.backend.asarray(np.ones(batch_size))
    optimizer = SGD(weight_decay=decay)
    optimizer.prepare(network)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        optimizer.begin_step(rate)
        network.step(*network.as_samples(X[rows], T[rows]), optimizer.update, losses)
    return network.backend.to_host(losses)


def at_once(
    network: Network, X: Any, T: Any, order: Any, batch_size: int, rate: float, decay: float
) -> Any:
    """Learn the same in one launch."""
    backend = network.backend
    learner = learner_of(network, batch_size)
    assert learner is not None
    losses = backend.asarray(np.ones(batch_size))
    learner.learn(
        *network.as_samples(X, T),
        None if np.array_equal(order, np.arange(len(X))) else backend.asarray(order),
        batch_size,
        rate=rate / batch_size,
        kept=1 - rate * decay,
        row_losses=losses,
    )
    return backend.to_host(losses)


def assert_same_learning(
    one: Network,
    other: Network,
    X: Any,
    T: Any,
    order: Any,
    batch_size: int,
    *,
    rate: float = 0.5,
    decay: float = 0.0,
) -> None:
    """Assert that errors and parameters agree when both networks learn the same."""
    before = other.parameters()
    expected = step_by_step(one, X, T, order, batch_size, rate, decay)
    got = at_once(other, X, T, order, batch_size, rate, decay)
    for name, values in other.parameters().items():
        assert (values != before[name]).any(), name
    n_steps = len(order) // batch_size
    assert_same(one, other, n_steps * batch_size)
    tolerance = bound(one, n_steps * batch_size) * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_kind_of_network(
    gpu: Backend, rng: np.random.Generator, pair: tuple[str, str], hidden: str
) -> None:
    X, T = samples(rng, 20, 7, 3)
    order = rng.permutation(20)[:15]
    for biases in (True, False):
        kinds = {"hidden_activation": hidden, "output_activation": pair[0], "loss": pair[1]}
        networks = twins((7, 9, 3), gpu, biases=biases, dtype="float64", **kinds)
        assert_same_learning(*networks, X, T, order, 5)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_output_in_float32(
    gpu: Backend, rng: np.random.Generator, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 12, 7, 3)
    networks = twins((7, 9, 3), gpu, output_activation=pair[0], loss=pair[1])
    assert_same_learning(*networks, X, T, rng.permutation(12), 4)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 33])
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1), (3, 2, 1), (2, 300, 2), (300, 2, 2), (50, 37, 10), (130, 70, 4)],
    ids=str,
)
def test_every_size(
    gpu: Backend,
    rng: np.random.Generator,
    dtype: np.dtype[Any],
    sizes: tuple[int, int, int],
    batch_size: int,
) -> None:
    """One of each; fewer units or inputs than tiles; tiles that are not full."""
    X, T = samples(rng, 3 * batch_size, sizes[0], sizes[-1])
    networks = twins(sizes, gpu, dtype=dtype)
    assert_same_learning(*networks, X, T, rng.permutation(len(X)), batch_size)


def test_more_outputs_than_threads(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 4, 5, 300)
    networks = twins((5, 4, 300), gpu, output_activation="softmax", loss="cross_entropy")
    assert_same_learning(*networks, X, T, np.arange(4), 2)


def test_the_order_is_followed(gpu: Backend, rng: np.random.Generator) -> None:
    """Rows left out, rows taken twice, and all of them as they come."""
    X, T = samples(rng, 8, 5, 3)
    for order in ([7, 0, 0, 3, 3, 3, 1, 2], [5, 4], [*range(8)]):
        networks = twins((5, 6, 3), gpu, dtype="float64")
        assert_same_learning(*networks, X, T, np.array(order), 2)


@pytest.mark.parametrize("decay", [0.1, 2.0])
def test_weights_decay_and_biases_do_not(
    gpu: Backend, rng: np.random.Generator, decay: float
) -> None:
    X, T = samples(rng, 12, 5, 3)
    networks = twins((5, 6, 3), gpu, dtype="float64")
    assert_same_learning(*networks, X, T, np.arange(12), 4, decay=decay)


def test_the_textbooks_rule(gpu: Backend, rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
    X, T = samples(rng, 12, 20, 4)
    one, other = (gpunn.ThreeLayerNetwork(20, 11, 4, 0.1, dtype=dtype, device=gpu) for _ in "ab")
    assert_same_learning(one, other, X, T, np.arange(12), 3)


def test_a_learner_takes_smaller_batches_and_many_calls(
    gpu: Backend, rng: np.random.Generator
) -> None:
    X, T = samples(rng, 14, 5, 3)
    one, other = twins((5, 6, 3), gpu, dtype="float64")
    learner = learner_of(other, 6)
    assert learner is not None
    inputs, targets = other.as_samples(X, T)
    for rows, size in ((slice(0, 12), 6), (slice(12, 14), 2)):
        step_by_step(one, X[rows], T[rows], np.arange(rows.stop - rows.start), size, 0.5, 0.0)
        losses = gpu.zeros((size,), "float64")
        learner.learn(
            inputs[rows], targets[rows], None, size, rate=0.5 / size, kept=1.0, row_losses=losses
        )
    assert_same(one, other, 14)


def test_the_same_run_gives_the_same_bits(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 40, 30, 3)
    one, other = twins((30, 70, 3), gpu)
    order = rng.permutation(40)
    np.testing.assert_array_equal(*(at_once(n, X, T, order, 10, 0.1, 0.0) for n in (one, other)))
    for name, values in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], values)
