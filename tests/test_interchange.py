"""Models from and to scikit-learn, PyTorch and ONNX predict the same."""

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import NotFittedError

import gpunn
from gpunn.activations import ACTIVATIONS, IDENTITY
from gpunn.errors import DataError, MissingPackageError, OutputError, ParameterError, ShapeError

X, Y = make_classification(120, 8, n_informative=5, n_classes=3, random_state=0)
KINDS = {
    "classes": ("MLPClassifier", X, np.array(["a", "b", "c"])[Y], {}),
    "two classes": ("MLPClassifier", X, Y > 0, {}),
    "labels": (
        "MLPClassifier",
        *make_multilabel_classification(120, 8, n_classes=3, random_state=0),
        {},
    ),
    "number": ("MLPRegressor", *make_regression(120, 8, random_state=0), {}),
    "numbers": ("MLPRegressor", *make_regression(120, 8, n_targets=2, random_state=0), {}),
    "counts": ("MLPRegressor", X, Y, {"loss": "poisson"}),
}
SOLVERS = [
    {"solver": "lbfgs"},
    {"solver": "sgd", "activation": "logistic", "early_stopping": True},
    {"solver": "adam", "activation": "tanh"},
    {"solver": "adam", "activation": "identity", "hidden_layer_sizes": (9, 4)},
]
QUICK = {"hidden_layer_sizes": (6,), "max_iter": 5, "random_state": 1, "learning_rate_init": 1e-4}
MODULES = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "ReLU", "identity": "Identity"}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def fitted(kind, module=gpunn, dtype="float64", **parameters):
    name, X, y, own = kind
    return getattr(module, name)(**QUICK | own | parameters).fit(X.astype(dtype), y)


def outputs(estimator, X):
    """Return the outputs as an ONNX graph gives them."""
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(X)
    return estimator.predict(X).reshape(len(X), -1)


def assert_same_outputs(got, expected, size=1.0):
    """Assert that outputs differ by no more than two ways to add up may make them.

    Each of at most three layers adds at most 10 terms; a rounding error of an eps a term, relative
    to terms of `size`, goes through activations that do not stretch it and 10 weights of about 1.
    """
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    tolerance = 3 * 10 * 10 * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * size)


# scikit-learn.


@pytest.mark.parametrize("parameters", SOLVERS, ids=lambda p: p["solver"])
@pytest.mark.parametrize("way", ["from", "to"])
def test_scikit_learn_predicts_the_same(kind, parameters, way):
    here, there = gpunn, neural_network
    if way == "from":
        here, there = there, here
    model = fitted(kind, here, **parameters)
    other = (gpunn.from_sklearn if way == "from" else gpunn.to_sklearn)(model)
    assert type(other) is getattr(there, kind[0])
    assert_same_outputs(outputs(other, kind[1]), outputs(model, kind[1]), 100.0)
    np.testing.assert_array_equal(other.predict(kind[1][:50]).shape, model.predict(X[:50]).shape)
    for name in ("n_iter_", "t_", "loss_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(other, name) == getattr(model, name)
    assert getattr(other, "loss_curve_", None) == getattr(model, "loss_curve_", None)
    assert getattr(other, "validation_scores_", 0) == getattr(model, "validation_scores_", 0)
    shared = model.get_params().keys() & other.get_params().keys()
    assert {k: other.get_params()[k] for k in shared} == {k: model.get_params()[k] for k in shared}
    if kind[0] == "MLPClassifier":
        np.testing.assert_array_equal(other.classes_, model.classes_)
        np.testing.assert_array_equal(other.predict(kind[1]), model.predict(kind[1]))


def test_training_goes_on_in_the_same_way_on_both_sides(kind):
    _, X, y, _ = kind
    model = fitted(kind, neural_network, solver="sgd", momentum=0)
    here = gpunn.from_sklearn(model).partial_fit(X, y)
    there = gpunn.to_sklearn(gpunn.from_sklearn(model)).partial_fit(X, y)
    model.partial_fit(X, y)
    np.testing.assert_allclose(here.loss_curve_, model.loss_curve_, rtol=1e-12)
    assert there.loss_curve_ == model.loss_curve_
    assert len(model.loss_curve_) == 6


def test_a_warm_start_that_finds_nothing_better_keeps_what_came_from_here():
    model = fitted(KINDS["classes"], early_stopping=True, warm_start=True, n_iter_no_change=1)
    model.best_validation_score_ = 1.0
    other = gpunn.to_sklearn(model).fit(*KINDS["classes"][1:3])
    np.testing.assert_array_equal(other.coefs_[0], model.coefs_[0])


def test_what_comes_from_scikit_learn_is_a_copy_and_keeps_names_and_dtype():
    model = fitted(KINDS["classes"], neural_network, dtype="float32")
    # As a fit on a table with these columns leaves it.
    model.feature_names_in_ = np.array([*"abcdefgh"], dtype=object)
    before = copy.deepcopy(model.coefs_)
    other = gpunn.from_sklearn(model, device="auto")
    assert other.device == "auto"
    assert list(other.feature_names_in_) == list("abcdefgh")
    assert other.coefs_[0].dtype == np.float32
    del other.feature_names_in_
    other.partial_fit(X.astype("float32"), KINDS["classes"][2])
    for coefs, was in zip(model.coefs_, before, strict=True):
        np.testing.assert_array_equal(coefs, was)


def test_what_scikit_learn_does_not_have_stays_behind():
    model = fitted(KINDS["classes"], dropout=0.2, class_weight="balanced")
    other = gpunn.to_sklearn(model)
    assert not {"dropout", "class_weight", "device"} & vars(other).keys()
    assert_same_outputs(other.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("convert", [gpunn.from_sklearn, gpunn.to_sklearn])
def test_other_estimators_are_refused(convert):
    wrong = gpunn if convert is gpunn.from_sklearn else neural_network
    right = neural_network if convert is gpunn.from_sklearn else gpunn
    with pytest.raises(ParameterError, match=r"expected an MLPClassifier.* got .*\.MLPRegressor"):
        convert(wrong.MLPRegressor())
    with pytest.raises(NotFittedError):
        convert(right.MLPClassifier())


# PyTorch.


def network(dtype="float32", **parameters):
    options = {"hidden_activation": "tanh", "output_activation": "softmax", "seed": 3}
    return gpunn.Network([8, 9, 5, 3], dtype=dtype, device="cpu", **options | parameters)


def sequential(torch, network):
    """Return the modules that a network's state dict is for."""
    layers = []
    for n_out, n_in, activation in network.architecture.layers():
        last = torch.nn.Softmax(dim=1) if activation.name == "softmax" else None
        layers += [
            torch.nn.Linear(n_in, n_out, bias=network.architecture.biases),
            last or getattr(torch.nn, MODULES[activation.name])(),
        ]
    model = torch.nn.Sequential(*layers).to(getattr(torch, network.dtype.name))
    return model.eval()


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("hidden", MODULES)
def test_pytorch_predicts_the_same(hidden, biases, dtype):
    torch = pytest.importorskip("torch")
    ours = network(dtype, hidden_activation=hidden, biases=biases)
    theirs = sequential(torch, ours)
    theirs.load_state_dict(gpunn.to_torch(ours))
    inputs = X.astype(dtype)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(inputs)).numpy()
    assert_same_outputs(ours.predict(inputs), expected)
    back = gpunn.from_torch(
        theirs.state_dict(), hidden_activation=hidden, output_activation="softmax", device="cpu"
    )
    assert back.architecture == ours.architecture
    np.testing.assert_array_equal(back.predict(inputs), ours.predict(inputs))


def test_a_network_from_pytorch_trains_without_changing_the_model():
    torch = pytest.importorskip("torch")
    theirs = sequential(torch, network())
    before = copy.deepcopy(theirs.state_dict())
    back = gpunn.from_torch(
        dict(theirs.named_parameters()),
        hidden_activation="tanh",
        output_activation="softmax",
        loss="cross_entropy",
        device="cpu",
    )
    gpunn.fit(back, X.astype("float32"), Y, epochs=1, learning_rate=0.1)
    assert not np.array_equal(back.parameters()["layers.0.weight"], before["0.weight"])
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_an_estimator_goes_to_pytorch(kind):
    torch = pytest.importorskip("torch")
    model = fitted(kind, activation="logistic", hidden_layer_sizes=(9, 4))
    state_dict = gpunn.to_torch(model)
    sizes = [8, 9, 4, model.n_outputs_] if kind[1].shape[1] == 8 else [20, 9, 4, model.n_outputs_]
    linear = [torch.nn.Linear(n, m, dtype=torch.float64) for n, m in zip(sizes, sizes[1:])]  # noqa: B905, RUF007
    act = torch.nn.Sigmoid
    theirs = torch.nn.Sequential(linear[0], act(), linear[1], act(), linear[2])
    theirs.load_state_dict(state_dict)
    with torch.inference_mode():
        z = theirs(torch.from_numpy(kind[1])).numpy()
    expected = {
        "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
        "logistic": lambda z: 1 / (1 + np.exp(-z)),
        "identity": lambda z: z,
        "exp": np.exp,
    }[model.out_activation_](z)
    assert_same_outputs(outputs(model, kind[1])[:, -expected.shape[1] :], expected)
    state_dict["0.weight"].zero_()
    assert model.coefs_[0].all()


def arrays(*sizes, bias=True, names=None):
    """Return a state dict of NumPy arrays; each layer's numbers are its own."""
    names = names or [str(2 * i) for i in range(len(sizes) - 1)]
    found = {}
    for i, name in enumerate(names):
        found[f"{name}.weight"] = np.full((sizes[i + 1], sizes[i]), i + 1.0)
        if bias:
            found[f"{name}.bias"] = np.zeros(sizes[i + 1])
    return found


def read(state_dict, **options):
    activations = {"hidden_activation": "relu", "output_activation": "identity"}
    return gpunn.from_torch(state_dict, device="cpu", **activations | options)


def test_layers_come_by_number_or_else_in_the_order_they_are_in():
    names = [str(i) for i in range(0, 12, 2)]
    shuffled = dict(sorted(arrays(*[3] * 7, names=names).items()))
    assert list(shuffled)[2] == "10.bias"
    for back in (read(shuffled), read(arrays(*[3] * 7, names=[*"zyxabc"]))):
        assert [layer.weights[0, 0] for layer in back.layers] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda d: d.clear(), ShapeError, "got nothing"),
        (lambda d: d.update({"1.running_mean": np.ones(4)}), ShapeError, "got .*running_mean"),
        (lambda d: d.pop("2.bias"), ShapeError, "0.bias and 2.bias differ"),
        (lambda d: d.update({"0.bias": np.ones(3)}), ShapeError, r"shape \(4,\), got \(3,\)"),
        (lambda d: d.update({"2.weight": np.ones((2, 5))}), ShapeError, r"the 4 outputs .*\(2, 5"),
        (lambda d: d.update({"0.weight": np.ones((4, 3, 1))}), ShapeError, "linear layer"),
        (lambda d: d.update({"0.bias": np.ones(4, "f4")}), DataError, "got float32 and float64"),
        (lambda d: d.update({"0.bias": [[1], 2]}), DataError, "0.bias must be a tensor"),
    ],
)
def test_what_is_no_stack_of_linear_layers_is_refused(change, error, text):
    state_dict = arrays(3, 4, 2)
    change(state_dict)
    with pytest.raises(error, match=text):
        read(state_dict)


def test_a_model_in_place_of_its_state_dict_and_half_precision_are_refused():
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    with pytest.raises(ParameterError, match=r"got Linear: give `model.state_dict\(\)`"):
        read(model)
    with pytest.raises(DataError, match="weight must be a tensor of float32"):
        read(model.bfloat16().state_dict())
    with pytest.raises(ParameterError, match="unknown activation"):
        read(model.float().state_dict(), hidden_activation="gelu")


# ONNX.


def run_onnx(path, inputs):
    """Check a file, and return what onnxruntime makes of inputs, and the metadata."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(["outputs"], {"inputs": inputs})
    return result, session.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("output", ["sigmoid", "softmax", "identity"])
@pytest.mark.parametrize("hidden", MODULES)
def test_onnx_predicts_the_same(tmp_path, hidden, output, biases, dtype):
    pytest.importorskip("onnx")
    ours = network(dtype, hidden_activation=hidden, output_activation=output, biases=biases)
    ours.class_labels = [7, 8, 9]
    gpunn.to_onnx(ours, tmp_path / "model.onnx")
    inputs = X.astype(dtype)
    for n in (1, 120):
        got, metadata = run_onnx(tmp_path / "model.onnx", inputs[:n])
        assert_same_outputs(got, ours.predict(inputs[:n]))
    assert json.loads(metadata["classes"]) == [7, 8, 9]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_estimator_goes_to_onnx(kind, tmp_path, dtype):
    pytest.importorskip("onnx")
    model = fitted(kind, dtype=dtype)
    gpunn.to_onnx(model, tmp_path / "model.onnx")
    inputs = kind[1].astype(dtype)
    got, metadata = run_onnx(tmp_path / "model.onnx", inputs)
    assert_same_outputs(got, outputs(model, inputs).astype(dtype), 100.0)
    if kind[0] == "MLPClassifier":
        assert json.loads(metadata["classes"]) == model.classes_.tolist()
    else:
        assert metadata == {}


def test_the_textbooks_network_goes_to_onnx(tmp_path):
    pytest.importorskip("onnx")
    ours = gpunn.ThreeLayerNetwork(8, 5, 3, learning_rate=0.1, device="cpu")
    gpunn.to_onnx(ours, tmp_path / "model.onnx")
    got, _ = run_onnx(tmp_path / "model.onnx", X.astype("float32"))
    assert_same_outputs(got, ours.predict(X.astype("float32")))


def test_onnx_refuses_what_it_cannot_hold(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    with pytest.raises(OutputError, match=r"cannot write .*none"):
        gpunn.to_onnx(network(), tmp_path / "none" / "model.onnx")
    monkeypatch.setitem(ACTIVATIONS, "mine", replace(IDENTITY, name="mine", onnx=None))
    with pytest.raises(ParameterError, match="no activation 'mine': use one of sigmoid"):
        gpunn.to_onnx(network(hidden_activation="mine"), tmp_path / "model.onnx")
    monkeypatch.setattr("gpunn.interchange.onnx_files.MOST_ONNX_BYTES", 100)
    with pytest.raises(ParameterError, match="less than 2 GiB"):
        gpunn.to_onnx(network(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


# Both.


def to_onnx(model):
    gpunn.to_onnx(model, "never-written.onnx")


@pytest.mark.parametrize("convert", [gpunn.to_torch, to_onnx])
def test_only_fitted_models_of_gpunn_go_out(convert):
    with pytest.raises(
        ParameterError, match=r"got sklearn.*convert a scikit-learn model with from_sklearn first"
    ):
        convert(neural_network.MLPClassifier())
    with pytest.raises(NotFittedError):
        convert(gpunn.MLPRegressor())


@pytest.mark.parametrize(
    ("convert", "module", "text"),
    [
        (gpunn.to_torch, "torch", "pip install 'torch'"),
        (to_onnx, "onnx", r"pip install 'gpunn\[onnx\]'"),
        (gpunn.from_sklearn, "sklearn", r"pip install 'gpunn\[sklearn\]'"),
        (gpunn.to_sklearn, "sklearn", r"pip install 'gpunn\[sklearn\]'"),
    ],
)
def test_what_is_not_installed_is_named(convert, module, text, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=text):
        convert(network())
