"""``gpunn evaluate``: how right a saved network is, and which classes it confuses."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.cli.number_scores import NumberScorer
from gpunn.cli.options import add_data, add_delimiter, add_device, add_json, add_model
from gpunn.cli.pictures import read_pictures
from gpunn.cli.saved_network import (
    check_features,
    class_numbers_of,
    class_words_of,
    labels_of,
    load,
    open_prepared,
    row_chunks,
    target_names_of,
)
from gpunn.cli.train_data import HELD_OUT, inverse
from gpunn.data.formats import is_pictures, is_table
from gpunn.data.formats import load as load_data
from gpunn.data.matrices import Matrix
from gpunn.data.tables.layout import table_options
from gpunn.errors import DataError, one_line
from gpunn.network import Network
from gpunn.training.evaluation import evaluate


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn evaluate``."""
    parser.description = (
        "Measure a saved network: its accuracy, a table by class, and which classes it confuses; "
        "or, if it predicts numbers, R^2 and the root mean squared error. If the data have a test "
        "part, only that part is used."
    )
    add_model(parser)
    add_data(parser)
    add_delimiter(parser)
    add_device(parser)
    add_json(parser)


class _Measured(NamedTuple):
    """The samples to measure on: what they are called, and their parts, raw.

    Attributes
    ----------
    name, part : str
        The data, and which part of them.
    names : sequence of int or str, or None
        What the labels stand for, if not for themselves.
    chunks : iterable of (inputs, labels)
        The samples.
    """

    name: str
    part: str
    names: Sequence[int | str] | None
    chunks: Iterable[tuple[Matrix, NDArray[Any]]]


def run(options: Namespace, console: Console) -> int:
    """Measure a model on samples with labels, or with the numbers that it is to predict."""
    network = load(options, console)
    measured = _measured(options, network, console)
    if network.output_scaling is None:
        text, result = _measure_classes(network, measured)
    else:
        text, result = _measure_numbers(network, measured)
    heading = f"{measured.name}, {measured.part}: {result['samples']:,} samples"
    console.report(f"{heading}\n{text}", {"device": network.backend.name, **result})
    return 0


def _measured(options: Namespace, network: Network, console: Console) -> _Measured:
    if is_table(options.data):
        table = open_prepared(options.data, network, options.delimiter, with_targets=True)
        return _Measured(Path(options.data).name, "all samples", class_words_of(network), table)
    predicts_numbers = network.output_scaling is not None
    if is_pictures(options.data) and not predicts_numbers:
        pictures = read_pictures(options.data, network, console)
        labels, names = pictures.files.labels()
        name = Path(options.data).resolve().name
        return _Measured(name, "all samples", names, [(pictures.inputs, labels)])
    wanted = table_options(
        task="regression" if predicts_numbers else None, delimiter=options.delimiter
    )
    dataset = load_data(options.data, options.data_dir, wanted)
    if options.data == "digits":
        # The very samples that training on the digits held out.
        dataset = dataset.split(HELD_OUT, network.training_record.get("seed", 0))
    inputs, labels, part = dataset.inputs, dataset.labels, "all samples"
    if dataset.test_inputs is not None and dataset.test_labels is not None:
        inputs, labels, part = dataset.test_inputs, dataset.test_labels, "the test part"
    chunks = ((inputs[rows], labels[rows]) for rows in row_chunks(inputs))
    return _Measured(dataset.name, part, dataset.class_names, chunks)


def _measure_classes(network: Network, measured: _Measured) -> tuple[str, dict[str, Any]]:
    classes = labels_of(network)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    loss, n_samples = 0.0, 0
    for inputs, labels in measured.chunks:
        y = class_numbers_of(labels, measured.names, network, measured.name)
        check_features(inputs, network, measured.name)
        X = network.scaling.rows(inputs, network.dtype)
        outcome = evaluate(network, X, y)
        np.add.at(confusion, (y, np.asarray(outcome.outputs).argmax(axis=1)), 1)
        n_samples += len(y)
        loss += (outcome.loss - loss) * (len(y) / n_samples)
    result = {
        "samples": n_samples,
        "accuracy": int(confusion.trace()) / n_samples,
        "loss": loss,
        "classes": _by_class(confusion, classes),
        "confusion_matrix": confusion.tolist(),
    }
    return _evaluation_text(result, confusion, classes), result


def _measure_numbers(network: Network, measured: _Measured) -> tuple[str, dict[str, Any]]:
    assert network.output_scaling is not None
    scorer, loss, n_samples = NumberScorer(network), 0.0, 0
    for inputs, numbers in measured.chunks:
        check_features(inputs, network, measured.name)
        if numbers.shape[1] != network.n_outputs:
            raise DataError(
                f"{measured.name}: has {numbers.shape[1]} numbers to predict for each sample, but "
                f"the model predicts {network.n_outputs}; use the data that it was trained for"
            )
        X = network.scaling.rows(inputs, network.dtype)
        y = inverse(network.output_scaling).apply(numbers, network.dtype)
        outcome = evaluate(network, X, y)
        scorer.add(np.asarray(outcome.outputs), y)
        n_samples += len(y)
        loss += (outcome.loss - loss) * (len(y) / n_samples)
    scores = scorer.scores()
    names = target_names_of(network)
    each = [
        {"target": name, "r2": float(r2), "rmse": float(rmse)}
        for name, r2, rmse in zip(names, scores.r2_of_each, scores.rmse_of_each, strict=True)
    ]
    result = {
        "samples": n_samples,
        "loss": loss,
        "r2": scores.r2,
        "rmse": scores.rmse,
        "targets": each,
    }
    lines = [f"R^2 {scores.r2:.4f}, RMSE {scores.rmse:.6g}, loss {loss:.6f}"]
    if len(each) > 1:
        lines += [f"{row['target']}: R^2 {row['r2']:.4f}, RMSE {row['rmse']:.6g}" for row in each]
    lines += ["", "R^2: the share of the variance that is predicted; 1 is best, 0 is the mean"]
    lines += ["RMSE: the root of the mean squared error, in the units of the data"]
    return "\n".join(lines), result


def _by_class(confusion: NDArray[np.int64], classes: NDArray[Any]) -> list[dict[str, Any]]:
    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return [
        {
            "label": label,
            "samples": int(confusion[k].sum()),
            "right": int(confusion[k, k]),
            "recall": share(confusion[k, k], confusion[k].sum()),
            "precision": share(confusion[k, k], confusion[:, k].sum()),
        }
        for k, label in enumerate(classes.tolist())
    ]


def _evaluation_text(
    result: dict[str, Any], confusion: NDArray[np.int64], classes: NDArray[Any]
) -> str:
    names = [one_line(label, 30) for label in classes.tolist()]
    longest = max(5, *map(len, names))
    lines = [
        f"accuracy {result['accuracy']:.4f}, loss {result['loss']:.6f}",
        "",
        f"{'class':<{longest}}   samples   right   recall   precision",
    ]
    for name, row in zip(names, result["classes"], strict=True):
        recall, precision = (
            "-" if row[key] is None else f"{row[key]:.4f}" for key in ("recall", "precision")
        )
        lines.append(
            f"{name:>{longest}}{row['samples']:>10}{row['right']:>8}{recall:>9}{precision:>12}"
        )
    lines += ["", "recall: the share of this class that was recognised"]
    lines += ["precision: the share of samples predicted as this class that belong to it"]
    width = max(6, len(str(confusion.max())) + 2, *(len(name) + 2 for name in names))
    lines += ["", "confusion matrix (row: the true class, column: the predicted class)"]
    lines.append(" " * (longest + 1) + "".join(f"{name:>{width}}" for name in names))
    for name, counts in zip(names, confusion, strict=True):
        lines.append(f"{name:>{longest + 1}}" + "".join(f"{n:>{width}}" for n in counts))
    return "\n".join(lines)
