"""The kernels of everything that is no formula of a record: sums, updates, dropout, rows.

One launch each. Every sum has a fixed order, so that the same run gives the same bits. This module
must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

from functools import cache
from typing import Any

import cupy


@cache
def column_sums_kernel(accumulate: bool) -> Any:
    """Return what adds up columns, with a thread for each."""
    before = "beta * out" if accumulate else "T(0)"
    return cupy.ElementwiseKernel(
        "raw T matrix, int64 n_rows, int64 n_columns, T alpha, T beta",
        "T out",
        f"""
        T total = T(0);
        for (ptrdiff_t r = 0; r < n_rows; ++r) {{ total += matrix[r * n_columns + i]; }}
        out = alpha * total + {before};
        """,
        "gpunn_sum_rows",
    )


@cache
def part_sums_kernel() -> Any:
    """Return what adds up columns in parts, every n_parts-th row in one."""
    return cupy.ElementwiseKernel(
        "raw T matrix, int64 n_rows, int64 n_columns, int64 n_parts",
        "T out",
        """
        T total = T(0);
        for (ptrdiff_t r = i / n_columns; r < n_rows; r += n_parts) {
            total += matrix[r * n_columns + i % n_columns];
        }
        out = total;
        """,
        "gpunn_sum_parts",
    )


@cache
def squares_kernel(squared: bool) -> Any:
    """Return what adds up squares, or numbers, in parts and in float64."""
    term = "number * number" if squared else "number"
    return cupy.ElementwiseKernel(
        "raw T numbers, int64 n, int64 n_parts",
        "float64 out",
        f"""
        double total = 0;
        for (ptrdiff_t k = i; k < n; k += n_parts) {{
            const double number = numbers[k];
            total += {term};
        }}
        out = total;
        """,
        "gpunn_squares",
    )


@cache
def dropout_kernel() -> Any:
    """Return what drops numbers by a hash of their place and a key, and scales the others."""
    # The place in the array, scattered; then the finalizer of MurmurHash3.
    return cupy.ElementwiseKernel(
        "uint32 key, uint32 limit, T scale",
        "T a",
        """
        unsigned int h = (unsigned int)i * 0x9E3779B1u + key;
        h ^= h >> 16; h *= 0x85EBCA6Bu;
        h ^= h >> 13; h *= 0xC2B2AE35u;
        h ^= h >> 16;
        a *= h >= limit ? scale : T(0);
        """,
        "gpunn_dropout",
    )


@cache
def add_number_kernel(factor: str) -> Any:
    """Return what adds a multiple of a number on the device to another; the factor has a dtype."""
    return cupy.ElementwiseKernel(
        f"float64 number, {factor} alpha", "float64 out", "out += alpha * number;",
        "gpunn_add_number",
    )  # fmt: skip


@cache
def scale_kernel() -> Any:
    """Return what multiplies by a number on the device."""
    return cupy.ElementwiseKernel("T factor", "T out", "out *= factor;", "gpunn_scale")


@cache
def add_one_kernel() -> Any:
    """Return what counts on the device."""
    return cupy.ElementwiseKernel("", "uint32 count", "count += 1;", "gpunn_add_one")


@cache
def take_rows_kernel() -> Any:
    """Return what gathers rows by their indices."""
    return cupy.ElementwiseKernel(
        "raw T source, raw int64 indices, int64 n_columns",
        "T out",
        "out = source[indices[i / n_columns] * n_columns + i % n_columns];",
        "gpunn_take_rows",
    )


@cache
def axpby_kernel() -> Any:
    """Return what computes ``alpha source + beta out``, which is not read for a beta of 0."""
    return cupy.ElementwiseKernel(
        "T source, T alpha, T beta",
        "T out",
        "out = beta == T(0) ? alpha * source : alpha * source + beta * out;",
        "gpunn_axpby",
    )


@cache
def adam_kernel() -> Any:
    """Return what does a step of Adam; see `Backend.adam_update`."""
    return cupy.ElementwiseKernel(
        "T gradient, T step_size, T beta1, T beta2, T epsilon, T weight_decay",
        "T w, T m, T v",
        """
        const T g = weight_decay * w + gradient;
        m = beta1 * m + g;
        v = beta2 * v + g * g;
        w -= step_size * (m / (sqrt(v) + epsilon));
        """,
        "gpunn_adam_update",
    )
