"""The fused kernels for a network: its formulas, and sizes, in front of their text.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from gpunn.activations import SOFTMAX, Activation
from gpunn.backends.arrays import Array
from gpunn.backends.fused import FusedModel
from gpunn.losses import Loss

WARP = 32

FOLDER = Path(__file__).with_name("cuda")
"""Where the kernels' texts are."""


def suits(model: FusedModel) -> bool:
    """Say whether the kernels know the formulas of a network."""
    top = model.top.activation
    plain_top = top.elementwise and not model.loss.fused
    return (
        model.hidden.activation.elementwise
        and (top.elementwise or top is SOFTMAX)
        and (plain_top or not model.textbook_rule)
    )


def load_kernel(
    name: str,
    model: FusedModel,
    *files: str,
    cooperative: bool = False,
    sizes: Iterable[tuple[str, int]] = (),
) -> Any:
    """Return a kernel for a network, which `suits` knows.

    Parameters
    ----------
    name : str
        The kernel's name.
    model : FusedModel
        The network.
    files : str
        The files of `FOLDER`, one after the other, that make the kernel's text.
    cooperative : bool
        Whether blocks of a grid wait for each other, and must all be running.
    sizes : iterable of (str, int)
        What is compiled in.
    """
    # The text depends on the formulas and sizes alone: networks that share them share the module.
    kinds = (model.hidden.activation, model.top.activation, model.loss, model.textbook_rule)
    code = model.top.weights.dtype.char
    return _module(files, cooperative, tuple(sizes), code, *kinds).get_function(name)


@cache
def _module(
    files: tuple[str, ...],
    cooperative: bool,
    sizes: tuple[tuple[str, int], ...],
    code: str,
    *kinds: Any,
) -> Any:
    text = formulas(code, *kinds)
    text += "".join(f"#define {name} {size}\n" for name, size in sizes)
    text += "".join((FOLDER / file).read_text(encoding="utf-8") for file in files)
    return cupy.RawModule(
        code=text, options=("--std=c++17",), enable_cooperative_groups=cooperative
    )


def _function(name: str, parameters: str, expression: str) -> str:
    return f"static __device__ T {name}({parameters}) {{ return {expression}; }}\n"


def activation_formulas(code: str, name: str, activation: Activation) -> str:
    """Return the type T, and the formula and the derivative of an activation by a name."""
    text = f"typedef {'float' if code == 'f' else 'double'} T;\n"
    if activation.elementwise:
        text += _function(f"{name}_forward", "T x", activation.cuda_forward)
        text += _function(f"{name}_derivative", "T a", activation.cuda_derivative)
    return text


def formulas(
    code: str, hidden: Activation, top: Activation, loss: Loss, textbook_rule: bool
) -> str:
    """Return the type T and the formulas of a network, which stand in front of a kernel's text."""
    text = f"#define TOP_IS_SOFTMAX {int(top is SOFTMAX)}\n"
    text += f"#define LOSS_IS_FUSED {int(loss.fused)}\n"
    text += f"#define TEXTBOOK_RULE {int(textbook_rule)}\n"
    for name, activation in (("hidden", hidden), ("top", top)):
        text += activation_formulas(code, name, activation)
    text += _function("loss_value", "T x, T a, T t, T log_sum", loss.cuda_value)
    text += _function("loss_derivative", "T a, T t, T t_sum", loss.cuda_derivative)
    return text


def whole_warps(n: int, most: int) -> int:
    """Return the threads of a block that has so much for them to do, each one thing, at most."""
    return min(most, -(-n // WARP) * WARP)


def outputs_numbers(n_threads: int, n_outputs: int) -> int:
    """Return how many numbers of shared memory a sample's way through the outputs takes."""
    return (n_threads // WARP + 5) * n_outputs


def pointer(array: Array | None) -> Any:
    """Return what a kernel takes for an array, or for none: a pointer's worth of zeros."""
    return np.intp(0) if array is None else array
