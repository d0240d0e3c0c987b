"""What importing gpunn costs, and that its modules build on each other in one direction."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gpunn

FLOORS = (
    ("errors", "launcher"),
    ("host_memory",),
    ("activations", "ranges"),
    ("losses", "schedules"),
    ("data", "backends"),
    ("initializers", "model_file"),
    ("parallel",),
    ("network",),
    ("plots",),
    ("optimizer_base",),
    ("adam",),
    ("optimizers",),
    ("training",),
    ("textbook", "gradient_check"),
    ("recipes",),
    ("estimators", "parity"),
    ("interchange", "testing", "reports", "drawing"),
    ("cli",),
)
"""Folders, and modules that are in none, from the ground up; each knows only those below."""

HEAVY = (
    "cupy", "sklearn", "matplotlib", "scipy.linalg", "torch", "onnx", "pooch", "pandas", "PIL",
    "pyarrow", "safetensors", "psutil", "tqdm", "requests", "pytest", "gpunn.cli",
    "mpi4py", "gpunn.parallel.mpi", "gpunn.parallel.watch", "gpunn.parallel.sums",
    "jinja2", "gpunn.plots", "gpunn.reports", "gpunn.drawing", "gpunn.estimators", "gpunn.parity",
    "gpunn.interchange", "gpunn.backends.cupy_backend",
    "gpunn.backends.cupy_online", "gpunn.backends.cupy_staging", "gpunn.backends.cupy_kernels",
    "gpunn.backends.cupy_batches", "gpunn.backends.cupy_blas", "gpunn.backends.cupy_elementwise",
    "gpunn.backends.cupy_formulas", "gpunn.backends.cupy_ranks",
    "gpunn.backends.cupy_formulas", "numba", "llvmlite", "gpunn.backends.numba_backend",
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


def modules():
    """Return every module but the package's own faces, as in ``training.loop``."""
    paths = (path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.py"))
    return sorted({".".join(path.parts) for path in paths} - {"__init__", "__main__"})


def room(module):
    """Return the folder of a module, or itself if it is in none."""
    return module.partition(".")[0]


def imports(module):
    """Return the full names that a module's code imports, wherever in it."""
    names = set()
    file = FOLDER.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def own_imports(module):
    """Return which of gpunn's modules a module imports."""
    inside = {name.removeprefix("gpunn.") for name in imports(module) if name.startswith("gpunn.")}
    return inside & {*modules(), *(room(other) for other in modules())}


def test_every_folder_and_module_has_its_floor():
    assert {room(module) for module in modules()} == {name for floor in FLOORS for name in floor}


@pytest.mark.parametrize("module", modules())
def test_folders_import_one_way(module):
    floor = next(n for n, names in enumerate(FLOORS) if room(module) in names)
    below = {name for names in FLOORS[:floor] for name in names}
    rooms = {room(other) for other in own_imports(module)}
    assert rooms <= below | {room(module)}


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: own_imports(module) - {room(module)} for module in modules()}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


def test_few_modules_know_cupy():
    users = {m for m in modules() if any(room(name) == "cupy" for name in imports(m))}
    parts = (
        *("backend", "blas", "elementwise", "formulas", "kernels", "passes"),
        *("ranks", "recorder", "staging"),
    )
    over_cupy = {"backends.cublas_library", *(f"backends.cupy_{part}" for part in parts)}
    assert over_cupy <= users <= over_cupy | {"backends.select", "cli.doctor", "cli.rank_facts"}


def test_only_the_plugin_for_pytest_knows_pytest():
    users = {m for m in modules() if any(room(name) == "pytest" for name in imports(m))}
    assert users == {"testing"}


def test_only_the_command_line_prints_and_only_plots_draw():
    for module in modules():
        tree = ast.parse((FOLDER / f"{module.replace('.', '/')}.py").read_text("utf-8"))
        calls = {
            n.func.id
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert "print" not in calls or module in (
            "cli.console", "cli.parser", "estimators.verbose",
        )  # fmt: skip
        draws = any(name.startswith("matplotlib") for name in imports(module))
        assert not draws or room(module) == "plots"
