"""What the passes over the activations of a batch share: how their texts are put together.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import cupy
import numpy as np

from gpunn.backends.cupy_kernels import FOLDER

MOST_PACK_BYTES = 16
"""What a thread can read at once."""


@cache
def load_passes(text: str, file: str) -> Any:
    """Return the module of a file in `FOLDER`, behind a text that says what it is for."""
    files = ("warp.cu", "passes.cu", file)
    code = text + "".join((FOLDER / name).read_text(encoding="utf-8") for name in files)
    options: tuple[str, ...] = ("--std=c++17",)
    if BFLOAT16 in text:
        # What is rounded to 8 bits need not be computed to the last of 24.
        options = (*options, "--use_fast_math")
    return cupy.RawModule(code=code, options=options)


def defines(numbers: Mapping[str, object]) -> str:
    """Return lines that define names in a kernel's text."""
    return "".join(f"#define {name} {value}\n" for name, value in numbers.items())


def pack_of(n_units: int, itemsizes: tuple[int, int], most: int) -> int:
    """Return how many neighbouring units a thread can read at once, a power of two."""
    pack = 4
    while pack > 1 and (n_units % pack or pack > most or pack * max(itemsizes) > MOST_PACK_BYTES):
        pack //= 2
    return pack


def kept_numbers(dtype: np.dtype[Any]) -> str:
    """Return the type S that activations are kept in, and what goes between it and T."""
    if dtype.kind == "f":
        return (
            "typedef T S;\n"
            "static __device__ T load(S x) { return x; }\n"
            "static __device__ S store(T x) { return x; }\n"
        )
    return BFLOAT16


BFLOAT16 = """
typedef unsigned short S;  // the upper half of a float's bits
union Bits { float number; unsigned int bits; };
static __device__ T load(S x)
{
    Bits b;
    b.bits = (unsigned int)x << 16;
    return b.number;
}
// To the nearest, and of two as near to the even one; NaN stays NaN.
static __device__ S store(T x)
{
    Bits b;
    b.number = x;
    if (x != x) return 0x7fff;
    return (S)((b.bits + 0x7fffu + (b.bits >> 16 & 1u)) >> 16);
}
"""
