"""``gpunn evaluate``, ``predict`` and ``backquery``: what to do with a saved network."""

import csv
import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console, choose_device
from gpunn.cli.plots import check_matplotlib, save_images
from gpunn.cli.train_data import HELD_OUT
from gpunn.data.formats import is_table, load_dataset, table_chunks, table_fits
from gpunn.data.labels import class_numbers
from gpunn.data.long_table import TablePart
from gpunn.data.matrices import Matrix, blocks, stays_on_disk
from gpunn.data.numpy_files import read_npy
from gpunn.errors import DataError, OutputError, ParameterError, one_line
from gpunn.model_file import check_writable, replacing
from gpunn.network import Network
from gpunn.training.evaluation import evaluate


def evaluate_model(options: Namespace, console: Console) -> int:
    """Measure a model on labelled samples: accuracy, a table by class, the confusion matrix."""
    network = _load(options, console)
    name, part, chunks = _labelled(options, network)
    classes = _labels_of(network)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    loss, n_samples = 0.0, 0
    for inputs, labels in chunks:
        y = class_numbers(labels, classes, name)
        _check_features(inputs, network, name)
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
    return dataset.name, part, ((inputs[rows], labels[rows]) for rows in _portions(inputs))


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
    lines += ["", "recall: of this class, the share that was recognised"]
    lines += ["precision: of those taken for this class, the share that was"]
    width = max(6, len(str(confusion.max())) + 2)
    lines += ["", "confusion matrix (row: the true class, column: what the network said)"]
    lines.append(" " * 6 + "".join(f"{label:>{width}}" for label in classes))
    for label, row in zip(classes, confusion, strict=True):
        lines.append(f"{label:>6}" + "".join(f"{n:>{width}}" for n in row))
    return "\n".join(lines)


def _load(options: Namespace, console: Console) -> Network:
    return Network.load(options.model, choose_device(options.device, console))


def _labels_of(network: Network) -> NDArray[np.int64]:
    return np.asarray(
        range(network.n_outputs) if network.class_labels is None else network.class_labels,
        np.int64,
    )


def _check_features(inputs: Matrix, network: Network, where: str) -> None:
    if inputs.shape[1] != network.n_inputs:
        raise DataError(
            f"{where}: its samples have {inputs.shape[1]} values, but the model takes "
            f"{network.n_inputs}; use the data that it was trained for"
        )


def predict(options: Namespace, console: Console) -> int:
    """Say which class each sample is, with the network's outputs."""
    network = _load(options, console)
    if options.out:
        check_writable(options.out)
    labels, n_samples = _labels_of(network), 0
    kept: list[NDArray[np.int64]] = []
    with _predictions_file(options.out, labels) as write:
        for inputs in read_inputs(options, network):
            outputs = network.predict(network.scaling.rows(inputs, network.dtype))
            predictions = labels[outputs.argmax(axis=1)]
            write(predictions, outputs)
            n_samples += len(predictions)
            if options.json or not options.out:
                kept.append(predictions)
    shown = np.concatenate(kept).tolist() if kept else []
    result = {
        "device": network.backend.name,
        "samples": n_samples,
        "predictions": shown,
        "out": options.out,
    }
    text = "\n".join(map(str, shown))
    if options.out:
        text = f"wrote {n_samples:,} predictions to {options.out}"
    console.report(text, result)
    return 0


def read_inputs(options: Namespace, network: Network) -> Iterator[Matrix]:
    """Yield raw inputs; the files may have labels, which are not looked at, or none.

    Raises
    ------
    DataError
        If they cannot be read, or are not numbers that the network takes.
    """
    n_seen = 0
    for inputs in _raw_inputs(options, network):
        _check_features(inputs, network, options.data)
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            row = n_seen + int(np.argwhere(~np.isfinite(inputs))[0, 0])
            raise DataError(
                f"{options.data}: sample {row + 1} holds NaN or infinity; mend or remove it"
            )
        yield inputs
        n_seen += len(inputs)


def _raw_inputs(options: Namespace, network: Network) -> Iterator[Matrix]:
    """Yield what the file holds, at once if it fits the memory."""
    data = options.data
    if is_table(data):
        tables = table_chunks(data, labelled=False)
        for table in [np.concatenate(list(tables))] if table_fits(data) else tables:
            has_labels = table.shape[1] == network.n_inputs + 1
            yield table[:, 1:] if has_labels else table
    elif data.endswith(".npy") and "," not in data:
        array = read_npy(data)
        if array.dtype.kind not in "biuf" or not array.size:
            raise DataError(
                f"{data}: expected numbers, got {array.dtype} of shape {array.shape}; none of its "
                "dimensions may be 0"
            )
        inputs: Matrix = array.reshape((1, -1) if array.ndim < 2 else (len(array), -1))
        yield from (inputs[rows] for rows in _portions(inputs))
    else:
        dataset = load_dataset(data, options.data_dir)
        inputs = dataset.inputs if dataset.test_inputs is None else dataset.test_inputs
        yield from (inputs[rows] for rows in _portions(inputs))


def _portions(inputs: Matrix) -> Iterable[slice]:
    """Return slices of inputs that fit the memory: one of all, unless they stay on the disk."""
    return blocks(inputs) if stays_on_disk(inputs) else [slice(None)]


Write = Callable[[NDArray[np.int64], NDArray[Any]], None]


@contextmanager
def _predictions_file(path: str | None, labels: NDArray[np.int64]) -> Iterator[Write]:
    """Give what adds predictions and outputs to a file, if one is wanted."""
    if path is None:
        yield lambda predictions, outputs: None
        return
    try:
        with (
            replacing(Path(path)) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["prediction", *(f"output_{label}" for label in labels)])

            def write(predictions: NDArray[np.int64], outputs: NDArray[Any]) -> None:
                for prediction, row in zip(predictions, outputs, strict=True):
                    writer.writerow([prediction, *(f"{value:.6g}" for value in row)])

            yield write
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def backquery(options: Namespace, console: Console) -> int:
    """Draw what each class looks like to the network."""
    check_matplotlib()
    check_writable(options.out)
    network = _load(options, console)
    shape = _image_shape(network, options.model)
    labels = _labels_of(network)
    targets = np.full((len(labels), len(labels)), 0.01)
    np.fill_diagonal(targets, 0.99)
    images = network.backquery(targets).reshape(-1, *shape)
    save_images(
        options.out,
        images,
        [str(label) for label in labels],
        "What each class looks like to the network",
    )
    result = {"device": network.backend.name, "classes": labels.tolist(), "out": options.out}
    console.report(f"drew {len(labels)} classes in {options.out}", result)
    return 0


def _image_shape(network: Network, model: str) -> tuple[int, int]:
    """Return the rows and columns of the pictures that the network was trained on."""
    shape = network.training_record.get("image_shape")
    if isinstance(shape, list) and len(shape) == 2 and math.prod(shape) == network.n_inputs:
        return shape[0], shape[1]
    side = math.isqrt(network.n_inputs)
    if side * side != network.n_inputs:
        raise ParameterError(
            f"{model}: its {network.n_inputs} inputs are not the pixels of a square picture, "
            "so a class cannot be drawn"
        )
    return side, side
