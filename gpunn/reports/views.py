"""What the sections of a report say: plain values for the page's template."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.picture_records import PictureField
from gpunn.errors import one_line
from gpunn.network import Network
from gpunn.network.class_images import as_pictures
from gpunn.plots.hidden_units import input_names
from gpunn.reports.findings import Mistakes
from gpunn.reports.pictures import picture_uri
from gpunn.training.callbacks import History
from gpunn.training.scores import Confusion, NumberScores

MOST_ROWS = 40
"""A table of more classes has those that are recognised least."""

_MOST_PAIRS = 12
_MOST_VALUES = 8
_MOST_ANSWERS = 3

Row = dict[str, Any]


class SampleNames(NamedTuple):
    """What a person can find samples by.

    Attributes
    ----------
    name : function of a sample's number, counted from 0
        Returns what it is called.
    note : str
        How samples are counted, if they are.
    """

    name: Callable[[int], str]
    note: str = ""


SAMPLES = SampleNames(lambda number: f"sample {number:,}", "Samples are counted from 0.")


def number(value: object, places: int = 4) -> str:
    """Return a number as a person reads it; a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return "-"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.{places}f}" if math.isfinite(value) else "-"


def training_facts(record: Mapping[str, Any], history: History | None) -> list[tuple[str, str]]:
    """Return what is known about a training: names and values."""
    settings = record.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    facts = [
        ("data", record.get("data")),
        ("device", record.get("device")),
        ("samples to train on", record.get("train_samples")),
        ("epochs", len(history.epochs) if history is not None else record.get("epochs")),
        ("ended", _ended(record.get("stopped") if history is None else history.stopped)),
        ("best epoch in validation", _best_epoch(history)),
        ("time", _seconds(history.seconds if history is not None else record.get("seconds"))),
        ("samples a second", _rounded(_rate(record, history))),
        ("optimizer", settings.get("optimizer")),
        ("learning rate", settings.get("learning_rate")),
        ("batch size", settings.get("batch_size")),
        ("loss", settings.get("loss")),
        ("recipe", record.get("recipe")),
        ("seed", record.get("seed")),
        ("gpunn", record.get("gpunn")),
    ]
    return [(name, _shown(value)) for name, value in facts if value is not None]


def _ended(stopped: object) -> object:
    return "after all epochs" if stopped == "finished" else stopped


def _best_epoch(history: History | None) -> str | None:
    """Return which epoch was best, and whether the network has its weights."""
    if history is None or history.best_epoch is None:
        return None
    if history.best_epoch == len(history.epochs):
        return f"{history.best_epoch:,}, the last one"
    kept = "its weights were kept" if history.restored_best else "the last weights were kept"
    return f"{history.best_epoch:,} ({kept})"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if type(value) is int else one_line(value, 80)


def _seconds(value: object) -> str | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _rate(record: Mapping[str, Any], history: History | None) -> object:
    if history is not None and history.n_samples_trained and history.seconds:
        return history.n_samples_trained / history.seconds
    return record.get("samples_per_second")


def _rounded(value: object) -> int | None:
    good = isinstance(value, int | float) and math.isfinite(value)
    return round(value) if good else None  # type: ignore[call-overload]


def class_rows(confusion: Confusion, names: Sequence[str]) -> tuple[list[Row], int]:
    """Return a row for each class, of many those recognised least, and how many are left out."""
    samples, right, answers = confusion.samples, confusion.right, confusion.answers
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = right / samples, right / answers
    order = np.arange(confusion.n_classes)
    if len(order) > MOST_ROWS:
        order = np.argsort(np.where(samples > 0, recall, 2), kind="stable")[:MOST_ROWS]
    rows = [
        {
            "name": names[k],
            "samples": number(int(samples[k])),
            "right": number(int(right[k])),
            "recall": number(recall[k]),
            "precision": number(precision[k]),
            "share": 0 if math.isnan(recall[k]) else round(100 * float(recall[k]), 1),
        }
        for k in order.tolist()
    ]
    return rows, confusion.n_classes - len(rows)


def mistaken_pairs(confusion: Confusion, names: Sequence[str]) -> list[Row]:
    """Return the most frequent mistakes."""
    pairs = confusion.mistakes()[:_MOST_PAIRS]
    return [{"true": names[t], "predicted": names[p], "count": f"{n:,}"} for t, p, n in pairs]


def mistake_cards(
    network: Network,
    mistakes: Mistakes,
    names: Sequence[str],
    field: PictureField | None,
    sample_names: SampleNames,
) -> list[Row]:
    """Return the mistakes with what was seen, and what was answered."""
    pictures = [None] * len(mistakes.numbers)
    if field is not None and len(pictures):
        shown = as_pictures(network, field, mistakes.inputs)
        pictures = [picture_uri(image) for image in shown]  # type: ignore[misc]
    return [
        {
            "name": one_line(sample_names.name(int(mistakes.numbers[k])), 60),
            "picture": pictures[k],
            "values": [] if field is not None else _values(network, mistakes.inputs[k]),
            "true": names[int(mistakes.expected[k])],
            "answers": _answers(mistakes.outputs[k], int(mistakes.expected[k]), names),
        }
        for k in range(len(pictures))
    ]


def _answers(outputs: NDArray[Any], expected: int, names: Sequence[str]) -> list[Row]:
    """Return the largest outputs, and that of the true class."""
    order = np.argsort(-outputs, kind="stable")[:_MOST_ANSWERS].tolist()
    if expected not in order:
        order[-1] = expected
    return [
        {
            "name": names[k],
            "output": f"{float(outputs[k]):.3f}",
            "share": round(100 * float(np.clip(np.nan_to_num(outputs[k]), 0, 1)), 1),
            "is_true": k == expected,
        }
        for k in order
    ]


def _values(network: Network, inputs: NDArray[Any]) -> list[tuple[str, str]]:
    """Return the first columns of a table's row, as they were before scaling."""
    scale, shift = (
        np.asarray(c, np.float64) for c in (network.scaling.scale, network.scaling.shift)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = np.broadcast_to((inputs - shift) / scale, inputs.shape)
    preparation = network.preparation
    if preparation is None:
        named = zip(input_names(network), raw, strict=True)
        return [(one_line(name, 30), f"{value:.5g}") for name, value in list(named)[:_MOST_VALUES]]
    found = []
    for column, places in islice(preparation.inputs_by_column(), _MOST_VALUES):
        part = raw[places]
        word = None if column.words is None else column.words[int(part.argmax())]
        text = f"{part[0]:.5g}" if word is None else one_line(word, 30)
        found.append((one_line(column.label, 30), text))
    return found


def number_rows(scores: NumberScores, names: Sequence[str]) -> list[Row]:
    """Return R^2 and error of each number that is predicted."""
    return [
        {"name": name, "r2": number(float(r2)), "rmse": f"{float(rmse):.6g}"}
        for name, r2, rmse in zip(names, scores.r2_of_each, scores.rmse_of_each, strict=True)
    ]
