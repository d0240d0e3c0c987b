"""The passes through the two uppermost layers, against the plain steps of the CPU.

On the double of CuPy the kernels' own source runs, twice, with threads and blocks in either order;
see `fake_cuda`. The bounds are those of test_online.py: both sum the same terms in another order.
"""

import copy
from typing import Any

import fake_cuda
import fake_memory
import numpy as np
import pytest
from conftest import bound, make_backend
from test_cupy_online import HIDDEN, KINDS, samples, with_biases

from gpunn.backends.base import Backend
from gpunn.backends.fused import FusedModel, ThinTop
from gpunn.network import Dropout, Network
from gpunn.network.layers import Step
from gpunn.optimizers import SGD, Adam, Momentum, Optimizer

RATE, DROPOUT_RATE, KEY = 0.3, 0.4, 12345

RULES = [
    SGD(),
    SGD(weight_decay=0.1),
    Momentum(0.8),
    Momentum(0.8, nesterov=True, weight_decay=0.1),
    Adam(),
    Adam(weight_decay=0.1),
]


class Twins:
    """The same network on the CPU and on another device, and the same optimizer for each."""

    def __init__(self, sizes: tuple[int, int, int], device: Backend, **kinds: Any) -> None:
        self.cpu, self.gpu = (
            with_biases(Network(sizes, device=d, **kinds), np.random.default_rng(1))
            for d in (make_backend("cpu"), device)
        )

    def passes(self, n_rows: int, rule: Optimizer, dropout_rate: float = 0.0) -> ThinTop | None:
        """Return the device's way through the layers."""
        hidden, top = self.gpu.layers
        model = FusedModel(hidden, top, self.gpu.loss, textbook_rule=False)
        return self.gpu.backend.make_thin_top(n_rows, model, rule.rule, dropout_rate)


def learn(
    twins: Twins,
    rule: Optimizer,
    X: Any,
    T: Any,
    *,
    n_steps: int = 2,
    dropout_rate: float = 0.0,
    row_weights: Any = None,
) -> list[tuple[Any, Any, str]]:
    """Take steps in both ways; return what must agree, as (got, expected, name)."""
    cpu, device, dtype, n = twins.cpu, twins.gpu.backend, twins.cpu.dtype, len(X)
    twin_rule = copy.copy(rule)
    rule.prepare(cpu)
    twin_rule.prepare(twins.gpu)
    passes = twins.passes(n, rule, dropout_rate)
    assert passes is not None
    inputs, targets = cpu.as_samples(X, T)
    found: list[tuple[Any, Any, str]] = []
    one = np.ones(1)
    for step in range(1, n_steps + 1):
        # Only the layers above learn, so that both begin each step with the same sums.
        z = inputs @ cpu.layers[0].weights.T
        z_there, delta = device.asarray(z), np.empty_like(z)
        losses, delta_there = np.ones(n), device.empty(z.shape, dtype)
        losses_there = device.asarray(losses)
        numbers = [
            float(np.ravel(v)[0]) for v in twin_rule.step_numbers(RATE * one, n * one, step * one)
        ]
        there = device.asarray(np.array(numbers), dtype)
        weights = None if row_weights is None else np.asarray(row_weights, dtype)
        dropout = Dropout(dropout_rate, [KEY]) if dropout_rate else None
        rule.begin_step(RATE)
        first = cpu.layers[0]

        def update(index: int, layer: Any, delta: Any, below: Any) -> None:
            rule.update(index, layer, delta, below)

        cpu.learn_from(z, delta, Step(targets, update, losses, None, weights, dropout))
        # The plain way leaves the lower layer to its caller: here its biases alone learn.
        before = first.weights.copy()
        rule.update(0, first, delta, inputs)
        first.weights[...] = before
        key = device.asarray(np.array([KEY], np.uint32)) if dropout_rate else None
        passes.go_forward(
            z_there,
            device.asarray(targets),
            losses_there,
            None if weights is None else device.asarray(weights),
            there[:1],
            key,
        )
        passes.go_back(z_there, delta_there, key)
        passes.update(there, *twin_rule.memories(1), twin_rule.memories(0).biases)
        scaled = delta * numbers[0]
        found += [
            (device.to_host(delta_there), scaled, "delta"),
            (device.to_host(losses_there), losses, "losses"),
        ]
    own = cpu.parameters()
    found += [(values, own[name], name) for name, values in twins.gpu.parameters().items()]
    return found


def assert_agree(twins: Twins, found: list[tuple[Any, Any, str]], n_steps: int = 2) -> None:
    for got, expected, name in found:
        tolerance = bound(twins.cpu, n_steps) * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(("hidden", "pair"), KINDS, ids=str)
def test_every_kind_of_network(
    gpu: Backend, rng: np.random.Generator, hidden: str, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 9, 5, 3)
    for biases in (True, False):
        kinds = {"hidden_activation": hidden, "output_activation": pair[0], "loss": pair[1]}
        twins = Twins((5, 7, 3), gpu, biases=biases, dtype="float64", **kinds)
        assert_agree(twins, learn(twins, SGD(), X, T))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule(
    gpu: Backend, rng: np.random.Generator, rule: Optimizer, dtype: np.dtype[Any]
) -> None:
    X, T = samples(rng, 9, 5, 3)
    twins = Twins((5, 12, 3), gpu, dtype=dtype)
    assert_agree(twins, learn(twins, rule, X, T, n_steps=3), 3)


@pytest.mark.parametrize("n_rows", [1, 130])
@pytest.mark.parametrize("n_outputs", [1, 10, 11, 32])
@pytest.mark.parametrize("n_hidden", [1, 33, 520])
def test_every_size(
    gpu: Backend, rng: np.random.Generator, n_hidden: int, n_outputs: int, n_rows: int
) -> None:
    X, T = samples(rng, n_rows, 2, n_outputs)
    twins = Twins((2, n_hidden, n_outputs), gpu)
    assert_agree(twins, learn(twins, Momentum(), X, T, n_steps=1), 1)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_dropout_and_weights(gpu: Backend, rng: np.random.Generator, hidden: str) -> None:
    X, T = samples(rng, 9, 5, 3)
    weights = rng.uniform(0, 2, 9)
    twins = Twins((5, 40, 3), gpu, dtype="float64", hidden_activation=hidden)
    found = learn(twins, SGD(), X, T, dropout_rate=DROPOUT_RATE, row_weights=weights)
    assert_agree(twins, found)


def test_networks_that_do_not_suit_have_no_passes(
    double: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sizes, kinds in (
        ((4, 5, 33), {}),
        ((4, 5, 3), {"hidden_activation": "softmax"}),
    ):
        assert Twins(sizes, double, **kinds).passes(4, SGD()) is None  # type: ignore[arg-type]
    wide = Twins((1, 1000, 10), double)
    assert wide.passes(4, SGD()) is not None
    module = fake_cuda.load_cupy_backend().CupyThinTop.make.__globals__
    monkeypatch.setitem(module, "MOST_PART_BYTES", 40_000)
    assert wide.passes(4, SGD()) is None


@pytest.mark.parametrize("sizes", [(2, 3000, 10), (2, 7, 1), (2, 500, 32)], ids=str)
def test_memory_is_what_was_foretold(double: Backend, sizes: tuple[int, int, int]) -> None:
    module = fake_cuda.load_cupy_backend().CupyThinTop.make.__globals__
    twins = Twins(sizes, double)
    for n_rows in (1, 100, 700):
        passes = None
        before = fake_memory.used_bytes(0)
        passes = twins.passes(n_rows, SGD())
        taken = fake_memory.used_bytes(0) - before
        assert passes is not None
        assert taken == module["top_bytes"](n_rows, *sizes[1:], (4, 4), 6)


def test_how_work_is_shared_out() -> None:
    """What was measured to be good on an H100, with its 132 multiprocessors."""
    choose = fake_cuda.load_cupy_backend().CupyThinTop.make.__globals__["choose_shape"]
    narrow, wide = (choose(n, h, 10, (4, 4), 132) for n, h in ((256, 2048), (1024, 65_536)))
    assert (narrow.rows, narrow.back_rows) == (4, 8)
    assert (wide.rows, wide.tile_units, wide.forward_pack) == (8, 4096, 2)
    assert (wide.back_rows, wide.back_pack) == (256, 4)
    for n_rows in (1, 10, 1000):
        for n_hidden in (1, 7, 1000, 100_002):
            for n_outputs in (1, 10, 32):
                for itemsize in (4, 8):
                    shape = choose(n_rows, n_hidden, n_outputs, (itemsize, itemsize), 132)
                    assert n_hidden % shape.forward_pack == n_hidden % shape.back_pack == 0
                    assert shape.forward_pack * itemsize <= 16
                    assert shape.rows * n_outputs <= 80
                    assert shape.back_rows * n_outputs * itemsize <= 32 * 1024
