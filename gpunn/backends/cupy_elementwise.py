"""The kernels of everything that is no formula of a record: sums, updates, dropout, rows.

One launch each. Every sum has a fixed order, so that the same run gives the same bits. This module
must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

from functools import cache
from typing import Any, NamedTuple

import cupy

from gpunn.backends.cupy_passes import BFLOAT16


class Kept(NamedTuple):
    """How a kernel reads and writes numbers that are kept in the network's dtype, or rounded."""

    type: str
    preamble: str
    load: str
    store: str

    @classmethod
    def of(cls, rounded: bool) -> "Kept":
        """Return it; the network's dtype is T, which stands for float where numbers are rounded."""
        if not rounded:
            return cls("T", "", "", "")
        return cls("uint16", "typedef float T;\n" + BFLOAT16, "load", "store")

    @property
    def number(self) -> str:
        """The type of sums, as a parameter of a kernel."""
        return "float32" if self.preamble else "T"


@cache
def column_sums_kernel(accumulate: bool, rounded: bool) -> Any:
    """Return what adds up columns, with a thread for each."""
    before, kept = "beta * out" if accumulate else "T(0)", Kept.of(rounded)
    return cupy.ElementwiseKernel(
        f"raw {kept.type} matrix, int64 n_rows, int64 n_columns, {kept.number} alpha, "
        f"{kept.number} beta",
        f"{kept.number} out",
        f"""
        T total = T(0);
        for (ptrdiff_t r = 0; r < n_rows; ++r) {{
            total += {kept.load}(matrix[r * n_columns + i]);
        }}
        out = alpha * total + {before};
        """,
        "gpunn_sum_rows",
        preamble=kept.preamble,
    )


@cache
def convert_kernel(rounds: bool) -> Any:
    """Return what rounds numbers to bfloat16, or makes them float32 again."""
    types = ("float32", "uint16") if rounds else ("uint16", "float32")
    return cupy.ElementwiseKernel(
        f"{types[0]} source",
        f"{types[1]} out",
        f"out = {'store' if rounds else 'load'}(source);",
        "gpunn_convert",
        preamble=Kept.of(rounded=True).preamble,
    )


@cache
def part_sums_kernel(rounded: bool) -> Any:
    """Return what adds up columns in parts, every n_parts-th row in one."""
    kept = Kept.of(rounded)
    return cupy.ElementwiseKernel(
        f"raw {kept.type} matrix, int64 n_rows, int64 n_columns, int64 n_parts",
        f"{kept.number} out",
        f"""
        T total = T(0);
        for (ptrdiff_t r = i / n_columns; r < n_rows; r += n_parts) {{
            total += {kept.load}(matrix[r * n_columns + i % n_columns]);
        }}
        out = total;
        """,
        "gpunn_sum_parts",
        preamble=kept.preamble,
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
def dropout_kernel(rounded: bool) -> Any:
    """Return what drops numbers by a hash of their place and a key, and scales the others."""
    return _dropout(rounded, "(unsigned int)i", "", "gpunn_dropout")


@cache
def dropout_part_kernel(rounded: bool) -> Any:
    """Return the same for a part of a matrix, by the places in the whole."""
    place = "(first + (unsigned int)i + (unsigned int)(i / width) * skipped)"
    parameters = ", uint32 width, uint32 first, uint32 skipped"
    return _dropout(rounded, place, parameters, "gpunn_dropout_part")


def _dropout(rounded: bool, place: str, parameters: str, name: str) -> Any:
    kept = Kept.of(rounded)
    # The place in the array, scattered; then the finalizer of MurmurHash3.
    return cupy.ElementwiseKernel(
        f"uint32 key, uint32 limit, {kept.number} scale{parameters}",
        f"{kept.type} a",
        f"""
        unsigned int h = {place} * 0x9E3779B1u + key;
        h ^= h >> 16; h *= 0x85EBCA6Bu;
        h ^= h >> 13; h *= 0xC2B2AE35u;
        h ^= h >> 16;
        a = {kept.store}({kept.load}(a) * (h >= limit ? scale : T(0)));
        """,
        name,
        preamble=kept.preamble,
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
