"""The training that a model's file speaks of, read without trust in what it says."""

import math
from collections.abc import Mapping
from typing import Any

from gpunn.errors import one_line
from gpunn.training.callbacks import EpochRecord, History


def history_of(record: Mapping[str, Any]) -> History | None:
    """Return the history in a model's record; None if there is none, or none that makes sense.

    What is no number becomes NaN, and a validation that is missing stays so.
    """
    epochs = record.get("history")
    if not isinstance(epochs, list) or not epochs:
        return None
    if not all(isinstance(epoch, Mapping) for epoch in epochs):
        return None
    records = [
        EpochRecord(
            number,
            _number(epoch.get("train_loss")),
            _number_or_none(epoch.get("validation_loss")),
            _number_or_none(epoch.get("validation_accuracy")),
            _number(epoch.get("learning_rate")),
            _number(epoch.get("seconds")),
        )
        for number, epoch in enumerate(epochs, 1)
    ]
    best = record.get("best_epoch")
    return History(
        records,
        stopped=one_line(record.get("stopped", "finished"), 40),
        best_epoch=best if type(best) is int and 1 <= best <= len(records) else None,
        restored_best=record.get("restored_best") is True,
        seconds=_number(record.get("seconds")),
    )


def _number(value: object) -> float:
    return float(value) if type(value) in (int, float) else math.nan  # type: ignore[arg-type]


def _number_or_none(value: object) -> float | None:
    return None if value is None else _number(value)
