"""The estimators in use: in scikit-learn's tools, in files, on a GPU, and what is new in them.

What runs on a GPU runs here on the double of CuPy.
"""

import copy
import io
import json
import math
import pickle
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import fake_cuda
import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpunn
from gpunn import MLPClassifier, MLPRegressor
from gpunn.backends.select import select_backend
from gpunn.errors import DeviceError, DeviceWarning, ModelFileError
from gpunn.estimators.files import COUNTS
from gpunn.model_file import read_model, write_model

X, Y = make_classification(120, 8, n_informative=5, n_classes=3, random_state=0)
KINDS = {
    "classes": (MLPClassifier, X, Y),
    "two classes": (MLPClassifier, X, np.where(Y == 1, "yes", "no")),
    "labels": (MLPClassifier, *make_multilabel_classification(120, 8, n_classes=3, random_state=0)),
    "numbers": (MLPRegressor, *make_regression(120, 8, n_targets=2, random_state=0)),
}
QUICK = {"hidden_layer_sizes": (6,), "max_iter": 5, "random_state": 1, "batch_size": 50}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def quick(**parameters):
    return MLPClassifier(**QUICK | parameters)


# scikit-learn's tools.


def test_in_a_pipeline_a_search_and_cross_validation():
    pipeline = make_pipeline(StandardScaler(), quick())
    assert cross_val_score(pipeline, X, Y, cv=2).shape == (2,)
    grid = {
        "mlpclassifier__alpha": [1e-4, 1.0],
        "mlpclassifier__hidden_layer_sizes": [(3,), (4, 2)],
    }
    # In processes of their own, whose warnings nobody filters, so without any.
    pipeline.set_params(mlpclassifier__max_iter=300, mlpclassifier__tol=1.0)
    search = GridSearchCV(pipeline, grid, n_jobs=2, cv=2).fit(X, Y)
    assert search.best_params_.keys() == grid.keys()
    assert search.best_estimator_.predict(X).shape == Y.shape


def test_calibrated():
    calibrated = CalibratedClassifierCV(quick(), cv=2).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_behind_a_transformer_whose_output_is_set():
    pandas = pytest.importorskip("pandas")
    with sklearn.config_context(transform_output="pandas"):
        frame = pandas.DataFrame(X, columns=[f"x{k}" for k in range(8)])
        model = make_pipeline(StandardScaler(), quick()).fit(frame, Y)
    assert list(model[-1].feature_names_in_) == list(frame.columns)


def test_sample_weights_are_routed():
    with sklearn.config_context(enable_metadata_routing=True):
        weights = np.linspace(0.1, 2, len(X))
        model = quick().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model).fit(X, Y, sample_weight=weights)
        alone = quick().fit(StandardScaler().fit_transform(X), Y, sample_weight=weights)
    np.testing.assert_array_equal(pipeline[-1].loss_curve_, alone.loss_curve_)


def test_a_clone_begins_anew():
    model = quick(device="cpu", class_weight="balanced").fit(X, Y)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert not hasattr(twin, "coefs_")
    np.testing.assert_array_equal(twin.fit(X, Y).loss_curve_, model.loss_curve_)


def test_without_scikit_learn_the_error_says_what_to_install():
    code = """
import sys
sys.modules["sklearn"] = None
import gpunn
from gpunn import *
try:
    gpunn.MLPClassifier
except ImportError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingPackageError gpunn.MLPClassifier needs scikit-learn")


def test_the_estimators_are_found():
    assert {"MLPClassifier", "MLPRegressor"} <= set(dir(gpunn))
    with pytest.raises(AttributeError, match="MLPTransformer"):
        gpunn.MLPTransformer  # noqa: B018


# Files and copies.


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("way", [through_pickle, through_joblib, copy.deepcopy])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_what_was_stored_predicts_and_goes_on_the_same(way, solver):
    model = quick(solver=solver).fit(X, Y)
    twin = way(model)
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
    for estimator in (model, twin):
        estimator.partial_fit(X, Y)
    np.testing.assert_array_equal(twin.loss_curve_, model.loss_curve_)
    np.testing.assert_array_equal(twin.coefs_[0], model.coefs_[0])
    # The copy is one.
    model.partial_fit(X, Y)
    assert not np.array_equal(twin.coefs_[0], model.coefs_[0])


def test_weights_that_are_mapped_for_reading_predict_and_can_be_trained_on(tmp_path):
    model = quick().fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    assert not mapped.coefs_[0].flags.writeable
    np.testing.assert_array_equal(mapped.predict_proba(X), model.predict_proba(X))
    mapped.partial_fit(X, Y)
    np.testing.assert_array_equal(mapped.coefs_[0], model.partial_fit(X, Y).coefs_[0])


def test_weights_that_a_user_changes_count():
    model = quick().fit(X, Y)
    before = model.predict_proba(X)
    model.coefs_[0][:] = 0.0
    changed = model.predict_proba(X)
    assert not np.allclose(changed, before)
    model.coefs_ = [np.array(coefs, order="C") for coefs in model.coefs_]
    model.coefs_[1] = np.zeros_like(model.coefs_[1])
    np.testing.assert_array_equal(
        model.predict_proba(X), np.tile(model.predict_proba(X)[:1], (120, 1))
    )
    model.intercepts_[1][:] = [50.0, 0.0, 0.0]
    assert set(model.predict(X)) == {0}


def test_several_threads_may_ask_at_once():
    model = quick(hidden_layer_sizes=(50,)).fit(X, Y)
    parts = [np.tile(X[k : k + 20], (20, 1)) for k in range(0, 100, 5)]
    alone = [model.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model.predict_proba, parts))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_model_file_holds_the_whole_estimator(kind, solver, tmp_path):
    make, inputs, targets = KINDS[kind]
    model = make(**QUICK | {"solver": solver, "n_iter_no_change": np.inf, "power_t": np.float32(1)})
    if kind == "classes":
        model.set_params(class_weight={0: 1.0, 1: 2.0, 2: 0.5})
    model.fit(inputs.astype(np.float32), targets)
    model.save(tmp_path / "model.safetensors")
    twin = make.load(tmp_path / "model.safetensors")
    assert twin.get_params() == model.get_params()
    np.testing.assert_array_equal(twin.predict(inputs), model.predict(inputs))
    assert twin.coefs_[0].dtype == np.float32
    public = {name for name in vars(model) if name.endswith("_")}
    assert {name for name in vars(twin) if name.endswith("_")} == public
    for name in public - {"coefs_", "intercepts_"}:
        np.testing.assert_array_equal(getattr(twin, name), getattr(model, name))
    network = gpunn.Network.load(tmp_path / "model.safetensors")
    assert network.predict(inputs).shape == (120, model.n_outputs_)
    twin.fit(inputs, targets)
    if solver == "adam":
        twin.partial_fit(inputs, targets)


def forge(path, arrays, header):
    """Write a model file whose JSON may hold infinity, which gpunn itself never writes."""
    save_file(arrays, path, {"gpunn-1": json.dumps(header)})


def test_files_that_hold_something_else_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(NotFittedError):
        quick().save(path)
    with pytest.raises(ModelFileError, match="no model file"):
        MLPClassifier.load(path)
    gpunn.Network([2, 1]).save(path)
    with pytest.raises(ModelFileError, match="expected a MLPClassifier, found a network"):
        MLPClassifier.load(path)
    model = quick().fit(X, Y)
    model.save(path)
    with pytest.raises(ModelFileError, match="expected a MLPRegressor, found 'MLPClassifier'"):
        MLPRegressor.load(path)
    arrays, header = read_model(path)
    for key, value in (
        ("targets", {"classes": [1], "dtype": "<i8", "several": False}),
        ("targets", {"classes": [1, 2, 3], "dtype": "<M8[s]", "several": False}),
        # What would take gigabytes, if it were believed.
        ("targets", {"classes": ["a", "b", "c"], "dtype": "<U500000000", "several": False}),
        ("targets", {"classes": [1, 2, 3], "dtype": "(1000000000,)f8", "several": False}),
        ("targets", {"classes": list(range(200_000)), "dtype": "<i8", "several": False}),
        ("targets", {"classes": [1, 2, 3], "dtype": "(,", "several": False}),
        ("targets", {"classes": [[1], [2], [3]], "dtype": "|O", "several": False}),
        ("counts", dict.fromkeys(COUNTS, math.inf)),
        ("counts", dict.fromkeys(COUNTS, "1\n2")),
        ("counts", {}),
        ("parameters", {"colour": 1}),
        ("out_activation", "step"),
    ):
        damaged = header | {"estimator": header["estimator"] | {key: value}}
        forge(path, arrays, damaged)
        with pytest.raises(ModelFileError, match="does not make an estimator") as caught:
            MLPClassifier.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    write_model(path, arrays | {"loss_": np.zeros(0)}, header)
    with pytest.raises(ModelFileError, match="does not make an estimator"):
        MLPClassifier.load(path)
    write_model(path, arrays, header | {"estimator": {"kind": "two\nlines"}})
    with pytest.raises(ModelFileError, match=r"found 'two\\nlines'"):
        MLPClassifier.load(path)


# On a GPU.


@pytest.mark.usefixtures("installed_double")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "parameters",
    [
        {"solver": "sgd", "momentum": 0.0},
        {"solver": "sgd"},
        {"solver": "adam"},
        {"solver": "adam", "early_stopping": True},
        {"solver": "lbfgs"},
    ],
)
def test_a_gpu_gives_the_same_result(kind, parameters):
    make, inputs, targets = KINDS[kind]
    weights = np.linspace(0.2, 2, len(inputs))
    models = [
        make(**QUICK | {"tol": 0, "alpha": 0.1, "device": device} | parameters).fit(
            inputs, targets, weights
        )
        for device in ("cpu", "cuda")
    ]
    cpu, gpu = models
    assert gpu.loss_ == pytest.approx(cpu.loss_, rel=1e-9)
    for ours, theirs in zip(gpu.coefs_, cpu.coefs_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    if parameters["solver"] != "lbfgs":
        np.testing.assert_allclose(gpu.loss_curve_, cpu.loss_curve_, rtol=1e-9)
    np.testing.assert_array_equal(gpu.predict(inputs).shape, cpu.predict(inputs).shape)


@pytest.mark.usefixtures("installed_double")
def test_the_poisson_loss_on_a_gpu():
    counts = np.random.default_rng(0).poisson(2.0, len(X)).astype(float)
    cpu, gpu = (
        MLPRegressor("poisson", **QUICK | {"device": device}).fit(X, counts)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(gpu.loss_curve_, cpu.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(gpu.predict(X), cpu.predict(X), rtol=1e-7)


def test_an_epoch_on_a_gpu_crosses_a_few_times_whatever_the_number_of_steps(installed_double):
    def crossings(batch_size):
        model = quick(device="cuda", batch_size=batch_size, max_iter=1).fit(X, Y)
        before = fake_cuda.crossings.to_device, fake_cuda.crossings.to_host
        model.partial_fit(X, Y)
        after = fake_cuda.crossings.to_device, fake_cuda.crossings.to_host
        return np.subtract(after, before).tolist()

    assert crossings(10) == crossings(60)


@pytest.mark.parametrize("way", [through_pickle, through_joblib])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_what_was_trained_on_a_gpu_is_loaded_on_a_cpu(installed_double, way, solver):
    model = quick(device="cuda", solver=solver).fit(X, Y)
    expected = model.predict_proba(X)
    stored = way(model)
    fake_cuda.forget_devices()
    assert stored.coefs_[0].flags.c_contiguous or stored.coefs_[0].flags.f_contiguous
    np.testing.assert_allclose(
        stored.set_params(device="cpu").predict_proba(X), expected, rtol=1e-9
    )
    if solver == "adam":
        stored.partial_fit(X, Y)
        np.testing.assert_allclose(
            stored.loss_curve_, model.partial_fit(X, Y).loss_curve_, rtol=1e-9
        )


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a GPU, whatever this one has."""

    def refuse(device, precision="fp32"):
        if device.startswith("cuda"):
            raise DeviceError(f"device {device!r} cannot be used: CUDA sees no GPU")
        return select_backend(device, precision)

    monkeypatch.setattr("gpunn.backends.select.select_backend", refuse)


def test_a_gpu_that_is_gone_is_said_once_and_the_cpu_predicts(no_gpu):
    model = quick().fit(X, Y)
    expected = model.predict_proba(X)
    stored = through_pickle(model.set_params(device="cuda"))
    with pytest.warns(DeviceWarning, match="running on the CPU"):
        np.testing.assert_array_equal(stored.predict_proba(X), expected)
    np.testing.assert_array_equal(stored.predict_proba(X), expected)
    with pytest.raises(DeviceError, match="cannot be used"):
        stored.fit(X, Y)


def test_weights_from_a_gpu_cannot_be_changed_without_its_hearing_of_it(installed_double):
    model = quick(device="cuda").fit(X, Y)
    with pytest.raises(ValueError, match="read-only"):
        model.coefs_[0][:] = 0
    model.coefs_ = [np.zeros_like(coefs) for coefs in model.coefs_]
    proba = model.predict_proba(X)
    np.testing.assert_array_equal(proba, np.tile(proba[:1], (len(X), 1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_samples_on_a_gpu_stay_there(installed_double, kind, early_stopping):
    make, inputs, targets = KINDS[kind]
    model, other = (
        make(**QUICK | {"device": "cuda", "early_stopping": early_stopping}) for _ in range(2)
    )
    other.fit(inputs, targets)
    on_device = installed_double.asarray(np.ascontiguousarray(inputs))
    model.fit(on_device, targets)
    np.testing.assert_array_equal(model.loss_curve_, other.loss_curve_)
    np.testing.assert_array_equal(model.predict(on_device), other.predict(inputs))
    assert model.n_features_in_ == 8
    with pytest.raises(ValueError, match="8 features"):
        model.predict(installed_double.asarray(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="float32 or float64"):
        model.fit(installed_double.asarray(np.zeros((2, 3), np.int64)), [0, 1])


def test_targets_may_be_on_a_gpu_as_well(installed_double):
    model, other = (quick(device="cuda") for _ in range(2))
    model.fit(installed_double.asarray(X), installed_double.asarray(Y))
    assert model.loss_curve_ == other.fit(X, Y).loss_curve_


@pytest.mark.parametrize("which", ["X", "y"])
def test_samples_on_a_gpu_need_an_estimator_there(installed_double, which):
    arrays = {"X": X, "y": Y}
    arrays[which] = installed_double.asarray(arrays[which])
    with pytest.raises(DeviceError, match=r"on a GPU, but the (network|device) is"):
        quick().fit(**arrays)


def test_sparse_samples_on_a_gpu(installed_double):
    sparse = scipy.sparse.csr_array(np.where(np.abs(X) > 2.5, X, 0))
    gpu, cpu = (quick(device=device).fit(sparse, Y) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(gpu.loss_curve_, cpu.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(gpu.predict_proba(sparse), cpu.predict_proba(sparse), rtol=1e-7)


# What is new.


def test_class_weights_are_sample_weights():
    rare = np.where(np.arange(len(Y)) % 5 == 0, Y, 0)
    counts = np.bincount(rare)
    for class_weight, each in (
        ({0: 0.5, 1: 2.0, 2: 3.0}, np.array([0.5, 2.0, 3.0])),
        ("balanced", len(rare) / (3 * counts)),
    ):
        weighted = quick(class_weight=class_weight).fit(X, rare)
        by_hand = quick().fit(X, rare, sample_weight=each[rare])
        np.testing.assert_allclose(weighted.loss_curve_, by_hand.loss_curve_, rtol=1e-12)
        twice = quick(class_weight=class_weight).fit(X, rare, sample_weight=each[rare])
        by_hand = quick().fit(X, rare, sample_weight=each[rare] ** 2)
        np.testing.assert_allclose(twice.loss_curve_, by_hand.loss_curve_, rtol=1e-12)


def test_samples_of_no_weight_might_as_well_not_be_there():
    weights = (np.arange(len(X)) < 70).astype(float)
    whole = quick(shuffle=False, batch_size=10).fit(X, Y, sample_weight=weights)
    part = quick(shuffle=False, batch_size=10).fit(X[:70], Y[:70])
    np.testing.assert_array_equal(whole.coefs_[0], part.coefs_[0])


@pytest.mark.parametrize("kind", KINDS)
def test_validation_data_that_are_given_are_measured_after_each_epoch(kind):
    make, inputs, targets = KINDS[kind]
    plain = make(**QUICK).fit(inputs, targets)
    watched = make(**QUICK).fit(inputs, targets, validation_data=(inputs[:30], targets[:30]))
    np.testing.assert_array_equal(watched.loss_curve_, plain.loss_curve_)
    assert len(watched.validation_scores_) == len(watched.validation_loss_curve_) == 5
    assert watched.validation_scores_[-1] == watched.score(inputs[:30], targets[:30])
    assert plain.validation_loss_curve_ is None
    if make is MLPRegressor:
        errors = (watched.predict(inputs[:30]) - targets[:30]) ** 2
        assert watched.validation_loss_curve_[-1] == pytest.approx(errors.mean() / 2)


def test_validation_data_may_have_weights_and_decide_when_to_stop():
    held_out = (X[80:], Y[80:], np.linspace(0, 1, 40))
    model = quick(early_stopping=True, max_iter=100, learning_rate_init=0.05, n_iter_no_change=3)
    model.fit(X[:80], Y[:80], validation_data=held_out)
    assert model.n_iter_ < 100
    assert model.best_validation_score_ == pytest.approx(model.score(*held_out))
    assert model.t_ == 80 * model.n_iter_
    log_p = model.predict_log_proba(X[80:])[np.arange(40), Y[80:]]
    best = int(np.argmax(model.validation_scores_))
    expected = -np.average(log_p, weights=held_out[2])
    assert model.validation_loss_curve_[best] == pytest.approx(expected)


def test_validation_data_that_do_not_do_are_refused():
    for wrong, words in (
        (X, "validation_data must be"),
        ((X[:, :3], Y), "features"),
        ((X, Y + 1), r"got \[3\]"),
    ):
        with pytest.raises(ValueError, match=words):
            quick().fit(X, Y, validation_data=wrong)
    with pytest.raises(ValueError, match="solver is 'lbfgs'"):
        quick(solver="lbfgs").fit(X, Y, validation_data=(X, Y))


class Recorder(gpunn.Callback):
    def __init__(self, end_after):
        self.end_after, self.heard, self.records, self.n_samples = end_after, [], [], 0

    def on_train_begin(self, network, n_epochs, n_samples):
        self.heard.append((network.n_inputs, n_epochs, n_samples))

    def on_step_end(self, n_samples):
        self.n_samples += n_samples

    def on_epoch_end(self, network, record):
        self.records.append(record)
        return len(self.records) == self.end_after

    def on_train_end(self, history):
        self.heard.append(history.stopped)
        self.history = history


def test_callbacks_hear_of_everything_and_may_end_the_training():
    recorder = Recorder(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = quick().fit(X, Y, validation_data=(X, Y), callbacks=[recorder])
    assert recorder.heard == [(8, 5, 120), "callback"]
    assert recorder.n_samples == 3 * 120 == recorder.history.n_samples_trained
    assert recorder.history.train_loss == model.loss_curve_
    assert recorder.history.validation_loss == model.validation_loss_curve_
    assert recorder.history.validation_accuracy == model.validation_scores_
    assert [record.epoch for record in recorder.records] == [1, 2, 3]


class Asker(gpunn.Callback):
    """Asks an estimator after each epoch of its own fit."""

    def __init__(self, model):
        self.model, self.differences = model, []

    def on_epoch_end(self, network, record):
        difference = self.model.predict_proba(X) - network.predict(X.astype(network.dtype))
        self.differences.append(np.abs(difference).max())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_callback_may_ask_the_estimator_what_it_has_learnt_so_far(
    installed_double, device, dtype
):
    model = MLPClassifier(**QUICK, device=device, warm_start=True)
    for _ in range(2):
        asker = Asker(model)
        model.fit(X.astype(dtype), Y, callbacks=[asker])
        assert asker.differences == [0.0] * 5


def test_several_labels_in_parts_without_being_told_the_classes():
    _, inputs, targets = KINDS["labels"]
    model = quick(batch_size="auto")
    for start in range(0, 120, 40):
        model.partial_fit(inputs[start : start + 40], targets[start : start + 40])
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    assert model.predict(inputs).shape == targets.shape


def test_a_line_an_epoch(capsys):
    quick(verbose=True, early_stopping=True, max_iter=50, tol=1.0, n_iter_no_change=2).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Iteration 1, loss = ")
    assert lines[1].startswith("Validation score: ")
    assert lines[-1] == (
        "Validation score did not improve more than tol=1.000000 for 2 consecutive epochs."
        " Stopping."
    )
    quick(verbose=1, solver="lbfgs").fit(X, Y)
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_bar_where_it_can_be_shown_and_lines_elsewhere(capsys, monkeypatch):
    quick(verbose=2).fit(X, Y)
    out, err = capsys.readouterr()
    assert (out.count("Iteration"), err) == (5, "")
    monkeypatch.setattr("gpunn.training.progress_bar.can_be_shown", lambda: True)
    quick(verbose=2).fit(X, Y)
    out, err = capsys.readouterr()
    assert not out
    assert "100%" in err
    assert "loss " in err


def test_ctrl_c_leaves_what_was_learnt():
    class Interrupt(gpunn.Callback):
        def on_epoch_end(self, network, record):
            if record.epoch == 2:
                signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="interrupted"):
        model = quick().fit(X, Y, callbacks=[Interrupt()])
    np.testing.assert_array_equal(model.loss_curve_, quick(max_iter=2).fit(X, Y).loss_curve_)
    assert model.predict(X).shape == Y.shape


@pytest.mark.usefixtures("installed_double")
@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_dropout_is_the_same_on_all_devices(make):
    cpu, gpu, other = (
        make(**QUICK | {"dropout": 0.4, "device": device, "hidden_layer_sizes": (20, 10)} | seed)
        for device, seed in (("cpu", {}), ("cuda", {}), ("cpu", {"random_state": 2}))
    )
    for model in (cpu, gpu, other):
        model.fit(X, Y)
    np.testing.assert_allclose(gpu.loss_curve_, cpu.loss_curve_, rtol=1e-9)
    assert cpu.loss_curve_ != other.loss_curve_
    whole = make(**QUICK | {"hidden_layer_sizes": (20, 10)}).fit(X, Y)
    assert not np.allclose(whole.coefs_[0], cpu.coefs_[0])
    # Nothing is dropped afterwards.
    np.testing.assert_array_equal(cpu.predict(X), cpu.predict(X))


def test_dropout_holds_overfitting_back():
    inputs, labels = make_classification(60, 20, n_informative=3, flip_y=0.3, random_state=1)
    options = {"hidden_layer_sizes": (100,), "max_iter": 150, "learning_rate_init": 0.01, "tol": 0}
    plain, dropping = (quick(**options, dropout=rate).fit(inputs, labels) for rate in (0.0, 0.8))
    gaps = [np.median(m.predict_proba(inputs).max(axis=1)) for m in (plain, dropping)]
    assert gaps[0] > gaps[1]


def test_lbfgs_takes_no_dropout():
    with pytest.raises(ValueError, match="loss that is not random"):
        quick(solver="lbfgs", dropout=0.1).fit(X, Y)


def test_lbfgs_takes_no_callbacks():
    with pytest.raises(ValueError, match="callbacks are for the solvers 'sgd' and 'adam'"):
        quick(solver="lbfgs").fit(X, Y, callbacks=[gpunn.Callback()])


def test_an_estimator_of_given_numbers_predicts():
    model = quick().fit(X, Y)
    made = quick()
    for name in ("coefs_", "intercepts_", "classes_", "n_outputs_", "n_features_in_"):
        setattr(made, name, getattr(model, name))
    made._label_binarizer, made.out_activation_ = model._label_binarizer, model.out_activation_
    np.testing.assert_array_equal(made.predict_proba(X), model.predict_proba(X))
