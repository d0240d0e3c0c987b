"""cuBLAS's library as the double of CuPy has it: its products, and what it refuses."""

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_double, c_float, c_int, c_size_t, c_void_p
from typing import Any

import numpy as np
import pytest
from fake_captures import GivenUpError
from fake_cublas import library
from fake_cublas_library import MisuseError
from fake_cuda import CUDARuntimeError, cupy
from fake_products import to_bfloat16
from fake_streams import RaceError
from trying import ones

F32, F64, BF16 = 0, 1, 14
MADE_OF = {F32: "float32", F64: "float64", BF16: "uint16"}
ONE = 0x3F80
"""The bits of 1.0 as a bfloat16."""


def make_handle() -> c_void_p:
    handle = c_void_p()
    assert library.cublasCreate_v2(byref(handle)) == 0
    return handle


@pytest.fixture
def handle() -> Iterator[c_void_p]:
    made = make_handle()
    yield made
    assert library.cublasDestroy_v2(made) == 0


@pytest.fixture
def stream() -> Any:
    return cupy.cuda.Stream(non_blocking=True)


def address(array: Any) -> c_void_p:
    return c_void_p(array.data.ptr)


def matrix(numbers: Any, number: int = F32) -> Any:
    """Return a column-major matrix on the device, with its shape forgotten."""
    flat = np.asarray(numbers, "float64" if number == F64 else "float32").T.reshape(-1)
    return cupy.asarray(to_bfloat16(flat) if number == BF16 else flat)


def widened(array: Any) -> Any:
    values = array.get()
    return (values.astype("uint32") << 16).view("float32") if values.dtype == "uint16" else values


def gemm(handle: c_void_p, a: Any, b: Any, c: Any, /, **changes: Any) -> None:
    """Multiply a (3, 2) and b (2, 4), both column-major, with some arguments changed."""
    factor = changes.pop("factor", c_float)
    arguments = {
        **{"handle": handle, "transa": c_int(0), "transb": c_int(0)},
        **{"m": c_int(3), "n": c_int(4), "k": c_int(2), "alpha": byref(factor(1))},
        **{"A": address(a), "Atype": c_int(F32), "lda": c_int(3)},
        **{"B": address(b), "Btype": c_int(F32), "ldb": c_int(2)},
        **{"beta": byref(factor(0))},
        **{"C": address(c), "Ctype": c_int(F32), "ldc": c_int(3)},
        **{"computeType": c_int(68), "algo": c_int(-1)},
    }
    assert changes.keys() <= arguments.keys()
    assert library.cublasGemmEx(*{**arguments, **changes}.values()) == 0


# Products.


@pytest.mark.parametrize(
    ("compute_type", "factors", "result"),
    [(68, F32, F32), (70, F64, F64), (77, F32, F32), (68, BF16, BF16), (68, BF16, F32)],
)
def test_products(handle: c_void_p, compute_type: int, factors: int, result: int) -> None:
    a = np.array([[1, 2], [3, 4], [5, 6]])
    b = np.array([[1, 0, 2, 1], [0, 1, 1, 3]])
    before = np.full((3, 4), 8.0)
    c = matrix(before, result)
    factor = c_double if factors == F64 else c_float
    for beta in (0, 0.5):
        gemm(
            *(handle, matrix(a.T, factors), matrix(b, factors), c),
            **{"transa": 1, "lda": 2, "alpha": byref(factor(2)), "beta": byref(factor(beta))},
            **{"Atype": factors, "Btype": factors, "Ctype": result, "computeType": compute_type},
        )
        before = 2 * a @ b + beta * before
        np.testing.assert_array_equal(widened(c), before.T.reshape(-1))


def test_without_beta_what_was_there_is_not_read(handle: c_void_p) -> None:
    c = cupy.empty(12, "float32")
    gemm(handle, ones(6), ones(8), c, beta=byref(c_float(1)))
    assert np.isnan(c.get()).all()
    gemm(handle, ones(6), ones(8), c)
    assert (c.get() == 2).all()
    gemm(handle, ones(6), ones(8), c, k=0, beta=byref(c_float(3)))
    assert (c.get() == 6).all()


def product_of(handle: c_void_p, number: int, result: int, row: Any, column: Any) -> Any:
    """Return what a row of numbers times a column comes to."""
    c, k = cupy.empty(1, MADE_OF[result]), len(row)
    gemm(
        *(handle, cupy.asarray(row), cupy.asarray(column), c),
        **{"m": 1, "n": 1, "k": k, "lda": 1, "ldb": k, "ldc": 1},
        **{"Atype": number, "Btype": number, "Ctype": result},
    )
    return c.get()[0]


def test_bfloat16_is_summed_in_float32_and_rounded_to_even(handle: c_void_p) -> None:
    one = np.array([ONE, ONE], "uint16")
    for other, expected in ((0x3B80, ONE), (0x3C40, ONE + 2), (0x3C00, ONE + 1), (0xC0FF, 0xC0DF)):
        # 1 + 2**-8 lies between two; so does 1 + 3 * 2**-8; 1 + 2**-7 is one.
        got = product_of(handle, BF16, BF16, one, np.array([ONE, other], "uint16"))
        assert got == expected
    exact = product_of(handle, BF16, F32, one, np.array([ONE, 0x3B80], "uint16"))
    assert exact == np.float32(1 + 2**-8)


def test_bfloat16_keeps_nan_and_infinity(handle: c_void_p) -> None:
    for number, expected in ((np.nan, np.nan), (np.inf, np.inf), (3.4e38, np.inf)):
        bits = to_bfloat16(np.array([number]))
        assert np.array_equal(widened(cupy.asarray(bits)), [expected], equal_nan=True)
    for bits in (0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF):  # the second is what a GPU computes
        nan = to_bfloat16(np.array([bits], "uint32").view("float32"))
        assert np.isnan(widened(cupy.asarray(nan))).all()
    got = product_of(handle, BF16, BF16, np.array([0x7FC0], "uint16"), np.array([ONE], "uint16"))
    assert got & 0x7F80 == 0x7F80
    assert got & 0x7F
    assert np.isnan(widened(cupy.empty(3, "uint16"))).all()


def test_argtypes_let_whole_numbers_be_addresses(
    handle: c_void_p, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library.cublasSetStream_v2, "argtypes", [c_void_p, c_void_p])
    assert library.cublasSetStream_v2(handle.value, 0) == 0
    assert library.cublasSetStream_v2(handle.value, None) == 0


# What is refused.

A, B, C = ones(6), ones(8), ones(12)
WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "lda": ({"lda": 2}, MisuseError, "INVALID_VALUE"),
    "ldb": ({"ldb": 1}, MisuseError, "INVALID_VALUE"),
    "ldc": ({"ldc": 2}, MisuseError, "INVALID_VALUE"),
    "transposed": ({"transa": 1, "lda": 1}, MisuseError, "INVALID_VALUE"),
    "transa": ({"transa": 2}, MisuseError, "INVALID_VALUE"),
    "negative": ({"m": -1}, MisuseError, "INVALID_VALUE"),
    "too large": ({"lda": 4}, MisuseError, "A: the matrix does not lie within an allocation"),
    "null": ({"A": c_void_p(0)}, MisuseError, "A: the matrix does not lie within"),
    "misaligned": ({"A": c_void_p(A.data.ptr + 2)}, MisuseError, "A lies at an address"),
    "overlap": ({"C": address(A), "n": 2}, MisuseError, "C overlaps A or B"),
    "type": ({"Atype": 2}, MisuseError, "NOT_SUPPORTED"),
    "types": ({"Atype": BF16}, MisuseError, "NOT_SUPPORTED"),
    "result": ({"Ctype": BF16}, MisuseError, "NOT_SUPPORTED"),
    "compute type": ({"computeType": 70, "factor": c_double}, MisuseError, "NOT_SUPPORTED"),
    "no compute type": ({"computeType": 64}, MisuseError, "NOT_SUPPORTED"),
    "tf32": (
        {"computeType": 77, "Atype": BF16, "Btype": BF16, "Ctype": BF16},
        MisuseError,
        "NOT_SUPPORTED",
    ),
    "algorithm": ({"algo": 1}, MisuseError, "NOT_SUPPORTED"),
    "double": ({"factor": c_double}, TypeError, "alpha and beta must be c_float"),
    "a number": ({"alpha": 1.0}, TypeError, "not a pointer"),
    "an address": ({"A": A.data.ptr}, TypeError, "an address must be a c_void_p"),
    "a long size": ({"m": 2**32 + 3}, TypeError, "not a whole number of 32 bits"),
    "no handle": ({"handle": c_void_p(8)}, MisuseError, "NOT_INITIALIZED"),
}


@pytest.mark.parametrize("case", WRONG)
def test_products_refuse(handle: c_void_p, case: str) -> None:
    changes, kind, message = WRONG[case]
    gemm(handle, A, B, C)
    with pytest.raises(kind, match=message):
        gemm(handle, A, B, C, **changes)


def test_modes_that_products_must_not_have(handle: c_void_p) -> None:
    library.cublasSetMathMode(handle, 16)
    gemm(handle, A, B, C)
    library.cublasSetMathMode(handle, c_int(3))
    with pytest.raises(MisuseError, match="math mode"):
        gemm(handle, A, B, C)
    library.cublasSetMathMode(handle, 0)
    library.cublasSetPointerMode_v2(handle, 1)
    with pytest.raises(MisuseError, match="pointer mode"):
        gemm(handle, A, B, C)


def test_a_handle_belongs_to_a_device_and_ends(stream: Any) -> None:
    with cupy.cuda.Device(1):
        handle, elsewhere = make_handle(), ones(6)
        with pytest.raises(RuntimeError, match="another device"):
            library.cublasSetStream_v2(handle, c_void_p(stream.ptr))
        with pytest.raises(MisuseError, match="A lies on device 0"):
            gemm(handle, A, B, C)
    for call in (
        lambda: gemm(handle, A, B, C),
        lambda: library.cublasSetStream_v2(handle, c_void_p(0)),
        lambda: library.cublasSetWorkspace_v2(handle, address(elsewhere), c_size_t(8)),
        lambda: library.cublasDestroy_v2(handle),
    ):
        with pytest.raises(MisuseError, match="the handle belongs to device 1"):
            call()
    with cupy.cuda.Device(1):
        library.cublasDestroy_v2(handle)
        with pytest.raises(MisuseError, match="NOT_INITIALIZED"):
            library.cublasDestroy_v2(handle)
    with pytest.raises(TypeError, match="takes 1 arguments, got 2"):
        library.cublasDestroy_v2(handle, 1)
    with pytest.raises(TypeError, match="a handle is a c_void_p"):
        library.cublasCreate_v2(byref(c_int()))


# Streams and workspaces.


def wait(stream: Any) -> None:
    event = cupy.cuda.Event()
    event.record()
    stream.wait_event(event)


def test_products_are_work_of_the_handles_stream(handle: c_void_p, stream: Any) -> None:
    a, b, c = ones(6), ones(8), ones(12)
    library.cublasSetStream_v2(handle, c_void_p(stream.ptr))
    with pytest.raises(RaceError, match="another one may be using"):
        gemm(handle, a, b, c)
    wait(stream)
    gemm(handle, a, b, c)
    with pytest.raises(RaceError, match="another one may be using"):
        c.fill(1)
    stream.synchronize()
    del stream
    with pytest.raises(RuntimeError, match="no stream has that address"):
        library.cublasSetStream_v2(handle, c_void_p(8))


def test_a_stream_must_live_as_long_as_its_handle_uses_it(handle: c_void_p) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    library.cublasSetStream_v2(handle, c_void_p(stream.ptr))
    del stream
    with pytest.raises(MisuseError, match="stream has been destroyed"):
        gemm(handle, A, B, C)


def test_a_workspace_is_aligned_and_there(handle: c_void_p) -> None:
    workspace = cupy.empty(1024, "uint8")
    set_to = library.cublasSetWorkspace_v2
    for ptr, size, message in (
        (workspace.data.ptr + 128, 512, "begins at 256 bytes"),
        (workspace.data.ptr, 0, "INVALID_VALUE"),
        (workspace.data.ptr + 512, 1024, "the workspace: the matrix does not lie within"),
        (4096, 8, "the workspace: the matrix does not lie within"),
    ):
        with pytest.raises(MisuseError, match=message):
            set_to(handle, c_void_p(ptr), c_size_t(size))
    with pytest.raises(TypeError, match="a size must be a c_size_t"):
        set_to(handle, address(workspace), 1024)
    set_to(handle, address(workspace), c_size_t(1024))
    workspace.fill(1)
    gemm(handle, A, B, C)
    assert (workspace.get() == 0xFF).all()
    del workspace
    with pytest.raises(MisuseError, match="the workspace: the matrix does not lie within"):
        gemm(handle, A, B, C)


def test_a_workspace_is_no_matrix(handle: c_void_p) -> None:
    memory = ones(64 + 12)
    library.cublasSetWorkspace_v2(handle, address(memory), c_size_t(256))
    gemm(handle, A, B, memory[64:])
    with pytest.raises(MisuseError, match="the workspace overlaps a matrix"):
        gemm(handle, A, B, memory[63:])


def test_a_workspace_is_used_by_one_stream_at_a_time(handle: c_void_p, stream: Any) -> None:
    workspace, other = cupy.empty(1024, "uint8"), make_handle()
    library.cublasSetStream_v2(other, c_void_p(stream.ptr))
    for each in (handle, other):
        library.cublasSetWorkspace_v2(each, address(workspace), c_size_t(1024))
    operands = ones(6), ones(8), ones(12)
    wait(stream)
    gemm(handle, ones(6), ones(8), ones(12))
    with pytest.raises(RaceError, match="another one may be using"):
        gemm(other, *operands)
    library.cublasDestroy_v2(other)


# Captures.


def test_products_are_captured_and_replayed(handle: c_void_p, stream: Any) -> None:
    a, b, c, workspace = ones(6), ones(8), ones(12), cupy.empty(1024, "uint8")
    wait(stream)
    library.cublasSetStream_v2(handle, c_void_p(stream.ptr))
    library.cublasSetWorkspace_v2(handle, address(workspace), c_size_t(1024))
    alpha = c_float(2)
    stream.begin_capture()
    gemm(handle, a, b, c, alpha=byref(alpha))
    graph = stream.end_capture()
    alpha.value = 3
    assert (c.get() == 1).all()
    graph.launch()
    assert (c.get() == 4).all()
    b.fill(2)
    graph.launch()
    assert (c.get() == 8).all()
    del workspace
    with pytest.raises(GivenUpError, match="has been given up"):
        graph.launch()


def test_cublas_must_not_allocate_during_a_capture(handle: c_void_p, stream: Any) -> None:
    workspace = cupy.empty(1024, "uint8")
    library.cublasSetWorkspace_v2(handle, address(workspace), c_size_t(1024))
    library.cublasSetStream_v2(handle, c_void_p(stream.ptr))  # which forgets the workspace
    stream.begin_capture()
    with pytest.raises(MisuseError, match="cuBLAS would allocate a workspace"):
        gemm(handle, A, B, C)
    with pytest.raises(CUDARuntimeError, match="cuBLAS makes a handle"):
        make_handle()
    with pytest.raises(CUDARuntimeError, match="cuBLAS frees a handle"):
        library.cublasDestroy_v2(handle)
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()


def test_a_handle_without_a_stream_uses_the_null_stream(handle: c_void_p, stream: Any) -> None:
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureImplicit"):
        gemm(handle, A, B, C)
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()


def test_branches_need_workspaces_of_their_own(handle: c_void_p, stream: Any) -> None:
    workspace, other = cupy.empty(1024, "uint8"), cupy.cuda.Stream(non_blocking=True)
    results = ones(12), ones(12)
    wait(stream)
    second = make_handle()
    stream.begin_capture()
    event = cupy.cuda.Event()
    event.record(stream)
    other.wait_event(event)
    for each, branch in ((handle, stream), (second, other)):
        library.cublasSetStream_v2(each, c_void_p(branch.ptr))
        library.cublasSetWorkspace_v2(each, address(workspace), c_size_t(1024))
    gemm(handle, A, B, results[0])
    with pytest.raises(RaceError, match="two branches of a graph"):
        gemm(second, A, B, results[1])
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()
    library.cublasDestroy_v2(second)


def test_pointers_of_all_kinds_give_a_factor(handle: c_void_p) -> None:
    numbers = (c_float * 1)(2)
    for alpha in (numbers, ctypes.pointer(c_float(2)), c_void_p(ctypes.addressof(numbers))):
        gemm(handle, A, B, C, alpha=alpha)
        assert (C.get() == 4).all()
