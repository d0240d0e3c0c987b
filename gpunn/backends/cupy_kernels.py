"""The fused kernels of ``kernels.cu`` for a network: its formulas in front of their text.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

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

SOURCE = Path(__file__).with_name("kernels.cu")


def suits(model: FusedModel) -> bool:
    """Say whether the kernels know the formulas of a network."""
    top = model.top.activation
    plain_top = top.elementwise and not model.loss.fused
    return (
        model.hidden.activation.elementwise
        and (top.elementwise or top is SOFTMAX)
        and (plain_top or not model.textbook_rule)
    )


def load_kernel(name: str, model: FusedModel) -> Any:
    """Return a kernel of ``kernels.cu`` for a network, which `suits` knows."""
    # The text depends on the formulas alone: networks that share them share the compiled module.
    formulas = (model.hidden.activation, model.top.activation, model.loss, model.textbook_rule)
    return _module(model.top.weights.dtype.char, *formulas).get_function(name)


@cache
def _module(code: str, hidden: Activation, top: Activation, loss: Loss, textbook_rule: bool) -> Any:
    source = formulas(code, hidden, top, loss, textbook_rule) + SOURCE.read_text(encoding="utf-8")
    # Cooperative: the blocks of a grid that wait for each other must all be running.
    return cupy.RawModule(code=source, options=("--std=c++17",), enable_cooperative_groups=True)


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


def outputs_numbers(n_threads: int, n_outputs: int) -> int:
    """Return how many numbers of shared memory a sample's way through the outputs takes."""
    return (n_threads // WARP + 5) * n_outputs


def pointer(array: Array | None) -> Any:
    """Return what a kernel takes for an array, or for none: a pointer's worth of zeros."""
    return np.intp(0) if array is None else array
