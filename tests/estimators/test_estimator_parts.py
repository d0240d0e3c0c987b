"""What the estimators need beneath them: errors, weights of samples, dropout, sparse samples."""

import fake_cuda
import numpy as np
import pytest
import scipy.sparse
from conftest import assert_close_product, assert_within, make_backend
from sklearn.neural_network._base import LOSS_FUNCTIONS

import gpunn
from gpunn.activations import EXP, get_activation
from gpunn.backends.sparse_rows import SparseRows
from gpunn.errors import ParameterError, ShapeError
from gpunn.losses import get_loss
from gpunn.network import Network
from gpunn.network.layers import Dropout
from gpunn.optimizers import SGD, Adam, AdamEpsilonHat, Momentum

LOSSES = {"log_loss": "softmax", "binary_log_loss": "sigmoid", "poisson": "exp"}


def some_targets(loss, rng, shape):
    if loss == "log_loss":
        return np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
    return rng.integers(0, 2 if loss == "binary_log_loss" else 5, shape).astype(float)


# Error functions.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_errors_and_deltas_are_scikit_learns(backend, dtype, rng, loss, biased, weighted):
    shape = (33, 5)
    z = rng.normal(0, 3, shape).astype(dtype)
    targets = some_targets(loss, rng, shape).astype(dtype)
    bias = rng.normal(0, 1, 5).astype(dtype) if biased else None
    weights = rng.uniform(0, 2, 33).astype(dtype) if weighted else None
    activation, record = get_activation(LOSSES[loss]), get_loss(loss, LOSSES[loss])
    device_z, device_bias, device_targets, device_weights = (
        None if a is None else backend.asarray(a.copy()) for a in (z, bias, targets, weights)
    )
    row_losses = backend.asarray(np.full(33, 0.25))
    backend.loss_backward(
        device_z, device_bias, device_targets, activation, record, row_losses, device_weights
    )

    exact = z.astype(np.float64) + (0 if bias is None else bias)
    a = {
        "softmax": lambda: np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True),
        "sigmoid": lambda: 1 / (1 + np.exp(-exact)),
        "exp": lambda: np.exp(exact),
    }[LOSSES[loss]]()
    t = targets.astype(np.float64)
    factors = np.ones(33) if weights is None else weights.astype(np.float64)
    errors = [LOSS_FUNCTIONS[loss](t[i : i + 1], a[i : i + 1]) for i in range(33)]
    eps = np.finfo(dtype).eps
    # z + bias is rounded; its size, below 20, is how much exp makes of that, in each of few steps.
    bound = 100 * eps * factors * (1 + np.abs(exact).max(axis=1) + a.sum(axis=1) + t.sum(axis=1))
    assert_within(backend.to_host(row_losses), 0.25 + factors * errors, bound + eps)
    bound = 100 * eps * factors[:, np.newaxis] * (1 + a) * (1 + np.abs(exact))
    assert_within(backend.to_host(device_z), factors[:, np.newaxis] * (a - t), bound)


@pytest.mark.parametrize("loss", ["log_loss", "binary_log_loss"])
def test_no_probability_counts_as_nearer_to_0_or_1_than_epsilon(backend, dtype, loss):
    z = np.array([[1000.0, -1000.0], [-1000.0, 1000.0], [np.nan, 0.0]], dtype)
    targets = np.array([[1.0, 0.0]] * 3, dtype)
    row_losses = backend.zeros((3,), np.float64)
    record = get_loss(loss, LOSSES[loss])
    arrays = backend.asarray(z), None, backend.asarray(targets), get_activation(LOSSES[loss])
    backend.loss_backward(*arrays, record, row_losses)
    eps = float(np.finfo(dtype).eps)
    each = 2 if loss == "binary_log_loss" else 1
    expected = [each * eps, -each * np.log(eps), np.nan]
    np.testing.assert_allclose(backend.to_host(row_losses), expected, rtol=4 * eps)


def test_the_exponential_and_its_slope(backend, dtype, rng):
    z = rng.normal(0, 1, (7, 3)).astype(dtype)
    a, delta = backend.asarray(z.copy()), backend.asarray(np.ones_like(z))
    backend.activate(a, None, EXP)
    backend.activation_backward(delta, a, EXP)
    eps = np.finfo(dtype).eps
    assert_within(backend.to_host(a), np.exp(z.astype(np.float64)), 4 * eps * np.exp(z))
    np.testing.assert_array_equal(backend.to_host(delta), backend.to_host(a))
    np.testing.assert_allclose(EXP.inverse(np.exp(z)), z, rtol=10 * eps, atol=10 * eps)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_numerical_ones(backend, rng, loss):
    network = Network(
        [3, 4, 3],
        output_activation=LOSSES[loss],
        loss=loss,
        dtype="float64",
        device=backend,
        hidden_activation="tanh",
    )
    inputs = rng.normal(0, 1, (6, 3))
    differences = gpunn.check_gradients(network, inputs, some_targets(loss, rng, (6, 3)))
    assert max(differences.values()) < 1e-6


@pytest.mark.parametrize("shape", [(1,), (64,), (65,), (300, 41)])
def test_sums_of_squares(backend, dtype, rng, shape):
    a = rng.normal(0, 1, shape).astype(dtype)
    out = backend.asarray(np.array([2.0]))
    backend.add_squares(backend.asarray(a), out, alpha=0.5)
    expected = np.sum(a.astype(np.float64) ** 2)
    bound = a.size * np.finfo(dtype).eps * expected
    assert_within(backend.to_host(out), [2 + 0.5 * expected], bound)


# Dropout.


def dropped(backend, a, rate, key, scale=1.0):
    array = backend.asarray(a.copy())
    backend.dropout(array, dropout_rate=rate, scale=scale, key=key)
    return backend.to_host(array)


def test_what_is_dropped_depends_on_the_key_alone(backend, dtype, rng):
    a = rng.normal(0, 1, (170, 400)).astype(dtype)
    first = dropped(backend, a, 0.3, 7, scale=2.0)
    np.testing.assert_array_equal(first, dropped(make_backend("cpu"), a, 0.3, 7, scale=2.0))
    assert set(np.unique(first[first != 2 * a])) == {0.0}
    other = dropped(backend, a, 0.3, 8)
    # 0.3 of 68,000, within five standard deviations; independent keys agree in 0.58 of them.
    n = a.size
    assert abs((first == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / n)
    assert abs(((first == 0) == (other == 0)).mean() - 0.58) < 5 * np.sqrt(0.58 * 0.42 / n)
    # Neither samples nor units are singled out.
    assert abs((first == 0).mean(axis=0) - 0.3).max() < 6 * np.sqrt(0.21 / 170)
    assert abs((first == 0).mean(axis=1) - 0.3).max() < 6 * np.sqrt(0.21 / 400)
    np.testing.assert_array_equal(dropped(backend, a, 0.0, 2**32 - 1), a)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "identity"])
def test_the_gradient_with_dropout_is_a_numerical_one(backend, rng, activation):
    network = Network(
        [3, 5, 4, 2],
        hidden_activation=activation,
        output_activation="identity",
        dtype="float64",
        device=backend,
        seed=3,
    )
    inputs, targets = (
        backend.asarray(rng.normal(0, 1, (6, 3))),
        backend.asarray(rng.normal(0, 1, (6, 2))),
    )
    dropout = Dropout(0.4, (11, 12))
    gradients = {}

    def error(update):
        row_losses = backend.zeros((6,), np.float64)
        network.step(inputs, targets, update, row_losses, dropout=dropout)
        return float(backend.to_host(row_losses).sum())

    def keep(index, layer, delta, below):
        gradient = backend.empty(layer.weights.shape, np.float64)
        backend.gemm(delta, below, gradient, transpose_a=True)
        gradients[f"layers.{index}.weight"] = backend.to_host(gradient)

    error(keep)
    parameters = network.parameters()
    step = 1e-6
    for name, gradient in gradients.items():
        for place in np.ndindex(gradient.shape):
            ends = []
            for sign in (1, -1):
                moved = {key: value.copy() for key, value in parameters.items()}
                moved[name][place] += sign * step
                network.load_parameters(moved)
                ends.append(error(lambda *_: None))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient[place], abs=1e-6)


@pytest.mark.parametrize(
    "network",
    [
        gpunn.ThreeLayerNetwork(2, 2, 1, 0.1, device="cpu"),
        Network([2, 2, 1], hidden_activation="softmax", device="cpu"),
    ],
    ids=["textbook", "softmax"],
)
def test_where_there_is_no_dropout(network):
    ones = np.ones((1, 2), np.float32)
    with pytest.raises(ParameterError, match="dropout"):
        network.step(ones, ones[:, :1], lambda *_: None, np.zeros(1), dropout=Dropout(0.5, (1,)))


# Sparse samples.


@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("alpha", [1.0, -0.25])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("n_units", [4, 7])
@pytest.mark.parametrize("device", ["cpu", "fast"])
def test_products_with_sparse_samples(device, n_units, kind, alpha, beta, dtype, rng):
    backend = make_backend(device)
    X = np.where(rng.random((9, 30)) < 0.1, rng.normal(0, 1, (9, 30)), 0).astype(dtype)
    W, D = (rng.normal(0, 1, shape).astype(dtype) for shape in ((n_units, 30), (9, n_units)))
    rows = SparseRows(kind(X))
    for a, b, flags, left, right in (
        (rows, W, {"transpose_b": True}, X, W.T),
        (D, rows, {"transpose_a": True}, D.T, X),
    ):
        before = rng.normal(0, 1, (left.shape[0], right.shape[1])).astype(dtype)
        out = np.full_like(before, np.nan) if beta == 0 else before.copy()
        backend.gemm(a, b, out, **flags, alpha=alpha, beta=beta)
        assert_close_product(out, left, right, dtype, alpha=alpha, beta=beta, before=before)
    with pytest.raises(ShapeError, match="expected out"):
        backend.gemm(rows, W, np.empty((9, 2), dtype), transpose_b=True)


# Optimizers.


def test_the_other_place_of_epsilon(backend, rng):
    network = Network([2, 3], dtype="float64", device=backend)
    rule = AdamEpsilonHat(0.8, 0.95, 0.5)
    rule.prepare(network)
    w = network.parameters()["layers.0.weight"]
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 6):
        delta, inputs = rng.normal(0, 1, (4, 3)), rng.normal(0, 1, (4, 2))
        rule.begin_step(0.1)
        rule.update(0, network.layers[0], backend.asarray(delta), backend.asarray(inputs))
        g = delta.T @ inputs / 4
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        w -= 0.1 * np.sqrt(1 - 0.95**t) / (1 - 0.8**t) * m / (np.sqrt(v) + 0.5)
    np.testing.assert_allclose(network.parameters()["layers.0.weight"], w, rtol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "n_arrays"),
    [(SGD(), 0), (Momentum(), 4), (Adam(), 8)],
    ids=str,
)
def test_what_an_optimizer_remembers_has_names(optimizer, n_arrays):
    network = Network([2, 3, 1], device="cpu")
    optimizer.prepare(network)
    arrays = optimizer.state()
    assert len(arrays) == n_arrays
    shapes = {name.rpartition(".")[0]: array.shape for name, array in arrays.items()}
    assert all(shape == network.device_parameters()[name].shape for name, shape in shapes.items())


def test_a_network_of_given_parameters_uses_them_as_they_are():
    network = Network([2, 3, 1], device="cpu")
    pairs = [(layer.weights, layer.biases) for layer in network.layers]
    twin = Network.from_parameters(network.architecture, pairs, "cpu")
    for ours, theirs in zip(twin.layers, network.layers, strict=True):
        assert ours.weights is theirs.weights


def test_a_step_with_weights_and_dropout_crosses_nothing(double, rng):
    network = Network([3, 4, 2], device=double)
    inputs, targets = (double.asarray(rng.random((5, n)).astype("f")) for n in (3, 2))
    weights, losses = double.asarray(np.ones(5, "f")), double.zeros((5,), np.float64)
    rule, penalty = AdamEpsilonHat(), double.zeros((1,), np.float64)
    rule.prepare(network)
    with fake_cuda.no_crossings():
        double.add_squares(network.layers[0].weights, penalty, alpha=1.0)
        rule.begin_step(0.1)
        dropout = Dropout(0.5, (3,))
        network.step(inputs, targets, rule.update, losses, row_weights=weights, dropout=dropout)
