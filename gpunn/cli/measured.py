"""Samples with answers, to measure a saved network on."""

import os
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.cli.held_out import Chooser, HeldOut
from gpunn.cli.pictures import read_pictures
from gpunn.cli.saved_network import check_features, class_numbers_of, open_prepared, row_chunks
from gpunn.cli.train_data import HELD_OUT, inverse
from gpunn.data.formats import is_pictures, is_table
from gpunn.data.formats import load as load_data
from gpunn.data.matrices import Matrix
from gpunn.data.tables.layout import Task, table_options
from gpunn.data.tables.prepared import PreparedTable
from gpunn.errors import DataError
from gpunn.network import Network
from gpunn.network.labels import class_words_of
from gpunn.reports.views import SAMPLES, SampleNames

_ROWS = SampleNames(
    lambda row: f"row {row + 1:,}",
    "Rows are counted from 1, without the header and without empty lines.",
)

_ALL, _TEST = "all samples", "the test part"

Chunk = tuple[Matrix, NDArray[Any], NDArray[np.int64]]
"""Inputs, labels, and which samples of the source they are, counted from 0."""


class Measured(NamedTuple):
    """The samples to measure on: what they are called, and their parts, raw.

    Attributes
    ----------
    name, part : str
        The data, and which part of them.
    names : sequence of int or str, or None
        What the labels stand for, if not for themselves.
    chunks : iterable of Chunk
        The samples.
    sample_names : SampleNames
        What a person can find a sample by.
    """

    name: str
    part: str
    names: Sequence[int | str] | None
    chunks: Iterable[Chunk]
    sample_names: SampleNames

    def parts(self, network: Network) -> Iterator[Chunk]:
        """Yield inputs, answers and numbers of samples, the answers as a network takes them.

        They are class numbers, or scaled numbers.

        Raises
        ------
        DataError
            If they do not fit the network.
        """
        for inputs, labels, numbers in self.chunks:
            check_features(inputs, network, self.name)
            X = network.scaling.rows(inputs, network.dtype)
            if network.output_scaling is None:
                yield X, class_numbers_of(labels, self.names, network, self.name), numbers
            else:
                yield X, _scaled_numbers(labels, network, self.name), numbers

    def about(self, network: Network) -> str:
        """Return in a line which samples they are, with a caution if there is one."""
        caution = self.caution(network)
        return f"{self.name}, {self.part}" + (f": {caution}" if caution else "")

    def caution(self, network: Network) -> str | None:
        """Say that the network may have been trained on these samples, if their name says so."""
        record = network.training_record
        if self.part != _ALL or record.get("data") != self.name:
            return None
        held_out = [
            f"{what} {record[key]:.4f}"
            for key, what in (("test_accuracy", "accuracy"), ("test_r2", "R^2"))
            if isinstance(record.get(key), float)
        ]
        on_others = f"; on those held out: {held_out[0]}" if held_out else ""
        return (
            "the training had data of this name, which have changed since; on samples that it used "
            f"the network looks better than it is{on_others}"
        )


def _scaled_numbers(numbers: NDArray[Any], network: Network, where: str) -> NDArray[Any]:
    assert network.output_scaling is not None
    if numbers.shape[1] != network.n_outputs:
        raise DataError(
            f"{where}: has {numbers.shape[1]} numbers to predict for each sample, but the model "
            f"predicts {network.n_outputs}; use the data that it was trained for"
        )
    return inverse(network.output_scaling).apply(numbers, network.dtype)


class Source(NamedTuple):
    """Where samples come from: DATA, --data-dir and --delimiter."""

    data: str
    data_dir: str | None
    delimiter: str | None

    @classmethod
    def of(cls, options: Namespace) -> "Source":
        """Return what was typed."""
        return cls(options.data, options.data_dir, options.delimiter)


def samples_to_measure(source: Source, network: Network, console: Console) -> Measured:
    """Return the test part of the data, if there is one, else all samples.

    The test part is also what the training of the network held out of these very data.
    """
    held_out = HeldOut.of_record(network.training_record, source.data)
    if is_table(source.data):
        return _of_table(source, network, held_out)
    if is_pictures(source.data) and network.output_scaling is None:
        return _of_pictures(source.data, network, console, held_out)
    return _of_arrays(source, network, held_out)


def _of_table(source: Source, network: Network, held_out: HeldOut | None) -> Measured:
    table = open_prepared(source.data, network, source.delimiter, with_targets=True)
    part = _ALL
    chunks: Iterable[Chunk] = table.numbered()
    if held_out is not None:
        part, chunks = _TEST, _chosen(table, held_out.chooser_of_rows(table))
    name, words = Path(source.data).name, class_words_of(network)
    return Measured(name, part, words, chunks, _ROWS)


def _chosen(table: PreparedTable, choose: Chooser) -> Iterator[Chunk]:
    """Yield the rows of a table that are chosen."""
    n_before = 0
    for inputs, labels, rows in table.numbered():
        kept = choose(np.arange(n_before, n_before + len(rows)))
        n_before += len(rows)
        yield inputs[kept], labels[kept], rows[kept]


def _of_pictures(
    data: str, network: Network, console: Console, held_out: HeldOut | None
) -> Measured:
    files, inputs = read_pictures(data, network, console)
    labels, names = files.labels()
    part, rows = _ALL, np.arange(len(labels))
    if held_out is not None:
        part, rows = _TEST, rows[held_out.chooser(labels)(rows)]
    chunks = [(inputs[rows], labels[rows], rows)]
    name, sample_names = (
        os.path.basename(os.path.abspath(data)),
        SampleNames(files.names.__getitem__),
    )
    return Measured(name, part, names, chunks, sample_names)


def _of_arrays(source: Source, network: Network, held_out: HeldOut | None) -> Measured:
    task: Task | None = "regression" if network.output_scaling is not None else None
    dataset = load_data(
        source.data, source.data_dir, table_options(task=task, delimiter=source.delimiter)
    )
    if source.data == "digits":
        seed = network.training_record.get("seed")
        dataset = dataset.split(HELD_OUT, seed if isinstance(seed, int) and seed >= 0 else 0)
    elif held_out is not None:
        dataset = dataset.split(HELD_OUT, held_out.seed)
    inputs, labels, part = dataset.inputs, dataset.labels, _ALL
    if dataset.test_inputs is not None and dataset.test_labels is not None:
        inputs, labels, part = dataset.test_inputs, dataset.test_labels, _TEST
    numbers = np.arange(len(labels)) if dataset.test_rows is None else dataset.test_rows
    chunks = ((inputs[rows], labels[rows], numbers[rows]) for rows in row_chunks(inputs))
    return Measured(dataset.name, part, dataset.class_names, chunks, SAMPLES)
