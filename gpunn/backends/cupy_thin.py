"""The top of a network with few outputs on an NVIDIA GPU, in two passes; see ``cuda/thin.cu``.

How many samples and units a block of threads takes, and how many units a thread reads at once, is
chosen by the sizes alone: enough blocks to keep every multiprocessor busy, and then as much work in
each as registers allow. The texts are compiled for these numbers.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.cupy_kernels import WARP, formulas, pointer, suits, whole_warps
from gpunn.backends.cupy_passes import MOST_PACK_BYTES, defines, kept_numbers, load_passes, pack_of
from gpunn.backends.fused import FusedModel, ThinTop, UpdateRule

Array = Any
"""``cupy.ndarray``, which has no type to be checked."""

MOST_OUTPUTS = 32
"""A thread keeps a number for each output; more would not find room in its registers."""

MOST_SUMS = 80
"""Sums that a thread has at a time on the way forward: one for each output and sample."""

MOST_PART_BYTES = 2**25
"""For the parts of gradients. Networks so wide that these take more go without, so that the widest
one that a GPU can train does not get narrower."""

MOST_FORWARD, MOST_BACK, MOST_UPDATE = 256, 128, 256
"""Threads of a block in each pass; narrow layers have no use for so many."""
BLOCKS_EACH = 2
"""Blocks of threads that keep a multiprocessor busy."""

MOST_SHARED_BYTES = 32 * 1024

MOST_GROUPS = 65_535
"""What CUDA allows of a grid's second length."""

MOST_TILE = 16
"""Activations that a thread has at a time on the way forward."""


class Shape(NamedTuple):
    """How the samples and units of a batch are shared out among blocks of threads.

    Attributes
    ----------
    rows, tile_units, forward_pack : int
        On the way forward: samples and units of a block, and neighbouring units of a thread.
    back_rows, back_pack : int
        On the way back: samples of a block, and neighbouring units of a thread.
    """

    rows: int
    tile_units: int
    forward_pack: int
    back_rows: int
    back_pack: int


def choose_shape(
    n_rows: int, n_hidden: int, n_outputs: int, itemsizes: tuple[int, int], n_processors: int
) -> Shape:
    """Return how a batch is shared out; `itemsizes` are those of sums and of activations."""
    wanted = BLOCKS_EACH * n_processors
    rows = 8 if n_rows * n_hidden > 2**22 else 4 if n_rows >= 100 else 1
    while rows > 1 and rows * n_outputs > MOST_SUMS:
        rows //= 2
    n_tiles = max(1, math.ceil(wanted / math.ceil(n_rows / rows)), math.ceil(n_hidden / 4096))
    units = math.ceil(n_hidden / n_tiles)
    # With more at a time, registers would leave room for a single block on a multiprocessor.
    most = max(1, min(units // MOST_FORWARD, MOST_TILE // rows))
    forward_pack = pack_of(n_hidden, itemsizes, most)
    step = whole_warps(n_hidden, MOST_FORWARD) * forward_pack
    tile_units = math.ceil(units / step) * step

    registers = 4 if n_outputs <= 10 else 2 if n_outputs <= 20 else 1
    back_pack = pack_of(n_hidden, itemsizes, registers)
    while back_pack > 1 and _back_blocks(n_hidden, back_pack) * math.ceil(n_rows / 8) < 2 * wanted:
        back_pack //= 2
    back_rows = 256
    while back_rows > 8 and (
        _back_blocks(n_hidden, back_pack) * math.ceil(n_rows / back_rows) < wanted
        or back_rows * n_outputs * itemsizes[0] > MOST_SHARED_BYTES
    ):
        back_rows //= 2
    most_parts = max(1, MOST_PART_BYTES // (_n_small(n_hidden, n_outputs) * itemsizes[0]))
    while math.ceil(n_rows / back_rows) > most_parts and (
        2 * back_rows * n_outputs * itemsizes[0] <= MOST_SHARED_BYTES
    ):
        back_rows *= 2
    return Shape(rows, tile_units, forward_pack, back_rows, back_pack)


def _back_blocks(n_hidden: int, pack: int) -> int:
    return math.ceil(n_hidden / (whole_warps(n_hidden, MOST_BACK) * pack))


class CupyThinTop(ThinTop):
    """The contract of `ThinTop` on one GPU; make it with `make`."""

    def __init__(
        self,
        backend: Any,
        device: Any,
        n_rows: int,
        shape: Shape,
        model: FusedModel,
        rule: UpdateRule,
        dropout_rate: float,
    ) -> None:
        self._device, self._shape, self._model, self._n_rows = device, shape, model, n_rows
        self._n_outputs, self._n_hidden = model.top.weights.shape
        dtype = self._dtype = model.top.weights.dtype
        text = _text(model, backend.work_dtype(dtype), shape, rule, dropout=dropout_rate > 0)
        names = ("gpunn_thin_forward", "gpunn_thin_back", "gpunn_thin_update")
        with device:
            self._forward, self._back, self._update = map(
                load_passes(text, "thin.cu").get_function, names
            )
        self._n_tiles = math.ceil(self._n_hidden / shape.tile_units)
        self._n_groups = math.ceil(n_rows / shape.rows)
        self._n_parts = math.ceil(n_rows / shape.back_rows)
        self._output_delta = backend.empty((n_rows, self._n_outputs), dtype)
        self._parts = backend.empty((self._n_tiles, n_rows, self._n_outputs), dtype)
        self._arrived = backend.zeros((self._n_groups,), np.uint32)
        n_small = _n_small(self._n_hidden, self._n_outputs)
        self._gradients = backend.empty((self._n_parts, n_small), dtype)
        n_blocks = device.attributes["MultiProcessorCount"]
        self._forward_threads = whole_warps(self._n_hidden, MOST_FORWARD)
        self._back_threads = whole_warps(self._n_hidden, MOST_BACK)
        self._update_threads = whole_warps(n_small, MOST_UPDATE)
        self._update_blocks = min(4 * n_blocks, math.ceil(n_small / self._update_threads))
        number = dtype.type
        self._share = number(model.loss.share(self._n_outputs))
        # As `Backend.dropout` has it.
        self._dropout = (number(1 - dropout_rate), np.uint32(int(dropout_rate * 2**32)))

    @classmethod
    def make(
        cls,
        backend: Any,
        device: Any,
        n_rows: int,
        model: FusedModel,
        rule: UpdateRule,
        dropout_rate: float,
    ) -> "CupyThinTop | None":
        """Return the passes for a network; None if it has other formulas, or too many outputs."""
        n_outputs, n_hidden = model.top.weights.shape
        if not suits(model) or model.textbook_rule or n_outputs > MOST_OUTPUTS:
            return None
        weights: Any = model.top.weights
        if weights.data.ptr % MOST_PACK_BYTES:
            return None  # A user's own array, which threads cannot read several numbers of at once.
        dtype = model.top.weights.dtype
        itemsizes = (dtype.itemsize, backend.work_dtype(dtype).itemsize)
        n_processors = device.attributes["MultiProcessorCount"]
        if not top_bytes(n_rows, n_hidden, n_outputs, itemsizes, n_processors):
            return None
        shape = choose_shape(n_rows, n_hidden, n_outputs, itemsizes, n_processors)
        return cls(backend, device, n_rows, shape, model, rule, dropout_rate)

    def go_forward(
        self,
        z: Array,
        targets: Array,
        row_losses: Array,
        row_weights: Array | None,
        scale: Array,
        key: Array | None,
    ) -> None:
        hidden, top, n_sums = (
            self._model.hidden,
            self._model.top,
            self._shape.rows * self._n_outputs,
        )
        arguments = (
            z,
            pointer(hidden.biases),
            top.weights,
            pointer(top.biases),
            targets,
            pointer(row_weights),
            scale,
            pointer(key),
            row_losses,
            self._output_delta,
            self._parts,
            self._arrived,
            self._share,
            *self._dropout,
            *map(np.int32, (self._n_rows, self._n_hidden, self._shape.tile_units)),
        )
        shared = ((self._forward_threads // WARP + 1) * n_sums + 1) * self._dtype.itemsize
        grid = (self._n_tiles, self._n_groups)
        with self._device:
            self._forward(grid, (self._forward_threads,), arguments, shared_mem=shared)

    def go_back(self, a: Array, delta: Array, key: Array | None) -> None:
        rows = self._shape.back_rows
        arguments = (
            a,
            self._model.top.weights,
            self._output_delta,
            pointer(key),
            delta,
            self._gradients,
            *self._dropout,
            *map(np.int32, (self._n_rows, self._n_hidden, rows)),
        )
        shared = rows * self._n_outputs * self._dtype.itemsize
        grid = (_back_blocks(self._n_hidden, self._shape.back_pack), self._n_parts)
        with self._device:
            self._back(grid, (self._back_threads,), arguments, shared_mem=shared)

    def update(
        self,
        numbers: Array,
        weights: Sequence[Array],
        biases: Sequence[Array],
        biases_below: Sequence[Array],
    ) -> None:
        hidden, top = self._model.hidden, self._model.top
        parameters = ((top.weights, weights), (hidden.biases, biases_below), (top.biases, biases))
        arguments = (
            self._gradients,
            numbers,
            *(
                pointer(array)
                for parameter, memories in parameters
                for array in (parameter, *memories, None, None)[:3]
            ),
            np.int32(self._n_parts),
            np.int32(self._n_hidden),
        )
        with self._device:
            self._update((self._update_blocks,), (self._update_threads,), arguments)


def _n_small(n_hidden: int, n_outputs: int) -> int:
    """Return how many parameters learn from parts: the top's, and the biases below."""
    return (n_outputs + 1) * n_hidden + n_outputs


def top_bytes(
    n_rows: int,
    n_hidden: int,
    n_outputs: int,
    itemsizes: tuple[int, int],
    n_processors: int,
) -> int:
    """Return what the passes through the top take of memory; 0 if there are none."""
    if n_outputs > MOST_OUTPUTS:
        return 0
    shape = choose_shape(n_rows, n_hidden, n_outputs, itemsizes, n_processors)
    if math.ceil(n_rows / shape.rows) > MOST_GROUPS:
        return 0
    gradients = math.ceil(n_rows / shape.back_rows) * _n_small(n_hidden, n_outputs)
    if gradients * itemsizes[0] > MOST_PART_BYTES:
        return 0
    sums = (math.ceil(n_hidden / shape.tile_units) + 1) * n_rows * n_outputs
    return (gradients + sums) * itemsizes[0] + 4 * math.ceil(n_rows / shape.rows)


def _text(
    model: FusedModel, kept_in: np.dtype[Any], shape: Shape, rule: UpdateRule, *, dropout: bool
) -> str:
    """Return what ``cuda/thin.cu`` says must stand in front of it."""
    numbers = {
        "N_OUT": model.top.weights.shape[0],
        "ROWS": shape.rows,
        "FORWARD_THREADS": whole_warps(model.top.weights.shape[1], MOST_FORWARD),
        "BACK_THREADS": whole_warps(model.top.weights.shape[1], MOST_BACK),
        "FORWARD_PACK": shape.forward_pack,
        "BACK_PACK": shape.back_pack,
        "DROPOUT": int(dropout),
        "RULE": rule.cuda,
    }
    text = formulas(
        model.top.weights.dtype.char,
        model.hidden.activation,
        model.top.activation,
        model.loss,
        textbook_rule=False,
    )
    return text + kept_numbers(kept_in) + defines(numbers)
