"""Steps recorded as CUDA graphs: what took a dozen calls from the host is then one.

A step on a network of some thousand units is less work than telling a GPU to do it. So it is done
once in the usual way, call by call; the second time the same calls are recorded instead of done,
and from then on the recording is played. What changes from step to step lies on the device, where a
first kernel fetches it; see ``cuda/steps.cu``.

The recording holds addresses, not arrays. Whatever it uses is kept here as long as it is.

This module must only be imported when a GPU is asked for; see `gpunn.backends.select`.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from gpunn.backends.cupy_elementwise import add_one_kernel
from gpunn.backends.cupy_kernels import FOLDER, pointer, whole_warps
from gpunn.backends.fused import EpochSource, StepArrays, StepRecorder, StepShape, Work
from gpunn.errors import one_line

Array = Any
"""``cupy.ndarray``, which has no type to be checked."""

MOST_THREADS = 256

RECORDING_BYTES = 2**20
"""Set aside for what CUDA keeps of recordings on the device, of which it says nothing."""


@cache
def _fetch_kernel(dtype: str, kept_in: str) -> Any:
    types = {"float32": "float", "float64": "double", "uint16": "unsigned short"}
    text = f"typedef {types[dtype]} T;\ntypedef {types[kept_in]} S;\n"
    text += (FOLDER / "steps.cu").read_text(encoding="utf-8")
    return cupy.RawModule(code=text, options=("--std=c++17",)).get_function("gpunn_fetch_step")


class _Recording(NamedTuple):
    """A graph, where it adds the losses, and the memory that it uses."""

    graph: Any
    row_losses: int
    memory: list[Any]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let Python collect nothing: it may be another recording, whose end waits for the device.

    Nothing may wait while a step is recorded.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class CupyRecorder(StepRecorder):
    """The contract of `StepRecorder` on one GPU."""

    def __init__(self, backend: Any, device: Any, shape: StepShape) -> None:
        self._backend, self._device, self._shape = backend, device, shape
        dtype = shape.dtype
        self.inputs = backend.empty((shape.n_rows, shape.n_inputs), shape.kept_in)
        self.targets = backend.empty((shape.n_rows, shape.n_outputs), dtype)
        self._row_weights = self._all_row_weights = None
        if shape.weighted:
            self._row_weights = backend.empty((shape.n_rows,), dtype)
            self._all_row_weights = backend.empty((shape.n_samples,), dtype)
        self._all_numbers = backend.empty((shape.n_steps, shape.n_numbers), np.float64)
        self._numbers = backend.empty((shape.n_numbers,), dtype)
        self._whole_numbers = backend.empty((shape.n_numbers,), np.uint32)
        self._step, self._arrived = (backend.zeros((1,), np.uint32) for _ in range(2))
        self._order: Array | None = None
        self._samples: tuple[Array, Array] | None = None
        with device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._done_before: set[int] = set()
        self._recordings: dict[int, _Recording] = {}

    def begin_epoch(self, source: EpochSource, first_step: int) -> None:
        if self._are_elsewhere(source):
            self.forget()
            self._samples = source.samples
            self._order = None
            if source.order is not None:
                self._order = self._backend.empty((self._shape.n_samples,), np.int64)
        for array, values in (
            (self._order, source.order),
            (self._all_row_weights, source.row_weights),
            (self._all_numbers, source.numbers),
        ):
            if array is not None:
                self._backend.copy_into(self._backend.asarray(values, array.dtype), array)
        with self._device:
            self._step.fill(first_step)

    def _are_elsewhere(self, source: EpochSource) -> bool:
        """Whether the addresses of samples and order are others than those recorded."""
        ours, theirs = (
            [array.data.ptr for array in samples or ()]
            for samples in (self._samples, list[Any](source.samples or ()))
        )
        return ours != theirs or (self._order is None) != (source.order is None)

    def step(self, n_rows: int, work: Work, row_losses: Array) -> None:
        recording = self._recordings.get(n_rows)
        if recording is None or recording.row_losses != row_losses.data.ptr:
            recording = self._record(n_rows, work, row_losses)
        if recording is None:
            self._run(n_rows, work)
            return
        with self._device:
            recording.graph.launch(cupy.cuda.get_current_stream())

    def _run(self, n_rows: int, work: Work) -> list[Any]:
        """Do a step call by call, and return the memory that it uses."""
        shape = self._shape
        inputs, targets = self._samples or (None, None)
        arguments = (
            *map(pointer, (inputs, targets, self._order, self._all_row_weights)),
            self._all_numbers,
            self.inputs,
            self.targets,
            pointer(self._row_weights),
            self._numbers,
            self._whole_numbers,
            self._step,
            self._arrived,
            *map(np.int32, (shape.n_rows, shape.n_inputs, shape.n_outputs, shape.n_numbers)),
        )
        n_threads = whole_warps(max(shape.n_inputs, shape.n_outputs), MOST_THREADS)
        with self._device:
            _fetch_kernel(shape.dtype, shape.kept_in)((n_rows,), (n_threads,), arguments)
        row_weights = None if self._row_weights is None else self._row_weights[:n_rows]
        samples = (self.inputs[:n_rows], self.targets[:n_rows])
        return work(StepArrays(*samples, row_weights, self._numbers, self._whole_numbers))

    def _record(self, n_rows: int, work: Work, row_losses: Array) -> _Recording | None:
        """Return a recording of a step; None if it is to be done call by call."""
        if self.problem is not None:
            return None
        if n_rows not in self._done_before:
            # Now everything is compiled, loaded and allocated that cannot be while recording.
            self._done_before.add(n_rows)
            return None
        try:
            graph, memory = self._capture(n_rows, work)
        except Exception as error:
            # Whatever CUDA, cuBLAS or CuPy has against it, the step can still be done.
            self.problem = one_line(error)
            self._recordings.clear()
            return None
        memory = [*memory, *self._backend.kept_memory(), row_losses]
        recording = _Recording(graph, row_losses.data.ptr, memory)
        self._recordings[n_rows] = recording
        return recording

    def _capture(self, n_rows: int, work: Work) -> tuple[Any, list[Any]]:
        with self._device, self._stream, _uncollected():
            self._stream.begin_capture()
            try:
                memory = self._run(n_rows, work)
            except BaseException:
                self._end_broken_capture()
                raise
            return self._stream.end_capture(), memory

    def _end_broken_capture(self) -> None:
        """End a recording that an error has broken off, so that the stream is free again."""
        with suppress(Exception):  # the first error says more
            self._stream.end_capture()

    def skip(self) -> None:
        with self._device:
            add_one_kernel()(self._step)

    def forget(self) -> None:
        if self._recordings:
            # A recording may still be played, and with it go its memory and CUDA's own.
            self._backend.synchronize()
        self._recordings.clear()
        self._done_before.clear()

    def __del__(self) -> None:
        # At the end of the program CUDA may be gone already.
        if getattr(self, "_recordings", None) and not sys.is_finalizing():
            self.forget()
