"""Every kernel under AddressSanitizer, which sees what no guard can: reading out of range.

Its library must be there before Python, so the tests of the kernels run in a Python of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import fake_cuda
import pytest

TESTS = Path(__file__).parents[1]

READS = """
import sys, numpy as np, fake_cuda
code = '''
typedef float T;
extern "C" __global__ void tried(const T* x, T* y, int n) {
    extern __shared__ T memory[];
    const int me = threadIdx.x;
    %s
}'''
x, y = (fake_cuda.zeros(70, "float32")[:64] for _ in "ab")
kernel = fake_cuda.RawModule(code=code).get_function("tried")
kernel((1,), (64,), (x, y, np.int32(64)), shared_mem=256)
print("done")
"""


def library() -> str | None:
    """Return AddressSanitizer's library, if the host's compiler brings one."""
    if fake_cuda.CXX is None:
        return None
    command = [fake_cuda.CXX, "-print-file-name=libasan.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return found if os.path.isabs(found) else None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "GPUNN_HOST_SANITIZE": "1",
        "LD_PRELOAD": library() or "",
        # Where the host's memory was allocated would be noted each time, and nobody asks.
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=0",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )


pytestmark = pytest.mark.skipif(library() is None, reason="no AddressSanitizer beside g++")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("y[me] = x[me];", None),
        ("y[me] = x[me + 1];", "use-after-poison"),
        ("y[me] = x[me - 1];", "use-after-poison"),
        ("memory[me] = 0; y[me] = memory[me + 1];", "use-after-poison"),
        ("y[me + 1] = 0;", "use-after-poison"),
    ],
)
def test_it_sees_what_lies_outside(body: str, error: str | None) -> None:
    """Even where the array is a part of a larger one."""
    done = run("-c", READS % body)
    if error is None:
        assert done.stdout == "done\n", done.stderr[-2000:]
    else:
        assert done.returncode != 0
        assert error in done.stderr


@pytest.mark.parametrize(
    ("file", "chosen"),
    [
        ("backends/test_cupy_batches.py", "(float32 and size) or more_outputs"),
        ("backends/test_cupy_online.py", "(size and not float64) or fit or groups"),
        ("backends/test_backend.py", "float32 and (rows or activat or output or axpby or adam)"),
    ],
)
def test_the_kernels_stay_inside(file: str, chosen: str) -> None:
    chosen = f"double and ({chosen})"
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, str(TESTS / file))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert " passed" in done.stdout
