"""``gpunn predict``: which class each sample is."""

import csv
import itertools
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.cli.options import add_data, add_delimiter, add_device, add_json, add_model, files_of
from gpunn.cli.pictures import read_pictures
from gpunn.cli.saved_network import check_features, load, open_prepared, row_chunks
from gpunn.data.formats import is_pictures, is_table, open_table
from gpunn.data.formats import load as load_data
from gpunn.data.matrices import Matrix
from gpunn.data.numpy_files import read_npy
from gpunn.data.tables.layout import Task, table_options
from gpunn.data.tables.prepared import texts_of
from gpunn.errors import DataError, OutputError, ParameterError, one_line
from gpunn.model_file import check_writable, replacing
from gpunn.network import Network
from gpunn.network.labels import labels_of, target_names_of


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn predict``."""
    parser.description = (
        "Say which class each sample is, or predict its numbers. Labels in the data are ignored; "
        "a CSV, Parquet or .npy file needs none. Pictures of your own become what the model knows: "
        "grey, bright on a dark ground, and in the middle."
    )
    add_model(parser)
    add_data(parser, more=", or X.npy alone, or a picture (.png, .jpg, ...) or a folder of them")
    add_delimiter(parser)
    parser.add_argument(
        "--out",
        metavar="FILE.csv",
        help="write predictions and outputs to this file, not to the screen",
    )
    parser.add_argument(
        "--columns",
        metavar="ID,PREDICTION",
        help="write only these columns to the file of --out, as competitions want them: the first "
        "is the column of DATA of that name, or else the number of the row, from 1 on",
    )
    add_device(parser)
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Say which class each sample is, with the network's outputs; or the numbers it predicts."""
    network = load(options, console)
    if options.out:
        check_writable(options.out, options.model, *files_of(options.data))
    columns = _wanted_columns(options, network)
    chunks, files = _open(options, network, console)
    ids = _ids(options, columns) if files is None else iter(files)
    n_samples, kept = 0, []
    # Of several ranks the first one writes.
    out = options.out if console.ranks.is_first else None
    with _predictions_file(out, network, columns, ids) as write:
        for inputs in chunks:
            outputs = network.predict(network.scaling.rows(inputs, network.dtype))
            predictions = _predictions(network, outputs)
            write(predictions, outputs)
            n_samples += len(predictions)
            if options.json or not options.out:
                kept += predictions.tolist()
    result = {
        "device": network.backend.name,
        "samples": n_samples,
        "predictions": kept,
        "out": options.out,
    }
    lines = list(map(_shown, kept))
    if files is not None:
        result["files"] = files
    if files is not None and os.path.isdir(options.data):
        lines = [f"{file}: {line}" for file, line in zip(files, lines, strict=False)]
    text = "\n".join(lines)
    if options.out:
        text = f"wrote {n_samples:,} predictions to {options.out}"
    console.report(text, result)
    return 0


def _open(
    options: Namespace, network: Network, console: Console
) -> tuple[Iterator[Matrix], list[str] | None]:
    """Return raw inputs, and the names of their files if they are pictures."""
    if not is_pictures(options.data):
        return read_inputs(options.data, options.data_dir, network, options.delimiter), None
    pictures = read_pictures(options.data, network, console)
    return iter([pictures.inputs]), pictures.files.names


def _predictions(network: Network, outputs: NDArray[Any]) -> NDArray[Any]:
    """Return the most likely labels, shape (n,); or the numbers, (n,) or (n, n_targets)."""
    if network.output_scaling is None:
        labels: NDArray[Any] = labels_of(network)[outputs.argmax(axis=1)]
        return labels
    numbers = network.output_scaling.apply(outputs, np.float64)
    return numbers[:, 0] if network.n_outputs == 1 else numbers


def _shown(prediction: Any) -> str:
    if isinstance(prediction, list):
        return ",".join(map(_shown, prediction))
    return f"{prediction:.9g}" if isinstance(prediction, float) else str(prediction)


def read_inputs(
    data: str, data_dir: str | None, network: Network, delimiter: str | None = None
) -> Iterator[Matrix]:
    """Yield raw inputs; the files may have labels, which are not looked at, or none.

    Raises
    ------
    DataError
        If they cannot be read, or are not numbers that the network takes.
    """
    n_seen = 0
    for inputs in _raw_inputs(data, data_dir, network, delimiter):
        check_features(inputs, network, data)
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            row = n_seen + int(np.argwhere(~np.isfinite(inputs))[0, 0])
            raise DataError(f"{data}: sample {row + 1} holds NaN or infinity; correct or remove it")
        yield inputs
        n_seen += len(inputs)


def _raw_inputs(
    data: str, data_dir: str | None, network: Network, delimiter: str | None
) -> Iterator[Matrix]:
    """Yield what the file holds; a table in parts, all else at once if it fits the memory."""
    if is_table(data):
        table = open_prepared(data, network, delimiter, with_targets=False)
        yield from (inputs for inputs, _ in table)
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
        task: Task | None = None if network.output_scaling is None else "regression"
        dataset = load_data(data, data_dir, table_options(task=task))
        inputs = dataset.inputs if dataset.test_inputs is None else dataset.test_inputs
        yield from (inputs[rows] for rows in row_chunks(inputs))


def _wanted_columns(options: Namespace, network: Network) -> list[str] | None:
    """Return the names of --columns: an id, and what is predicted."""
    if options.columns is None:
        return None
    if not options.out:
        raise ParameterError("--columns says how the file of --out looks: give --out FILE.csv, too")
    names = [name.strip() for name in options.columns.split(",")]
    n_predictions = 1 if network.output_scaling is None else network.n_outputs
    if len(names) != 1 + n_predictions or not all(names):
        raise ParameterError(
            f"--columns {options.columns}: expected {1 + n_predictions} names with commas between: "
            "one for the ids, and one for each prediction"
        )
    return names


def _ids(options: Namespace, columns: list[str] | None) -> Iterator[str] | None:
    """Yield the id of each row: from the column of that name if there is one, else its number."""
    if columns is None:
        return None
    if is_table(options.data):
        file = open_table(options.data, options.delimiter)
        if file.names is not None and columns[0] in file.names:
            return texts_of(file, file.names.index(columns[0]))
    return map(str, itertools.count(1))


Write = Callable[[NDArray[Any], NDArray[Any]], None]


@contextmanager
def _predictions_file(
    path: str | None, network: Network, columns: list[str] | None, ids: Iterator[str] | None
) -> Iterator[Write]:
    """Give what adds predictions and outputs to a file, if one is wanted; ids come first in it."""
    if path is None:
        yield lambda predictions, outputs: None
        return
    try:
        with (
            replacing(Path(path)) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(columns or ([] if ids is None else ["file"]) + _heading(network))

            def write(predictions: NDArray[Any], outputs: NDArray[Any]) -> None:
                rows = [[_shown(p) for p in np.atleast_1d(row)] for row in predictions.tolist()]
                if columns is None and network.output_scaling is None:
                    for cells, row in zip(rows, outputs, strict=True):
                        cells += [f"{value:.6g}" for value in row]
                if ids is not None:
                    some = list(itertools.islice(ids, len(rows)))
                    if len(some) < len(rows):
                        raise DataError("the data changed while they were read; read them again")
                    rows = [[id_, *cells] for id_, cells in zip(some, rows, strict=True)]
                writer.writerows(rows)

            yield write
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def _heading(network: Network) -> list[str]:
    if network.output_scaling is None:
        return ["prediction", *(f"output_{label}" for label in labels_of(network))]
    return ["prediction"] if network.n_outputs == 1 else target_names_of(network)
