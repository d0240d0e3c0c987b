"""One sample at a time on an NVIDIA GPU: what of `gpunn.online` goes in order, in one launch.

A sample of a small network is a few microseconds of arithmetic, less than a launch costs. So one
kernel goes through a whole block of samples; ``kernels.cu`` holds it, and here the formulas of the
network's activations and error are put in front of it. The block's large products stay with
cuBLAS.

This module must only be imported when a GPU is asked for; see `gpunn.devices`.
"""

from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from gpunn.activations import SOFTMAX, Activation
from gpunn.backend import Array, Backend, Connections, InputProducts, Sequencer
from gpunn.losses import Loss

WARP = 32
MOST_THREADS = 1024
MOST_SHARED_BYTES = 48 * 1024
"""What every GPU gives a block of threads without being asked for more."""

MOST_HIDDEN = 16_384
"""A block of threads is on one multiprocessor; wider layers are better spread over all of them."""

SOURCE = Path(__file__).with_name("kernels.cu")


def _function(name: str, parameters: str, expression: str) -> str:
    return f"static __device__ T {name}({parameters}) {{ return {expression}; }}\n"


def _formulas(
    code: str, hidden: Activation, top: Activation, loss: Loss, textbook_rule: bool
) -> str:
    """Return what `kernels.cu` says must stand in front of it."""
    text = f"typedef {'float' if code == 'f' else 'double'} T;\n"
    text += f"#define TOP_IS_SOFTMAX {int(top is SOFTMAX)}\n"
    text += f"#define LOSS_IS_FUSED {int(loss.fused)}\n"
    text += f"#define TEXTBOOK_RULE {int(textbook_rule)}\n"
    for name, activation in (("hidden", hidden), ("top", top)):
        if activation.elementwise:
            text += _function(f"{name}_forward", "T x", activation.cuda_forward)
            text += _function(f"{name}_derivative", "T a", activation.cuda_derivative)
    text += _function("loss_value", "T x, T a, T t, T log_sum", loss.cuda_value)
    text += _function("loss_derivative", "T a, T t, T t_sum", loss.cuda_derivative)
    return text


@cache
def _kernel(code: str, hidden: Activation, top: Activation, loss: Loss, textbook_rule: bool) -> Any:
    source = _formulas(code, hidden, top, loss, textbook_rule) + SOURCE.read_text(encoding="utf-8")
    module = cupy.RawModule(code=source, options=("--std=c++17",))
    return module.get_function("gpunn_learn_in_order")


def _n_threads(n_hidden: int) -> int:
    return min(MOST_THREADS, -(-n_hidden // WARP) * WARP)


def _shared_bytes(n_threads: int, n_outputs: int, itemsize: int) -> int:
    return (n_threads // WARP + 5) * n_outputs * itemsize


class CupySequencer(Sequencer):
    """The contract of `Sequencer` on one GPU."""

    def __init__(
        self,
        backend: Backend,
        device: Any,
        n_rows: int,
        hidden: Connections,
        top: Connections,
        loss: Loss,
        textbook_rule: bool,
    ) -> None:
        self._device = device
        self._hidden, self._top = hidden, top
        self._n_outputs, self._n_hidden = top.weights.shape
        self._dtype = top.weights.dtype
        self._share = loss.share(self._n_outputs)
        self._n_threads = _n_threads(self._n_hidden)
        self._shared_bytes = _shared_bytes(self._n_threads, self._n_outputs, self._dtype.itemsize)
        self._kernel = _kernel(
            self._dtype.char, hidden.activation, top.activation, loss, textbook_rule
        )
        self.z = backend.empty((n_rows, self._n_hidden), self._dtype)
        self.deltas = backend.empty((n_rows, self._n_hidden), self._dtype)
        self._products = InputProducts(
            backend, n_rows * n_rows, self._dtype, biases=hidden.biases is not None
        )

    @staticmethod
    def suits(hidden: Connections, top: Connections, loss: Loss, textbook_rule: bool) -> bool:
        """Say whether the kernel can learn in a network of these layers."""
        n_outputs, n_hidden = top.weights.shape
        shared = _shared_bytes(_n_threads(n_hidden), n_outputs, top.weights.dtype.itemsize)
        plain_top = top.activation.elementwise and not loss.fused
        return (
            hidden.activation.elementwise
            and (top.activation.elementwise or top.activation is SOFTMAX)
            and (plain_top or not textbook_rule)
            and n_hidden <= MOST_HIDDEN
            and shared <= MOST_SHARED_BYTES
        )

    def learn(
        self,
        inputs: Array,
        targets: Array,
        rate: float,
        row_losses: Array,
        outputs: Array | None,
    ) -> None:
        n_rows = inputs.shape[0]
        number = self._dtype.type
        arguments = (
            self.z,
            self.deltas,
            self._products.of(inputs, inputs),
            _pointer(self._hidden.biases),
            self._top.weights,
            _pointer(self._top.biases),
            targets,
            row_losses,
            _pointer(outputs),
            number(rate),
            number(self._share),
            np.int32(n_rows),
            np.int32(self._n_hidden),
            np.int32(self._n_outputs),
        )
        with self._device:
            self._kernel((1,), (self._n_threads,), arguments, shared_mem=self._shared_bytes)


def _pointer(array: Array | None) -> Any:
    """Return what a kernel takes for an array, or for none: a pointer's worth of zeros."""
    return np.intp(0) if array is None else array
