"""Steps that the device records and then does again, each in one call.

On a device that records steps (`Backend.make_recorder`), a step of `StepTrainer` or a block of
`OnlineTrainer` is told to it twice, and from then on played. All that changes from step to step is
worked out for the whole epoch beforehand, here, and goes to the device in a table: step sizes, what
an optimizer makes of them, the keys of dropout. Then a step needs nothing from the host.

The learning rate scales the delta of the outputs, once. Everything after it is linear in it, so
that no product has a factor that changes.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Array
from gpunn.backends.fused import EpochSource, StepArrays, StepRecorder, StepShape
from gpunn.data.matrices import row_blocks
from gpunn.errors import DeviceWarning
from gpunn.training.loaders import Batch, Loader, Order, ResidentLoader
from gpunn.training.trainer import RateAt, Recordable, Trainer

__all__ = ["RecordedTrainer", "recorded"]


def recorded(trainer: Recordable, loader: Loader) -> Trainer:
    """Return a trainer whose steps are recorded, or the trainer itself if they cannot be."""
    network, n_rows = trainer.network, trainer.recorded_rows
    if trainer.n_numbers == 0:
        return trainer
    shape = StepShape(
        n_rows=n_rows,
        n_steps=-(-loader.n_samples // n_rows),
        n_samples=loader.n_samples,
        n_inputs=network.n_inputs,
        n_outputs=network.n_outputs,
        n_numbers=trainer.n_numbers,
        weighted=trainer.weighted,
        dtype=network.dtype.name,
        kept_in=network.work_dtype.name,
    )
    recorder = network.backend.make_recorder(shape)
    return trainer if recorder is None else RecordedTrainer(trainer, recorder, loader)


class RecordedTrainer(Trainer):
    """Another trainer's steps, recorded; make it with `recorded`."""

    def __init__(self, trainer: Recordable, recorder: StepRecorder, loader: Loader) -> None:
        self._trainer, self._recorder = trainer, recorder
        self._resident = loader if isinstance(loader, ResidentLoader) else None
        self._n_samples = loader.n_samples
        self._choices: tuple[object, ...] | None = None
        self._records = self._told = False

    @property
    def keys_shape(self) -> tuple[int, int] | None:
        return self._trainer.keys_shape

    def end_epoch(self) -> float:
        return self._trainer.end_epoch()

    def arrays(self) -> dict[str, Array]:
        return self._trainer.arrays()

    def begin_epoch(
        self, order: Order | None, keys: NDArray[np.uint32] | None, first: int, rate_at: RateAt
    ) -> None:
        trainer, resident = self._trainer, self._resident
        numbers = trainer.plan_epoch(order, keys, first, rate_at, self._n_samples)
        self._records = numbers is not None
        if numbers is None:
            trainer.begin_epoch(order, keys, first, rate_at)
            return
        choices = trainer.recorded_choices()
        if choices != self._choices:
            self._choices = choices
            self._recorder.forget()
        source = EpochSource(
            samples=None if resident is None else (resident.inputs, resident.targets),
            order=None if resident is None else order,
            row_weights=trainer.row_weights(),
            numbers=numbers,
        )
        self._recorder.begin_epoch(source, first // trainer.recorded_rows)

    def batches(self, loader: Loader, order: Order | None, first: int) -> Iterator[Batch]:
        if not self._records or self._resident is None:
            yield from loader.batches(order, first)
            return
        # Each step fetches its samples by itself.
        inputs, targets = self._recorder.inputs, self._recorder.targets
        for rows in row_blocks(loader.n_samples, loader.n_rows, first):
            n_rows = rows.stop - rows.start
            if n_rows < inputs.shape[0]:
                inputs, targets = inputs[:n_rows], targets[:n_rows]
            yield Batch(rows, inputs, targets)

    def learn(
        self, inputs: Array, targets: Array, learning_rate: float, *, row_losses: Array
    ) -> None:
        if not self._records:
            self._trainer.learn(inputs, targets, learning_rate, row_losses=row_losses)
            return
        recorder, backend, n_rows = self._recorder, self._trainer.network.backend, inputs.shape[0]
        if not self._trainer.count():
            recorder.skip()
            return
        if self._resident is None:
            backend.copy_into(inputs, recorder.inputs[:n_rows])
            backend.copy_into(targets, recorder.targets[:n_rows])
        self._row_losses = row_losses
        recorder.step(n_rows, self._work, row_losses)
        if recorder.problem is not None and not self._told:
            self._told = True
            warnings.warn(
                f"steps are done one call after the other on {backend.name}, which takes longer: "
                f"recording one failed ({recorder.problem})",
                DeviceWarning,
                stacklevel=2,
            )

    def _work(self, arrays: StepArrays) -> list[Any]:
        return self._trainer.work(arrays, self._row_losses)
