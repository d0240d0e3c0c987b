"""``gpunn predict``: which class each sample is."""

import csv
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.cli.options import add_data, add_device, add_json, add_model
from gpunn.cli.saved_network import check_features, labels_of, load, row_chunks
from gpunn.data.formats import is_table, load_dataset, table_chunks, table_fits
from gpunn.data.matrices import Matrix
from gpunn.data.numpy_files import read_npy
from gpunn.errors import DataError, OutputError, one_line
from gpunn.model_file import check_writable, replacing
from gpunn.network import Network


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn predict``."""
    parser.description = (
        "Say which class each sample is. Labels in the data are ignored; a CSV, Parquet or .npy "
        "file needs none."
    )
    add_model(parser)
    add_data(parser, more=", or X.npy alone")
    parser.add_argument(
        "--out",
        metavar="FILE.csv",
        help="write predictions and outputs to this file, not to the screen",
    )
    add_device(parser)
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Say which class each sample is, with the network's outputs."""
    network = load(options, console)
    if options.out:
        check_writable(options.out)
    labels, n_samples = labels_of(network), 0
    kept: list[NDArray[np.int64]] = []
    with _predictions_file(options.out, labels) as write:
        for inputs in read_inputs(options.data, options.data_dir, network):
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


def read_inputs(data: str, data_dir: str | None, network: Network) -> Iterator[Matrix]:
    """Yield raw inputs; the files may have labels, which are not looked at, or none.

    Raises
    ------
    DataError
        If they cannot be read, or are not numbers that the network takes.
    """
    n_seen = 0
    for inputs in _raw_inputs(data, data_dir, network):
        check_features(inputs, network, data)
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            row = n_seen + int(np.argwhere(~np.isfinite(inputs))[0, 0])
            raise DataError(f"{data}: sample {row + 1} holds NaN or infinity; correct or remove it")
        yield inputs
        n_seen += len(inputs)


def _raw_inputs(data: str, data_dir: str | None, network: Network) -> Iterator[Matrix]:
    """Yield what the file holds, at once if it fits the memory."""
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
        yield from (inputs[rows] for rows in row_chunks(inputs))
    else:
        dataset = load_dataset(data, data_dir)
        inputs = dataset.inputs if dataset.test_inputs is None else dataset.test_inputs
        yield from (inputs[rows] for rows in row_chunks(inputs))


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
