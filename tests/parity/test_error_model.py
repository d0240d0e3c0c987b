"""The error model: bounds by hand, bounds that hold, bounds that are not idle."""

import dataclasses

import numpy as np
import pytest
from conftest import assert_within

import gpunn
from gpunn import Network
from gpunn.activations import IDENTITY, RELU, SIGMOID, SOFTMAX
from gpunn.backends.base import AdamStep
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.losses import LOSSES
from gpunn.network.layers import Dropout
from gpunn.parity import standard_cases
from gpunn.parity.bounded import Arithmetic, Bounded
from gpunn.parity.error_bounds import BoundBackend
from gpunn.parity.random_rounding import RandomRoundingBackend

UNIT = 2.0**-24
FLOAT32 = Arithmetic.of("float32")


def bounded(values, errors=0.0):
    values = np.array(values, np.float64)
    return Bounded(values, np.broadcast_to(errors, values.shape).astype(np.float64), "float32")


@pytest.fixture
def bounds():
    return BoundBackend(FLOAT32)


def test_a_devices_arithmetic():
    assert Arithmetic.of("float32") == (2.0**-24, 0.0, 0.0)
    assert Arithmetic.of("float64") == (2.0**-53, 0.0, 0.0)
    assert Arithmetic.of("float32", "tf32") == (2.0**-24, 2.0**-10, 0.0)
    assert Arithmetic.of("float32", "bf16") == (2.0**-24, 2.0**-7, 2.0**-8)
    both = Arithmetic.of("float32", "tf32").beside(Arithmetic.of("float32"))
    assert both == (2.0**-23, 2.0**-10, 0.0)


def test_a_product_by_hand(bounds):
    a, b = bounded([[1.0, -2.0]]), bounded([[3.0, 4.0]])
    out = bounded([[10.0]])
    bounds.gemm(a, b, out, transpose_b=True, alpha=-0.5, beta=2.0)
    # Terms 3 and -8, half of 11 in size, and twice 10 that was there; 2 terms and 2 roundings.
    np.testing.assert_allclose(out.values, [[2.5 + 20]])
    np.testing.assert_allclose(out.errors, [[4 * UNIT * (5.5 + 20)]], rtol=1e-12)


def test_errors_go_through_a_product_by_hand(bounds):
    a, b = bounded([[1.0, -2.0]], 0.25), bounded([[3.0], [4.0]], [[0.5], [0.125]])
    out = bounds.empty((1, 1), "float32")
    bounds.gemm(a, b, out)
    # |a| e_b = 0.5 + 0.25, e_a |b| = 0.25 * 7, e_a e_b = 0.25 * 0.625, and the rounding.
    expected = 0.75 + 1.75 + 0.15625 + 4 * UNIT * 11
    np.testing.assert_allclose(out.errors, [[expected]], rtol=1e-12)


def test_long_sums_round_as_the_root_of_their_length(bounds):
    out, ones = bounds.empty((1, 1), "float32"), bounded(np.ones((1, 10_000)))
    bounds.gemm(ones, ones, out, transpose_b=True)
    np.testing.assert_allclose(out.errors, [[(8 * 100 + 2) * UNIT * 10_000]])


@pytest.mark.parametrize(("precision", "roundoff"), [("tf32", 2.0**-10), ("bf16", 2.0**-7)])
def test_both_factors_of_a_product_are_rounded(precision, roundoff):
    bounds = BoundBackend(Arithmetic.of("float32", precision))
    out = bounds.empty((1, 1), "float32")
    bounds.gemm(bounded([[2.0]]), bounded([[3.0]]), out)
    np.testing.assert_allclose(out.errors, [[6 * (2 * roundoff + 3 * UNIT)]], rtol=1e-12)


def test_what_is_kept_in_bfloat16_is_rounded_once_more_wherever_it_goes():
    bounds = BoundBackend(Arithmetic.of("float32", "bf16"))
    kept_in, u = bounds.work_dtype("float32"), 2.0**-8
    assert kept_in == np.uint16
    a, b, out = (bounds.empty((1, 1), kept_in) for _ in "abc")
    for number, array in ((2.0, a), (3.0, b)):
        bounds.copy_into(bounded([[number]]), array)
        np.testing.assert_allclose(array.errors, [[number * u]])
    # Nothing more happens to the factors; 6 is rounded when it is written.
    bounds.gemm(a, b, out)
    own = 2 * (3 * u) + 3 * (2 * u) + (2 * u) * (3 * u) + 6 * 3 * UNIT
    np.testing.assert_allclose(out.errors, [[own + 6 * u]], rtol=1e-12)
    wide = bounds.empty((1, 1), "float32")
    bounds.gemm(a, b, wide)
    np.testing.assert_allclose(wide.errors, [[own]], rtol=1e-12)
    assert BoundBackend(FLOAT32).work_dtype("float32") == np.float32


def test_squares_by_hand(bounds):
    out = bounded([1.0])
    bounds.add_squares(bounded([3.0, -4.0], [0.5, 0.25]), out, alpha=0.5)
    np.testing.assert_allclose(out.values, [1 + 0.5 * 25])
    # 2 |a| e + e^2 = 3.25 + 2.0625; 2 terms and 2 roundings, and 2 more for alpha.
    expected = 0.5 * (3.25 + 2.0625 + 4 * UNIT * 25) + 2 * UNIT * 0.5 * 25
    np.testing.assert_allclose(out.errors, [expected], rtol=1e-12)


def test_units_that_sit_out_have_no_error_left(bounds):
    a = bounded(np.ones((4, 50)), 0.25)
    bounds.dropout(a, dropout_rate=0.5, scale=2.0, key=7)
    same = np.ones((4, 50))
    NumpyBackend().dropout(same, dropout_rate=0.5, scale=2.0, key=7)
    np.testing.assert_array_equal(a.values, same)
    np.testing.assert_allclose(a.errors, np.where(same == 0, 0, 0.5 + 4 * UNIT), rtol=1e-12)
    assert 0 < (same == 0).sum() < 200


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_a_samples_weight_multiplies_its_loss_its_delta_and_their_bounds(bounds, loss):
    activation = SOFTMAX if loss == "cross_entropy" else SIGMOID
    weights = bounded([3.0, 1.0])
    plain, weighed = (bounded([[0.5, -1.0], [0.5, -1.0]], 1e-3) for _ in range(2))
    targets = bounded([[1.0, 0.0], [1.0, 0.0]])
    losses = [bounds.zeros((2,), "float64") for _ in range(2)]
    bounds.loss_backward(plain, None, targets, activation, LOSSES[loss], losses[0])
    bounds.loss_backward(weighed, None, targets, activation, LOSSES[loss], losses[1], weights)
    for got, one in ((weighed, plain), (losses[1], losses[0])):
        np.testing.assert_allclose(got.values[0], 3 * one.values[0])
        np.testing.assert_allclose(got.values[1], one.values[1])
        np.testing.assert_allclose(got.errors[0], 3 * one.errors[0], rtol=1e-2)
        np.testing.assert_allclose(got.errors[1], one.errors[1], rtol=1e-2)


@pytest.mark.parametrize("how", ["weights", "dropout"])
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_weighed_steps_and_those_with_dropout_stay_within_their_bounds(rng, how, activation):
    X, T = rng.uniform(size=(20, 6)), np.eye(3)[np.arange(20) % 3]
    results = []
    for backend, dtype in (
        (BoundBackend(FLOAT32), "float32"),
        (NumpyBackend(), "float32"),
        (NumpyBackend(), "float64"),
    ):
        network = Network(
            [6, 8, 3], hidden_activation=activation, dtype=dtype, device=backend, seed=1
        )
        if dtype == "float64":
            network.load_parameters(results[1].parameters())
        results.append(network)
    bounds, single, double = results
    for network in results:
        backend = network.backend
        inputs, targets = network.as_samples(X, T)
        optimizer = gpunn.SGD()
        optimizer.prepare(network)
        weights = np.linspace(0.5, 2, 20).astype(network.dtype)
        for step in range(3):
            optimizer.begin_step(0.5)
            network.step(
                inputs,
                targets,
                optimizer.update,
                backend.zeros((20,), np.float64),
                row_weights=backend.asarray(weights) if how == "weights" else None,
                dropout=Dropout(0.3, [step]) if how == "dropout" else None,
            )
    for name, bound in bounds.parameters().items():
        assert_within(single.parameters()[name], double.parameters()[name], bound)


def test_nothing_comes_from_nothing(bounds):
    out = bounds.empty((2, 2), "float32")
    bounds.gemm(bounded(np.zeros((2, 3))), bounded(np.ones((3, 2))), out)
    assert not out.errors.any()
    bounds.activate(out, None, RELU)
    assert not out.errors.any()


def test_column_sums_by_hand(bounds):
    out = bounded([1.0, 1.0])
    bounds.sum_rows(bounded([[1.0, 2.0], [-3.0, 4.0]], 0.5), out, alpha=2.0, beta=-1.0)
    np.testing.assert_allclose(out.values, [-5.0, 11.0])
    np.testing.assert_allclose(
        out.errors, [2 * (1.0 + 4 * UNIT * 4) + 4 * UNIT, 2 * (1.0 + 4 * UNIT * 6) + 4 * UNIT]
    )


def test_a_sigmoid_takes_a_quarter_of_an_error_at_most(bounds):
    z = bounded([[0.0, 8.0]], 1e-3)
    bounds.activate(z, None, SIGMOID)
    a = 1 / (1 + np.exp(-8.0))
    own = 12 * UNIT * z.values
    np.testing.assert_allclose(z.errors - own, [[0.25e-3, a * (1 - a) * 1e-3]], rtol=0.01)


def test_a_kink_that_an_error_reaches_counts_in_full(bounds):
    z = bounded([[1e-4, -1e-4, 1.0, -1.0]], 1e-3)
    bounds.activate(z, None, RELU)
    # Up to the kink, what may be above it, the error itself, and nothing.
    np.testing.assert_allclose(z.errors, [[1e-3, 0.9e-3, 1e-3, 0.0]], rtol=1e-3)
    delta = bounded([[5.0, 5.0, 5.0, 5.0]])
    bounds.activation_backward(delta, z, RELU)
    np.testing.assert_allclose(delta.errors, [[5.0, 5.0, 0.0, 0.0]], atol=1e-5)


def test_a_sign_that_an_error_reaches_may_be_the_other_one(bounds):
    z, targets = bounded([[0.5001, 0.9]], 1e-3), bounded([[0.5, 0.5]])
    losses = bounds.zeros((1,), "float64")
    bounds.loss_backward(z, None, targets, IDENTITY, LOSSES["absolute_error"], losses)
    np.testing.assert_allclose(z.values, [[1.0, 1.0]])
    np.testing.assert_allclose(z.errors, [[2.0, 0.0]], atol=1e-5)
    np.testing.assert_allclose(losses.errors, [2e-3], rtol=0.01)


def test_softmax_lies_between_its_extremes(bounds):
    z = bounded([[0.0, 1.0, -2.0]], 0.3)
    bounds.activate(z, None, SOFTMAX)
    rng = np.random.default_rng(0)
    moved = np.array([0.0, 1.0, -2.0]) + rng.choice([-0.3, 0.3], (200, 3))
    a = np.exp(moved) / np.exp(moved).sum(axis=1, keepdims=True)
    reached = np.abs(a - z.values).max(axis=0)
    assert (reached <= z.errors[0]).all()
    np.testing.assert_allclose(reached, z.errors[0], rtol=1e-5)


def test_softmax_of_numbers_that_may_be_anything_may_be_anything(bounds):
    z = bounded([[0.0, 1.0]], 1e6)
    bounds.activate(z, None, SOFTMAX)
    assert (z.errors >= np.maximum(z.values, 1 - z.values) * (1 - 1e-12)).all()


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.5, 0.6)])
def test_adams_ratio_never_exceeds_its_limit(beta1, beta2):
    limit = (1 - beta1**2 / beta2) ** -0.5
    rng = np.random.default_rng(1)
    m, v, largest = np.zeros(1000), np.zeros(1000), 0.0
    for _ in range(200):
        g = rng.standard_normal(1000) * rng.choice([1e-3, 1.0, 1e3], 1000)
        m, v = beta1 * m + g, beta2 * v + g**2
        largest = max(largest, (np.abs(m) / np.sqrt(v)).max())
    assert 0.5 * limit < largest <= limit


def test_adam_does_not_know_the_sign_of_a_gradient_within_its_error(bounds):
    parameter, first, second = (bounds.zeros((2,), "float32") for _ in range(3))
    gradient = bounded([1e-9, 1e-3], 1e-6)
    step = AdamStep(0.01, beta1=0.9, beta2=0.999, epsilon=1e-12, weight_decay=0.0)
    bounds.adam_update(parameter, gradient, first, second, step)
    np.testing.assert_allclose(parameter.values, [-0.01, -0.01], rtol=0.01)
    assert 0.02 < parameter.errors[0] < 0.05
    # |g| / |g| does not depend on g: here the bound, which does not know that, is first order.
    assert parameter.errors[1] < 0.01 * 3e-3


CASES = [
    dataclasses.replace(case, learning_rate=case.learning_rate, batch_size=min(case.batch_size, 5))
    for case in standard_cases(6, 4)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_random_errors_stay_within_the_bounds(case):
    """Each draw is within its operation's bound, so what comes of all must be within theirs."""
    rng = np.random.default_rng(3)
    X, T = rng.uniform(size=(15, 6)), np.eye(4)[rng.integers(0, 4, 15)]
    case = dataclasses.replace(case, layer_sizes=(6, *[7] * (len(case.layer_sizes) - 2), 4))
    arithmetic = Arithmetic(1e-6, 1e-5)

    def results(backend, dtype="float32"):
        network = case.make_network(backend, dtype)
        inputs = X.astype(np.float32)
        loss, gradients = network.loss_and_gradients(inputs, T)
        history = gpunn.fit(
            network,
            inputs,
            T,
            epochs=1,
            batch_size=case.batch_size,
            optimizer=case.optimizer,
            learning_rate=case.learning_rate,
        )
        return {
            "loss": np.array([loss, *history.train_loss]),
            "outputs": network.predict(inputs),
            **{f"gradient of {name}": value for name, value in gradients.items()},
            **network.parameters(),
        }

    exact = results(NumpyBackend(), "float64")
    allowed = results(BoundBackend(arithmetic))
    moved = 0.0
    for seed in range(3):
        for name, values in results(RandomRoundingBackend(arithmetic, seed)).items():
            assert_within(values, exact[name], allowed[name] + 1e-12)
            moved = max(moved, np.abs(values - exact[name]).max())
    assert moved > 1e-7


def test_bounds_are_those_of_the_numbers_that_float64_gives():
    network = Network([5, 4, 3], hidden_activation="tanh", device=BoundBackend(FLOAT32))
    twin = Network([5, 4, 3], hidden_activation="tanh", dtype="float64", device="cpu")
    twin.load_parameters(
        {name: array.values for name, array in network.device_parameters().items()}
    )
    X, y = np.random.default_rng(0).uniform(size=(9, 5)).astype("float32"), np.arange(9) % 3
    for each in (network, twin):
        gpunn.fit(each, X, y, epochs=2, batch_size=4, learning_rate=0.5, optimizer="nesterov")
    for name, array in network.device_parameters().items():
        np.testing.assert_allclose(array.values, twin.parameters()[name], rtol=1e-12)
        assert (array.errors > 0).all()
        assert (network.parameters()[name] == array.errors).all()


def test_half_the_rounding_is_half_the_bound():
    X = np.random.default_rng(0).uniform(size=(9, 5)).astype("float32")
    one, two = (
        Network([5, 4, 3], device=BoundBackend(Arithmetic(unit))).predict(X)
        for unit in (UNIT, 2 * UNIT)
    )
    np.testing.assert_allclose(two, 2 * one, rtol=1e-4)


def test_random_rounding_is_centred_and_of_the_size_of_the_bound():
    a, b = bounded(np.ones((1, 4))), bounded(np.ones((4, 20_000)))
    backend = RandomRoundingBackend(FLOAT32, 0)
    out = backend.empty((1, 20_000), "float32")
    backend.gemm(a, b, out)
    off, bound = out.values - 4, 6 * UNIT * 4
    assert np.abs(off).max() <= bound
    assert np.abs(off.mean()) < 4 * bound / np.sqrt(3 * 20_000)
    np.testing.assert_allclose(off.std(), bound / np.sqrt(3), rtol=0.03)
