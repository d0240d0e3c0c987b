"""The products of a network on the CPU, in the Python that Numba compiles, and sums of rows.

Products are the BLAS's, by a call of its function by address, except those that take few samples
forward. A BLAS copies parts of both matrices before it multiplies, and the weights are then used
for too few rows to be worth it; ``docs/benchmarks/README.md`` has figures.
"""

# Numba has no types to check against, and what it compiles is Python in form alone.
# mypy: ignore-errors

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from gpunn.backends.numba_arrays import (
    LETTERS,
    OPTIONS,
    READ,
    SUMMING,
    WRITTEN,
    inlined,
    is_array,
    is_vector,
    numbers,
    size,
)

FEW_ROWS = 40
"""Up to so many rows, dot products are faster than NumPy's OpenBLAS, or as fast."""

SHARED = 2**22
"""So many multiplications are work for several threads, if a BLAS has them."""

ROW_MAJOR, AS_IT_IS = 101, 111
"""CBLAS's numbers; that of a transposed matrix is one more."""


@intrinsic
def _call_gemm(context, place, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
    """Call cblas_sgemm or cblas_dgemm with 64-bit whole numbers, at that address."""
    number, short = alpha, ir.IntType(32)

    def make(ctx, builder, signature, arguments):
        place, trans_a, trans_b, *others = arguments
        flags = [builder.trunc(flag, short) for flag in (trans_a, trans_b)]
        values = [short(ROW_MAJOR), *flags, *others]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(place, kind.as_pointer()), values)
        return ctx.get_dummy_value()

    whole, many = types.intp, types.CPointer(number)
    taken = [whole] * 6 + [number, many, whole, many, whole, number, many, whole]
    return types.void(*taken), make


@intrinsic
def _count_threads(context, place):
    """Call a function without arguments that returns a C int, at that address."""

    def make(ctx, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [])
        found = builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])
        return builder.sext(found, ir.IntType(64))

    return types.intp(types.intp), make


def _dots(code):
    """Return what writes ``alpha a b^T + beta out`` for row-major matrices, by dot products.

    Two rows of `a` and four of `b` make eight sums at a time, which stay in registers: each number
    that is read is used several times, and neither matrix is copied.
    """
    T = np.dtype(code).type
    zero = T(0)

    @inlined
    def put(out, place, value, alpha, beta):
        before = zero if beta == zero else beta * out[place]
        out[place] = alpha * value + before

    @njit(**SUMMING)
    def two_by_four(out, a, b, i, j, n, k, alpha, beta):
        s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = zero
        first, row = i * k, j * k
        for p in range(k):
            x, y = a[first + p], a[first + k + p]
            b0, b1 = b[row + p], b[row + k + p]
            b2, b3 = b[row + 2 * k + p], b[row + 3 * k + p]
            s0 += x * b0
            s1 += x * b1
            s2 += x * b2
            s3 += x * b3
            t0 += y * b0
            t1 += y * b1
            t2 += y * b2
            t3 += y * b3
        place = i * n + j
        for column, value in enumerate((s0, s1, s2, s3)):
            put(out, place + column, value, alpha, beta)
        for column, value in enumerate((t0, t1, t2, t3)):
            put(out, place + n + column, value, alpha, beta)

    @njit(**SUMMING)
    def one(out, a, b, i, j, n, k, alpha, beta):
        total = zero
        for p in range(k):
            total += a[i * k + p] * b[j * k + p]
        put(out, i * n + j, total, alpha, beta)

    @njit(**OPTIONS)
    def dots(out, a, b, m, n, k, alpha, beta):
        pairs, fours = m - m % 2, n - n % 4
        for j in range(0, fours, 4):
            for i in range(0, pairs, 2):
                two_by_four(out, a, b, i, j, n, k, alpha, beta)
            for i in range(pairs, m):
                for column in range(j, j + 4):
                    one(out, a, b, i, column, n, k, alpha, beta)
        for j in range(fours, n):
            for i in range(m):
                one(out, a, b, i, j, n, k, alpha, beta)

    return dots


def gemm(code):
    """Return ``out <- alpha op(a) op(b) + beta out``, most by the BLAS at an address.

    What the BLAS shares out to its threads is left to it, too. Threads of gpunn's own would be
    slower, because idle threads of the BLAS keep the cores busy for a while.
    """
    T = np.dtype(code).type
    zero, letter = T(0), LETTERS[code]
    dots = _dots(code)

    def loop(place, threads_place, out_, a_, b_, trans_a, trans_b, alpha, beta):
        if not (
            is_array(out_, letter, WRITTEN, 2)
            and is_array(a_, letter, READ, 2)
            and is_array(b_, letter, READ, 2)
        ):
            return 0
        m, n = size(out_, 0), size(out_, 1)
        k = size(a_, 0 if trans_a else 1)
        if not (
            size(a_, 1 if trans_a else 0) == m
            and size(b_, 1 if trans_b else 0) == k
            and size(b_, 0 if trans_b else 1) == n
        ):
            return 0
        out, a, b = numbers(out_, zero), numbers(a_, zero), numbers(b_, zero)
        if m == 0 or n == 0:
            return 1
        small = m * n * k < SHARED or _count_threads(threads_place) == 1
        if small and m <= FEW_ROWS and trans_b and not trans_a:
            dots(out, a, b, m, n, k, T(alpha), T(beta))
            return 1
        # BLAS asks for rows of at least one number, also where there are none (k = 0).
        lda, ldb = max(1, m if trans_a else k), max(1, k if trans_b else n)
        factors = T(alpha), a, lda, b, ldb, T(beta), out, max(1, n)
        _call_gemm(place, AS_IT_IS + trans_a, AS_IT_IS + trans_b, m, n, k, *factors)
        return 1

    return loop


def sum_rows(code):
    """Return the loop of `NumpyBackend.sum_rows`."""
    T = np.dtype(code).type
    zero, letter = T(0), LETTERS[code]

    @njit(**OPTIONS)
    def add_eight(out, a, first, width, alpha):
        for j in range(width):
            k = first + j
            s = (a[k] + a[k + width]) + (a[k + 2 * width] + a[k + 3 * width])
            t = (a[k + 4 * width] + a[k + 5 * width]) + (a[k + 6 * width] + a[k + 7 * width])
            out[j] += alpha * (s + t)

    def loop(a_, out_, alpha, beta):
        if not is_array(a_, letter, READ, 2):
            return 0
        n, width = size(a_, 0), size(a_, 1)
        if not is_vector(out_, letter, WRITTEN, width):
            return 0
        a, out = numbers(a_, zero), numbers(out_, zero)
        alpha, beta = T(alpha), T(beta)
        for j in range(width):
            out[j] = zero if beta == zero else beta * out[j]
        # Eight rows at a time, so that the sums are read and written an eighth as often.
        for i in range(0, n - 7, 8):
            add_eight(out, a, i * width, width, alpha)
        for i in range(n - n % 8, n):
            for j in range(width):
                out[j] += alpha * a[i * width + j]
        return 1

    return loop


# Products with samples that are mostly zeros, whose rows are given in SciPy's CSR format: values,
# columns, and where each row begins. `start` and `stop` are hidden units.


def _suit_rows(code):
    """Return what looks at the arrays of sparse rows, weights (or a gradient) and sums."""
    letter, int32 = LETTERS[code], LETTERS["i"]

    @inlined
    def suit(values, columns, starts, weights, weights_flags, sums, sums_flags):
        return (
            is_array(values, letter, READ, 1)
            and is_vector(columns, int32, READ, size(values, 0))
            and is_array(starts, int32, READ, 1)
            and is_array(weights, letter, weights_flags, 2)
            and is_array(sums, letter, sums_flags, 2)
            and size(sums, 0) == size(starts, 0) - 1
            and size(sums, 1) == size(weights, 0)
        )

    return suit


def sparse_sums(code):
    """Return the loop of `SparseRows.add_sums`; four units at a time share a look at a column."""
    T = np.dtype(code).type
    zero, suit = T(0), _suit_rows(code)

    @njit(**OPTIONS)
    def one(values, columns, first, last, w, row):
        total = zero
        for p in range(first, last):
            total += values[p] * w[row + columns[p]]
        return total

    def loop(values_, columns_, starts_, w_, out_, start, stop, alpha, beta):
        if not suit(values_, columns_, starts_, w_, READ, out_, WRITTEN):
            return 0
        n, units, width = size(out_, 0), size(out_, 1), size(w_, 1)
        values, w, out = numbers(values_, zero), numbers(w_, zero), numbers(out_, zero)
        columns, starts = numbers(columns_, np.int32(0)), numbers(starts_, np.int32(0))
        alpha, beta = T(alpha), T(beta)
        fours = stop - (stop - start) % 4
        for unit in range(start, stop):
            if unit >= fours:
                for i in range(n):
                    place = i * units + unit
                    before = zero if beta == zero else beta * out[place]
                    total = one(values, columns, starts[i], starts[i + 1], w, unit * width)
                    out[place] = alpha * total + before
            elif (unit - start) % 4 == 0:
                row = unit * width
                for i in range(n):
                    s0 = s1 = s2 = s3 = zero
                    for p in range(starts[i], starts[i + 1]):
                        x, k = values[p], row + columns[p]
                        s0 += x * w[k]
                        s1 += x * w[k + width]
                        s2 += x * w[k + 2 * width]
                        s3 += x * w[k + 3 * width]
                    place = i * units + unit
                    for j, total in enumerate((s0, s1, s2, s3)):
                        before = zero if beta == zero else beta * out[place + j]
                        out[place + j] = alpha * total + before
        return 1

    return loop


def sparse_gradient(code):
    """Return the loop of `SparseRows.add_gradient`."""
    T = np.dtype(code).type
    zero, suit = T(0), _suit_rows(code)

    def loop(values_, columns_, starts_, out_, delta_, start, stop, alpha, beta):
        if not suit(values_, columns_, starts_, out_, WRITTEN, delta_, READ):
            return 0
        n, units, width = size(delta_, 0), size(delta_, 1), size(out_, 1)
        values, delta, out = numbers(values_, zero), numbers(delta_, zero), numbers(out_, zero)
        columns, starts = numbers(columns_, np.int32(0)), numbers(starts_, np.int32(0))
        alpha, beta = T(alpha), T(beta)
        for unit in range(start, stop):
            row = unit * width
            for j in range(row, row + width):
                out[j] = zero if beta == zero else beta * out[j]
            for i in range(n):
                d = alpha * delta[i * units + unit]
                for p in range(starts[i], starts[i + 1]):
                    out[row + columns[p]] += d * values[p]
        return 1

    return loop
