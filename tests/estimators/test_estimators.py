"""The estimators beside scikit-learn's own: the same curves, and the same contract."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network
from sklearn.datasets import (
    make_classification,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpunn
from gpunn import MLPClassifier, MLPRegressor

N_SAMPLES = 150


def make_data(kind):
    """Return samples and what is to be learnt of them, in float64."""
    if kind == "binary":
        return make_classification(N_SAMPLES, 10, random_state=0)
    if kind == "multiclass":
        X, y = make_classification(
            N_SAMPLES, 10, n_informative=6, n_classes=4, class_sep=0.5, random_state=0
        )
        return X, np.array(["a", "b", "c", "d"])[y]
    if kind == "multilabel":
        return make_multilabel_classification(N_SAMPLES, 10, n_classes=3, random_state=0)
    if kind == "counts":
        X, y = make_regression(N_SAMPLES, 10, random_state=0)
        return X, np.random.default_rng(0).poisson(np.exp(y / 200)).astype(float)
    n_targets = 3 if kind == "multi-output" else 1
    X, y = make_regression(N_SAMPLES, 10, n_targets=n_targets, noise=1.0, random_state=0)
    return X, y / 100


KINDS = ("binary", "multiclass", "multilabel", "regression", "multi-output", "counts")
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
SOLVERS = {
    "sgd": {"solver": "sgd", "momentum": 0.0},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "nesterov": {"solver": "sgd"},
    "adam": {"solver": "adam"},
}


def pair(kind, **parameters):
    """Return scikit-learn's estimator and gpunn's, not fitted, for data of that kind."""
    defaults = {"hidden_layer_sizes": (9, 7), "random_state": 3, "batch_size": 40, "max_iter": 20}
    name = "MLPClassifier" if kind in KINDS[:3] else "MLPRegressor"
    if kind == "counts":
        defaults["loss"] = "poisson"
    parameters = defaults | parameters
    return (getattr(module, name)(**parameters) for module in (neural_network, gpunn))


@pytest.fixture
def unconverged():
    """A few epochs are enough for a test, and no reason to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def assert_same_training(ours, theirs, rtol=1e-6):
    """Assert the same loss curve and the same weights; 1e-6 is what is promised."""
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=rtol)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.t_ == theirs.t_
    for mine, yours in zip(
        (*ours.coefs_, *ours.intercepts_), (*theirs.coefs_, *theirs.intercepts_), strict=True
    ):
        np.testing.assert_allclose(mine, yours, rtol=rtol, atol=rtol)


# The same training.


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_curves_are_those_of_scikit_learn(kind, activation, solver):
    X, y = make_data(kind)
    rate = 1e-4 if kind == "counts" else 1e-3
    parameters = SOLVERS[solver] | {"alpha": 0.05, "learning_rate_init": rate, "tol": 0.0}
    theirs, ours = pair(kind, activation=activation, **parameters)
    theirs.fit(X, y)
    ours.fit(X, y)
    assert len(ours.loss_curve_) == 20
    assert_same_training(ours, theirs)
    assert ours.out_activation_ == theirs.out_activation_
    assert ours.best_loss_ == min(ours.loss_curve_)
    if kind in KINDS[:3]:
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)
        np.testing.assert_allclose(
            ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-6, atol=1e-9
        )
    else:
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-5, atol=1e-6)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), rel=1e-6)


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize(
    "parameters",
    [
        {"learning_rate": "invscaling", "learning_rate_init": 0.1},
        {"learning_rate": "adaptive", "learning_rate_init": 0.5, "n_iter_no_change": 2, "tol": 0.1},
        {"shuffle": False},
        {"momentum": 1.0, "learning_rate_init": 1e-4},
        {"batch_size": "auto"},
        {"hidden_layer_sizes": 5},
        {"hidden_layer_sizes": ()},
        {"early_stopping": True, "n_iter_no_change": 3, "max_iter": 40, "learning_rate_init": 0.1},
        {"n_iter_no_change": np.inf, "learning_rate_init": 0.1},
        {"alpha": 0.0},
        {"random_state": np.random.RandomState(5)},
    ],
    ids=lambda parameters: "-".join(parameters),
)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "multi-output"])
def test_each_option_means_what_it_does_in_scikit_learn(kind, parameters):
    X, y = make_data(kind)
    if "random_state" in parameters:
        theirs, _ = pair(kind, random_state=np.random.RandomState(5), solver="sgd")
        _, ours = pair(kind, random_state=np.random.RandomState(5), solver="sgd")
    else:
        theirs, ours = pair(kind, **{"solver": "sgd"} | parameters)
    theirs.fit(X, y)
    ours.fit(X, y)
    assert_same_training(ours, theirs)
    if ours.early_stopping:
        assert ours.best_loss_ is None
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-6)
        assert ours.best_validation_score_ == max(ours.validation_scores_)
        assert len(ours.validation_loss_curve_) == ours.n_iter_
    else:
        assert ours.best_loss_ == pytest.approx(theirs.best_loss_, rel=1e-6)
        assert ours.validation_scores_ is None


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_sample_weights_are_those_of_scikit_learn(kind, early_stopping, rng):
    X, y = make_data(kind)
    weights = rng.uniform(0.1, 3.0, len(X))
    theirs, ours = pair(kind, alpha=0.5, early_stopping=early_stopping)
    theirs.fit(X, y, sample_weight=weights)
    ours.fit(X, y, sample_weight=weights)
    assert_same_training(ours, theirs)


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lbfgs_ends_where_scikit_learn_ends(kind, weighted, rng):
    X, y = make_data(kind)
    weights = rng.uniform(0.1, 3.0, len(X)) if weighted else None
    # Few iterations: later ones amplify the last bits, in which the two must differ.
    theirs, ours = pair(kind, solver="lbfgs", max_iter=8, activation="tanh", alpha=0.1)
    theirs.fit(X, y, sample_weight=weights)
    ours.fit(X, y, sample_weight=weights)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
    assert ours.n_iter_ == theirs.n_iter_ == 8
    assert not hasattr(ours, "loss_curve_")


def test_probabilities_next_to_0_count_as_in_scikit_learn():
    # Inputs that nobody scaled drive outputs to the ends at once.
    X, y = make_data("multiclass")
    for labels, kind in ((y, "multiclass"), (y == "a", "binary")):
        theirs, ours = pair(kind, activation="identity", solver="sgd", max_iter=3, tol=100.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.fit(300 * X, labels)
            ours.fit(300 * X, labels)
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-6)


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_goes_on_as_in_scikit_learn(kind):
    X, y = make_data(kind)
    for solver in SOLVERS.values():
        theirs, ours = pair(kind, **solver)
        classes = {"classes": np.unique(y)} if kind in KINDS[:2] else {}
        for estimator in (theirs, ours):
            if kind == "multilabel":
                classes = {"classes": np.arange(3)}
            for _ in range(3):
                estimator.partial_fit(X[:70], y[:70], **classes)
                estimator.partial_fit(X[70:], y[70:])
        assert_same_training(ours, theirs)


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize("kind", ["binary", "multi-output"])
def test_a_fit_and_then_partial_fit_or_a_warm_start_go_on_as_in_scikit_learn(kind):
    X, y = make_data(kind)
    theirs, ours = pair(kind, max_iter=5)
    for estimator in (theirs, ours):
        estimator.fit(X, y).partial_fit(X, y)
        estimator.set_params(warm_start=True).fit(X, y)
    assert_same_training(ours, theirs)
    assert len(ours.loss_curve_) == 11


def test_training_ends_by_itself_where_scikit_learn_ends():
    X, y = make_data("binary")
    theirs, ours = pair("binary", max_iter=400, learning_rate_init=0.02, tol=1e-3)
    theirs.fit(X, y)
    ours.fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_ < 400


# The contract.


@parametrize_with_checks([MLPClassifier(max_iter=50), MLPRegressor(max_iter=50)])
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn_pass(estimator, check):
    check(estimator)


def test_before_a_fit_there_is_nothing_to_ask():
    with pytest.raises(NotFittedError):
        MLPClassifier().predict([[0.0]])


def test_no_partial_fit_with_lbfgs():
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    assert not hasattr(MLPRegressor(solver="lbfgs"), "partial_fit")
    assert hasattr(MLPRegressor(), "partial_fit")


X2, Y2 = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"solver": "newton"}, "'solver' parameter"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be > 0, got \\[3, 0\\]"),
        ({"hidden_layer_sizes": -1}, "hidden_layer_sizes"),
        ({"alpha": -1.0}, "'alpha' parameter"),
        ({"momentum": 1.1}, "'momentum' parameter"),
        ({"class_weight": "fair"}, "'class_weight' parameter"),
        ({"device": 3}, "'device' parameter"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_refusals_are_value_errors_that_say_what_came(parameters, words):
    with pytest.raises(ValueError, match=words):
        MLPClassifier(**parameters).fit(X2, Y2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_other_refusals():
    model = MLPClassifier(max_iter=1)
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        model.fit(X2, Y2)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(X2, Y2, classes=[0, 1])
    with pytest.raises(ValueError, match=r"expected \[0 1\], got \[7\]"):
        model.partial_fit(X2, [0, 1, 7, 1])
    with pytest.raises(ValueError, match="same classes"):
        model.set_params(warm_start=True).fit(X2, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="larger validation_fraction"):
        MLPRegressor(early_stopping=True).fit(X2, Y2)
    with pytest.raises(ValueError, match="0 or more for loss='poisson'"):
        MLPRegressor(loss="poisson").fit(X2, [1.0, -1.0, 0.0, 2.0])
    with pytest.raises(ValueError, match="'balanced' is not for partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X2, Y2, classes=[0, 1])
    with pytest.raises(ValueError, match="not finite"):
        MLPRegressor(solver="sgd", learning_rate_init=1e30, tol=0).fit(X2, Y2 * 1e30)
    with pytest.warns(UserWarning, match="reduced to"), pytest.warns(ConvergenceWarning):
        MLPClassifier(batch_size=100, max_iter=1).fit(X2, Y2)
    with pytest.raises(gpunn.GpunnError, match="cannot be used"):
        MLPClassifier(device="cuda:77").fit(X2, Y2)


# Kinds of samples.


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize("kind", ["multiclass", "regression"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_float32_stays_float32(kind, solver):
    X, y = make_data(kind)
    _, double = pair(kind, solver=solver, max_iter=8)
    _, single = pair(kind, solver=solver, max_iter=8)
    double.fit(X, y)
    single.fit(X.astype(np.float32), y)
    assert {a.dtype for a in (*single.coefs_, *single.intercepts_)} == {np.dtype(np.float32)}
    assert {a.dtype for a in (*double.coefs_, *double.intercepts_)} == {np.dtype(np.float64)}
    assert single.loss_ == pytest.approx(double.loss_, rel=1e-3)
    outputs = single.predict_proba if kind == "multiclass" else single.predict
    assert outputs(X.astype(np.float32)).dtype == np.float32


@pytest.mark.usefixtures("unconverged")
@pytest.mark.parametrize("layout", ["csr_matrix", "csr_array", "csc_matrix", "coo_array"])
@pytest.mark.parametrize("parameters", [*SOLVERS.values(), {"solver": "lbfgs"}])
def test_sparse_samples_teach_the_same(layout, parameters, rng):
    X, y = make_data("multiclass")
    X = np.where(rng.random((len(X), 60)) < 0.05, np.tile(X, 6), 0.0)
    sparse = getattr(scipy.sparse, layout)(X)
    _, dense = pair("multiclass", **parameters)
    _, ours = pair("multiclass", **parameters)
    dense.fit(X, y)
    ours.fit(sparse, y)
    assert ours.loss_ == pytest.approx(dense.loss_, rel=1e-6)
    np.testing.assert_allclose(ours.predict_proba(sparse), dense.predict_proba(X), rtol=1e-6)
    early = ours.set_params(early_stopping=True).fit(sparse, y).predict(sparse)
    assert early.shape == y.shape


def test_sparse_samples_that_are_not_are_written_out_batch_by_batch():
    X, y = make_data("binary")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, dense = pair("binary")
        _, ours = pair("binary")
        dense.fit(X, y)
        ours.fit(scipy.sparse.csr_array(X), y)
    np.testing.assert_array_equal(ours.loss_curve_, dense.loss_curve_)
