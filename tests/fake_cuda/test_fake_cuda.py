"""The double of CuPy: it refuses what CuPy or a GPU would refuse, and offers nothing CuPy lacks."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import fake_arrays
import fake_cuda
import fake_memory
import numpy as np
import pytest
from fake_cuda import CrossingError, crossings, cupy, no_crossings
from trying import needs_compiler, ones

from gpunn.backends.base import Backend


def kernel(in_params: str, out_params: str, operation: str) -> Any:
    return cupy.ElementwiseKernel(in_params, out_params, operation, "tried")


# Arrays do not turn into NumPy's, and do not mix with them.


@pytest.mark.parametrize(
    "convert", [np.asarray, np.array, np.sum, np.exp, lambda a: np.copyto(np.zeros(3), a)]
)
def test_nothing_converts_to_numpy(convert: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        convert(ones(3))


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, host: a + host,
        lambda a, host: host + a,
        lambda a, host: a * a,
        lambda a, host: a == a,
        lambda a, host: host @ a,
        lambda a, host: list(a),
        lambda a, host: a[[0, 1]],
        lambda a, host: a[host > 0],
    ],
)
def test_arithmetic_goes_through_the_backend(mix: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(TypeError):
        mix(ones(3), np.ones(3))


def test_host_arrays_are_not_assigned() -> None:
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        ones(3)[...] = np.zeros(3)


def test_views_share_memory_and_know_their_layout() -> None:
    array = cupy.asarray(np.arange(12.0).reshape(3, 4))
    array[1:2][...] = -1.0
    row = array[1]
    assert row.shape == (4,)
    np.testing.assert_array_equal(row.get(), [-1] * 4)
    assert array[1:].flags.c_contiguous
    assert not array[:, 1:].flags.c_contiguous
    assert array.T.flags.f_contiguous
    assert array[1:].data.ptr == array.data.ptr + array.strides[0]
    assert len(array.reshape(4, 3)) == 4
    assert array[1, 2].shape == ()


def test_fresh_memory_is_nan() -> None:
    assert np.isnan(cupy.empty((2, 2), "float32").get()).all()
    assert (cupy.empty(3, "int64").get() == -1).all()
    assert not cupy.zeros((2, 2)).get().any()


def test_memory_runs_out() -> None:
    with pytest.raises(MemoryError, match="Out of memory allocating"):
        cupy.empty((fake_memory.DEVICE_BYTES,), "float64")


# Crossings.


@pytest.mark.parametrize(
    "cross",
    [
        lambda a: a.get(),
        lambda a: a[0].item(),
        lambda a: float(a[0]),
        lambda a: int(a[0]),
        lambda a: bool(a[0]),
        lambda a: cupy.asnumpy(a),
        lambda a: cupy.asarray(np.ones(3)),
    ],
)
def test_crossings_are_counted_and_forbidden(cross: Callable[[Any], Any]) -> None:
    array, before = ones(3), crossings.to_host + crossings.to_device
    cross(array)
    assert crossings.to_host + crossings.to_device == before + 1
    with pytest.raises(CrossingError, match="crosses"), no_crossings():
        cross(array)
    cross(array)


# Devices.


def test_arrays_belong_to_the_current_device() -> None:
    first = ones(3)
    with cupy.cuda.Device(1):
        second = ones(3)
        assert second.device.id == 1
        with pytest.raises(ValueError, match="different from the current device"):
            first.copy()
    for use in (second.copy, lambda: second.fill(2), lambda: second.__setitem__(..., first)):
        with pytest.raises(ValueError, match="different from the current device"):
            use()
    with pytest.raises(ValueError, match="different from the current device"):
        kernel("T x", "T y", "y = x")(first, second)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(fake_cuda.CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.Device(2).__enter__()
    assert cupy.cuda.Device().id == 0


# Kernels: CuPy's rules about arguments.


@needs_compiler
def test_a_kernel_broadcasts_and_makes_its_output() -> None:
    x, y = cupy.asarray(np.arange(6.0).reshape(2, 3)), cupy.asarray(np.arange(3.0))
    z = kernel("T x, T y, float64 c", "T z", "z = x + c * y")(x, y, 2)
    np.testing.assert_array_equal(z.get(), x.get() + 2 * y.get())
    flat = kernel("raw T x", "T y", "y = x[i]")(x.T, ones(6, dtype="float64"))
    np.testing.assert_array_equal(flat.get(), x.get().T.ravel())


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_keep_the_type(dtype: str) -> None:
    x = cupy.asarray(np.array([0.5, 2.0], dtype))
    assert kernel("T x", "int32 n", "n = sizeof(exp(x) + log1p(x) + T(1))")(x).get()[0] == (
        np.dtype(dtype).itemsize
    )
    np.testing.assert_array_equal(kernel("T x", "T y", "y = sqrt(x)")(x).get(), np.sqrt(x.get()))


F32, F64 = "float32", "float64"
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "types differ": (
        lambda: kernel("T x", "T y", "y = x")(ones(3), ones(3, dtype=F64)),
        TypeError,
        "Type is mismatched. x float32 float64",
    ),
    "type is not the stated one": (
        lambda: kernel("raw float64 x", "T y", "y = x[i]")(ones(3), ones(3)),
        TypeError,
        "Type is mismatched. x float32 float64",
    ),
    "too few arguments": (
        lambda: kernel("T x, T y", "T z", "z = x")(ones(3)),
        TypeError,
        "Wrong number of arguments",
    ),
    "a host array": (
        lambda: kernel("T x", "T y", "y = x")(np.ones(3), ones(3)),
        TypeError,
        "Unsupported type",
    ),
    "None": (
        lambda: kernel("T x", "T y", "y = x")(None, ones(3)),
        TypeError,
        "Unsupported type",
    ),
    "output of another shape": (
        lambda: kernel("T x", "T y", "y = x")(ones(2, 3), ones(3)),
        ValueError,
        "Out shape is mismatched",
    ),
    "shapes that do not broadcast": (
        lambda: kernel("T x", "T y", "y = x")(ones(2), ones(3)),
        ValueError,
        "broadcast",
    ),
    "a scalar as output": (
        lambda: kernel("raw T x", "raw T y", "y[i] = x[i]")(ones(2), 1.0, size=2),
        TypeError,
        "Output arguments type must be cupy.ndarray",
    ),
    "size with arrays that are not raw": (
        lambda: kernel("T x", "T y", "y = x")(ones(3), ones(3), size=3),
        ValueError,
        "Specified 'size' can be used only if all of the ndarray are 'raw'",
    ),
    "no size": (
        lambda: kernel("raw T x", "raw T y", "y[i] = x[i]")(ones(3), ones(3)),
        ValueError,
        "Loop size is undecided",
    ),
    "a whole number too large": (
        lambda: kernel("int32 n", "T y", "y = n")(2**40, ones(3)),
        OverflowError,
        "out of bounds",
    ),
    "reading beyond the end": (
        lambda: kernel("raw T x", "T y", "y = x[i + 1]")(ones(3), ones(3)),
        IndexError,
        "tried: index 3 of x is out of range for size 3",
    ),
    "reading before the start": (
        lambda: kernel("raw T x", "T y", "y = x[i - 1]")(ones(3), ones(3)),
        IndexError,
        "tried: index -1 of x",
    ),
    "writing beside the array through a pointer": (
        lambda: kernel("int32 n", "raw T y", "T* row = &y[i]; row[n] = 0")(1, ones(3), size=3),
        IndexError,
        "tried wrote outside of y",
    ),
    "source that does not compile": (
        lambda: kernel("T x", "T y", "y = nothing(x)")(ones(3), ones(3)),
        RuntimeError,
        "does not compile",
    ),
}


@needs_compiler
@pytest.mark.parametrize("case", WRONG)
def test_kernels_refuse(case: str) -> None:
    call, kind, message = WRONG[case]
    with pytest.raises(kind, match=re.escape(message)):
        call()


@needs_compiler
def test_overlapping_output_is_refused() -> None:
    array, shift = ones(6), kernel("T x", "T y", "y = x")
    with pytest.raises(ValueError, match="overlap, which is a race on a GPU"):
        shift(array[:5], array[1:])
    with pytest.raises(ValueError, match="overlap, which is a race on a GPU"):
        kernel("raw T x", "T y", "y = x[5 - i]")(array, array)
    shift(array, array)  # each thread reads only what it writes


def test_a_kernel_of_nothing_is_not_launched() -> None:
    assert kernel("T x", "T y", "does not compile")(ones(0), ones(0)).shape == (0,)


# cuBLAS.


def gemm(**changes: Any) -> Any:
    """Multiply two matrices of ones, (3, 2) and (2, 4), with some arguments changed."""
    cublas, handle = cupy.cuda.cublas, cupy.cuda.device.get_cublas_handle()
    a, b, c = ones(6), ones(8), cupy.empty(12, "float32")
    factors = np.array([1, changes.pop("beta", 0)], np.float32)
    arguments = {
        "handle": handle,
        **{"transa": 0, "transb": 0, "m": 3, "n": 4, "k": 2},
        **{"alpha": factors.ctypes.data, "A": a.data.ptr, "lda": 3, "B": b.data.ptr, "ldb": 2},
        **{"beta": factors.ctypes.data + 4, "C": c.data.ptr, "ldc": 3},
        **{"Atype": 0, "Btype": 0, "Ctype": 0, "computeType": 68, "algo": -1},
    }
    math_mode = changes.pop("math_mode", cublas.CUBLAS_DEFAULT_MATH)
    pointer_mode = changes.pop("pointer_mode", cublas.CUBLAS_POINTER_MODE_HOST)
    if "C" in changes:
        changes["C"] = a.data.ptr
    before = cublas.getMathMode(handle), cublas.getPointerMode(handle)
    cublas.setMathMode(handle, math_mode)
    cublas.setPointerMode(handle, pointer_mode)
    try:
        cublas.gemmEx(**{**arguments, **changes})
    finally:
        cublas.setMathMode(handle, before[0])
        cublas.setPointerMode(handle, before[1])
    return c.get()


def test_products_of_the_double() -> None:
    np.testing.assert_array_equal(gemm(), np.full(12, 2))
    assert np.isnan(gemm(beta=1)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lda": 2}, "INVALID_VALUE"),
        ({"ldb": 1}, "INVALID_VALUE"),
        ({"ldc": 2}, "INVALID_VALUE"),
        ({"transa": 1, "lda": 1}, "INVALID_VALUE"),
        ({"lda": 4}, "A: the matrix does not lie within an allocation"),
        ({"n": 5}, "does not lie within an allocation"),
        ({"A": 0}, "A: the matrix does not lie within an allocation"),
        ({"C": "A"}, "C: the matrix does not lie within an allocation"),
        ({"C": "A", "n": 2, "k": 2}, "C overlaps A or B"),
        ({"math_mode": 1}, "math mode"),
        ({"Atype": 1}, "NOT_SUPPORTED"),
        ({"computeType": 70}, "NOT_SUPPORTED"),
        ({"computeType": 2}, "NOT_SUPPORTED"),
        ({"pointer_mode": 1}, "pointer mode"),
        ({"handle": 1}, "NOT_INITIALIZED"),
    ],
)
def test_products_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(fake_cuda.CUBLASError, match=message):
        gemm(**changes)


def test_the_handle_is_left_as_it_was(double: Backend) -> None:
    cublas, handle = cupy.cuda.cublas, cupy.cuda.device.get_cublas_handle()
    before = cublas.getMathMode(handle), cublas.getPointerMode(handle)
    assert before == (cublas.CUBLAS_TENSOR_OP_MATH, cublas.CUBLAS_POINTER_MODE_DEVICE)
    double.gemm(*(double.zeros((2, 2), "float32") for _ in range(3)))
    assert (cublas.getMathMode(handle), cublas.getPointerMode(handle)) == before


# In place as ``cupy``, and out again.


def test_installed_and_removed() -> None:
    def seen() -> dict[str, Any]:
        return {n: m for n, m in sys.modules.items() if "cupy" in n and "host" not in n}

    before = seen()
    with fake_cuda.installed() as module:
        import cupy as imported

        from gpunn.backends.select import get_backend

        assert imported is module is fake_cuda.cupy
        backend = get_backend("auto")
        assert backend.name == "cuda:0"
        assert get_backend("cuda:1").owns(get_backend("cuda:1").zeros((2,), "float32"))
        assert "gpunn.backends.cupy_backend" in sys.modules
    assert seen() == before
    from gpunn import backends

    assert ("gpunn.backends.cupy_backend" in before) == hasattr(backends, "cupy_backend")


def test_loading_the_double_does_not_import_cupy() -> None:
    program = (
        "import sys, fake_cuda; fake_cuda.load_cupy_backend().CupyBackend(0);"
        "assert 'cupy' not in sys.modules and 'gpunn.backends.cupy_backend' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": _paths()})


def _paths() -> str:
    return ":".join(path for path in sys.path if path)


# Against the real CuPy, with or without a GPU.


def _public(owner: Any) -> list[str]:
    return [name for name in vars(owner) if not name.startswith("_") or name in ("__version__",)]


def _parameters_of(thing: Any) -> list[str] | None:
    """Return the names of a callable's parameters, from the docstring for compiled ones."""
    try:
        return list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        lines = (thing.__doc__ or "").strip().splitlines()
        match = re.match(r"[\w.]+\((.*?)\)(?: ->.*)?$", lines[0]) if lines else None
        if match is None:
            return None
        names = [part.split("=")[0].split(":")[0].split()[-1:] for part in match[1].split(",")]
        return [name[0].lstrip("*") for name in names if name]


CLASSES = {
    "cupy.ndarray": fake_cuda.ndarray,
    **{f"cupy.cuda.{name}": getattr(cupy.cuda, name) for name in ("Event", "Graph", "Stream")},
}
OFFERED = [(module.__name__, name) for module in fake_cuda.MODULES for name in _public(module)] + [
    (owner, name) for owner, kind in CLASSES.items() for name in _public(kind)
]


@pytest.mark.parametrize(("owner", "name"), OFFERED, ids=[".".join(pair) for pair in OFFERED])
def test_the_real_cupy_has_it_too(real_cupy: ModuleType, owner: str, name: str) -> None:
    double, real = fake_cuda.cupy, real_cupy
    try:
        for part in [*owner.split(".")[1:], name]:
            double, real = getattr(double, part), getattr(real, part)
    except ImportError as error:
        pytest.skip(f"a CUDA library is missing: {error}".replace("\n", " "))
    if not callable(double) or isinstance(double, ModuleType):
        return
    assert callable(real)
    if isinstance(double, type) and issubclass(double, BaseException):
        assert issubclass(real, double.__bases__)
        return
    ours, theirs = _parameters_of(double), _parameters_of(real)
    if ours and theirs and "args" not in theirs:
        assert [parameter for parameter in ours if parameter not in (*theirs, "self")] == []


def test_scalars_are_taken_as_by_the_real_cupy(real_cupy: ModuleType) -> None:
    scalar = pytest.importorskip("cupy._core._scalar").CScalar

    def real(value: Any, dtype: Any) -> None:
        scalar(value).apply_dtype(np.dtype(dtype))

    for value in (1, 2.5, True, np.float64(3), np.int64(4), None, "x", np.ones(2), 2**40):
        for dtype in ("int32", "float32", "float64"):
            outcomes = []
            for take in (real, lambda v, d: fake_arrays.cast_scalar(v, np.dtype(d))):
                try:
                    take(value, dtype)
                    outcomes.append("taken")
                except (TypeError, OverflowError) as error:
                    outcomes.append(f"{type(error).__name__}: {error}")
            assert outcomes[0] == outcomes[1]
