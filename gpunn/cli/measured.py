"""Samples with answers, to measure a saved network on."""

from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.cli.pictures import read_pictures
from gpunn.cli.saved_network import check_features, class_numbers_of, open_prepared, row_chunks
from gpunn.cli.train_data import HELD_OUT, inverse
from gpunn.data.formats import is_pictures, is_table
from gpunn.data.formats import load as load_data
from gpunn.data.matrices import Matrix
from gpunn.data.tables.layout import table_options
from gpunn.errors import DataError
from gpunn.network import Network
from gpunn.network.labels import class_words_of

_ALL = "all samples"


class Measured(NamedTuple):
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

    def parts(self, network: Network) -> Iterator[tuple[Matrix, NDArray[Any]]]:
        """Yield inputs and answers as a network takes them: class numbers, or scaled numbers.

        Raises
        ------
        DataError
            If they do not fit the network.
        """
        for inputs, labels in self.chunks:
            check_features(inputs, network, self.name)
            X = network.scaling.rows(inputs, network.dtype)
            if network.output_scaling is None:
                yield X, class_numbers_of(labels, self.names, network, self.name)
            else:
                yield X, _scaled_numbers(labels, network, self.name)

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
            "the training used most of them if the file is the same, so the network looks better "
            f"than it is{on_others}"
        )


def _scaled_numbers(numbers: NDArray[Any], network: Network, where: str) -> NDArray[Any]:
    assert network.output_scaling is not None
    if numbers.shape[1] != network.n_outputs:
        raise DataError(
            f"{where}: has {numbers.shape[1]} numbers to predict for each sample, but the model "
            f"predicts {network.n_outputs}; use the data that it was trained for"
        )
    return inverse(network.output_scaling).apply(numbers, network.dtype)


def samples_to_measure(options: Namespace, network: Network, console: Console) -> Measured:
    """Return the samples that ``DATA`` names: its test part, if there is one, else all."""
    if is_table(options.data):
        table = open_prepared(options.data, network, options.delimiter, with_targets=True)
        return Measured(Path(options.data).name, _ALL, class_words_of(network), table)
    predicts_numbers = network.output_scaling is not None
    if is_pictures(options.data) and not predicts_numbers:
        pictures = read_pictures(options.data, network, console)
        labels, names = pictures.files.labels()
        name = Path(options.data).resolve().name
        return Measured(name, _ALL, names, [(pictures.inputs, labels)])
    wanted = table_options(
        task="regression" if predicts_numbers else None, delimiter=options.delimiter
    )
    dataset = load_data(options.data, options.data_dir, wanted)
    if options.data == "digits":
        # The very samples that training on the digits held out.
        dataset = dataset.split(HELD_OUT, network.training_record.get("seed", 0))
    inputs, labels, part = dataset.inputs, dataset.labels, _ALL
    if dataset.test_inputs is not None and dataset.test_labels is not None:
        inputs, labels, part = dataset.test_inputs, dataset.test_labels, "the test part"
    chunks = ((inputs[rows], labels[rows]) for rows in row_chunks(inputs))
    return Measured(dataset.name, part, dataset.class_names, chunks)
