"""A record more is all it takes to add an activation or a loss to every place that uses them."""

import numpy as np
import pytest

import gpunn
from gpunn import cli
from gpunn.activations import ACTIVATIONS, ONE, Activation
from gpunn.losses import LOSSES, Loss
from gpunn.recipes import Recipe


def softplus(z, scratch):
    np.exp(z, scratch)
    np.log1p(scratch, z)


def softplus_backward(delta, a, scratch):
    np.negative(a, scratch)
    np.exp(scratch, scratch)
    np.subtract(ONE[a.dtype.char], scratch, scratch)
    np.multiply(delta, scratch, delta)


SOFTPLUS = Activation(
    "softplus",
    forward=softplus,
    backward=softplus_backward,
    inverse=lambda a: np.log(np.expm1(a)),
    elementwise=True,
    cuda_forward="log1p(exp(x))",
    cuda_derivative="T(1) - exp(-a)",
    onnx="Softplus",
)


def fourth_power(a, t, out, scratch):
    np.subtract(t, a, out)
    np.power(out, 4, out)


def fourth_power_derivative(a, t, out, scratch):
    np.subtract(a, t, out)
    np.power(out, 3, out)
    np.multiply(out, 4, out)


FOURTH_POWER = Loss(
    "fourth_power",
    value=fourth_power,
    derivative=fourth_power_derivative,
    cuda_value="(t - a) * (t - a) * (t - a) * (t - a)",
    cuda_derivative="T(4) * (a - t) * (a - t) * (a - t)",
)


@pytest.fixture(autouse=True)
def _records(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "softplus", SOFTPLUS)
    monkeypatch.setitem(LOSSES, "fourth_power", FOURTH_POWER)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_networks_learn_with_them_on_every_device(backend, rng, batch_size):
    X, T = rng.normal(size=(16, 4)), rng.uniform(size=(16, 2))
    network = gpunn.Network(
        [4, 5, 2],
        hidden_activation="softplus",
        output_activation="softplus",
        loss="fourth_power",
        dtype="float64",
        device=backend,
    )
    assert max(gpunn.check_gradients(network, X, T).values()) < 1e-7
    before = network.loss_and_gradients(X, T)[0]
    gpunn.fit(network, X, T, epochs=3, batch_size=batch_size, learning_rate=0.01)
    assert network.loss_and_gradients(X, T)[0] < before
    assert np.isfinite(network.backquery([[0.5, 0.6]])).all()


def test_the_command_line_takes_them(tmp_path):
    path = tmp_path / "model.safetensors"
    options = ["--activation", "softplus", "--loss", "fourth_power", "--hidden", "4"]
    options += ["--epochs", "1", "--quiet", "--device", "cpu", "--out", str(path)]
    assert cli.main(["train", *options]) == 0
    architecture = gpunn.Network.load(path, "cpu").architecture
    assert (architecture.hidden_activation, architecture.loss) == ("softplus", "fourth_power")
    assert architecture.output_activation == "sigmoid"


def test_a_network_with_them_goes_to_onnx(tmp_path, rng):
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    X = rng.normal(size=(6, 4)).astype("float32")
    network = gpunn.Network([4, 5, 2], hidden_activation="softplus", device="cpu")
    gpunn.to_onnx(network, tmp_path / "model.onnx")
    (outputs,) = ReferenceEvaluator(onnx.load(tmp_path / "model.onnx")).run(None, {"inputs": X})
    np.testing.assert_allclose(outputs, network.predict(X), rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_recipe_has_the_output_activation_that_its_loss_needs(name):
    network = Recipe(loss=name).make_network(3, 2, device="cpu")
    expected = LOSSES[name].required_activation or "sigmoid"
    assert network.architecture.output_activation == expected
