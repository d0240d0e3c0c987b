"""What `docs/from_scikit_learn.md` says runs, and holds."""

import importlib.util
import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import neural_network

import gpunn

GUIDE = Path(__file__).parents[2] / "docs" / "from_scikit_learn.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
KINDS = ("MLPClassifier", "MLPRegressor")
X = np.random.default_rng(0).normal(size=(80, 5))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_block(block, tmp_path):
    for module in ("torch", "onnx"):
        if f"import {module}" in block and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    command = [sys.executable, "-W", "error", "-W", "ignore:running on the CPU", "-c", block]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    assert all((GUIDE.parent / link).exists() for link in links)


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_are_there_in_the_same_order_with_the_same_defaults(kind):
    theirs, ours = (
        {name: p.default for name, p in inspect.signature(getattr(m, kind)).parameters.items()}
        for m in (neural_network, gpunn)
    )
    assert [(name, ours[name]) for name in ours if name in theirs] == list(theirs.items())
    new = {"device", "dropout"} | ({"class_weight"} if kind == "MLPClassifier" else set())
    assert ours.keys() - theirs.keys() == new
    assert all(f"`{name}=" in TEXT for name in new)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_public_attributes_and_methods_are_there(kind, solver):
    theirs, ours = (
        getattr(m, kind)(solver=solver, max_iter=2).fit(X, Y) for m in (neural_network, gpunn)
    )
    public = {name for name in dir(theirs) if not name.startswith("_")}
    if solver == "lbfgs":
        assert not hasattr(ours, "partial_fit")
        assert hasattr(theirs, "partial_fit") == (kind == "MLPRegressor")
        public -= {"partial_fit"}
    assert public <= set(dir(ours))
    new = {name for name in set(dir(ours)) - public if not name.startswith("_")}
    assert all(re.search(rf"\b{name}\b", TEXT) for name in new)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_is_said_to_differ_differs():
    assert not isinstance(gpunn.MLPClassifier(), neural_network.MLPClassifier)
    found = {}
    for module in (neural_network, gpunn):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = module.MLPClassifier((4,), max_iter=2, random_state=0).fit(X, Y)
            single = module.MLPClassifier((4,), max_iter=2, random_state=0, solver="lbfgs")
            single.fit(X.astype("float32"), Y)
        wild = module.MLPRegressor(solver="sgd", learning_rate_init=1e9, max_iter=9, tol=0)
        with pytest.raises(ValueError, match="finite"):
            wild.fit(X, Y)
        found[module] = (
            Path(caught[0].filename).name,
            model.coefs_[0].flags.c_contiguous,
            single.coefs_[0].dtype.name,
            wild.n_iter_ == 9,
        )
    assert found[neural_network] == ("_multilayer_perceptron.py", True, "float64", True)
    assert found[gpunn] == (Path(__file__).name, False, "float32", False)
