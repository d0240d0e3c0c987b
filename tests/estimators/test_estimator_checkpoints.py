"""Estimators' checkpoints: a killed fit goes on, to the same bits; signals end it in order."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.sparse
from kill import Kill, Killed
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning

import gpunn
from gpunn import Checkpoints, MLPClassifier, MLPRegressor
from gpunn.errors import ModelFileError, ParameterError
from gpunn.model_file import read_model, write_model
from gpunn.training.checkpoints import Content, checksum

X, Y = make_classification(120, 8, n_informative=5, n_classes=3, random_state=0)
_, NUMBERS = make_regression(120, 8, n_targets=2, random_state=0)
W = np.random.default_rng(1).uniform(0, 2, 120)
QUICK = {"hidden_layer_sizes": (6, 5), "max_iter": 12, "random_state": 1, "batch_size": 50}
KINDS = {
    "adam": (MLPClassifier, Y, {}, {}),
    "adaptive": (
        MLPClassifier,
        Y,
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 2},
        {},
    ),
    "invscaling": (MLPClassifier, Y, {"solver": "sgd", "learning_rate": "invscaling"}, {}),
    "early stopping": (MLPClassifier, Y, {"early_stopping": True, "n_iter_no_change": 4}, {}),
    "validation": (MLPClassifier, Y, {}, {"validation_data": (X[:30], Y[:30])}),
    "dropout": (MLPClassifier, Y, {"dropout": 0.3}, {}),
    "weights": (MLPClassifier, Y, {"class_weight": "balanced"}, {"sample_weight": W}),
    "unshuffled": (MLPClassifier, Y, {"shuffle": False}, {}),
    "numbers": (MLPRegressor, NUMBERS, {"early_stopping": True}, {}),
}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def assert_same(one, other):
    for name in ("coefs_", "intercepts_"):
        for array, twin in zip(getattr(one, name), getattr(other, name), strict=True):
            np.testing.assert_array_equal(array, twin)
    names = ("loss_curve_", "validation_scores_", "validation_loss_curve_", "n_iter_", "t_")
    for name in (*names, "loss_", "best_loss_", "best_validation_score_", "_no_improvement_count"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("n_steps", [1, 5, 9, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, kind, n_steps):
    make, y, parameters, options = KINDS[kind]
    whole = make(**QUICK | parameters).fit(X, y, **options)
    with pytest.raises(Killed):
        make(**QUICK | parameters).fit(
            X, y, **options, callbacks=[Kill(n_steps)], checkpoints=Checkpoints(tmp_path, "2 steps")
        )
    said = []

    class Listen(gpunn.Callback):
        def on_notice(self, text):
            said.append(text)

    resumed = make(**QUICK | parameters)
    checkpoints = Checkpoints(tmp_path, "2 steps", resume=True)
    resumed.fit(X, y, **options, callbacks=[Listen()], checkpoints=checkpoints)
    assert any("continuing from" in text for text in said)
    assert_same(resumed, whole)
    # What the optimizer remembers is the same as well.
    assert_same(resumed.partial_fit(X, y), whole.partial_fit(X, y)) if kind == "adam" else None


def test_sparse_samples(tmp_path):
    sparse = scipy.sparse.csr_matrix(np.where(X > 1, X, 0))
    whole = MLPClassifier(**QUICK).fit(sparse, Y)
    with pytest.raises(Killed):
        MLPClassifier(**QUICK).fit(
            sparse, Y, callbacks=[Kill(8)], checkpoints=Checkpoints(tmp_path, "3 steps")
        )
    other = sparse.copy()
    other.data[0] += 1
    with pytest.raises(ParameterError, match="made for another training: inputs"):
        MLPClassifier(**QUICK).fit(other, Y, checkpoints=Checkpoints(tmp_path, resume=True))
    resumed = MLPClassifier(**QUICK).fit(sparse, Y, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(resumed, whole)


def test_on_the_double(tmp_path, installed_double):
    on_gpu = QUICK | {"device": "cuda", "early_stopping": True}
    whole = MLPClassifier(**on_gpu).fit(X, Y)
    with pytest.raises(Killed):
        MLPClassifier(**on_gpu).fit(
            X, Y, callbacks=[Kill(8)], checkpoints=Checkpoints(tmp_path, "3 steps")
        )
    resumed = MLPClassifier(**on_gpu).fit(X, Y, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(resumed, whole)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"solver": "lbfgs"}, "checkpoints are for the solvers 'sgd' and 'adam'.*'lbfgs'"),
        ({"random_state": None}, "need random_state to be a whole number.*got None"),
    ],
)
def test_what_cannot_be_resumed_is_refused_at_once(tmp_path, parameters, message):
    with pytest.raises(ParameterError, match=message):
        MLPClassifier(**QUICK | parameters).fit(X, Y, checkpoints=Checkpoints(tmp_path / "c"))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["alpha", "max_iter", "random_state"])
def test_another_training_is_not_gone_on_with(tmp_path, name):
    MLPClassifier(**QUICK).fit(X, Y, checkpoints=Checkpoints(tmp_path))
    other = QUICK | {name: 2}
    with pytest.raises(ParameterError, match=rf"made for another training: .*{name}"):
        MLPClassifier(**other).fit(X, Y, checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(ParameterError, match="holds checkpoints of an earlier training"):
        MLPClassifier(**QUICK).fit(X, Y, checkpoints=Checkpoints(tmp_path))


def test_a_checkpoint_is_a_model_file(tmp_path):
    model = MLPClassifier(**QUICK).fit(X, Y, checkpoints=Checkpoints(tmp_path))
    network = gpunn.Network.load(Checkpoints(tmp_path).paths()[0], "cpu")
    np.testing.assert_array_equal(network.predict(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("best", "counts", "t_"), -1),
        (("best", "counts", "n_iter_"), 3),
        (("best", "learning_rate"), "fast"),
        (("best", "learning_rate"), 0.0),
        (("best", "measures", "loss_"), 0.5),
        (("best", "curves", "loss_curve_"), ["0x1p-1", 7]),
        (("best", "curves"), {}),
        (("best",), {"epoch": None, "score": None, "since": 0}),
        (("progress", "generator", "state", "pos"), 700),
    ],
)
def test_a_forged_state_counts_as_damaged(tmp_path, where, value):
    MLPClassifier(**QUICK).fit(X, Y, checkpoints=Checkpoints(tmp_path))
    path, *others = Checkpoints(tmp_path).paths()
    for other in others:
        other.unlink()
    arrays, header = read_model(path)
    del header["sha256"]
    place = header["checkpoint"]["state"]
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    content = Content(arrays, header)
    write_model(path, arrays, {**header, "sha256": checksum(content)})
    with pytest.raises(ModelFileError, match="all of its 1 checkpoints are damaged"):
        MLPClassifier(**QUICK).fit(X, Y, checkpoints=Checkpoints(tmp_path, resume=True))


PROGRAM = """
import sys, warnings
import numpy as np
from sklearn.datasets import make_classification
import gpunn

X, Y = make_classification(120, 8, n_informative=5, n_classes=3, random_state=0)

class Say(gpunn.Callback):
    def on_epoch_end(self, network, record):
        print("epoch", record.epoch, flush=True)

model = gpunn.MLPClassifier((6,), max_iter=10**9, n_iter_no_change=10**9, random_state=1)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    checkpoints = gpunn.Checkpoints(sys.argv[1])
    model.fit(X, Y, callbacks=[Say()], checkpoints=checkpoints)
print("ended", [str(w.message) for w in caught], len(model.loss_curve_) >= 3, model.score(X, Y) > 0)
"""


@pytest.mark.parametrize(
    ("number", "text"),
    [(signal.SIGINT, "interrupted by the user"), (signal.SIGTERM, "interrupted by SIGTERM")],
)
def test_a_signal_ends_a_fit_in_good_order_with_a_checkpoint(tmp_path, number, text):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("epoch 3"):
                break
        n_before = len(Checkpoints(tmp_path).paths())
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(60) == 0
    assert f"ended ['training {text}'] True True" in rest
    assert n_before >= 1
    assert time.time() - Checkpoints(tmp_path).paths()[0].stat().st_mtime < 60
    newest = gpunn.Network.load(Checkpoints(tmp_path).paths()[0], "cpu")
    assert newest.n_inputs == 8


def test_a_warm_start_does_not_go_back_to_an_earlier_fit(tmp_path):
    model = MLPClassifier(**QUICK, warm_start=True)
    model.fit(X, Y, checkpoints=Checkpoints(tmp_path, resume=True))
    before = [coefs.copy() for coefs in model.coefs_]
    with pytest.raises(ParameterError, match=r"made for another training: .*first weights"):
        model.fit(X, Y, checkpoints=Checkpoints(tmp_path, resume=True))
    for array, twin in zip(model.coefs_, before, strict=True):
        np.testing.assert_array_equal(array, twin)


def test_other_numbers_of_sparse_features_are_another_training(tmp_path):
    sparse = scipy.sparse.csr_matrix(np.where(X > 1, X, 0))
    MLPClassifier(**QUICK).fit(sparse, Y, checkpoints=Checkpoints(tmp_path))
    wider = scipy.sparse.csr_matrix((sparse.data, sparse.indices, sparse.indptr), (120, 9))
    with pytest.raises(ParameterError, match=r"features"):
        MLPClassifier(**QUICK).fit(wider, Y, checkpoints=Checkpoints(tmp_path, resume=True))


def test_arguments_of_a_wrong_kind_are_named():
    with pytest.raises(ParameterError, match=r"checkpoints must be a gpunn\.Checkpoints, got 'c'"):
        MLPClassifier(**QUICK).fit(X, Y, checkpoints="c")
    with pytest.raises(ParameterError, match="callbacks must be a list"):
        MLPClassifier(**QUICK).fit(X, Y, callbacks=[1])


def test_the_bar_of_a_resumed_fit_ends_full(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gpunn.training.progress_bar.can_be_shown", lambda: True)
    with pytest.raises(Killed):
        MLPClassifier(**QUICK).fit(
            X, Y, callbacks=[Kill(7)], checkpoints=Checkpoints(tmp_path, "1 epoch")
        )
    checkpoints = Checkpoints(tmp_path, resume=True)
    MLPClassifier(**QUICK, verbose=2).fit(X, Y, checkpoints=checkpoints)
    shown = re.findall(r"(\d+)%", capsys.readouterr().err)
    # The first bar is replaced by one that begins with the epochs of before.
    assert list(dict.fromkeys(shown))[:2] == ["0", "17"]  # 2 of 12 were whole
    assert shown[-1] == "100"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_fit_that_diverged_says_so_though_better_weights_are_kept():
    options = {"solver": "sgd", "early_stopping": True, "random_state": 0, "max_iter": 20}
    wild = MLPRegressor(**options, learning_rate_init=1e6, batch_size=1)
    with pytest.raises(ValueError, match="diverged in epoch 1, before any"):
        wild.fit(X, NUMBERS)

    class Leap(gpunn.Callback):
        """Makes steps that no training survives after the third epoch."""

        def on_epoch_end(self, network, record):
            if record.epoch == 3:
                network.layers[0].weights[:] = np.nan

    model = MLPRegressor(**options, learning_rate_init=1e-4)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 4: the weights are those of"):
        model.fit(X, NUMBERS, callbacks=[Leap()])
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("weights", [{0: np.nan}, {1: np.inf}, {2: -1.0}])
def test_weights_of_classes_that_cannot_be_are_refused(weights):
    with pytest.raises(ValueError, match="class_weight must be finite and at least 0"):
        MLPClassifier(**QUICK, class_weight=weights).fit(X, Y)
