"""What importing gpunn costs, and that its modules build on each other in one direction."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpunn

ORDER = [
    "errors",
    "activations",
    "losses",
    "rows",
    "scaling",
    "sparse_rows",
    "backend",
    "numpy_blas",
    "numpy_online",
    "numpy_backend",
    "cupy_kernels",
    "cupy_online",
    "cupy_batches",
    "cupy_staging",
    "cupy_backend",
    "facts",
    "machine",
    "devices",
    "initializers",
    "model_file",
    "network",
    "online",
    "three_layer",
    "optimizers",
    "batches",
    "memory",
    "history",
    "samples",
    "streams",
    "loaders",
    "evaluation",
    "checkpoints",
    "interrupts",
    "loop",
    "training",
    "mlp_samples",
    "mlp_data",
    "mlp_report",
    "mlp_engine",
    "mlp_descent",
    "mlp_lbfgs",
    "mlp_files",
    "mlp_base",
    "estimators",
    "interchange",
    "gradient_check",
    "error_model",
    "parity_checks",
    "parity",
    "testing",
    "readers",
    "parquet_pages",
    "parquet",
    "data",
    "long_table",
    "recipes",
    "diagnosis",
    "doctor",
    "plots",
    "console",
    "train_data",
    "train_command",
    "model_commands",
    "info_command",
    "parity_command",
    "cli",
]
HEAVY = (
    "cupy", "sklearn", "matplotlib", "scipy.linalg", "torch", "onnx", "pooch", "pandas", "PIL",
    "pyarrow", "safetensors", "psutil", "tqdm", "requests", "pytest", "gpunn.cli",
    "gpunn.cupy_backend", "gpunn.cupy_online", "gpunn.cupy_staging", "gpunn.cupy_kernels",
    "gpunn.cupy_batches",
)  # fmt: skip
FOLDER = Path(gpunn.__file__).parent


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_gpunn_imports_nothing_heavy():
    loaded = run("import gpunn, sys; print(*sys.modules)").split()
    assert [name for name in HEAVY if name in loaded] == []


def test_import_gpunn_adds_few_modules_to_those_of_numpy():
    loaded = run(
        "import numpy, sys; before = set(sys.modules); import gpunn;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    foreign = {name for name in loaded if name not in sys.stdlib_module_names}
    # What numpy.random brings, which gpunn draws from.
    own = {"numpy", "cython_runtime"} | {name for name in foreign if name.startswith("_cython")}
    assert foreign - own == {"gpunn"}


def test_a_cupy_that_is_broken_is_not_noticed_until_it_is_wanted(tmp_path):
    package = tmp_path / "cupy"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libcublas.so.12: cannot open')")
    code = """
import os, sys, warnings
sys.path.insert(0, sys.argv[1])
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
import gpunn
gpunn.Network([2, 1], device="cpu").predict([1, 2])
assert "cupy" not in sys.modules
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert gpunn.get_backend("auto").name == "cpu"
print(caught[0].message)
"""
    assert "libcublas.so.12: cannot open" in run(code, str(tmp_path))


def test_everything_that_is_promised_is_there():
    assert sorted(gpunn.__all__) == sorted(set(gpunn.__all__))
    for name in gpunn.__all__:
        assert hasattr(gpunn, name)


def imports(module):
    """Return the full names that a module's code imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def test_every_module_has_its_place():
    modules = {path.stem for path in FOLDER.glob("*.py")}
    assert modules == {*ORDER, "__init__", "__main__"}


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_those_before_it(module):
    inside = {name.split(".")[1] for name in imports(module) if name.startswith("gpunn.")}
    before = {"errors"} if module in ("readers", "data") else set()
    before |= set(ORDER[: ORDER.index(module)])
    if module in ("train_command", "parity_command", "cli"):
        before.add("__version__")
    assert inside <= before


def test_few_modules_know_cupy():
    users = {m for m in ORDER if any(name.split(".")[0] == "cupy" for name in imports(m))}
    over_cupy = {"cupy_backend", "cupy_kernels", "cupy_staging"}
    assert over_cupy <= users <= over_cupy | {"devices", "doctor"}


def test_only_the_plugin_for_pytest_knows_pytest():
    users = {m for m in ORDER if any(name.split(".")[0] == "pytest" for name in imports(m))}
    assert users == {"testing"}


def test_only_the_command_line_prints_or_draws():
    for module in ORDER:
        tree = ast.parse((FOLDER / f"{module}.py").read_text("utf-8"))
        calls = {
            n.func.id
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert "print" not in calls or module in ("console", "cli", "mlp_report")
        assert (
            not any(name.startswith("matplotlib") for name in imports(module)) or module == "plots"
        )
