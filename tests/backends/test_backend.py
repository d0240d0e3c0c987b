"""The contract of the seam, method by method, against an oracle in float64.

The oracle is written with SciPy's special functions, not with gpunn's formulas. Bounds count the
roundings: eps is twice the largest relative error of one rounding, exp and its relatives are good
to 4 units in the last place in NumPy and CUDA alike.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import GPUS, assert_close_product, assert_within, make_backend
from fake_cuda import no_crossings
from scipy import special

from gpunn.activations import ACTIVATIONS, RELU, SIGMOID, SOFTMAX, TANH, Activation
from gpunn.backends.base import AdamStep, Array, Backend, get_dtype
from gpunn.errors import ParameterError, ShapeError
from gpunn.host_memory import MemoryInfo
from gpunn.losses import LOSSES, SQUARED_ERROR, Loss

pytestmark = pytest.mark.usefixtures("several_threads")

Host = np.ndarray[Any, Any]

activations = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS.keys())
biased = pytest.mark.parametrize("biased", [False, True], ids=["no-bias", "bias"])

PAIRS = [
    (activation, loss)
    for activation in ACTIVATIONS.values()
    for loss in LOSSES.values()
    if loss.required_activation in (None, activation.name)
]
pairs = pytest.mark.parametrize(
    ("activation", "loss"), PAIRS, ids=[f"{a.name}-{loss.name}" for a, loss in PAIRS]
)


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, scale: float = 1) -> Host:
    return (scale * rng.standard_normal(shape)).astype(dtype)


def poisoned(backend: Backend, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return memory full of NaN: what is not overwritten shows."""
    return backend.asarray(np.full(shape, np.nan, dtype))


def wide(array: Host) -> Host:
    return array.astype(np.float64)


# Crossings, memory, the device itself.


def test_asarray_and_to_host_round_trip(backend: Backend, dtype: Any, rng: Any) -> None:
    host = normal(rng, (5, 3), dtype)
    array = backend.asarray(host)
    assert backend.owns(array)
    assert array.dtype == dtype
    assert array.shape == (5, 3)
    back = backend.to_host(array)
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, host)


@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed", "fortran"])
def test_asarray_makes_arrays_row_major(backend: Backend, rng: Any, layout: str) -> None:
    host = rng.standard_normal((6, 8))
    views = {"transposed": host.T, "strided": host[::2, 1::3], "reversed": host[::-1]}
    view = views.get(layout, np.asfortranarray(host))
    array = backend.asarray(view)
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(backend.to_host(array), view)


@pytest.mark.parametrize("given", ["uint8", "int64", "float64", ">f4"])
def test_asarray_casts(backend: Backend, dtype: Any, given: str) -> None:
    host = np.array([[0, 1, 2], [3, 4, 255]], given)
    array = backend.asarray(host, dtype)
    assert array.dtype == dtype
    np.testing.assert_array_equal(backend.to_host(array), host)


def test_asarray_keeps_integers(backend: Backend) -> None:
    array = backend.asarray(np.arange(5))
    assert array.dtype == np.int64
    np.testing.assert_array_equal(backend.to_host(array), np.arange(5))


def test_asarray_takes_read_only_arrays(backend: Backend) -> None:
    host = np.arange(4.0)
    host.flags.writeable = False
    np.testing.assert_array_equal(backend.to_host(backend.asarray(host)), host)


def test_to_host_is_a_copy(backend: Backend, dtype: Any) -> None:
    array = backend.asarray(np.ones((2, 2), dtype))
    backend.to_host(array)[...] = 7
    np.testing.assert_array_equal(backend.to_host(array), np.ones((2, 2)))


def test_to_host_of_rows(backend: Backend, dtype: Any) -> None:
    host = np.arange(12, dtype=dtype).reshape(4, 3)
    np.testing.assert_array_equal(backend.to_host(backend.asarray(host)[1:3]), host[1:3])


def test_asarray_on_the_cpu_does_not_copy() -> None:
    host = np.ones((3, 2))
    assert make_backend("cpu").asarray(host) is host


@pytest.mark.parametrize("shape", [(3,), (2, 5), (0, 4), (4, 0)])
def test_empty_and_zeros(backend: Backend, dtype: Any, shape: tuple[int, ...]) -> None:
    for array in (backend.empty(shape, dtype), backend.zeros(shape, dtype)):
        assert backend.owns(array)
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
    np.testing.assert_array_equal(backend.to_host(backend.zeros(shape, dtype)), np.zeros(shape))


def test_owns_only_what_lives_there(backend: Backend) -> None:
    array = backend.zeros((2, 2), "float32")
    assert backend.owns(array)
    assert backend.owns(array[1:])
    assert backend.owns(np.zeros(2)) == (backend.name == "cpu")
    for other in ([1.0, 2.0], 1.0, None, np.float32(1), np.ma.zeros(2)):
        assert not backend.owns(other)


def test_owns_nothing_of_another_device() -> None:
    first, second = make_backend("double"), make_backend("double:1")
    assert second.name == "cuda:1"
    assert not first.owns(second.zeros((2,), "float32"))
    assert not second.owns(first.zeros((2,), "float32"))
    assert not make_backend("cpu").owns(first.zeros((2,), "float32"))


def test_copy_into(backend: Backend, dtype: Any, rng: Any) -> None:
    host = normal(rng, (6, 4), dtype)
    out = poisoned(backend, (3, 4), dtype)
    backend.copy_into(backend.asarray(host)[2:5], out)
    np.testing.assert_array_equal(backend.to_host(out), host[2:5])


def test_copy_into_copies(backend: Backend, dtype: Any) -> None:
    source, out = backend.zeros((1, 4), dtype), poisoned(backend, (1, 4), dtype)
    backend.copy_into(source, out)
    backend.copy_into(backend.asarray(np.ones((1, 4), dtype)), source)
    np.testing.assert_array_equal(backend.to_host(out), np.zeros((1, 4)))


def test_memory_info(backend: Backend) -> None:
    info = backend.memory_info()
    assert isinstance(info, MemoryInfo)
    assert 0 < info.free <= info.total


def test_memory_info_sees_allocations(double: Backend) -> None:
    before = double.memory_info().free
    array = double.zeros((1000, 1000), "float64")
    assert double.memory_info().free == before - array.nbytes


def test_describe_is_one_line(backend: Backend) -> None:
    backend.synchronize()
    line = backend.describe()
    assert line.startswith(f"{backend.name} (")
    assert "\n" not in line


def test_names() -> None:
    assert make_backend("cpu").name == "cpu"
    assert make_backend("double").name == "cuda:0"


# dtypes.


@pytest.mark.parametrize("given", ["float32", np.float32, "f4", np.dtype("float32"), "single"])
def test_get_dtype(given: Any) -> None:
    assert get_dtype(given) == np.float32


@pytest.mark.parametrize(
    "given", ["float16", "int32", None, int, "nonsense", "(,", object(), 3, ">f4"]
)
def test_get_dtype_refuses_others(given: Any) -> None:
    with pytest.raises(ParameterError, match="dtype must be 'float32' or 'float64'") as caught:
        get_dtype(given)
    assert "\n" not in str(caught.value)


# Products.


SIZES = [(1, 1, 1), (1, 7, 3), (5, 1, 4), (3, 4, 1), (33, 17, 29), (64, 10, 128), (2, 500, 9)]
FACTORS = [(1.0, 0.0), (-0.25, 1.0), (3.0, 0.5), (0.0, 2.0), (0.0, 0.0)]


def device_matrix(backend: Backend, host: Host, layout: str) -> Array:
    """Put a matrix on the device, row-major, column-major, or as some rows of a larger one."""
    if layout == "F":
        return backend.asarray(host.T).T
    if layout == "rows":
        larger = np.concatenate([np.full_like(host[:1], np.nan), host, host])
        return backend.asarray(larger)[1 : len(host) + 1]
    return backend.asarray(host)


@pytest.mark.parametrize("layout_a", ["C", "F", "rows"])
@pytest.mark.parametrize("layout_b", ["C", "F", "rows"])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_gemm(
    backend: Backend,
    dtype: Any,
    rng: Any,
    layout_a: str,
    layout_b: str,
    transpose_a: bool,
    transpose_b: bool,
) -> None:
    for m, n, k in SIZES:
        a, b = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype)
        device_a = device_matrix(backend, a.T.copy() if transpose_a else a, layout_a)
        device_b = device_matrix(backend, b.T.copy() if transpose_b else b, layout_b)
        for alpha, beta in FACTORS:
            before = normal(rng, (m, n), dtype) if beta else np.full((m, n), np.nan, dtype)
            out = backend.asarray(before.copy())
            backend.gemm(
                device_a,
                device_b,
                out,
                transpose_a=transpose_a,
                transpose_b=transpose_b,
                alpha=alpha,
                beta=beta,
            )
            assert_close_product(
                backend.to_host(out), a, b, dtype, alpha=alpha, beta=beta, before=before
            )


def test_gemm_of_large_matrices(backend: Backend, dtype: Any, rng: Any) -> None:
    a, b = normal(rng, (100, 784), dtype), normal(rng, (784, 301), dtype)
    out = poisoned(backend, (100, 301), dtype)
    backend.gemm(backend.asarray(a), backend.asarray(b), out)
    assert_close_product(backend.to_host(out), a, b, dtype)


@pytest.mark.parametrize(("precision", "unit"), [("tf32", 2**-10), ("bf16", 2**-7)])
@pytest.mark.parametrize("device", GPUS)
def test_gemm_with_rounded_factors(device: str, precision: str, unit: float, rng: Any) -> None:
    """Each factor may be off by `unit`, which allows for truncation."""
    exact = make_backend(device)
    backend = type(exact)(0, precision)
    a, b = normal(rng, (30, 200), "float32"), normal(rng, (200, 40), "float32")
    out = poisoned(backend, (30, 40), "float32")
    backend.gemm(backend.asarray(a), backend.asarray(b), out)
    size = np.abs(a).astype(float) @ np.abs(b)
    allowed = (2 * unit + unit**2 + 202 * np.finfo("float32").eps) * size
    assert_within(backend.to_host(out), a.astype(float) @ b, allowed)
    if device == "double":
        # cuBLAS may decide that a small product is not worth it; the double rounds indeed.
        assert np.abs(backend.to_host(out) - a.astype(float) @ b).max() > unit * size.max() / 100


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_float64_products_have_no_precision_to_lose(double: Backend, precision: str) -> None:
    backend = type(double)(0, precision)  # type: ignore[call-arg]
    third, out = backend.asarray(np.full((1, 1), 1 / 3)), backend.zeros((1, 1), "float64")
    backend.gemm(third, third, out)
    assert backend.to_host(out)[0, 0] == 1 / 3 * (1 / 3)


def test_gemm_into_some_rows(backend: Backend, dtype: Any, rng: Any) -> None:
    a, b = normal(rng, (4, 6), dtype), normal(rng, (6, 5), dtype)
    larger = backend.zeros((9, 5), dtype)
    backend.gemm(backend.asarray(a), backend.asarray(b), larger[3:7])
    host = backend.to_host(larger)
    assert_close_product(host[3:7], a, b, dtype)
    assert not host[:3].any()
    assert not host[7:].any()


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(3, 4, 0), (0, 4, 2), (3, 0, 2), (0, 0, 0), (1, 1, 0)])
@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_of_nothing(
    backend: Backend, dtype: Any, shape: tuple[int, int, int], beta: float, transposed: bool
) -> None:
    m, n, k = shape
    before = np.full((m, n), 2.0 if beta else np.nan, dtype)
    a, b = ((k, m), (n, k)) if transposed else ((m, k), (k, n))
    out = backend.asarray(before.copy())
    backend.gemm(
        backend.zeros(a, dtype),
        backend.zeros(b, dtype),
        out,
        transpose_a=transposed,
        transpose_b=transposed,
        beta=beta,
    )
    np.testing.assert_array_equal(backend.to_host(out), np.full((m, n), 2 * beta))


def test_gemm_keeps_nan_of_its_inputs(backend: Backend, dtype: Any) -> None:
    a = np.ones((2, 3), dtype)
    a[1, 2] = np.nan
    out = backend.zeros((2, 2), dtype)
    backend.gemm(backend.asarray(a), backend.asarray(np.ones((3, 2), dtype)), out)
    np.testing.assert_array_equal(backend.to_host(out), [[3, 3], [np.nan, np.nan]])


Case = Callable[[Backend, Any], tuple[Array, Array, Array]]
REJECTED: dict[str, tuple[Case, str]] = {
    "strided a": (
        lambda d, t: (d.zeros((3, 8), t)[:, :4], d.zeros((4, 5), t), d.zeros((3, 5), t)),
        "a must be contiguous",
    ),
    "strided b": (
        lambda d, t: (d.zeros((3, 4), t), d.zeros((8, 5), t)[::2], d.zeros((3, 5), t)),
        "b must be contiguous",
    ),
    "strided out": (
        lambda d, t: (d.zeros((3, 4), t), d.zeros((4, 5), t), d.zeros((3, 9), t)[:, :5]),
        "out must be contiguous",
    ),
    "column-major out": (
        lambda d, t: (d.zeros((3, 4), t), d.zeros((4, 5), t), d.zeros((5, 3), t).T),
        "out must be contiguous",
    ),
    "rows of a column-major a": (
        lambda d, t: (d.zeros((4, 6), t).T[:3], d.zeros((4, 5), t), d.zeros((3, 5), t)),
        "a must be contiguous",
    ),
    "out too wide": (
        lambda d, t: (d.zeros((3, 4), t), d.zeros((4, 5), t), d.zeros((3, 6), t)),
        "expected op",
    ),
    "inner sizes differ": (
        lambda d, t: (d.zeros((3, 4), t), d.zeros((5, 5), t), d.zeros((3, 5), t)),
        "expected op",
    ),
    "out transposed": (
        lambda d, t: (d.zeros((3, 4), t), d.zeros((4, 5), t), d.zeros((5, 3), t)),
        "expected op",
    ),
    "a vector": (
        lambda d, t: (d.zeros((4,), t), d.zeros((4, 5), t), d.zeros((1, 5), t)),
        "a must have 2 dimensions",
    ),
    "out a vector": (
        lambda d, t: (d.zeros((1, 4), t), d.zeros((4, 5), t), d.zeros((5,), t)),
        "out must have 2 dimensions",
    ),
    "other dtype of b": (
        lambda d, t: (
            d.zeros((3, 4), t),
            d.zeros((4, 5), "float64" if t == "float32" else "float32"),
            d.zeros((3, 5), t),
        ),
        "dtypes differ",
    ),
    "other dtype of out": (
        lambda d, t: (d.zeros((3, 4), t), d.zeros((4, 5), t), d.zeros((3, 5), "float16")),
        "dtypes differ",
    ),
    "whole numbers": (
        lambda d, t: tuple(d.zeros(shape, "int64") for shape in ((3, 4), (4, 5), (3, 5))),
        "dtype must be float32 or float64",
    ),
    "a list": (
        lambda d, t: ([[1.0]], d.zeros((1, 5), t), d.zeros((1, 5), t)),
        "a is not an array on",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_gemm_rejects(backend: Backend, dtype: Any, case: str) -> None:
    make, message = REJECTED[case]
    a, b, out = make(backend, dtype)
    before = backend.to_host(out)
    with pytest.raises(ShapeError, match=f"^gemm: .*{message}") as caught:
        backend.gemm(a, b, out, alpha=1.0, beta=1.0)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(backend.to_host(out), before)


@pytest.mark.parametrize("where", range(3), ids=["a", "b", "out"])
def test_gemm_rejects_arrays_of_another_device(where: int, dtype: Any) -> None:
    devices = [make_backend(name) for name in ("cpu", "double", "double:1")]
    for device in devices:
        for other in devices:
            if device is other:
                continue
            arrays = [device.zeros((2, 2), dtype) for _ in range(3)]
            arrays[where] = other.zeros((2, 2), dtype)
            name = ("a", "b", "out")[where]
            with pytest.raises(ShapeError, match=f"gemm: {name} is not an array on {device.name}"):
                device.gemm(*arrays)


# Sums and gathering.


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 9), (7, 1), (50, 33), (65, 2), (257, 3), (0, 4), (99, 0)]
)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (-0.5, 1.0), (0.25, 3.0)])
def test_sum_rows(
    backend: Backend, dtype: Any, rng: Any, shape: tuple[int, int], alpha: float, beta: float
) -> None:
    a = normal(rng, shape, dtype)
    before = normal(rng, (shape[1],), dtype) if beta else np.full(shape[1], np.nan, dtype)
    out = backend.asarray(before.copy())
    backend.sum_rows(backend.asarray(a), out, alpha=alpha, beta=beta)
    assert_close_product(
        backend.to_host(out), np.ones(shape[0]), a, dtype, alpha=alpha, beta=beta, before=before
    )


def test_sum_rows_of_some_rows(backend: Backend, dtype: Any, rng: Any) -> None:
    a = normal(rng, (9, 4), dtype)
    out = poisoned(backend, (4,), dtype)
    backend.sum_rows(backend.asarray(a)[2:5], out)
    assert_close_product(backend.to_host(out), np.ones(3), a[2:5], dtype)


@pytest.mark.parametrize("columns", [1, 7])
def test_take_rows(backend: Backend, dtype: Any, rng: Any, columns: int) -> None:
    source = normal(rng, (11, columns), dtype)
    order = rng.integers(0, 11, 30)
    order[:2] = 0, 10
    out = poisoned(backend, (20, columns), dtype)
    backend.take_rows(backend.asarray(source), backend.asarray(order)[:20], out)
    np.testing.assert_array_equal(backend.to_host(out), source[order[:20]])


def test_take_no_rows(backend: Backend, dtype: Any) -> None:
    indices = backend.asarray(np.empty(0, np.int64))
    backend.take_rows(backend.zeros((3, 2), dtype), indices, backend.empty((0, 2), dtype))


@pytest.mark.parametrize("index", [-1, 3])
def test_rows_out_of_range_are_seen_by_the_double(double: Backend, index: int) -> None:
    with pytest.raises(IndexError, match=r"gpunn_take_rows: index .* of source is out of range"):
        double.take_rows(
            double.zeros((3, 2), "float32"),
            double.asarray(np.array([index])),
            double.empty((1, 2), "float32"),
        )


# Activations.

ORACLES: dict[str, Callable[[Host], Host]] = {
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda x: np.where(x < 0, 0.0, x),
    "identity": lambda x: x,
    "softmax": lambda x: special.softmax(x, axis=1),
}
SLOPES: dict[str, Callable[[Host], Host]] = {
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "relu": lambda a: (a > 0).astype(np.float64),
    "identity": np.ones_like,
}


def activation_bound(activation: Activation, x: Host, dtype: Any) -> Host:
    """Bound the error of ``f(x)`` where x itself carries the rounding of one addition."""
    info = np.finfo(dtype)
    eps, a = float(info.eps), ORACLES[activation.name](x)
    if activation is SOFTMAX:
        # x and x - max are rounded; exp makes of that a relative error, numerator and sum alike.
        spread = 2 * np.abs(x).max(axis=1, keepdims=True) + np.ptp(x, axis=1, keepdims=True)
        return np.asarray(a * eps * (x.shape[1] + 8 + 2 * spread) + info.tiny)
    # 4 units for exp or tanh, 2 roundings more for the sigmoid; below the least normal number
    # digits are lost.
    return np.asarray(
        8 * eps * np.abs(a) + SLOPES[activation.name](a) * np.abs(x) * eps + info.tiny
    )


SHAPES = [(1, 1), (1, 10), (13, 1), (5, 7), (300, 11)]


@activations
@biased
def test_activate(
    backend: Backend, dtype: Any, rng: Any, activation: Activation, biased: bool
) -> None:
    for shape in SHAPES:
        check_activate(backend, dtype, rng, activation, biased, shape)


@activations
@pytest.mark.parametrize("shape", [(3, 70_001), (70_001, 3)])
def test_activate_more_than_a_piece(
    backend: Backend, dtype: Any, rng: Any, activation: Activation, shape: tuple[int, int]
) -> None:
    check_activate(backend, dtype, rng, activation, True, shape)


def check_activate(
    backend: Backend,
    dtype: Any,
    rng: np.random.Generator,
    activation: Activation,
    biased: bool,
    shape: tuple[int, int],
) -> None:
    z, bias = normal(rng, shape, dtype, 3), normal(rng, shape[1:], dtype)
    array = backend.asarray(z.copy())
    backend.activate(array, backend.asarray(bias) if biased else None, activation)
    x = wide(z) + wide(bias) if biased else wide(z)
    bound = activation_bound(activation, x, dtype)
    assert_within(backend.to_host(array), ORACLES[activation.name](x), bound)


@activations
def test_activate_some_rows(backend: Backend, activation: Activation) -> None:
    array = backend.zeros((6, 4), "float64")
    backend.activate(array[2:4], backend.asarray(np.arange(4.0)), activation)
    host = backend.to_host(array)
    assert not host[:2].any()
    assert not host[4:].any()
    assert host[2:4].any(axis=1).all()


@activations
def test_activate_no_rows(backend: Backend, dtype: Any, activation: Activation) -> None:
    for bias in (None, backend.zeros((4,), dtype)):
        backend.activate(backend.zeros((0, 4), dtype), bias, activation)
    backend.activation_backward(
        backend.zeros((0, 4), dtype), backend.zeros((0, 4), dtype), activation
    )


@activations
def test_activate_extreme_values(backend: Backend, dtype: Any, activation: Activation) -> None:
    z = np.array([[-1000, -90, -1, 0, 1, 90], [1000, 1000, 0, -1000, -1e30, 5]], dtype)
    array = backend.asarray(z.copy())
    backend.activate(array, None, activation)
    got = backend.to_host(array)
    assert np.isfinite(got).all()
    assert_within(got, ORACLES[activation.name](wide(z)), activation_bound(activation, z, dtype))


@pytest.mark.parametrize("activation", [SIGMOID, TANH, RELU], ids=lambda a: a.name)
def test_activate_infinities(backend: Backend, dtype: Any, activation: Activation) -> None:
    z = np.array([[-np.inf, np.inf]], dtype)
    array = backend.asarray(z.copy())
    backend.activate(array, None, activation)
    expected = {"sigmoid": [[0, 1]], "tanh": [[-1, 1]], "relu": [[0, np.inf]]}
    np.testing.assert_array_equal(backend.to_host(array), expected[activation.name])


def test_softmax_of_minus_infinity(backend: Backend, dtype: Any) -> None:
    array = backend.asarray(np.array([[-np.inf, 2.0, 2.0]], dtype))
    backend.activate(array, None, SOFTMAX)
    np.testing.assert_array_equal(backend.to_host(array), [[0, 0.5, 0.5]])


@activations
def test_nan_is_kept(backend: Backend, dtype: Any, activation: Activation) -> None:
    """Where NumPy's formula makes NaN, so does every other device's, forwards and backwards."""
    z = np.arange(-6, 9, dtype=dtype).reshape(5, 3)
    z[[0, 1, 3], [0, 2, 1]] = np.nan
    expected, array = z.copy(), backend.asarray(z.copy())
    activation.forward(expected.T, np.empty_like(expected.T))
    backend.activate(array, None, activation)
    np.testing.assert_array_equal(np.isnan(backend.to_host(array)), np.isnan(expected))
    assert np.isnan(expected).any()

    delta = np.ones((5, 3), dtype)
    delta[4, 2] = np.nan
    device_delta = backend.asarray(delta.copy())
    backend.activation_backward(device_delta, backend.asarray(expected), activation)
    activation.backward(delta.T, expected.T, np.empty_like(delta.T))
    np.testing.assert_array_equal(np.isnan(backend.to_host(device_delta)), np.isnan(delta))


@activations
def test_backpropagate_activation(
    backend: Backend, dtype: Any, rng: Any, activation: Activation
) -> None:
    eps = float(np.finfo(dtype).eps)
    for shape in (*SHAPES, (3, 70_001), (70_001, 3)):
        a = ORACLES[activation.name](rng.standard_normal(shape)).astype(dtype)
        delta = normal(rng, shape, dtype)
        array = backend.asarray(delta.copy())
        backend.activation_backward(array, backend.asarray(a), activation)
        d, a64 = wide(delta), wide(a)
        if activation is SOFTMAX:
            products = np.abs(d * a64).sum(axis=1, keepdims=True)
            expected = a64 * (d - (d * a64).sum(axis=1, keepdims=True))
            bound = (shape[1] + 4) * eps * a64 * (np.abs(d) + products)
        else:
            expected = d * SLOPES[activation.name](a64)
            bound = 4 * eps * np.abs(d)
        assert_within(backend.to_host(array), expected, bound)


# The output layer: values and deltas.


def targets_for(activation: Activation, loss: Loss, a: Host, rng: np.random.Generator) -> Host:
    """Return targets that a loss is meant for, away from the absolute error's kink."""
    if loss.name == "cross_entropy":
        # Rows whose sum is not 1 as well: weighted samples.
        return np.asarray(rng.dirichlet(np.ones(a.shape[1]), len(a)) * rng.uniform(0.5, 2))
    if loss.name == "binary_cross_entropy":
        return rng.uniform(0, 1, a.shape)
    return np.asarray(a + rng.choice([-1, 1], a.shape) * rng.uniform(0.05, 1, a.shape))


def oracle_values(loss: Loss, x: Host, a: Host, t: Host) -> Host:
    """Return each output's share of the error, in float64."""
    values: dict[str, Callable[[], Any]] = {
        "squared_error": lambda: 0.5 * (t - a) ** 2,
        "sum_of_squares": lambda: (t - a) ** 2,
        "mean_squared_error": lambda: (t - a) ** 2 / a.shape[1],
        "absolute_error": lambda: np.abs(t - a),
        "binary_cross_entropy": lambda: np.logaddexp(0, x) - t * x,
        "cross_entropy": lambda: -t * special.log_softmax(x, axis=1),
    }
    return np.asarray(values[loss.name]())


def oracle_slopes(loss: Loss, a: Host, t: Host) -> Host:
    """Return dE/da in float64, for the losses that are not fused with an activation."""
    factors = {"squared_error": 1.0, "sum_of_squares": 2.0, "mean_squared_error": 2 / a.shape[1]}
    if loss.name == "absolute_error":
        return np.asarray(np.sign(a - t))
    return np.asarray(factors[loss.name] * (a - t))


def oracle_delta(activation: Activation, loss: Loss, a: Host, t: Host) -> Host:
    if loss.name == "binary_cross_entropy":
        return a - t
    if loss.name == "cross_entropy":
        return np.asarray(a * t.sum(axis=1, keepdims=True) - t)
    g = oracle_slopes(loss, a, t)
    if activation is SOFTMAX:
        return np.asarray(a * (g - (g * a).sum(axis=1, keepdims=True)))
    return np.asarray(g * SLOPES[activation.name](a))


def delta_bound(activation: Activation, loss: Loss, x: Host, t: Host, dtype: Any) -> Host:
    """Carry the error of the activation through dE/da and f'."""
    eps, n = float(np.finfo(dtype).eps), x.shape[1]
    a, a_error = ORACLES[activation.name](x), activation_bound(activation, x, dtype)
    if loss.fused:
        total = np.abs(t).sum(axis=1, keepdims=True) if loss.name == "cross_entropy" else 1.0
        return np.asarray(a_error * total + (n + 4) * eps * (np.abs(a) * total + np.abs(t)))
    g = np.abs(oracle_slopes(loss, a, t))
    g_error = 4 * eps * g  # also the rounding of 1 / n
    if loss.name != "absolute_error":
        g_error = g_error + 2 * a_error + 2 * eps * (np.abs(a) + np.abs(t))
    if activation is SOFTMAX:
        products = (g * a).sum(axis=1, keepdims=True)
        products_error = (g_error * a + g * a_error).sum(axis=1, keepdims=True)
        return np.asarray(
            (a_error + (n + 4) * eps * a) * (g + products) + a * (g_error + products_error)
        )
    # |df'/da| is at most 2, for tanh.
    return np.asarray(g_error * SLOPES[activation.name](a) + g * (2 * a_error + 4 * eps))


def value_bound(activation: Activation, loss: Loss, x: Host, t: Host, dtype: Any) -> Host:
    """Bound the error of a row's loss; the sum over its outputs is in float64."""
    eps, n = float(np.finfo(dtype).eps), x.shape[1]
    a, a_error = ORACLES[activation.name](x), activation_bound(activation, x, dtype)
    if loss.name == "binary_cross_entropy":
        each = 6 * eps * (np.abs(x) * (1 + np.abs(t)) + 1)
    elif loss.name == "cross_entropy":
        # |log_sum| is at most max|x| + log n; its relative error of the sum becomes absolute.
        top = np.abs(x).max(axis=1, keepdims=True) + np.log(n)
        each = np.abs(t) * eps * (6 * top + n + 8)
    else:
        miss = np.abs(t - a)
        error = a_error + eps * (np.abs(a) + np.abs(t))
        slope = 1 if loss.name == "absolute_error" else 2 * miss + error
        each = slope * error + 6 * eps * oracle_values(loss, x, a, t) * (n if n > 1 else 1)
    return np.asarray(each.sum(axis=1))


@pairs
@biased
def test_output_delta(
    backend: Backend, dtype: Any, rng: Any, activation: Activation, loss: Loss, biased: bool
) -> None:
    for shape in ((1, 1), (1, 10), (17, 3)):
        check_output_delta(backend, dtype, rng, activation, loss, biased, shape)


@pytest.mark.parametrize(
    ("activation", "loss"),
    [(SIGMOID, "squared_error"), (SOFTMAX, "cross_entropy"), (TANH, "mean_squared_error")],
    ids=lambda value: getattr(value, "name", value),
)
def test_output_delta_of_more_than_a_piece(
    backend: Backend, dtype: Any, rng: Any, activation: Activation, loss: str
) -> None:
    check_output_delta(backend, dtype, rng, activation, LOSSES[loss], True, (12_000, 10))


def check_output_delta(
    backend: Backend,
    dtype: Any,
    rng: np.random.Generator,
    activation: Activation,
    loss: Loss,
    biased: bool,
    shape: tuple[int, int],
) -> None:
    z, bias = normal(rng, shape, dtype, 2), normal(rng, shape[1:], dtype)
    z[np.abs(z) < 0.01] = 0.5  # away from the ReLU's kink
    x = wide(z) + wide(bias) if biased else wide(z)
    a = ORACLES[activation.name](x)
    host_targets = targets_for(activation, loss, a, rng).astype(dtype)
    t, before = wide(host_targets), rng.standard_normal(shape[0])
    array, row_losses = backend.asarray(z.copy()), backend.asarray(before.copy())
    targets = backend.asarray(host_targets)
    backend.loss_backward(
        array, backend.asarray(bias) if biased else None, targets, activation, loss, row_losses
    )
    assert_within(
        backend.to_host(array),
        oracle_delta(activation, loss, a, t),
        delta_bound(activation, loss, x, t, dtype),
    )
    assert_within(
        backend.to_host(row_losses),
        before + oracle_values(loss, x, a, t).sum(axis=1),
        value_bound(activation, loss, x, t, dtype) + 1e-15 * np.abs(before),
    )
    np.testing.assert_array_equal(backend.to_host(targets), host_targets)


@pairs
def test_output_delta_is_the_derivative_of_the_row_losses(
    backend: Backend, rng: Any, activation: Activation, loss: Loss
) -> None:
    """Central differences of what the device itself adds to `row_losses`."""
    shape, step = (4, 3), 1e-5
    z, bias = 2 * rng.standard_normal(shape), rng.standard_normal(3)
    z[np.abs(z + bias) < 0.01] += 0.5
    a = ORACLES[activation.name](z + bias)
    targets = targets_for(activation, loss, a, rng)

    def run(values: Host) -> tuple[Host, Host]:
        array, row_losses = backend.asarray(values.copy()), backend.zeros((4,), np.float64)
        device_targets = backend.asarray(targets)
        backend.loss_backward(
            array, backend.asarray(bias), device_targets, activation, loss, row_losses
        )
        return backend.to_host(array), backend.to_host(row_losses)

    delta, row_losses = run(z)
    numerical = np.empty(shape)
    for column in range(shape[1]):
        nudge = np.zeros(shape)
        nudge[:, column] = step
        numerical[:, column] = (run(z + nudge)[1] - run(z - nudge)[1]) / (2 * step)
    # h^2 / 6 times a third derivative below 24, and the rounding of two losses over 2 h.
    rounding = value_bound(activation, loss, z + bias, targets, "float64").max() / step
    rounding += np.finfo(np.float64).eps * row_losses.max() / step
    assert_within(delta, numerical, 4 * step**2 + rounding)


@pairs
def test_output_delta_keeps_nan(backend: Backend, activation: Activation, loss: Loss) -> None:
    z = np.array([[1.0, np.nan, -1.0], [0.5, 1.0, 2.0], [np.nan, 0.0, 1.0]])
    expected, losses = z.copy(), np.zeros(3)
    targets = np.full((3, 3), 1 / 3)
    make_backend("cpu").loss_backward(expected, None, targets, activation, loss, losses)
    array, row_losses = backend.asarray(z.copy()), backend.zeros((3,), np.float64)
    backend.loss_backward(array, None, backend.asarray(targets), activation, loss, row_losses)
    np.testing.assert_array_equal(np.isnan(backend.to_host(array)), np.isnan(expected))
    np.testing.assert_array_equal(backend.to_host(row_losses) > -1, losses > -1)
    assert (losses > -1).tolist() == [False, True, False]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_cross_entropies_do_not_overflow(backend: Backend, dtype: Any, activation: str) -> None:
    """Sure and wrong by 1000: the loss is 1000, not infinity, and the delta is a - t."""
    loss = "binary_cross_entropy" if activation == "sigmoid" else "cross_entropy"
    z = np.array([[1000, 0], [-1000, 0]], dtype)
    targets = np.array([[0, 1], [1, 0]], dtype)
    array, row_losses = backend.asarray(z.copy()), backend.zeros((2,), np.float64)
    backend.loss_backward(
        array,
        None,
        backend.asarray(targets),
        ACTIVATIONS[activation],
        LOSSES[loss],
        row_losses,
    )
    if activation == "sigmoid":
        expected, delta = 1000 + np.log(2), [[1, -0.5], [-1, 0.5]]
    else:
        expected, delta = 1000, [[1, -1], [-1, 1]]
    eps = np.finfo(dtype).eps
    assert_within(backend.to_host(row_losses), np.full(2, expected), 8 * eps * 1001)
    np.testing.assert_array_equal(backend.to_host(array), delta)


def test_a_small_cross_entropy_keeps_its_digits(backend: Backend, dtype: Any) -> None:
    """Sure and right: log(1 + e^-20) is 2e-9, not the 0 that 1 + 2e-9 rounds to in float32."""
    array, row_losses = backend.asarray(np.full((1, 1), 20, dtype)), backend.zeros((1,), np.float64)
    targets = backend.asarray(np.ones((1, 1), dtype))
    backend.loss_backward(array, None, targets, SIGMOID, LOSSES["binary_cross_entropy"], row_losses)
    expected = np.log1p(np.exp(-20.0))
    assert_within(backend.to_host(row_losses), [expected], 8 * np.finfo(dtype).eps * expected)


def test_signed_errors_would_cancel(backend: Backend) -> None:
    """Outputs (0.4, 0.8, 1.0), targets (0.5, 0.7, 1.0): two are wrong, the misses sum to 0."""
    outputs, targets = np.array([[0.4, 0.8, 1.0]]), np.array([[0.5, 0.7, 1.0]])
    assert abs((targets - outputs).sum()) < 1e-15
    for name, expected in (("absolute_error", 0.2), ("sum_of_squares", 0.02)):
        row_losses = backend.zeros((1,), np.float64)
        backend.loss_backward(
            backend.asarray(outputs.copy()),
            None,
            backend.asarray(targets),
            ACTIVATIONS["identity"],
            LOSSES[name],
            row_losses,
        )
        assert backend.to_host(row_losses)[0] == pytest.approx(expected, rel=1e-14)


# Updates.

# The last one is so large that the CPU's threads share it.
UPDATE_SHAPES = [(1,), (7,), (5, 3), (521, 509)]


@pytest.mark.parametrize(("alpha", "beta"), [*FACTORS, (1.0, 1.0), (1.0, 0.9), (-1.0, 1.0)])
def test_axpby(backend: Backend, dtype: Any, rng: Any, alpha: float, beta: float) -> None:
    for shape in [(0,), (0, 3), *UPDATE_SHAPES]:
        source = normal(rng, shape, dtype)
        before = normal(rng, shape, dtype) if beta else np.full(shape, np.nan, dtype)
        device_source, out = backend.asarray(source.copy()), backend.asarray(before.copy())
        backend.axpby(device_source, out, alpha=alpha, beta=beta)
        expected, size = alpha * wide(source), abs(alpha) * np.abs(wide(source))
        if beta:
            expected, size = expected + beta * before, size + abs(beta) * np.abs(wide(before))
        # A factor, a product and a sum are rounded, and in float64 the oracle's as well.
        assert_within(backend.to_host(out), expected, 3 * np.finfo(dtype).eps * size)
        np.testing.assert_array_equal(backend.to_host(device_source), source)


def test_axpby_into_some_rows(backend: Backend, dtype: Any, rng: Any) -> None:
    source, larger = normal(rng, (4, 5), dtype), poisoned(backend, (9, 5), dtype)
    backend.axpby(backend.asarray(source), larger[3:7], alpha=1.0, beta=0.0)
    host = backend.to_host(larger)
    np.testing.assert_array_equal(host[3:7], source)
    assert np.isnan(host[:3]).all()
    assert np.isnan(host[7:]).all()


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adam_update(backend: Backend, dtype: Any, rng: Any, weight_decay: float) -> None:
    n_steps, eps = 4, float(np.finfo(dtype).eps)
    beta1, beta2, epsilon, step_size = 0.9, 0.999, 1e-8, 0.01
    for shape in UPDATE_SHAPES:
        host = normal(rng, shape, dtype)
        w, m, v = wide(host), np.zeros(shape), np.zeros(shape)
        m_size, v_size, w_error = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        device = [backend.asarray(host.copy()), *(backend.zeros(shape, dtype) for _ in range(2))]
        for _ in range(n_steps):
            gradient = normal(rng, shape, dtype)
            gradient[np.abs(gradient) < 0.01] = 0.1
            step = AdamStep(step_size, beta1, beta2, epsilon, weight_decay)
            backend.adam_update(device[0], backend.asarray(gradient), *device[1:], step)
            g = wide(gradient) + weight_decay * w
            g_size = np.abs(wide(gradient)) + weight_decay * np.abs(w)
            m = beta1 * m + g
            v = beta2 * v + g * g
            m_size = beta1 * m_size + g_size
            v_size = beta2 * v_size + g_size**2
            root = np.sqrt(v) + epsilon
            w = w - step_size * m / root
            # g has lost 2 eps |g| to cancellation, m and v a few eps a step; v, a sum of squares,
            # enters by its root. 24 counts all of these, with the constants' own rounding.
            w_error = w_error + 24 * n_steps * eps * step_size * m_size / root * (
                1 + g_size / np.maximum(np.abs(g), 1e-3)
            )
            w_error = w_error + 2 * eps * np.abs(w)
        assert_within(backend.to_host(device[0]), w, w_error)
        assert_within(backend.to_host(device[1]), m, 12 * n_steps * eps * m_size)
        assert_within(backend.to_host(device[2]), v, 12 * n_steps * eps * v_size)


def test_adam_with_a_zero_gradient_stands_still(backend: Backend, dtype: Any) -> None:
    host = np.array([1.5, -2.0], dtype)
    arrays = [backend.asarray(host.copy()), *(backend.zeros((2,), dtype) for _ in range(3))]
    backend.adam_update(*arrays, AdamStep(0.1, 0.9, 0.999, epsilon=1e-8, weight_decay=0.0))
    np.testing.assert_array_equal(backend.to_host(arrays[0]), host)


# A step, whole.


def training_step(backend: Backend, arrays: dict[str, Array]) -> None:
    """Do what one step of training does: gather, forwards, backwards, all kinds of update."""
    x, t, h, z, d, g = (arrays[name] for name in ("x", "t", "h", "z", "d", "g"))
    w1, b1, w2, b2 = (arrays[name] for name in ("w1", "b1", "w2", "b2"))
    backend.take_rows(arrays["inputs"], arrays["order"], x)
    backend.take_rows(arrays["targets"], arrays["order"], t)
    backend.gemm(x, w1, h, transpose_b=True)
    backend.activate(h, b1, SIGMOID)
    backend.gemm(h, w2, z, transpose_b=True)
    backend.copy_into(z, arrays["outputs"])
    backend.loss_backward(z, b2, t, SOFTMAX, LOSSES["cross_entropy"], arrays["losses"])
    backend.gemm(z, w2, d)
    backend.activation_backward(d, h, SIGMOID)
    backend.gemm(z, h, w2, transpose_a=True, alpha=-0.1, beta=1.0)
    backend.sum_rows(z, b2, alpha=-0.1, beta=1.0)
    backend.gemm(d, x, g, transpose_a=True)
    backend.sum_rows(d, b1, alpha=-0.1, beta=1.0)
    backend.axpby(g, arrays["v"], alpha=-0.1, beta=0.9)
    backend.axpby(arrays["v"], w1, alpha=1.0, beta=1.0)
    step = AdamStep(0.01, 0.9, 0.999, epsilon=1e-8, weight_decay=0.0)
    backend.adam_update(w1, g, arrays["m"], arrays["s"], step)
    backend.synchronize()


def step_arrays(backend: Backend, dtype: Any, rng: np.random.Generator) -> dict[str, Array]:
    shapes = {
        "inputs": (20, 6),
        "targets": (20, 3),
        "x": (8, 6),
        "t": (8, 3),
        "h": (8, 5),
        "z": (8, 3),
        "outputs": (8, 3),
        "d": (8, 5),
        "w1": (5, 6),
        "b1": (5,),
        "w2": (3, 5),
        "b2": (3,),
        "g": (5, 6),
        "v": (5, 6),
        "m": (5, 6),
    }
    arrays = {name: backend.asarray(normal(rng, shape, dtype)) for name, shape in shapes.items()}
    arrays["s"] = backend.zeros((5, 6), dtype)
    arrays["losses"] = backend.zeros((8,), np.float64)
    arrays["order"] = backend.asarray(rng.permutation(20)[:8])
    return arrays


def test_a_step_crosses_nothing(double: Backend, dtype: Any, rng: Any) -> None:
    arrays = step_arrays(double, dtype, rng)
    with no_crossings():
        training_step(double, arrays)


def test_a_step_on_another_gpu_than_the_current_one(dtype: Any, rng: Any) -> None:
    second = make_backend("double:1")
    training_step(second, step_arrays(second, dtype, rng))


@pytest.mark.parametrize("device", GPUS)
def test_a_step_agrees_with_the_cpu(device: str, dtype: Any) -> None:
    results = []
    for backend in (make_backend("cpu"), make_backend(device)):
        arrays = step_arrays(backend, dtype, np.random.default_rng(7))
        training_step(backend, arrays)
        results.append({name: backend.to_host(array) for name, array in arrays.items()})
    for name, expected in results[0].items():
        # Sums of at most 20 numbers of size 10, through 6 stages; Adam's division steepens by 10.
        bound = 0 if expected.dtype.kind == "i" else 1e4 * float(np.finfo(dtype).eps)
        assert_within(results[1][name], expected, bound)


@pytest.mark.parametrize("device", GPUS)
def test_the_same_step_gives_the_same_bits(device: str, dtype: Any) -> None:
    backend, results = make_backend(device), []
    for _ in range(2):
        arrays = step_arrays(backend, dtype, np.random.default_rng(7))
        training_step(backend, arrays)
        results.append({name: backend.to_host(array) for name, array in arrays.items()})
    for name, expected in results[0].items():
        np.testing.assert_array_equal(results[1][name], expected)


# Activations of a user's own.


def _logsoftmax(z, scratch):
    z -= np.log(np.exp(z).sum(axis=0, keepdims=True))


OWN = Activation(
    "log_softmax",
    forward=_logsoftmax,
    backward=lambda delta, a, scratch: None,
    inverse=np.array,
    elementwise=False,
    cuda_forward="",
    cuda_derivative="",
)


@pytest.mark.parametrize("activation", [OWN, replace(OWN, elementwise=True)])
def test_an_activation_without_a_kernel_is_an_error_on_a_gpu_and_never_softmax(gpu, activation):
    z, ones = (gpu.asarray(np.full((2, 3), value, np.float32)) for value in (0, 1))
    row_losses = gpu.zeros((2,), np.float64)
    for compute in (
        lambda: gpu.activate(z, None, activation),
        lambda: gpu.activation_backward(z, ones, activation),
        lambda: gpu.loss_backward(z, None, ones, activation, SQUARED_ERROR, row_losses),
    ):
        with pytest.raises(ParameterError, match=r"'log_softmax'.*use device 'cpu'"):
            compute()
    np.testing.assert_array_equal(gpu.to_host(z), np.zeros((2, 3)))


def test_such_an_activation_is_computed_on_the_cpu():
    cpu = make_backend("cpu")
    z = np.zeros((2, 3))
    cpu.activate(z, None, OWN)
    np.testing.assert_allclose(z, np.full((2, 3), -np.log(3)))
