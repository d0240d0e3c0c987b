"""A hidden layer on an NVIDIA GPU, each way in one pass; see ``cuda/hidden.cu``.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.backends.arrays import LayerParams
from gpunn.backends.cupy_kernels import activation_formulas, pointer, whole_warps
from gpunn.backends.cupy_passes import defines, kept_numbers, load_passes, pack_of
from gpunn.backends.fused import HiddenPass, UpdateRule

Array = Any
"""``cupy.ndarray``, which has no type to be checked."""

MOST_THREADS, MOST_UPDATE = 128, 256
"""Threads of a block; narrow layers have no use for so many."""
BLOCKS_EACH = 2
"""Blocks of threads that keep a multiprocessor busy."""


def rows_of_group(n_rows: int, n_blocks: int, n_processors: int) -> int:
    """Return how many samples a block takes: many, if there are then still enough blocks."""
    rows = 256
    while rows > 8 and n_blocks * math.ceil(n_rows / rows) < BLOCKS_EACH * n_processors:
        rows //= 2
    return rows


class CupyHiddenPass(HiddenPass):
    """The contract of `HiddenPass` on one GPU; make it with `make`."""

    def __init__(
        self,
        backend: Any,
        device: Any,
        n_rows: int,
        layer: LayerParams,
        rule: UpdateRule,
        dropout_rate: float,
    ) -> None:
        self._device, self._layer = device, layer
        dtype = layer.weights.dtype
        n_units, kept_in = layer.weights.shape[0], backend.work_dtype(dtype)
        pack = pack_of(n_units, (dtype.itemsize, kept_in.itemsize), 4)
        self._n_threads = whole_warps(n_units, MOST_THREADS)
        n_columns = math.ceil(n_units / (self._n_threads * pack))
        rows = rows_of_group(n_rows, n_columns, device.attributes["MultiProcessorCount"])
        n_groups = math.ceil(n_rows / rows)
        text = activation_formulas(dtype.char, "hidden", layer.activation)
        choices = {
            "N_THREADS": self._n_threads,
            "PACK": pack,
            "DROPOUT": int(dropout_rate > 0),
            "RULE": rule.cuda,
        }
        module = load_passes(text + kept_numbers(kept_in) + defines(choices), "hidden.cu")
        names = ("gpunn_hidden_forward", "gpunn_hidden_back", "gpunn_hidden_update")
        with device:
            self._forward, self._back, self._update = map(module.get_function, names)
        self._parts = backend.empty((n_groups, n_units), dtype)
        self._grid = (n_columns, n_groups)
        self._update_threads = whole_warps(n_units, MOST_UPDATE)
        self._update_grid = (math.ceil(n_units / self._update_threads),)
        # As `Backend.dropout` has it.
        dropout = (dtype.type(1 - dropout_rate), np.uint32(int(dropout_rate * 2**32)))
        self._rest = (*dropout, *map(np.int32, (n_rows, n_units, rows)))

    @classmethod
    def make(
        cls,
        backend: Any,
        device: Any,
        n_rows: int,
        layer: LayerParams,
        rule: UpdateRule,
        dropout_rate: float,
    ) -> "CupyHiddenPass | None":
        """Return the passes of a layer; None if its units are not active by themselves."""
        if not layer.activation.elementwise:
            return None
        return cls(backend, device, n_rows, layer, rule, dropout_rate)

    def go_forward(self, z: Array, key: Array | None) -> None:
        arguments = (z, pointer(self._layer.biases), pointer(key), *self._rest)
        with self._device:
            self._forward(self._grid, (self._n_threads,), arguments)

    def go_back(self, delta: Array, a: Array, key: Array | None) -> None:
        arguments = (a, pointer(key), delta, self._parts, *self._rest)
        with self._device:
            self._back(self._grid, (self._n_threads,), arguments)

    def update(self, numbers: Array, biases: Sequence[Array]) -> None:
        if self._layer.biases is None:
            return
        arrays = (self._layer.biases, *biases, None, None)[:3]
        sizes = map(np.int32, self._parts.shape)
        arguments = (self._parts, numbers, *map(pointer, arrays), *sizes)
        with self._device:
            self._update(self._update_grid, (self._update_threads,), arguments)
