"""Products of matrices at addresses, for both ways to cuBLAS that the double has.

A product is refused unless its matrices lie within allocations of the current device, at addresses
of their type, do not overlap, and have leading dimensions that fit. Lower precisions round the
factors as tensor cores do, and numbers of 16 bits are bfloat16's.
"""

from typing import Any, NamedTuple

import numpy as np
from fake_captures import Run, Use
from fake_memory import GUARD, Memory
from fake_streams import current_device

R_32F, R_64F, R_16BF = 0, 1, 14
"""CUDA's names of types; NumPy has none for bfloat16, whose bits are unsigned numbers here."""
_DTYPES = {R_32F: np.float32, R_64F: np.float64, R_16BF: np.uint16}


class CUBLASError(RuntimeError):
    pass


class ComputeType(NamedTuple):
    """What a product is computed in."""

    dtype: Any
    dropped_bits: int
    """Bits of the factors' significands that are rounded away."""


COMPUTE_32F, COMPUTE_64F, COMPUTE_FAST_16BF, COMPUTE_FAST_TF32 = 68, 70, 75, 77
_COMPUTE_TYPES = {
    COMPUTE_32F: ComputeType(np.float32, 0),
    COMPUTE_64F: ComputeType(np.float64, 0),
    COMPUTE_FAST_16BF: ComputeType(np.float32, 16),
    COMPUTE_FAST_TF32: ComputeType(np.float32, 13),
}
_SUPPORTED = {
    (COMPUTE_32F, R_32F, R_32F),
    (COMPUTE_32F, R_16BF, R_16BF),
    (COMPUTE_32F, R_16BF, R_32F),
    (COMPUTE_64F, R_64F, R_64F),
    (COMPUTE_FAST_16BF, R_32F, R_32F),
    (COMPUTE_FAST_TF32, R_32F, R_32F),
}
"""What it is computed in, of which factors, to which result: what is used of cuBLAS."""


class Matrix(NamedTuple):
    """A column-major matrix as cuBLAS is told of it; `rows` and `columns` are those in memory."""

    address: int
    rows: int
    columns: int
    leading: int
    number: int
    transposed: bool = False


class Product(NamedTuple):
    """``C = alpha op(A) op(B) + beta C``."""

    a: Matrix
    b: Matrix
    c: Matrix
    alpha: float
    beta: float
    compute_type: int
    algorithm: int


def compute_type(number: int) -> ComputeType:
    if number not in _COMPUTE_TYPES:
        raise CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED")
    return _COMPUTE_TYPES[number]


def matrices(
    transa: int, transb: int, sizes: tuple[int, int, int], places: list[tuple[int, int, int]]
) -> list[Matrix]:
    """Return A, B and C from sizes m, n, k and each one's address, type and leading dimension."""
    m, n, k = sizes
    if not {transa, transb} <= {0, 1}:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    shapes = ((k, m) if transa else (m, k), (n, k) if transb else (k, n), (m, n))
    return [
        Matrix(address, *shape, leading, number, bool(transposed))
        for (address, number, leading), shape, transposed in zip(
            places, shapes, (transa, transb, 0), strict=True
        )
    ]


def prepare(product: Product) -> tuple[list[Use], Run]:
    """Return what a product uses and what it does, or refuse it."""
    a, b, c = product.a, product.b, product.c
    if a.number != b.number or product.algorithm != -1:
        raise CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED")
    if (product.compute_type, a.number, c.number) not in _SUPPORTED:
        raise CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED")
    for x in (a, b, c):
        if min(x.rows, x.columns) < 0 or x.leading < max(1, x.rows):
            raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    # Where k is 0 there are no factors, but C is still multiplied by beta.
    factors = [_find(*pair) for pair in (("A", a), ("B", b)) if _size(pair[1])]
    if not _size(c):
        return factors, lambda _: None
    target = _find("C", c, written=True)
    if any(np.may_share_memory(x.values, target.values) for x in factors):
        raise CUBLASError("C overlaps A or B")
    return [target, *factors], _work(product)


def _size(matrix: Matrix) -> int:
    return matrix.rows * matrix.columns


def _find(name: str, matrix: Matrix, written: bool = False) -> Use:
    """Return the use of a matrix, if it lies within one allocation."""
    dtype = np.dtype(_DTYPES[matrix.number])
    if matrix.address % dtype.itemsize:
        raise CUBLASError(f"{name} lies at an address that its type cannot have")
    extent = (matrix.leading * (matrix.columns - 1) + matrix.rows) * dtype.itemsize
    memory = find_memory(name, matrix.address, extent)
    values = np.ndarray(
        (matrix.rows, matrix.columns),
        dtype,
        memory.bytes.data,
        GUARD + matrix.address - memory.ptr,
        (dtype.itemsize, matrix.leading * dtype.itemsize),
    )
    return Use(memory, values, written)


def find_memory(name: str, address: int, extent: int) -> Memory:
    """Return the allocation of the current device that so many bytes at an address lie within."""
    for memory in Memory.live():
        if memory.ptr <= address and address + extent <= memory.ptr + memory.nbytes:
            if memory.device_id != current_device():
                raise CUBLASError(f"{name} lies on device {memory.device_id}")
            return memory
    raise CUBLASError(f"{name}: the matrix does not lie within an allocation")


def _work(product: Product) -> Run:
    """Return what computes a product, from C and, unless k is 0, from A and B."""
    dtype, dropped_bits = compute_type(product.compute_type)
    alpha, beta = (np.asarray(factor, dtype) for factor in (product.alpha, product.beta))
    transposed = product.a.transposed, product.b.transposed

    def run(uses: list[Use]) -> None:
        c, *factors = (use.values for use in uses)
        result: Any = np.zeros(c.shape, dtype)
        if factors and alpha:
            a, b = (_factor(x, t, dropped_bits) for x, t in zip(factors, transposed, strict=True))
            result = (a @ b) * alpha
        # With beta == 0, BLAS does not read C at all: there may be NaN in it.
        if beta:
            result = result + beta * _widened(c)
        c[...] = to_bfloat16(result) if c.dtype == np.uint16 else result

    return run


def _factor(matrix: Any, transposed: bool, dropped_bits: int) -> Any:
    numbers = _rounded(_widened(matrix), dropped_bits)
    return numbers.T if transposed else numbers


def _rounded(matrix: Any, dropped_bits: int) -> Any:
    """Return float32 numbers with fewer bits, rounded to the nearest, ties to even."""
    if not dropped_bits:
        return matrix
    bits = matrix.view(np.uint32)
    half = (1 << (dropped_bits - 1)) - 1 + (bits >> dropped_bits & 1)
    rounded = (bits + half.astype(np.uint32)) >> dropped_bits << dropped_bits
    return np.where(np.isfinite(matrix), rounded.astype(np.uint32).view(np.float32), matrix)


def _widened(matrix: Any) -> Any:
    """Return the numbers of a matrix, which for bfloat16 are float32's with 16 bits less."""
    if matrix.dtype != np.uint16:
        return matrix
    return (matrix.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(numbers: Any) -> Any:
    """Return the bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    numbers = np.asarray(numbers, np.float32)
    bits = _rounded(numbers, 16).view(np.uint32) >> 16
    # The bits that tell a NaN from infinity may be among the lost ones.
    return np.where(np.isnan(numbers), bits | 0x40, bits).astype(np.uint16)
