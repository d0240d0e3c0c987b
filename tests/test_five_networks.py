"""The networks that gpunn must be able to be, each against numbers found without it.

The expected numbers come from arithmetic by hand, from plain loops over scalars, from central
differences, and, where it is installed, from PyTorch.
"""

import itertools
import math

import numpy as np
import pytest
from conftest import make_backend

from gpunn import Network, ThreeLayerNetwork, check_gradients, fit, numerical_gradients
from gpunn.data import read_idx
from gpunn.losses import LOSSES, backpropagate_errors, share_errors_by_weight
from gpunn.training.evaluation import evaluate

ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu", "softmax")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def exact(backend, layer_sizes, parameters, **options):
    """Return a float64 network with these weights, and biases where they are given."""
    biases = any(name.endswith("bias") for name in parameters)
    network = Network(layer_sizes, biases=biases, dtype="float64", device=backend, **options)
    network.load_parameters(parameters)
    return network


# 1. Three layers, sigmoid, no biases, one sample at a time.


def train_in_plain_loops(W1, W2, inputs, targets, rate):
    """Train on one sample as the textbook has it, scalar by scalar; return ``t - o``."""
    h = [sigmoid(sum(w * x for w, x in zip(row, inputs, strict=True))) for row in W1]
    o = [sigmoid(sum(w * x for w, x in zip(row, h, strict=True))) for row in W2]
    e = [t - a for t, a in zip(targets, o, strict=True)]
    hidden_errors = [sum(W2[k][j] * e[k] for k in range(len(e))) for j in range(len(h))]
    for k, j in itertools.product(range(len(o)), range(len(h))):
        W2[k][j] += rate * e[k] * o[k] * (1 - o[k]) * h[j]
    for j, i in itertools.product(range(len(h)), range(len(inputs))):
        W1[j][i] += rate * hidden_errors[j] * h[j] * (1 - h[j]) * inputs[i]
    return e


def test_the_weight_that_is_updated_by_hand(backend):
    # Hidden signals 0.4 and 0.5 from one input of 1; a target that makes the error 1.5.
    network = ThreeLayerNetwork(1, 2, 1, learning_rate=1.0, dtype="float64", device=backend)
    logits = [[math.log(0.4 / 0.6)], [0.0]]
    network.load_parameters({"layers.0.weight": logits, "layers.1.weight": [[2.0, 3.0]]})
    o = sigmoid(2.0 * 0.4 + 3.0 * 0.5)
    assert round(o, 6) == 0.908877
    assert network.predict([1.0]) == pytest.approx([o], abs=1e-15)
    errors = network.train([1.0], [o + 1.5])
    assert errors == pytest.approx([1.5], abs=1e-15)
    new = network.parameters()
    assert round(new["layers.1.weight"][0, 0], 6) == 2.049692
    assert new["layers.1.weight"][0, 1] == pytest.approx(3 + 1.5 * o * (1 - o) * 0.5, abs=1e-15)
    # The hidden errors are W^T e = 2.0 * 1.5 and 3.0 * 1.5, without the slope of the output.
    expected = [logits[0][0] + 3.0 * 0.4 * 0.6, 4.5 * 0.5 * 0.5]
    assert new["layers.0.weight"][:, 0] == pytest.approx(expected, abs=1e-15)


def test_the_classic_network_learns_as_the_plain_loop_does(backend, rng):
    network = ThreeLayerNetwork(4, 3, 2, learning_rate=0.3, dtype="float64", device=backend, seed=3)
    W1, W2 = (value.tolist() for value in network.parameters().values())
    X, T = rng.uniform(0.01, 1, (12, 4)), rng.choice([0.01, 0.99], (12, 2))
    expected = [
        train_in_plain_loops(W1, W2, x, t, 0.3) for x, t in zip(X.tolist(), T.tolist(), strict=True)
    ]
    errors = [network.train(X[0], T[0]), *network.train(X[1:], T[1:])]
    np.testing.assert_allclose(errors, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(network.parameters()["layers.0.weight"], W1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(network.parameters()["layers.1.weight"], W2, rtol=0, atol=1e-12)


def test_fitting_one_sample_at_a_time_is_the_same_rule(backend, rng):
    X, T = rng.uniform(0.01, 1, (7, 4)), rng.uniform(0.01, 0.99, (7, 2))
    one, other = (ThreeLayerNetwork(4, 3, 2, 0.3, dtype="float64", device=backend) for _ in "ab")
    one.train(X, T)
    fit(other, X, T, epochs=1, batch_size=1, learning_rate=0.3, shuffle=False)
    # The same numbers, perhaps summed in another order.
    for name, value in one.parameters().items():
        np.testing.assert_allclose(other.parameters()[name], value, rtol=0, atol=1e-13)


def test_training_needs_samples_that_fit(backend):
    network = ThreeLayerNetwork(4, 3, 2, 0.3, device=backend)
    for inputs, targets, said in (
        ([0.5] * 3, [0.5] * 2, r"inputs must"),
        ([0.5] * 4, [0.5], r"targets must"),
        ([[0.5] * 4] * 2, [0] * 2, r"as many targets as inputs.*got 2 inputs and 1 targets"),
    ):
        with pytest.raises(ValueError, match=said):
            network.train(inputs, targets)


def test_the_classic_network_on_mnist_is_a_plain_numpy_loop(mnist_dir, backend):
    images, labels = (read_idx(next(mnist_dir.glob(f"train-{kind}*"))) for kind in ("im", "la"))
    X = images[:400].reshape(400, -1) / 255 * 0.99 + 0.01
    T = np.where(labels[:400, None] == np.arange(10), 0.99, 0.01)
    network = ThreeLayerNetwork(784, 30, 10, 0.1, dtype="float64", device=backend, seed=8)
    W1, W2 = network.parameters().values()
    for x, t in zip(X, T, strict=True):
        h = 1 / (1 + np.exp(-W1 @ x))
        o = 1 / (1 + np.exp(-W2 @ h))
        e = t - o
        hidden_errors = W2.T @ e
        W2 += 0.1 * np.outer(e * o * (1 - o), h)
        W1 += 0.1 * np.outer(hidden_errors * h * (1 - h), x)
    errors = network.train(X, T)
    np.testing.assert_allclose(errors[-1], e, rtol=0, atol=1e-11)
    np.testing.assert_allclose(network.parameters()["layers.0.weight"], W1, rtol=0, atol=1e-11)
    outputs = 1 / (1 + np.exp(-1 / (1 + np.exp(-X @ W1.T)) @ W2.T))
    np.testing.assert_allclose(network.predict(X), outputs, rtol=0, atol=1e-11)
    assert (outputs.argmax(axis=1) == labels[:400]).mean() > 0.5


def test_the_textbooks_rule_at_any_depth_sends_errors_back_through_the_weights(backend, rng):
    X, T = rng.normal(size=(6, 4)), rng.uniform(size=(6, 2))
    network = Network(
        [4, 5, 3, 2],
        hidden_activation="tanh",
        hidden_errors="textbook",
        initializer="standard_normal",
        dtype="float64",
        device=backend,
    )
    p = network.parameters()
    W, b = ([p[f"layers.{i}.{kind}"] for i in range(3)] for kind in ("weight", "bias"))
    a = [X]
    for i in range(3):
        z = a[i] @ W[i].T + b[i]
        a.append(np.tanh(z) if i < 2 else 1 / (1 + np.exp(-z)))
    errors = [(a[3] - T) @ W[2] @ W[1], (a[3] - T) @ W[2], a[3] - T]
    slopes = [1 - a[1] ** 2, 1 - a[2] ** 2, a[3] * (1 - a[3])]
    fit(network, X, T, epochs=1, batch_size=6, learning_rate=0.3)
    for i, (error, slope) in enumerate(zip(errors, slopes, strict=True)):
        W[i] -= 0.3 / 6 * (error * slope).T @ a[i]
        b[i] -= 0.3 / 6 * (error * slope).sum(axis=0)
    for name, value in network.parameters().items():
        expected = (W if name.endswith("weight") else b)[int(name.split(".")[1])]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


def test_gradients_are_the_gradient_whatever_rule_the_hidden_errors_follow(backend, rng):
    X, T = rng.uniform(size=(6, 4)), rng.uniform(size=(6, 2))
    classic = ThreeLayerNetwork(4, 3, 2, 0.3, dtype="float64", device=backend)
    assert max(check_gradients(classic, X, T).values()) < 1e-7


# 2. Errors shared out by weight.


def test_errors_shared_by_weight_and_sent_back_by_hand():
    # Two outputs with errors 0.8 and 0.5; weights 2, 3 into the first and 1, 4 into the second.
    weights, errors = [[2.0, 3.0], [1.0, 4.0]], [0.8, 0.5]
    shared = share_errors_by_weight(weights, errors)
    np.testing.assert_allclose(shared, [2 / 5 * 0.8 + 1 / 5 * 0.5, 3 / 5 * 0.8 + 4 / 5 * 0.5])
    assert shared.sum() == pytest.approx(1.3)
    sent_back = backpropagate_errors(weights, errors)
    np.testing.assert_allclose(sent_back, [2 * 0.8 + 1 * 0.5, 3 * 0.8 + 4 * 0.5], rtol=1e-15)


# 3. 3-2-2 with biases: sigmoid, linear outputs, squares summed and averaged over the samples.


def gradients_over_all_paths(p, X, T):
    """Return each derivative as the explicit sum over samples and over the paths it acts on."""
    g = {name: np.zeros_like(value) for name, value in p.items()}
    W1, b1, W2, b2 = (p[f"layers.{i}.{kind}"] for i in (0, 1) for kind in ("weight", "bias"))
    for x, t in zip(X, T, strict=True):
        h = [sigmoid(W1[j] @ x + b1[j]) for j in range(2)]
        miss = [b2[k] + W2[k, 0] * h[0] + W2[k, 1] * h[1] - t[k] for k in range(2)]
        for k in range(2):
            g["layers.1.bias"][k] += 2 * miss[k] / len(X)
            for j in range(2):
                g["layers.1.weight"][k, j] += 2 * miss[k] * h[j] / len(X)
                path = 2 * miss[k] * W2[k, j] * h[j] * (1 - h[j]) / len(X)
                g["layers.0.bias"][j] += path
                for i in range(3):
                    g["layers.0.weight"][j, i] += path * x[i]
    return g


def test_3_2_2_with_linear_outputs_is_the_sum_over_all_paths(backend, rng):
    X, T = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    network = Network(
        [3, 2, 2],
        output_activation="identity",
        loss="sum_of_squares",
        initializer="standard_normal",
        dtype="float64",
        device=backend,
    )
    p = network.parameters()
    for name, expected in gradients_over_all_paths(p, X, T).items():
        np.testing.assert_allclose(network.loss_and_gradients(X, T)[1][name], expected, atol=1e-13)
    for _ in range(20):
        g = gradients_over_all_paths(p, X, T)
        p = {name: value - 0.02 * g[name] for name, value in p.items()}
    fit(network, X, T, epochs=20, batch_size=6, learning_rate=0.02, shuffle=False)
    for name, value in network.parameters().items():
        np.testing.assert_allclose(value, p[name], rtol=0, atol=1e-12)


# 4. 784-16-16-10 with biases.


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_784_16_16_10_in_batches_is_plain_numpy(backend, rng, activation):
    X, T = rng.uniform(size=(20, 784)), np.eye(10)[rng.integers(0, 10, 20)]
    network = Network(
        [784, 16, 16, 10],
        hidden_activation=activation,
        loss="sum_of_squares",
        dtype="float64",
        device=backend,
    )
    assert network.n_parameters == 13_002
    p = network.parameters()
    W, b = ([p[f"layers.{i}.{kind}"] for i in range(3)] for kind in ("weight", "bias"))
    loss = network.loss_and_gradients(X, T)[0]
    losses = []
    for batch in (slice(0, 8), slice(8, 16), slice(16, 20)):
        a = [X[batch]]
        for i in range(3):
            z = a[i] @ W[i].T + b[i]
            a.append(np.maximum(z, 0) if activation == "relu" and i < 2 else 1 / (1 + np.exp(-z)))
        losses.append(np.square(a[3] - T[batch]).sum())
        delta = 2 * (a[3] - T[batch]) * a[3] * (1 - a[3])
        for i in (2, 1, 0):
            slope = (a[i] > 0) * 1.0 if activation == "relu" else a[i] * (1 - a[i])
            below = delta @ W[i] * slope
            W[i] -= 0.1 * delta.T @ a[i] / len(delta)
            b[i] -= 0.1 * delta.mean(axis=0)
            delta = below
    history = fit(network, X, T, epochs=1, batch_size=8, learning_rate=0.1, shuffle=False)
    assert history.train_loss[0] == pytest.approx(sum(losses) / 20, rel=1e-12)
    assert loss == pytest.approx(sum(losses) / 20, rel=0.1)
    for name, value in network.parameters().items():
        expected = (W if name.endswith("weight") else b)[int(name.split(".")[1])]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


# 5. Numerical differentiation, and backpropagation against it.


def test_numerical_gradients_are_those_of_one_neuron_by_hand(backend):
    network = exact(backend, [2, 1], {"layers.0.weight": [[0.5, -1.0]], "layers.0.bias": [0.2]})
    a = sigmoid(0.5 * 3 - 1.0 * 2 + 0.2)
    slope = (a - 0.7) * a * (1 - a)
    found = numerical_gradients(network, [[3.0, 2.0]], [[0.7]])
    np.testing.assert_allclose(found["layers.0.weight"], [[slope * 3, slope * 2]], rtol=1e-8)
    np.testing.assert_allclose(found["layers.0.bias"], [slope], rtol=1e-8)
    np.testing.assert_array_equal(network.parameters()["layers.0.weight"], [[0.5, -1.0]])


def test_a_wrong_gradient_is_noticed(monkeypatch):
    network = Network([3, 2, 2], dtype="float64", device="cpu")
    true = network.loss_and_gradients(np.ones((1, 3)), np.zeros((1, 2)))
    wrong = {name: value * 1.01 for name, value in true[1].items()}
    monkeypatch.setattr(network, "loss_and_gradients", lambda X, T: (true[0], wrong))
    found = check_gradients(network, np.ones((1, 3)), np.zeros((1, 2)))
    assert all(0.009 < difference < 0.011 for difference in found.values())


OUTPUTS_AND_LOSSES = [
    (output, loss.name)
    for output, loss in itertools.product(ACTIVATIONS, LOSSES.values())
    if loss.required_activation in (None, output)
]


def well_scaled(backend, sizes, hidden, output, loss, biases):
    """Return a network and samples whose kinks, of ReLU and of the absolute error, are far off."""
    options = {"hidden_activation": hidden, "output_activation": output, "loss": loss}
    network = Network(sizes, biases=biases, dtype="float64", device=backend, **options)
    shapes = {name: value.shape for name, value in network.parameters().items()}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        X, T = rng.normal(size=(3, sizes[0])), rng.uniform(0.1, 0.9, (3, sizes[-1]))
        drawn = {name: rng.normal(0, 1, shape) for name, shape in shapes.items()}
        if distance_to_a_kink(network.architecture, drawn, X, T) > 1e-2:
            network.load_parameters(drawn)
            return network, X, T
    raise AssertionError("no seed will do")


def distance_to_a_kink(what, p, X, T):
    a, nearest, n_layers = X, np.inf, len(what.layer_sizes) - 1
    for i in range(n_layers):
        z = a @ p[f"layers.{i}.weight"].T + p.get(f"layers.{i}.bias", 0)
        kind = what.output_activation if i == n_layers - 1 else what.hidden_activation
        if kind == "relu":
            nearest = min(nearest, np.abs(z).min() if (z > 0).any(axis=0).all() else 0)
        a = {
            "identity": lambda z: z,
            "tanh": np.tanh,
            "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
            "relu": lambda z: np.maximum(z, 0),
            "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
        }[kind](z)
    return min(nearest, np.abs(a - T).min()) if what.loss == "absolute_error" else nearest


@pytest.mark.parametrize(("output", "loss"), OUTPUTS_AND_LOSSES)
def test_backpropagation_is_the_numerical_gradient(output, loss):
    depths = ([3, 2], [2, 3, 2], [2, 3, 3, 2], [2, 3, 2, 3, 2])
    for hidden, sizes, biases in itertools.product(ACTIVATIONS, depths, (True, False)):
        if len(sizes) == 2 and hidden != "sigmoid":
            continue
        network, X, T = well_scaled(make_backend("cpu"), sizes, hidden, output, loss, biases)
        differences = check_gradients(network, X, T)
        assert max(differences.values()) < 1e-7, (hidden, sizes, biases, differences)


@pytest.mark.parametrize(("output", "loss"), OUTPUTS_AND_LOSSES)
def test_backpropagation_is_the_same_on_every_device(backend, output, loss):
    hidden = "relu" if output == "softmax" else output
    network, X, T = well_scaled(backend, [2, 3, 3, 2], hidden, output, loss, biases=True)
    assert max(check_gradients(network, X, T).values()) < 1e-7


@pytest.mark.parametrize(("output", "loss"), OUTPUTS_AND_LOSSES)
def test_gradients_are_those_of_pytorch(backend, output, loss):
    torch = pytest.importorskip("torch")
    apply = {name: getattr(torch, name, None) for name in ACTIVATIONS} | {
        "identity": lambda z: z,
        "softmax": lambda z: torch.softmax(z, dim=1),
    }
    values = {
        "squared_error": lambda a, z, t: (t - a).square().sum() / 2,
        "sum_of_squares": lambda a, z, t: (t - a).square().sum(),
        "mean_squared_error": lambda a, z, t: (t - a).square().mean(dim=1).sum(),
        "absolute_error": lambda a, z, t: (t - a).abs().sum(),
        "binary_cross_entropy": lambda a, z, t: (
            torch.nn.functional.binary_cross_entropy_with_logits(z, t, reduction="sum")
        ),
        "cross_entropy": lambda a, z, t: torch.nn.functional.cross_entropy(z, t, reduction="sum"),
    }
    for hidden in ACTIVATIONS:
        network, X, T = well_scaled(backend, [3, 4, 3, 2], hidden, output, loss, biases=True)
        p = {k: torch.tensor(v, requires_grad=True) for k, v in network.parameters().items()}
        a = torch.tensor(X)
        for i, kind in enumerate((hidden, hidden, output)):
            z = a @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"]
            a = apply[kind](z)
        error = values[loss](a, z, torch.tensor(T)) / len(X)
        error.backward()
        found, gradients = network.loss_and_gradients(X, T)
        assert found == pytest.approx(error.item(), rel=1e-12)
        for name, gradient in gradients.items():
            expected = p[name].grad.numpy()
            largest = np.abs(expected).max()
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-10 * largest)


# The signed error is no error.


def test_a_signed_error_would_see_nothing_where_the_losses_see_two_misses(backend):
    outputs, targets = np.array([[0.4, 0.8, 1.0]]), np.array([[0.5, 0.7, 1.0]])
    assert (targets - outputs).sum() == pytest.approx(0, abs=1e-15)
    for loss, expected in {
        "absolute_error": 0.2,
        "sum_of_squares": 0.02,
        "squared_error": 0.01,
        "mean_squared_error": 0.02 / 3,
    }.items():
        copying = {"layers.0.weight": np.eye(3)}
        network = exact(backend, [3, 3], copying, output_activation="identity", loss=loss)
        assert evaluate(network, outputs, targets).loss == pytest.approx(expected, rel=1e-14)
