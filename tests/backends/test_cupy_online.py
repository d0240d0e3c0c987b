"""The kernels that learn a block of samples in order, against the plain loop on the same device.

On the double of CuPy the kernels' own source runs, twice, with its threads in either order; see
`fake_cuda`. The bounds are those of test_online.py: both sum the same terms in another order.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import assert_same, bound, make_backend

import gpunn
from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import Backend
from gpunn.losses import LOSSES
from gpunn.network import Network
from gpunn.network.layers import Layer, add_gradient
from gpunn.training.online import BLOCK_ROWS, OnlineTrainer

HIDDEN = [name for name, record in ACTIVATIONS.items() if record.elementwise]
PAIRS = [
    (activation, name)
    for activation in ACTIVATIONS
    for name, loss in LOSSES.items()
    if loss.required_activation in (None, activation)
]

# A kernel has each of the three formulas by itself, so that not every hidden activation need meet
# every output: each text takes a second to compile.
KINDS = [(HIDDEN[i % len(HIDDEN)], pair) for i, pair in enumerate(PAIRS)]
KINDS += [(hidden, PAIRS[0]) for hidden in HIDDEN[1:]]


def samples(rng: np.random.Generator, n: int, n_inputs: int, n_outputs: int) -> tuple[Any, Any]:
    """Return inputs, and targets whose sums for a sample are not all 1."""
    return rng.uniform(-1, 1, (n, n_inputs)), rng.uniform(0, 2 / n_outputs, (n, n_outputs))


class Learnt(NamedTuple):
    """What was seen of each sample before it was learnt from."""

    errors: Any
    outputs: Any


def _arrays(network: Network, X: Any, T: Any) -> tuple[Any, ...]:
    """Return inputs, targets, errors that are to be added to, and room for outputs."""
    inputs, targets = network.as_samples(X, T)
    backend = network.backend
    return inputs, targets, backend.asarray(np.ones(len(X))), backend.empty(T.shape, network.dtype)


def plain(network: Network, X: Any, T: Any, rate: float) -> Learnt:
    """Learn by `Network.step` alone."""
    inputs, targets, losses, outputs = _arrays(network, X, T)

    def descend(index: int, layer: Layer, delta: Any, below: Any) -> None:
        add_gradient(network.backend, delta, below, layer.weights, layer.biases, alpha=-rate)

    for i in range(len(X)):
        row = slice(i, i + 1)
        network.step(inputs[row], targets[row], descend, losses[row], outputs[row])
    return Learnt(network.backend.to_host(losses), network.backend.to_host(outputs))


def in_order(network: Network, X: Any, T: Any, rate: float, *, kernel: bool = True) -> Learnt:
    """Learn block by block, and assert that it is by the kernel, or that it is not."""
    inputs, targets, losses, outputs = _arrays(network, X, T)
    trainer = OnlineTrainer(network)
    assert (trainer._sequencer is not None) == kernel
    for rows in trainer.blocks(len(X)):
        trainer.learn(
            inputs[rows], targets[rows], rate, row_losses=losses[rows], outputs=outputs[rows]
        )
    return Learnt(network.backend.to_host(losses), network.backend.to_host(outputs))


def assert_same_learning(
    one: Network, other: Network, X: Any, T: Any, rate: float = 0.1, *, kernel: bool = True
) -> None:
    """Assert that outputs, errors and parameters agree when both networks learn the same."""
    before = other.parameters()
    expected, got = plain(one, X, T, rate), in_order(other, X, T, rate, kernel=kernel)
    assert any((values != before[name]).any() for name, values in other.parameters().items())
    assert_same(one, other, len(X))
    for name in Learnt._fields:
        values = getattr(expected, name)
        scale = max(1.0, np.abs(values).max())
        tolerance = bound(one, len(X)) * scale
        np.testing.assert_allclose(getattr(got, name), values, rtol=0, atol=tolerance, err_msg=name)


def with_biases(network: Network, rng: np.random.Generator) -> Network:
    """Give a network biases that are not zero, where it has any."""
    for layer in network.layers:
        if layer.biases is not None:
            values = rng.uniform(-0.5, 0.5, layer.biases.shape)
            network.backend.copy_into(network.backend.asarray(values, network.dtype), layer.biases)
    return network


def twins(sizes: tuple[int, ...], device: Backend, **kinds: Any) -> tuple[Network, Network]:
    """Return two networks that are the same."""
    one, other = (
        with_biases(Network(sizes, device=device, **kinds), np.random.default_rng(1)) for _ in "ab"
    )
    return one, other


REGISTERS, MEMORY = "gpunn_learn_in_registers", "gpunn_learn_in_order"


def module_of_sequencers(backend: Backend) -> dict[str, Any]:
    """Return what ``cupy_online`` consists of, over whichever CuPy."""
    sequencer = type(backend).make_sequencer.__globals__["CupySequencer"]
    names: dict[str, Any] = sequencer.__init__.__globals__
    return names


def kernel_of(network: Network) -> str:
    sequencer: Any = OnlineTrainer(network)._sequencer
    return str(sequencer._way.kernel.name)


@pytest.fixture
def memory_only(gpu: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that others give way to, for networks of all sizes."""
    monkeypatch.setitem(module_of_sequencers(gpu), "UNITS", ())


@pytest.mark.parametrize(("hidden", "pair"), KINDS, ids=str)
def test_every_kind_of_network(
    gpu: Backend, rng: np.random.Generator, hidden: str, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 12, 7, 3)
    for biases in (True, False):
        networks = twins(
            (7, 9, 3),
            gpu,
            hidden_activation=hidden,
            output_activation=pair[0],
            loss=pair[1],
            biases=biases,
            dtype="float64",
        )
        assert_same_learning(*networks, X, T)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_output_in_float32(
    gpu: Backend, rng: np.random.Generator, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 12, 7, 3)
    assert_same_learning(*twins((7, 9, 3), gpu, output_activation=pair[0], loss=pair[1]), X, T)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_output_from_memory(
    gpu: Backend, rng: np.random.Generator, memory_only: None, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 12, 7, 3)
    networks = twins((7, 9, 3), gpu, output_activation=pair[0], loss=pair[1])
    assert kernel_of(networks[1]) == MEMORY
    assert_same_learning(*networks, X, T)


SIZES = [
    *((n_hidden, 10) for n_hidden in (1, 31, 32, 33, 200, 1000, 1500)),
    *((70, n_outputs) for n_outputs in (1, 2, 3, 16, 17, 31, 32)),
    *((700, 32), (2500, 1)),
]


def check_size(
    gpu: Backend, rng: np.random.Generator, dtype: np.dtype[Any], sizes: tuple[int, int], way: str
) -> None:
    n_hidden, n_outputs = sizes
    X, T = samples(rng, 19 if n_hidden <= 200 else 10, 5, n_outputs)
    kinds = {"output_activation": "softmax", "loss": "cross_entropy"} if n_outputs > 1 else {}
    networks = twins((5, n_hidden, n_outputs), gpu, dtype=dtype, **kinds)
    assert kernel_of(networks[1]) == way
    assert_same_learning(*networks, X, T)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size_in_registers(gpu: Backend, rng: np.random.Generator, sizes: Any) -> None:
    """Parts of a warp and several, several units a thread, as many outputs as a warp has lanes."""
    check_size(gpu, rng, np.dtype("float32"), sizes, REGISTERS)


@pytest.mark.parametrize("sizes", [(33, 10), (200, 32), (1100, 10)], ids=str)
def test_sizes_of_float64_in_registers(gpu: Backend, rng: np.random.Generator, sizes: Any) -> None:
    check_size(gpu, rng, np.dtype("float64"), sizes, REGISTERS)


@pytest.mark.parametrize("sizes", [(1, 1), (31, 10), (33, 2), (70, 40), (1100, 10)], ids=str)
def test_every_size_from_memory(
    gpu: Backend,
    rng: np.random.Generator,
    dtype: np.dtype[Any],
    memory_only: None,
    sizes: tuple[int, int],
) -> None:
    check_size(gpu, rng, dtype, sizes, MEMORY)


@pytest.mark.parametrize("sizes", [(70, 33), (3500, 10), (1500, 32)], ids=str)
def test_sizes_that_registers_do_not_hold(
    gpu: Backend, rng: np.random.Generator, sizes: Any
) -> None:
    check_size(gpu, rng, np.dtype("float32"), sizes, MEMORY)


@pytest.mark.parametrize("rows", [1, 3, 21, 33])
def test_blocks_that_are_not_whole_groups(
    gpu: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(type(gpu), "rows_in_block", lambda *_: rows)
    X, T = samples(rng, 40, 5, 3)
    networks = twins((5, 40, 3), gpu)
    assert kernel_of(networks[1]) == REGISTERS
    assert_same_learning(*networks, X, T)


def test_a_rate_on_the_device(gpu: Backend, rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
    """It is read when the device comes to it; a number does the same."""
    X, T = samples(rng, 20, 5, 3)
    one, other = twins((5, 40, 3), gpu, dtype=dtype)
    rate = gpu.asarray(np.full(1, 0.25), dtype)
    for network, scale in ((one, 0.25), (other, rate)):
        sequencer = OnlineTrainer(network)._sequencer
        assert sequencer is not None
        inputs, targets, losses, outputs = _arrays(network, X, T)
        gpu.gemm(inputs, network.layers[0].weights, sequencer.z[: len(X)], transpose_b=True)
        sequencer.prepare(inputs)
        sequencer.learn(inputs, targets, scale, losses, outputs)
    for name, values in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], values)


def test_learning_allocates_nothing(
    gpu: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it can be recorded."""
    network = twins((5, 40, 3), gpu)[0]
    inputs, targets, losses, outputs = _arrays(network, *samples(rng, 20, 5, 3))
    sequencer = OnlineTrainer(network)._sequencer
    assert sequencer is not None
    sequencer.z.fill(0)

    def refuse(*_: Any) -> None:
        raise AssertionError("memory is allocated")

    for name in ("empty", "zeros", "asarray"):
        monkeypatch.setattr(type(gpu), name, refuse)
    sequencer.prepare(inputs)
    sequencer.learn(inputs, targets, 0.1, losses, outputs)
    sequencer.learn(inputs, targets, 0.1, losses, None)


@pytest.mark.parametrize("n", [1, 2, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 5])
def test_any_number_of_samples(
    gpu: Backend, rng: np.random.Generator, dtype: np.dtype[Any], n: int
) -> None:
    X, T = samples(rng, n, 5, 3)
    assert_same_learning(*twins((5, 40, 3), gpu, dtype=dtype), X, T)


@pytest.mark.parametrize("n_hidden", [1, 40, 1100])
def test_the_textbooks_rule(
    gpu: Backend, rng: np.random.Generator, dtype: np.dtype[Any], n_hidden: int
) -> None:
    X, T = samples(rng, 9, 20, 4)
    one, other = (
        gpunn.ThreeLayerNetwork(20, n_hidden, 4, 0.1, dtype=dtype, device=gpu) for _ in "ab"
    )
    assert kernel_of(other) == REGISTERS
    assert_same_learning(one, other, X, T)


def test_the_textbooks_rule_from_memory(
    gpu: Backend, rng: np.random.Generator, memory_only: None
) -> None:
    X, T = samples(rng, 9, 20, 4)
    one, other = (gpunn.ThreeLayerNetwork(20, 40, 4, 0.1, device=gpu) for _ in "ab")
    assert kernel_of(other) == MEMORY
    assert_same_learning(one, other, X, T)


@pytest.mark.parametrize("dropped", ["hidden", "top"])
@pytest.mark.parametrize("way", [REGISTERS, MEMORY])
def test_biases_of_one_layer(
    double: Backend,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    dropped: str,
) -> None:
    """The kernels take what layers have, each by itself."""
    if way == MEMORY:
        monkeypatch.setitem(module_of_sequencers(double), "UNITS", ())
    X, T = samples(rng, 20, 5, 3)
    networks = twins((5, 40, 3), double)
    for network in networks:
        index = 0 if dropped == "hidden" else 1
        network.layers[index] = network.layers[index]._replace(biases=None)
    assert kernel_of(networks[1]) == way
    assert_same_learning(*networks, X, T)


def test_what_the_cpu_learns_in_float64(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 70, 20, 4)
    one, other = (
        gpunn.ThreeLayerNetwork(20, 40, 4, 0.1, dtype="float64", device=device)
        for device in (make_backend("cpu"), gpu)
    )
    np.testing.assert_allclose(other.train(X, T), one.train(X, T), rtol=0, atol=bound(one, 70))
    assert_same(one, other, 70)


def test_the_same_run_gives_the_same_bits(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 70, 5, 3)
    one, other = twins((5, 70, 3), gpu)
    for first, second in zip(in_order(one, X, T, 0.1), in_order(other, X, T, 0.1), strict=True):
        np.testing.assert_array_equal(first, second)
    for name, values in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], values)


def test_as_many_outputs_as_fit(gpu: Backend, rng: np.random.Generator) -> None:
    """The whole of the memory that a block of threads has for itself, to the last byte."""
    n_outputs = 48 * 1024 // 4 // 6
    X, T = samples(rng, 3, 4, n_outputs)
    assert_same_learning(*twins((4, 5, n_outputs), gpu), X, T)


@pytest.mark.parametrize(
    ("sizes", "kinds"),
    [
        ((4, 5, 2), {"hidden_activation": "softmax"}),
        ((4, 16_385, 2), {}),
        ((4, 5, 2049), {}),
        ((4, 6, 5, 2), {}),
        ((4, 2), {}),
    ],
    ids=["hidden softmax", "too wide", "too many outputs", "four layers", "two layers"],
)
def test_a_network_that_does_not_suit_learns_step_by_step(
    gpu: Backend, rng: np.random.Generator, sizes: tuple[int, ...], kinds: dict[str, Any]
) -> None:
    X, T = samples(rng, 5, 4, sizes[-1])
    assert_same_learning(*twins(sizes, gpu, **kinds), X, T, kernel=False)
