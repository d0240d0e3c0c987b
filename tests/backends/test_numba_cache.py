"""Compiled loops that outlive a process: kept, loaded, damaged, and where they cannot be kept.

Each test starts real processes, with a cache of their own.
"""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("numba") is None, reason="the fused loops need Numba: pip install 'gpunn[fast]'"
)

COMPILING = "compiling gpunn's fused loops for this machine"
CANNOT_KEEP = "compiled loops cannot be kept, so each run compiles them again"

COMPUTE = """
import sys
import numpy as np
import gpunn
backend = gpunn.get_backend("cpu")
a = np.arange(100, dtype=np.float32)
backend.axpby(a + 1, a, alpha=0.5, beta=2.0)
backend.dropout(a, dropout_rate=0.5, scale=2.0, key=7)
print(a.tolist())
print("numba" in sys.modules, "fused loops" in backend.describe())
"""


def run(folder, code=COMPUTE, **environment):
    """Return what a process says, and what it says of the loops."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache that one process has filled, what it printed, and what it said."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, *run(folder)


def loops(folder):
    return sorted((folder / "gpunn" / "loops").glob("*.o"))


def test_the_first_process_says_once_that_it_compiles(kept):
    folder, printed, said = kept
    assert printed.endswith("True True\n")
    assert said.count("\n") == 1
    assert said.startswith(COMPILING)
    assert len(loops(folder)) == 2
    assert len(list((folder / "gpunn" / "loops").iterdir())) == 2  # no temporary file is left


def test_the_second_process_neither_compiles_nor_imports_numba(kept):
    folder, first, _ = kept
    printed, said = run(folder)
    assert said == ""
    assert printed == first.replace("True True", "False True")


def test_a_damaged_file_is_compiled_anew(kept):
    folder, first, _ = kept
    path = loops(folder)[0]
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:100] + b"\x90" + whole[101:], b"\x00" * len(whole)):
        path.write_bytes(damaged)
        printed, said = run(folder)
        assert printed == first
        assert said.startswith(COMPILING)
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_error(kept, tmp_path):
    (tmp_path / "gpunn").write_text("a file where the folder should be")
    printed, said = run(tmp_path)
    assert printed == kept[1]
    assert said.startswith(COMPILING)
    assert said.count(CANNOT_KEEP) == 1


def test_a_full_disk_is_no_error_and_leaves_nothing_behind(kept, tmp_path):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
    printed, said = run(tmp_path, full + COMPUTE)
    assert printed == kept[1]
    assert said.count(CANNOT_KEEP) == 1
    assert list((tmp_path / "gpunn" / "loops").iterdir()) == []


def test_without_a_home_loops_are_compiled_each_time(kept):
    code = "from pathlib import Path\ndef nowhere(): raise RuntimeError\nPath.home = nowhere\n"
    printed, said = run("", code + COMPUTE)
    assert printed == kept[1]
    assert "no home directory" in said


def test_the_switch_leaves_all_to_numpy(kept):
    printed, said = run(kept[0], GPUNN_FAST="0")
    assert (printed.splitlines()[-1], said) == ("False False", "")


def test_without_numba_all_works(kept):
    code = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else real(name, *rest)
"""
    printed, said = run(kept[0], code + COMPUTE)
    assert (printed.splitlines()[-1], said) == ("False False", "")


def test_a_numba_that_is_broken_is_said_once_and_numpy_does_it(kept, tmp_path):
    package = tmp_path / "broken" / "numba"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs another NumPy')")
    path = f"{package.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    printed, said = run(tmp_path, PYTHONPATH=path)
    plain, _ = run(kept[0], GPUNN_FAST="0")
    assert printed.splitlines()[:-1] == plain.splitlines()[:-1]
    assert said.count("fused loops cannot be used") == 1
    assert "ImportError: needs another NumPy" in said
