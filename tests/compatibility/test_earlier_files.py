"""What earlier versions wrote is still read, with the same predictions.

Parameters are the same to the bit on every machine; so are predictions where all sums are exact,
and elsewhere on the machine that wrote them. On another one, a sum of K terms may differ by K eps.
"""

import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from make_files import FIT, X, Y, exact_network, make_network

import gpunn

FOLDERS = sorted(file.parent for file in Path(__file__).parent.glob("*/expected.npz"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    """Each folder of files that an earlier version wrote."""
    return request.param


@pytest.fixture
def expected(folder):
    """What that version predicted."""
    with np.load(folder / "expected.npz") as arrays:
        return dict(arrays)


def assert_same(got, expected):
    eps = np.finfo(expected.dtype).eps
    np.testing.assert_allclose(got, expected, rtol=64 * eps, atol=64 * eps)


def test_there_are_such_folders():
    assert len(FOLDERS) >= 1


def test_exact_predictions_are_the_same_to_the_bit(folder, expected):
    network = gpunn.Network.load(folder / "exact.safetensors", "cpu")
    for name, array in exact_network().parameters().items():
        np.testing.assert_array_equal(network.parameters()[name], array)
    np.testing.assert_array_equal(network.predict(np.round(X * 16) / 16), expected["exact"])


def test_a_network(folder, expected):
    network = gpunn.Network.load(folder / "network.safetensors", "cpu")
    assert network.scaling == gpunn.Scaling.per_feature(X)
    assert network.class_labels == [3, 5, 8]
    assert_same(network.predict(X), expected["network"])


def test_a_three_layer_network_still_learns_by_its_own_rule(folder, expected):
    network = gpunn.ThreeLayerNetwork.load(folder / "three_layer.safetensors", "cpu")
    assert_same(network.predict(X), expected["three_layer"])
    fresh = gpunn.ThreeLayerNetwork(5, 6, 3, 0.2, device="cpu", seed=1)
    fresh.load_parameters(network.parameters())
    targets = np.eye(3)[Y] * 0.98 + 0.01
    np.testing.assert_array_equal(network.train(X, targets), fresh.train(X, targets))


def test_a_checkpoint_goes_on_to_the_end_of_its_training(folder, expected, tmp_path):
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    network = make_network()
    gpunn.fit(
        network,
        X,
        Y,
        **FIT,
        validation_data=(X[:20], Y[:20]),
        early_stopping=gpunn.EarlyStopping(3),
        checkpoints=gpunn.Checkpoints(tmp_path / "checkpoints", every="3 steps", resume=True),
    )
    # Rounding grows through the steps that are left; 1e-12 is some 5,000 eps.
    np.testing.assert_allclose(network.predict(X), expected["resumed"], rtol=1e-12)


@pytest.mark.parametrize("name", ["classifier", "regressor"])
@pytest.mark.parametrize("suffix", ["safetensors", "pickle"])
def test_an_estimator(folder, expected, name, suffix):
    path = folder / f"{name}.{suffix}"
    kind = {"classifier": gpunn.MLPClassifier, "regressor": gpunn.MLPRegressor}[name]
    if suffix == "pickle":
        with warnings.catch_warnings():
            # scikit-learn's LabelBinarizer in it may be of another version.
            warnings.filterwarnings("ignore", message="Trying to unpickle estimator LabelBinarizer")
            model = pickle.loads(path.read_bytes())
    else:
        model = kind.load(path)
    got = model.predict_proba(X) if name == "classifier" else model.predict(X)
    assert_same(got, expected[name])
    np.testing.assert_array_equal(model.loss_curve_, expected[f"{name}_loss_curve"])
    if suffix == "pickle":
        # Adam's memory is in it, so that training goes on as it would have.
        model.partial_fit(X, np.array(list("abc"))[Y] if name == "classifier" else X[:, 0])
        np.testing.assert_allclose(
            model.loss_curve_, expected[f"{name}_after_partial_fit"], rtol=1e-12
        )
