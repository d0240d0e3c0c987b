"""Optimizers and schedules against their formulas, in plain NumPy and in PyTorch."""

import math
import tracemalloc

import numpy as np
import pytest
from conftest import make_backend
from threadpoolctl import threadpool_limits

from gpunn import SGD, Adam, Momentum, Network, fit
from gpunn.backends import numpy_pieces
from gpunn.errors import ParameterError
from gpunn.optimizers import (
    OPTIMIZERS,
    Optimizer,
    OptimizerRecord,
    Schedule,
    constant,
    cosine,
    default_learning_rate,
    exponential_decay,
    get_optimizer,
    inverse_scaling,
    step_decay,
)

pytestmark = pytest.mark.usefixtures("several_threads")

STEPS, RATE = 6, 0.05


def fails(function, *arguments, **options):
    with pytest.raises(ParameterError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def small_network(backend):
    return Network(
        [4, 6, 5, 3],
        hidden_activation="tanh",
        output_activation="softmax",
        loss="cross_entropy",
        initializer="standard_normal",
        dtype="float64",
        device=backend,
        seed=1,
    )


@pytest.fixture
def small_blocks(monkeypatch):
    """Layers that the CPU changes in blocks of rows, as it does with wide ones."""
    monkeypatch.setattr(numpy_pieces, "BLOCK_BYTES", 80)
    monkeypatch.setattr(numpy_pieces, "FEWEST_BLOCKS", 2)
    numpy_pieces.blocks_of_rows.cache_clear()
    assert len(numpy_pieces.blocks_of_rows(6, 6 * 4 * 8)) == 2
    assert len(numpy_pieces.blocks_of_rows(5, 5 * 6 * 8)) == 3
    yield
    numpy_pieces.blocks_of_rows.cache_clear()


def batches():
    rng = np.random.default_rng(0)
    for n in (8, 8, 3, 8, 1, 8)[:STEPS]:
        yield rng.normal(size=(n, 4)), np.eye(3)[rng.integers(0, 3, n)]


def learn(backend, optimizer, rates=(RATE,) * STEPS):
    """Return the parameters after some steps, and the gradients that each step was made from."""
    network, gradients = small_network(backend), []
    optimizer.prepare(network)
    for (X, T), rate in zip(batches(), rates, strict=True):
        gradients.append(network.loss_and_gradients(X, T)[1])
        inputs, targets = network.as_samples(X, T)
        optimizer.begin_step(rate)
        network.step(inputs, targets, optimizer.update, backend.zeros((len(X),), np.float64))
    return network.parameters(), gradients


def sgd(w, g, state, t, rate, decay):
    return w - rate * (g + decay * w)


def momentum(w, g, state, t, rate, decay):
    state["v"] = 0.8 * state.get("v", 0) - rate * (g + decay * w)
    return w + state["v"]


def nesterov(w, g, state, t, rate, decay):
    g = g + decay * w
    state["v"] = 0.8 * state.get("v", 0) - rate * g
    return w + 0.8 * state["v"] - rate * g


def adam(w, g, state, t, rate, decay):
    g = g + decay * w
    state["m"] = 0.85 * state.get("m", 0) + 0.15 * g
    state["v"] = 0.99 * state.get("v", 0) + 0.01 * g**2
    m, v = state["m"] / (1 - 0.85**t), state["v"] / (1 - 0.99**t)
    return w - rate * m / (np.sqrt(v) + 1e-3)


FORMULAS = {
    "sgd": (sgd, lambda decay: SGD(decay)),
    "momentum": (momentum, lambda decay: Momentum(0.8, weight_decay=decay)),
    "nesterov": (nesterov, lambda decay: Momentum(0.8, nesterov=True, weight_decay=decay)),
    "adam": (adam, lambda decay: Adam(0.85, 0.99, 1e-3, decay)),
}


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("name", FORMULAS)
def test_steps_are_those_of_the_formula_and_biases_do_not_decay(backend, name, decay):
    formula, make = FORMULAS[name]
    rates = [RATE, 2 * RATE, RATE, RATE / 2, RATE, RATE]
    found, gradients = learn(backend, make(decay), rates)
    for key, w in small_network(backend).parameters().items():
        state, own_decay = {}, decay if key.endswith("weight") else 0.0
        for t, (rate, g) in enumerate(zip(rates, gradients, strict=True), start=1):
            w = formula(w, g[key], state, t, rate, own_decay)
        np.testing.assert_allclose(found[key], w, rtol=0, atol=1e-13)


@pytest.mark.parametrize("device", ["cpu", "fast"])
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.usefixtures("small_blocks")
def test_steps_in_blocks_of_rows_are_those_of_the_formula(name, device):
    backend = make_backend(device)
    with threadpool_limits(1, user_api="blas"):
        assert (
            len(list(backend.update_blocks(np.ones((6, 4)), np.ones((1, 6)), np.ones((1, 4))))) == 2
        )
        test_steps_are_those_of_the_formula_and_biases_do_not_decay(backend, name, 0.3)


@pytest.mark.parametrize("name", FORMULAS)
def test_steps_are_those_of_pytorch(backend, name):
    torch = pytest.importorskip("torch")
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, RATE),
        "momentum": lambda p: torch.optim.SGD(p, RATE, momentum=0.8),
        "nesterov": lambda p: torch.optim.SGD(p, RATE, momentum=0.8, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, RATE, (0.85, 0.99), 1e-3),
    }
    p = {
        key: torch.tensor(value, requires_grad=True)
        for key, value in small_network(backend).parameters().items()
    }
    theirs = makers[name](p.values())
    for X, T in batches():
        a = torch.tensor(X)
        for i in range(3):
            z = a @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"]
            a = torch.tanh(z)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(z, torch.tensor(T)).backward()
        theirs.step()
    found, _ = learn(backend, FORMULAS[name][1](0.0))
    for key, value in found.items():
        np.testing.assert_allclose(value, p[key].detach().numpy(), rtol=0, atol=1e-12)


def test_an_optimizer_forgets_the_past_for_a_new_training(backend):
    for optimizer in (Momentum(), Adam()):
        first, again = learn(backend, optimizer)[0], learn(backend, optimizer)[0]
        for key, value in first.items():
            np.testing.assert_array_equal(again[key], value)


def test_momentum_of_zero_is_plain_descent(backend):
    plain, without = learn(backend, SGD())[0], learn(backend, Momentum(0.0))[0]
    for key, value in plain.items():
        np.testing.assert_allclose(without[key], value, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("optimizer", "memories"),
    [(SGD(0.01), 0), (Momentum(weight_decay=0.01), 1), (Momentum(nesterov=True), 1), (Adam(), 3)],
    ids=repr,
)
def test_only_adam_needs_memory_for_a_gradient(optimizer, memories):
    network = Network([1000, 800, 10], device="cpu")
    inputs, targets = network.as_samples(np.ones((4, 1000)), np.zeros((4, 10)))
    row_losses = np.zeros(4)
    tracemalloc.start()
    try:
        optimizer.prepare(network)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < (memories + 0.1) * network.layers[0].weights.nbytes

    def peak_of_a_step():
        optimizer.begin_step(0.1)
        tracemalloc.start()
        try:
            network.step(inputs, targets, optimizer.update, row_losses)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Each thread has scratch memory of its own.
    with threadpool_limits(1):
        assert peak_of_a_step() < network.layers[0].weights.nbytes / 2
        assert peak_of_a_step() < 50_000


# By name.


def test_optimizers_come_by_name():
    assert get_optimizer("sgd", weight_decay=0.1) == SGD(0.1)
    assert get_optimizer("momentum", momentum=0.5) == Momentum(0.5)
    assert get_optimizer("nesterov", momentum=0.5) == Momentum(0.5, nesterov=True)
    assert get_optimizer("adam") == Adam()
    assert "sgd, momentum, nesterov, adam" in fails(get_optimizer, "rmsprop")
    assert "unknown optimizer" in fails(get_optimizer, None)


def test_step_sizes_to_begin_with():
    rates = {"sgd": 0.1, "momentum": 0.01, "nesterov": 0.01, "adam": 0.001}
    assert {name: default_learning_rate(name) for name in OPTIMIZERS} == rates
    for name, rate in rates.items():
        assert default_learning_rate(get_optimizer(name)) == rate
    assert "unknown optimizer" in fails(default_learning_rate, "rmsprop")


class OwnDescent(SGD):
    """An optimizer of somebody's own, made of what a device can do already."""

    default_learning_rate = None


def test_one_entry_is_all_that_a_new_optimizer_needs(monkeypatch):
    record = OptimizerRecord(lambda momentum, weight_decay: OwnDescent(weight_decay), 0.5)
    monkeypatch.setitem(OPTIMIZERS, "mine", record)
    assert isinstance(get_optimizer("mine", weight_decay=0.1), OwnDescent)
    assert default_learning_rate("mine") == 0.5
    options = {"optimizer": "mine", "epochs": 1, "batch_size": 4, "learning_rate": 0.5}
    fit(small_network("cpu"), np.ones((4, 4)), [0, 1, 2, 0], **options)
    assert "expected a learning_rate" in fails(default_learning_rate, OwnDescent())


def test_an_optimizer_without_a_step_size_of_its_own_says_so():
    assert Optimizer.default_learning_rate is None


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (SGD, {"weight_decay": -1e-9}),
        (SGD, {"weight_decay": math.nan}),
        (SGD, {"weight_decay": "much"}),
        (SGD, {"weight_decay": True}),
        (Momentum, {"momentum": 1.0}),
        (Momentum, {"momentum": -0.1}),
        (Momentum, {"weight_decay": math.inf}),
        (Adam, {"beta1": 1.0}),
        (Adam, {"beta2": -0.5}),
        (Adam, {"epsilon": -1.0}),
        (Adam, {"weight_decay": None}),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(make, options):
    assert next(iter(options)) in fails(make, **options)


# Schedules.


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (constant(0.5), {0: 0.5, 7.3: 0.5}),
        (step_decay(8.0, every=2, factor=0.5), {0: 8, 1.99: 8, 2: 4, 5.5: 2, 6: 1}),
        (step_decay(1.0, every=0.5), {0.4: 1, 0.5: 0.1, 1: 0.01}),
        (exponential_decay(2.0, factor=0.25), {0: 2, 0.5: 1, 1: 0.5, 2: 0.125}),
        (inverse_scaling(6.0), {0: 6, 3: 3, 8: 2}),
        (inverse_scaling(6.0, power=1), {1: 3, 2: 2}),
        (cosine(4.0, epochs=10), {0: 4, 5: 2, 10: 0, 12: 0, 10 / 3: 3}),
        (cosine(4.0, epochs=10, minimum=2.0), {0: 4, 5: 3, 10: 2, 99: 2}),
        (constant(0.5, warmup=2), {0: 0, 0.5: 0.125, 1: 0.25, 2: 0.5, 3: 0.5}),
        (exponential_decay(1.0, factor=0.25, warmup=2), {1: 0.125, 2: 0.0625}),
        (cosine(np.float32(4), epochs=np.int64(10)), {5: 2}),
        (Schedule(3.0, lambda t: 1 / (1 + t)), {2: 1}),
    ],
    ids=repr,
)
def test_schedules_have_the_values_that_their_formula_gives(schedule, values):
    for t, expected in values.items():
        assert schedule(t) == pytest.approx(expected, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize(
    ("make", "options", "named"),
    [
        (constant, {"learning_rate": 0}, "learning_rate"),
        (constant, {"learning_rate": -1}, "learning_rate"),
        (constant, {"learning_rate": math.nan}, "learning_rate"),
        (constant, {"learning_rate": math.inf}, "learning_rate"),
        (constant, {"learning_rate": "0.1"}, "learning_rate"),
        (constant, {"learning_rate": 0.1, "warmup": -1}, "warmup"),
        (step_decay, {"learning_rate": 0.1, "every": 0}, "every"),
        (step_decay, {"learning_rate": 0.1, "every": math.nan}, "every"),
        (step_decay, {"learning_rate": 0.1, "every": None}, "every"),
        (step_decay, {"learning_rate": 0.1, "every": 1, "factor": -0.5}, "factor"),
        (exponential_decay, {"learning_rate": 0.1, "factor": -0.5}, "factor"),
        (inverse_scaling, {"learning_rate": 0.1, "power": -1}, "power"),
        (cosine, {"learning_rate": 0.1, "epochs": 0}, "epochs"),
        (cosine, {"learning_rate": 0.1, "epochs": "5"}, "epochs"),
        (cosine, {"learning_rate": 0, "epochs": 5}, "learning_rate"),
        (cosine, {"learning_rate": None, "epochs": 5}, "learning_rate"),
        (cosine, {"learning_rate": 0.1, "epochs": 5, "minimum": -1}, "minimum"),
    ],
)
def test_schedules_refuse_what_makes_no_sense(make, options, named):
    assert named in fails(make, **options)
