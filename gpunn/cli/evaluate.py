"""``gpunn evaluate``: how right a saved network is, and which classes it confuses."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.cli.options import add_data, add_device, add_json, add_model
from gpunn.cli.saved_network import check_features, labels_of, load, row_chunks
from gpunn.cli.train_data import HELD_OUT
from gpunn.data.formats import is_table, load_dataset, table_fits
from gpunn.data.labels import class_numbers
from gpunn.data.long_table import TablePart
from gpunn.data.matrices import Matrix
from gpunn.network import Network
from gpunn.training.evaluation import evaluate


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn evaluate``."""
    parser.description = (
        "Measure a saved network: its accuracy, a table by class, and which classes it confuses. "
        "If the data have a test part, only that part is used."
    )
    add_model(parser)
    add_data(parser)
    add_device(parser)
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Measure a model on labelled samples: accuracy, a table by class, the confusion matrix."""
    network = load(options, console)
    name, part, chunks = _labelled(options, network)
    classes = labels_of(network)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    loss, n_samples = 0.0, 0
    for inputs, labels in chunks:
        y = class_numbers(labels, classes, name)
        check_features(inputs, network, name)
        X = network.scaling.rows(inputs, network.dtype)
        outcome = evaluate(network, X, y)
        np.add.at(confusion, (y, np.asarray(outcome.outputs).argmax(axis=1)), 1)
        n_samples += len(y)
        loss += (outcome.loss - loss) * (len(y) / n_samples)
    result = {
        "device": network.backend.name,
        "samples": n_samples,
        "accuracy": int(confusion.trace()) / n_samples,
        "loss": loss,
        "classes": _by_class(confusion, classes),
        "confusion_matrix": confusion.tolist(),
    }
    heading = f"{name}, {part}: {n_samples:,} samples"
    console.report(_evaluation_text(heading, result, confusion, classes), result)
    return 0


def _labelled(
    options: Namespace, network: Network
) -> tuple[str, str, Iterable[tuple[Matrix, NDArray[np.int64]]]]:
    """Return the name of the data, which part of them is measured, and that part in chunks."""
    if is_table(options.data) and not table_fits(options.data):
        return Path(options.data).name, "all samples", TablePart(options.data, 0)
    dataset = load_dataset(options.data, options.data_dir)
    if options.data == "digits":
        # The very samples that training on the digits held out.
        dataset = dataset.split(HELD_OUT, network.training_record.get("seed", 0))
    inputs, labels, part = dataset.inputs, dataset.labels, "all samples"
    if dataset.test_inputs is not None and dataset.test_labels is not None:
        inputs, labels, part = dataset.test_inputs, dataset.test_labels, "the test part"
    return dataset.name, part, ((inputs[rows], labels[rows]) for rows in row_chunks(inputs))


def _by_class(
    confusion: NDArray[np.int64], classes: NDArray[np.int64]
) -> list[dict[str, float | int | None]]:
    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return [
        {
            "label": int(label),
            "samples": int(confusion[k].sum()),
            "right": int(confusion[k, k]),
            "recall": share(confusion[k, k], confusion[k].sum()),
            "precision": share(confusion[k, k], confusion[:, k].sum()),
        }
        for k, label in enumerate(classes)
    ]


def _evaluation_text(
    heading: str,
    result: dict[str, Any],
    confusion: NDArray[np.int64],
    classes: NDArray[np.int64],
) -> str:
    lines = [
        heading,
        f"accuracy {result['accuracy']:.4f}, loss {result['loss']:.6f}",
        "",
        "class   samples   right   recall   precision",
    ]
    for row in result["classes"]:
        recall, precision = (
            "-" if row[key] is None else f"{row[key]:.4f}" for key in ("recall", "precision")
        )
        lines.append(
            f"{row['label']:>5}{row['samples']:>10}{row['right']:>8}{recall:>9}{precision:>12}"
        )
    lines += ["", "recall: the share of this class that was recognised"]
    lines += ["precision: the share of samples predicted as this class that belong to it"]
    width = max(6, len(str(confusion.max())) + 2)
    lines += ["", "confusion matrix (row: the true class, column: the predicted class)"]
    lines.append(" " * 6 + "".join(f"{label:>{width}}" for label in classes))
    for label, row in zip(classes, confusion, strict=True):
        lines.append(f"{label:>6}" + "".join(f"{n:>{width}}" for n in row))
    return "\n".join(lines)
