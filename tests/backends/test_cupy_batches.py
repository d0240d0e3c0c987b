"""The kernel that learns many mini-batches in a launch, against single steps on the same device.

On the double of CuPy the kernel's own source runs, twice, with its threads and blocks in either
order; see `fake_cuda`. The bounds are those of test_online.py: both sum the same terms in another
order.
"""

from typing import Any

import fake_cuda
import numpy as np
import pytest
from conftest import assert_same, bound, make_backend
from test_cupy_online import KINDS, PAIRS, samples, twins

import gpunn
from gpunn import fit
from gpunn.backends.base import Backend
from gpunn.backends.fused import BatchLearner
from gpunn.network import Network
from gpunn.optimizers import SGD, Optimizer, Schedule, constant, exponential_decay
from gpunn.training import batches


def learner_of(network: Network, batch_size: int) -> BatchLearner | None:
    model = network.fused_model()
    assert model is not None
    return network.backend.make_batch_learner(batch_size, model)


def step_by_step(
    network: Network, X: Any, T: Any, batch_size: int, rate: float, decay: float
) -> Any:
    """Learn by `Network.step` alone; return each sample's error, plus 1."""
    inputs, targets = network.as_samples(X, T)
    losses = network.backend.asarray(np.ones(len(X)))
    optimizer = SGD(weight_decay=decay)
    optimizer.prepare(network)
    for start in range(0, len(X), batch_size):
        rows = slice(start, start + batch_size)
        optimizer.begin_step(rate)
        network.step(inputs[rows], targets[rows], optimizer.update, losses[rows])
    return network.backend.to_host(losses)


def at_once(network: Network, X: Any, T: Any, batch_size: int, rate: float, decay: float) -> Any:
    """Learn the same in one launch."""
    learner = learner_of(network, batch_size)
    assert learner is not None
    losses = network.backend.asarray(np.ones(len(X)))
    learner.learn(
        *network.as_samples(X, T),
        batch_size,
        scale=rate / batch_size,
        kept=1 - rate * decay,
        row_losses=losses,
    )
    return network.backend.to_host(losses)


def assert_same_learning(
    one: Network,
    other: Network,
    X: Any,
    T: Any,
    batch_size: int,
    *,
    rate: float = 0.5,
    decay: float = 0.0,
) -> None:
    """Assert that errors and parameters agree when both networks learn the same."""
    before = other.parameters()
    expected = step_by_step(one, X, T, batch_size, rate, decay)
    got = at_once(other, X, T, batch_size, rate, decay)
    for name, values in other.parameters().items():
        assert (values != before[name]).any(), name
    assert_same(one, other, len(X))
    tolerance = bound(one, len(X)) * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("hidden", "pair"), KINDS, ids=str)
def test_every_kind_of_network(
    gpu: Backend, rng: np.random.Generator, hidden: str, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 15, 7, 3)
    for biases in (True, False):
        kinds = {"hidden_activation": hidden, "output_activation": pair[0], "loss": pair[1]}
        networks = twins((7, 9, 3), gpu, biases=biases, dtype="float64", **kinds)
        assert_same_learning(*networks, X, T, 5)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_output_in_float32(
    gpu: Backend, rng: np.random.Generator, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 12, 7, 3)
    networks = twins((7, 9, 3), gpu, output_activation=pair[0], loss=pair[1])
    assert_same_learning(*networks, X, T, 4)


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
    assert_same_learning(*networks, X, T, batch_size)


def test_more_outputs_than_threads(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 4, 5, 300)
    networks = twins((5, 4, 300), gpu, output_activation="softmax", loss="cross_entropy")
    assert_same_learning(*networks, X, T, 2)


@pytest.mark.parametrize("decay", [0.1, 2.0])
def test_weights_decay_and_biases_do_not(
    gpu: Backend, rng: np.random.Generator, decay: float
) -> None:
    X, T = samples(rng, 12, 5, 3)
    networks = twins((5, 6, 3), gpu, dtype="float64")
    assert_same_learning(*networks, X, T, 4, decay=decay)


def test_the_textbooks_rule(gpu: Backend, rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
    X, T = samples(rng, 12, 20, 4)
    one, other = (gpunn.ThreeLayerNetwork(20, 11, 4, 0.1, dtype=dtype, device=gpu) for _ in "ab")
    assert_same_learning(one, other, X, T, 3)


def test_a_learner_takes_smaller_batches_and_many_calls(
    gpu: Backend, rng: np.random.Generator
) -> None:
    X, T = samples(rng, 14, 5, 3)
    one, other = twins((5, 6, 3), gpu, dtype="float64")
    learner = learner_of(other, 6)
    assert learner is not None
    inputs, targets = other.as_samples(X, T)
    for rows, size in ((slice(0, 12), 6), (slice(12, 14), 2)):
        step_by_step(one, X[rows], T[rows], size, 0.5, 0.0)
        losses = gpu.zeros((rows.stop - rows.start,), "float64")
        learner.learn(
            inputs[rows], targets[rows], size, scale=0.5 / size, kept=1.0, row_losses=losses
        )
    assert_same(one, other, 14)


def test_learners_of_one_kernel_need_not_be_of_one_size(
    gpu: Backend, rng: np.random.Generator
) -> None:
    """The larger one takes more shared memory than a kernel may without asking, the smaller not."""
    X, T = samples(rng, 60, 400, 3)
    one, other = twins((400, 100, 3), gpu)
    larger = learner_of(other, 60)
    smaller = learner_of(twins((4, 5, 3), gpu)[0], 2)
    assert larger is not None
    assert smaller is not None
    step_by_step(one, X, T, 60, 0.1, 0.0)
    losses = gpu.zeros((60,), "float64")
    larger.learn(*other.as_samples(X, T), 60, scale=0.1 / 60, kept=1.0, row_losses=losses)
    assert_same(one, other, 60)


def test_the_same_run_gives_the_same_bits(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 40, 30, 3)
    one, other = twins((30, 70, 3), gpu)
    np.testing.assert_array_equal(*(at_once(n, X, T, 10, 0.1, 0.0) for n in (one, other)))
    for name, values in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], values)


# Through `fit`.


class Counter(gpunn.Callback):
    """Counts the calls that steps are done in."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_step_end(self, n_samples: int) -> None:
        self.sizes.append(n_samples)


@pytest.mark.parametrize("rate", [constant(0.5), exponential_decay(0.5, factor=0.5)], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_fit_takes_many_steps_at_once_and_gets_what_the_cpu_gets(
    gpu: Backend, rng: np.random.Generator, rate: Schedule, decay: float
) -> None:
    """Two epochs in an order of their own, the last batch smaller than the others."""
    X, T = samples(rng, 47, 7, 3)
    one, other = (
        Network((7, 9, 3), dtype="float64", device=device) for device in (make_backend("cpu"), gpu)
    )
    counters, losses = (Counter(), Counter()), []
    for network, counter in zip((one, other), counters, strict=True):
        history = fit(
            network,
            X,
            T,
            epochs=2,
            batch_size=20,
            optimizer=SGD(weight_decay=decay),
            learning_rate=rate,
            callbacks=[counter],
        )
        losses.append(history.train_loss)
    assert [counter.sizes for counter in counters] == [[20, 20, 7] * 2, [47] * 2]
    assert_same(one, other, 94)
    np.testing.assert_allclose(*losses, rtol=bound(one, 94))


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam"])
def test_other_rules_go_step_by_step(double: Backend, optimizer: str) -> None:
    network = Network((4, 5, 2), device=double)
    rule: Optimizer = gpunn.optimizers.get_optimizer(optimizer)
    assert batches.BatchTrainer.make(network, rule, 4) is None


@pytest.mark.parametrize(
    ("sizes", "batch_size", "kinds"),
    [
        ((4, 5, 2), 4, {"hidden_activation": "softmax"}),
        ((4, 6, 5, 2), 4, {}),
        ((4, 2), 4, {}),
        ((784, 1024, 10), 1000, {}),
        ((20, 400_000, 10), 20, {}),
    ],
    ids=["hidden softmax", "four layers", "two layers", "large batch", "wide"],
)
def test_a_network_that_does_not_suit_goes_step_by_step(
    double: Backend, sizes: tuple[int, ...], batch_size: int, kinds: dict[str, Any]
) -> None:
    network = Network(sizes, device=double, **kinds)
    assert batches.BatchTrainer.make(network, SGD(), batch_size) is None


def test_a_gpu_whose_blocks_cannot_wait_for_each_other(
    double: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = {**fake_cuda.Device(0).attributes, "CooperativeLaunch": 0}
    monkeypatch.setattr(fake_cuda.Device, "attributes", attributes)
    assert batches.BatchTrainer.make(Network((4, 5, 2), device=double), SGD(), 4) is None


def test_tiles_of_the_first_weights(double: Backend) -> None:
    """All weights belong to a tile, no tile is beyond the blocks, and all fits in memory."""
    choose_tiling = fake_cuda.load_cupy_backend().CupyBatchLearner.make.__globals__["choose_tiling"]
    device = fake_cuda.Device(0)
    for n_inputs, n_hidden in ((1, 1), (784, 30), (5, 4000), (4000, 5), (784, 200)):
        tiling = choose_tiling(10, (n_inputs, n_hidden, 10), 4, device)
        n_tiles = -(-n_inputs // tiling.inputs) * -(-n_hidden // tiling.units)
        assert n_tiles <= device.attributes["MultiProcessorCount"]
        assert tiling.shared_bytes <= device.attributes["MaxSharedMemoryPerBlockOptin"]
