"""The estimators on data frames: names refused as scikit-learn refuses them, and kept in files."""

import json
import shutil
import struct

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier as Theirs

import gpunn
from gpunn.errors import ModelFileError

NAMES = ["age", "height", "weight"]
X = np.random.default_rng(2).normal(size=(30, 3))
Y = (X[:, 0] > 0).astype(int)


def frame_of(kind, array=X, names=NAMES):
    library = pytest.importorskip(kind, reason=f"{kind} is not installed")
    return library.DataFrame(dict(zip(names, array.T, strict=True)))


def quick(kind=gpunn.MLPClassifier):
    return kind((4,), max_iter=400, tol=1.0, n_iter_no_change=1, random_state=0)


@pytest.mark.parametrize("names", [NAMES[::-1], [*NAMES[:2], "hat"]], ids=["order", "name"])
@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_columns_in_another_order_or_of_another_name_are_refused(kind, names):
    frame, other = frame_of(kind), frame_of(kind, names=names)
    messages = []
    for model in (quick(Theirs), quick()):
        model.fit(frame, Y)
        assert list(model.feature_names_in_) == NAMES
        assert model.predict(frame).shape == (30,)
        for ask in (model.predict, model.predict_proba, lambda X, m=model: m.score(X, Y)):
            with pytest.raises(ValueError, match="feature names should match") as caught:
                ask(other)
        messages.append(str(caught.value))
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            model.predict(X)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_network_read_from_an_estimators_file_has_its_names(kind, tmp_path):
    frame, path = frame_of(kind), tmp_path / "m"
    model = quick().fit(frame, Y)
    model.save(path)
    network = gpunn.Network.load(path, "cpu")
    assert network.feature_names == NAMES
    np.testing.assert_array_equal(network.predict(frame)[:, 0], model.predict_proba(frame)[:, 1])
    with pytest.raises(ValueError, match="order"):
        network.predict(frame[NAMES[::-1]])
    assert_names(gpunn.MLPClassifier.load(path), frame)


def assert_names(model, frame):
    assert list(model.feature_names_in_) == NAMES
    assert model.predict(frame).shape == (30,)  # without a warning
    with pytest.raises(ValueError, match="same order"):
        model.predict(frame[NAMES[::-1]])


def rewrite(path, change):
    """Write a file anew with its description changed in place."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    described = json.loads(header["__metadata__"]["gpunn-1"])
    change(described)
    header["__metadata__"]["gpunn-1"] = json.dumps(described)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def named(tmp_path):
    model, path = quick().fit(X, Y), tmp_path / "m"
    model.feature_names_in_ = np.array(NAMES, dtype=object)
    model.save(path)
    return path


def test_names_that_stand_in_the_estimators_description_alone_are_still_read(tmp_path):
    path = named(tmp_path)

    def as_before(described):
        described["estimator"]["feature_names"] = described.pop("feature_names")

    rewrite(path, as_before)
    assert gpunn.Network.load(path, "cpu").feature_names is None
    assert list(gpunn.MLPClassifier.load(path).feature_names_in_) == NAMES


@pytest.mark.parametrize("where", ["network", "estimator"])
@pytest.mark.parametrize("names", [["a"], [1, 2, 3], "abc", {"a": 1}])
def test_names_that_make_no_sense_are_refused(tmp_path, where, names):
    path = named(tmp_path)

    def spoil(described):
        del described["feature_names"]
        (described if where == "network" else described["estimator"])["feature_names"] = names

    rewrite(path, spoil)
    with pytest.raises(ModelFileError, match="list of 3 names"):
        gpunn.MLPClassifier.load(path)


def test_a_model_without_names_has_the_description_that_it_had(tmp_path):
    quick().fit(X, Y).save(tmp_path / "m")
    found = {}
    rewrite(tmp_path / "m", found.update)
    assert "feature_names" not in found
    assert found["estimator"]["feature_names"] is None


def test_a_fit_does_not_go_on_with_other_names(tmp_path):
    frame, path = frame_of("pandas"), tmp_path / "checkpoints"
    quick().fit(frame, Y, checkpoints=gpunn.Checkpoints(path))
    shutil.copytree(path, tmp_path / "copy")
    quick().fit(frame, Y, checkpoints=gpunn.Checkpoints(path, resume=True))
    other = frame_of("pandas", names=[*NAMES[:2], "hat"])
    with pytest.raises(ValueError, match="feature names"):
        quick().fit(other, Y, checkpoints=gpunn.Checkpoints(tmp_path / "copy", resume=True))
