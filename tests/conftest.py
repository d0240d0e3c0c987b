"""What the tests share: the devices, the dtypes, the data, and bounds that follow from arithmetic.

The tests name four devices. ``cpu`` is NumPy; ``fast`` is the CPU with loops that Numba compiles;
``double`` is gpunn's own CuPy backend, kernels and all, over a strict stand-in for CuPy in host
memory; ``cuda`` is a real GPU, which is asked for through the plugin that other projects use,
`gpunn.testing`.
"""

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_cuda
import numpy as np
import pytest
import scipy.linalg.blas  # noqa: F401 - its library has threads of its own
from threadpoolctl import ThreadpoolController

import gpunn
from gpunn.backends.base import Backend
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.network import Network
from gpunn.testing import require_gpu
from gpunn.training import batches, loaders

pytest_plugins = ("gpunn.testing",)

MOST_ROWS = 128
"""Samples in a block of exact online training at most, on any device."""

DEVICES = ("cpu", "fast", "double", pytest.param("cuda", marks=pytest.mark.gpu))
GPUS = DEVICES[2:]


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores out among the processes of xdist, and so among what they begin.

    Otherwise each would share out its products over all cores, and spend most of its time waiting
    for the others.
    """
    if n_processes := config.getoption("numprocesses", None):
        n_threads = max(1, (os.cpu_count() or 1) // n_processes)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(n_threads))


_libraries = cache(ThreadpoolController)


@pytest.fixture
def several_threads() -> Iterator[None]:
    """Products and pieces shared out over threads, as where one process has all cores."""
    with _libraries().limit(limits=max(2, os.cpu_count() or 1), user_api="blas"):
        yield


@cache
def make_backend(device: str) -> Backend:
    """Return a device by its name here, or "double:1"; skip the test without one."""
    if device == "cpu":
        return NumpyBackend()
    if device == "fast":
        return _make_fast_backend()
    if device.startswith("double"):
        if fake_cuda.CXX is None:
            pytest.skip("the double of CuPy needs a C++ compiler (g++, c++ or clang++)")
        number = int(device.partition(":")[2] or 0)
        backend: Backend = fake_cuda.load_cupy_backend().CupyBackend(number)
        return backend
    return _make_cuda_backend()


def _make_fast_backend() -> Backend:
    pytest.importorskip("numba", reason="the fused loops need Numba: pip install 'gpunn[fast]'")
    from gpunn.backends.numba_backend import NumbaBackend

    return NumbaBackend()


def _make_cuda_backend() -> Backend:
    require_gpu()
    from gpunn.backends.cupy_backend import CupyBackend

    return CupyBackend(0)


@pytest.fixture(params=DEVICES)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every device that is there, one after the other."""
    return make_backend(request.param)


@pytest.fixture(params=GPUS)
def gpu(request: pytest.FixtureRequest) -> Backend:
    """Every device with memory of its own: the double and a real GPU."""
    return make_backend(request.param)


@pytest.fixture
def double() -> Backend:
    """gpunn's CuPy backend over the double, for tests of what only the double can see."""
    return make_backend("double")


@pytest.fixture
def installed_double() -> Iterator[ModuleType]:
    """The double in place as ``cupy``, so that "auto" and "cuda" find two GPUs, for one test."""
    make_backend("double")
    with fake_cuda.installed() as module:
        yield module


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of few batches, so that little data is many pieces."""
    monkeypatch.setattr(loaders, "CHUNK_BYTES", 2**14)
    monkeypatch.setattr(batches, "CALL_BYTES", 2**14)
    monkeypatch.setattr(gpunn.network.forward, "_WORK_NUMBERS", 15 * 20)


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch, small_pieces: None) -> None:
    """A device that has no room for samples, which are streamed to it."""
    monkeypatch.setattr(loaders, "why_too_large", lambda *_: "a test says so")


@pytest.fixture
def real_cupy() -> ModuleType:
    """The real CuPy, with a GPU or without; skipped where it is not installed."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    import cupy

    module: ModuleType = cupy
    return module


@pytest.fixture(params=("float32", "float64"))
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    """The dtypes that networks compute in."""
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test."""
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of MNIST's four files, below what GPUNN_DATA_DIR names."""
    root = os.environ.get("GPUNN_DATA_DIR")
    if not root:
        pytest.skip("GPUNN_DATA_DIR is not set: it names the folder that holds mnist/")
    folder = Path(root) / "mnist"
    if not any(folder.glob("*-ubyte*")):
        pytest.skip(f"no MNIST files in {folder}")
    return folder


def assert_within(got: Any, expected: Any, bound: Any) -> None:
    """Assert that each number lies within its own bound; NaN and infinities must be the same."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    error = np.abs(got - expected, where=finite, out=np.zeros_like(expected))
    bound = np.broadcast_to(bound, expected.shape)
    wrong = finite & ~(error <= bound)
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(wrong, error, -1)), error.shape)
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} numbers out of bounds; at {worst}: got {got[worst]}, "
            f"expected {expected[worst]}, off by {error[worst]:.3g}, allowed {bound[worst]:.3g}"
        )


def assert_close_product(
    got: Any,
    a: Any,
    b: Any,
    dtype: Any,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    before: Any = 0.0,
) -> None:
    """Assert that host arrays ``got = alpha a b + beta before``, within (K + 2) eps |a| |b|.

    K products and K - 1 additions are rounded, in whatever order: K eps / 2 |a| |b| at most. The
    other half is for the float64 oracle, which has the same rounding when dtype is float64; the 2
    for alpha and for the last addition, which also rounds ``beta before``.
    """
    a, b, before = (np.asarray(x, np.float64) for x in (a, b, before))
    eps = np.finfo(dtype).eps
    size = abs(alpha) * (np.abs(a) @ np.abs(b))
    expected = alpha * (a @ b)
    if beta != 0:
        size = size + abs(beta) * np.abs(before)
        expected = expected + beta * before
    assert_within(got, expected, (a.shape[-1] + 2) * eps * size)


def bound(network: Network, n_steps: int) -> float:
    """Return how far parameters may differ after steps in another order of summation."""
    n_terms = max(network.architecture.layer_sizes) + MOST_ROWS
    return float(n_steps * (n_terms + 2) * np.finfo(network.dtype).eps)


def assert_same(one: Network, other: Network, n_steps: int) -> None:
    """Assert that two networks have the same parameters but for rounding in so many steps."""
    tolerance = bound(one, n_steps)
    for name, values in one.parameters().items():
        scale = max(1.0, np.abs(values).max())
        np.testing.assert_allclose(
            other.parameters()[name], values, rtol=0, atol=tolerance * scale, err_msg=name
        )


CHROMIUM = os.environ.get("GPUNN_CHROMIUM", "/usr/bin/chromium")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; the tests that need it are skipped without."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: install it, or let GPUNN_CHROMIUM name it")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()
