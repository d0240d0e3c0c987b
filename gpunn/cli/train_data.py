"""Data of ``gpunn train``: in memory, mapped, or a table in chunks, and their parts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.train_settings import DataSettings
from gpunn.data.datasets import Dataset
from gpunn.data.files import fits
from gpunn.data.formats import is_table, load, open_table
from gpunn.data.labels import class_numbers
from gpunn.data.matrices import Matrix, SelectedRows, select
from gpunn.data.numpy_files import read_npy
from gpunn.data.scaling import Scaling, extremes
from gpunn.data.tables.loading import load_table
from gpunn.data.tables.long_table import LongTable, Prepared, TablePart, go_through
from gpunn.errors import DataError, ParameterError
from gpunn.host_memory import free_memory, in_gib
from gpunn.network import Network
from gpunn.parallel.world import ranks_here
from gpunn.recipes import Recipe
from gpunn.training.memory import why_no_room
from gpunn.training.streams import Stream
from gpunn.training.weights import ClassWeight

HELD_OUT = 0.2
"""The part of a data set without a test part of its own that is held out for testing."""

Data = Dataset | LongTable
"""Data in memory or mapped, or a table that is read in chunks."""


def open_data(source: DataSettings) -> Data:
    """Return the data; a table that does not fit the memory has been gone through once."""
    if is_table(source.data):
        table = open_table(source.data, source.table.delimiter)
        if ranks_here().any(not fits(table.n_bytes())):
            if source.sample_weight is not None or source.class_weight is not None:
                raise ParameterError(
                    f"{source.data} is larger than the memory, and data that are read in chunks "
                    "cannot have weights; leave out --sample-weight and --class-weight"
                )
            return go_through(table, HELD_OUT, source.seed, source.table)
        dataset = load_table(table, source.table, f"table {source.data}")
    else:
        dataset = load(source.data, source.data_dir, source.table)
    if source.sample_weight is not None:
        weights = _read_weights(source.sample_weight, len(dataset.labels))
        dataset = replace(dataset, sample_weight=weights)
    return dataset.split(HELD_OUT, source.seed)


def _read_weights(path: str, n_samples: int) -> NDArray[Any]:
    weights = read_npy(path)
    if weights.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected numbers as weights, got the type {weights.dtype}")
    if weights.shape != (n_samples,):
        raise DataError(
            f"{path}: expected one weight for each of {n_samples:,} samples, shape "
            f"({n_samples},), got shape {weights.shape}"
        )
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"{path}: weights must be finite and at least 0, got {weights[row]} in row {row} "
            "(counted from 0); correct it"
        )
    return weights


def class_weight_of(source: DataSettings, network: Network) -> ClassWeight:
    """Return the weights by class number that were given by label.

    Raises
    ------
    ParameterError
        If there is no such label.
    """
    weights, labels = source.class_weight, network.class_labels
    if not isinstance(weights, Mapping):
        return weights
    assert labels is not None
    numbers = {str(label): number for number, label in enumerate(labels)}
    for label in weights:
        if label not in numbers:
            known = ", ".join(list(numbers)[:50]) + (", ..." if len(numbers) > 50 else "")
            raise ParameterError(
                f"--class-weight {label}=...: {source.data} has no label {label} to train on; "
                f"its labels are {known}"
            )
    return {numbers[label]: weight for label, weight in weights.items()}


def counts(dataset: Data) -> tuple[int, int]:
    """Return how many samples there are to train on, and to test with."""
    if isinstance(dataset, LongTable):
        return dataset.n_train, dataset.n_test
    return len(dataset.labels), 0 if dataset.test_labels is None else len(dataset.test_labels)


def where_samples_stay(dataset: Data, network: Network, recipe: Recipe) -> str | None:
    """Say that samples stay on the disk, if they do, and how they are shuffled then."""
    shuffle = "they are not shuffled"
    if isinstance(dataset, LongTable):
        if recipe.shuffle:
            n_rows = dataset.buffer_rows(network.dtype)
            shuffle = f"each epoch shuffles {n_rows:,} rows at a time"
        return f"they stay on the disk, because {dataset.why}; {shuffle}"
    if not dataset.stays_on_disk:
        return None
    if recipe.shuffle:
        shuffle = "the shuffle is exact"
    inputs = dataset.inputs
    n_bytes = inputs.size * inputs.dtype.itemsize
    return (
        f"they stay on the disk, because they take {in_gib(n_bytes)}, and only "
        f"{in_gib(free_memory())} of memory are free, which must hold them twice; {shuffle}"
    )


def classes_of(dataset: Data) -> NDArray[np.int64] | None:
    """Return the labels that there are; None for numbers to predict.

    Raises
    ------
    DataError
        If there is only one.
    """
    if dataset.task == "regression":
        return None
    classes = dataset.classes if isinstance(dataset, LongTable) else np.unique(dataset.labels)
    assert classes is not None
    if len(classes) < 2:
        raise DataError(
            f"{dataset.name}: all training samples have label {names_of(dataset, classes)[0]}; "
            "a classifier needs at least two classes"
        )
    return classes


def names_of(dataset: Data, classes: NDArray[np.int64]) -> list[int | str]:
    """Return what classes are called: their words, or the labels themselves."""
    names = dataset.class_names
    return classes.tolist() if names is None else [names[k] for k in classes.tolist()]


def n_outputs_of(dataset: Data, classes: NDArray[np.int64] | None) -> int:
    """Return how many outputs a network needs: one a class, or one a number to predict."""
    if classes is not None:
        return len(classes)
    targets = dataset.targets.mean if isinstance(dataset, LongTable) else dataset.labels
    return int(targets.shape[-1])


def scaling_of(dataset: Data, recipe: Recipe) -> Scaling:
    """Return how a data set's values become a recipe's inputs and targets."""
    ends = {"target_low": recipe.target_low, "target_high": recipe.target_high}
    low, high = recipe.input_low, recipe.input_high
    if dataset.value_range is not None:
        return Scaling.to_range(*dataset.value_range, low, high, **ends)
    if isinstance(dataset, LongTable):
        moments = dataset.inputs
        # Two rows that have the moments of all.
        rows = moments.low, moments.high
        if recipe.standardizes:
            rows = moments.mean - moments.deviation, moments.mean + moments.deviation
        inputs: Matrix = np.stack(rows)
    else:
        inputs = _in_order_of_file(dataset.inputs)
    if recipe.standardizes:
        return Scaling.standard(inputs, **ends)
    return Scaling.per_feature(inputs, low, high, **ends)


def value_range_of(dataset: Data) -> list[float]:
    """Return the smallest and the largest raw value that the source, or else its part, can have."""
    if dataset.value_range is not None:
        return list(dataset.value_range)
    if isinstance(dataset, LongTable):
        low, high = dataset.inputs.low, dataset.inputs.high
    else:
        low, high = extremes(_in_order_of_file(dataset.inputs))
    return [float(low.min()), float(high.max())]


def _in_order_of_file(inputs: Matrix) -> Matrix:
    """Return the same rows in the order in which they are read fastest, if they are on the disk."""
    return inputs.as_in_file() if isinstance(inputs, SelectedRows) else inputs


def output_scaling_of(dataset: Data) -> Scaling | None:
    """Return how outputs become the numbers to predict, which have mean 0 and variance 1 there."""
    if dataset.task == "classification":
        return None
    if isinstance(dataset, LongTable):
        mean, deviation = dataset.targets.mean, dataset.targets.deviation
    else:
        mean, deviation = dataset.labels.mean(axis=0), dataset.labels.std(axis=0)
        # Of a constant, rounding leaves a deviation that is nearly, but not quite, 0.
        deviation = np.where(np.ptp(dataset.labels, axis=0) > 0, deviation, 0.0)
    return Scaling(np.where(deviation > 0, deviation, 1.0), mean)


def inverse(scaling: Scaling) -> Scaling:
    """Return the scaling that undoes another one."""
    return Scaling(1 / np.asarray(scaling.scale), -np.asarray(scaling.shift) / scaling.scale)


class Samples(NamedTuple):
    """Samples, and how many they are; a stream has its labels in it."""

    X: Matrix | Stream
    y: NDArray[Any] | None
    n: int
    weights: NDArray[Any] | None = None


def training_part(
    network: Network,
    dataset: Data,
    classes: NDArray[np.int64] | None,
    recipe: Recipe,
    fraction: float,
    seed: int,
) -> tuple[Samples, Samples | None]:
    """Return the samples to train on, and a fraction of them kept back."""
    if isinstance(dataset, LongTable):
        return _streamed_part(network, dataset, classes, recipe, fraction)
    n_samples = min(recipe.n_train or len(dataset.labels), len(dataset.labels))
    inputs = dataset.inputs
    if n_samples < len(inputs):
        inputs = select(inputs, np.arange(n_samples))
    X = _scaled(network, dataset, inputs)
    y = _answers(network, dataset.labels[:n_samples], classes, dataset.name)
    weights = dataset.sample_weight
    if weights is not None:
        weights = weights[:n_samples]
    if fraction == 0:
        return Samples(X, y, n_samples, weights), None
    chosen, kept_back = _divide(n_samples, fraction, seed)
    return (
        Samples(
            select(X, chosen),
            y[chosen],
            len(chosen),
            None if weights is None else weights[chosen],
        ),
        Samples(select(X, kept_back), y[kept_back], len(kept_back)),
    )


def _answers(
    network: Network, labels: NDArray[Any], classes: NDArray[np.int64] | None, where: str
) -> NDArray[Any]:
    """Return class numbers, or targets as the network's outputs have them."""
    if classes is not None:
        return class_numbers(labels, classes, where)
    assert network.output_scaling is not None
    return inverse(network.output_scaling).apply(labels, network.dtype)


def _scaled(network: Network, dataset: Dataset, inputs: Matrix) -> Matrix:
    rows = network.scaling.rows(inputs, network.dtype)
    too_large = why_no_room(rows.size * network.dtype.itemsize) is not None
    return rows if dataset.stays_on_disk or too_large else np.asarray(rows)


def _streamed_part(
    network: Network,
    table: LongTable,
    classes: NDArray[np.int64] | None,
    recipe: Recipe,
    fraction: float,
) -> tuple[Samples, Samples | None]:
    if recipe.n_train is not None:
        raise ParameterError(
            f"{table.name}: the recipe trains on {recipe.n_train:,} samples, but the file is "
            "larger than the memory; use a file with that many samples"
        )
    if fraction == 0:
        return _stream(network, table, table.train, table.n_train, classes), None
    chosen, kept_back = table.train.split(fraction)
    n_kept_back = kept_back.count(table.n_train + table.n_test)
    if not 0 < n_kept_back < table.n_train:
        raise ParameterError(
            f"--val-fraction {fraction} of {table.n_train} samples leaves none to train on or "
            "none to validate with; choose another fraction"
        )
    return (
        _stream(network, table, chosen, table.n_train - n_kept_back, classes),
        _stream(network, table, kept_back, n_kept_back, classes),
    )


def _stream(
    network: Network, table: LongTable, part: TablePart, n: int, classes: NDArray[np.int64] | None
) -> Samples:
    targets = None if network.output_scaling is None else inverse(network.output_scaling)
    chunks = Prepared(part, network.scaling, classes, network.dtype, targets)
    fingerprint = f"{table.fingerprint} {part.low:g} {part.high:g}"
    return Samples(Stream(chunks, n, table.buffer_rows(network.dtype), fingerprint), None, n)


def _divide(
    n_samples: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on, and a random fraction kept back."""
    order = np.random.default_rng([seed, 2]).permutation(n_samples)
    n_kept_back = round(fraction * n_samples)
    if not 0 < n_kept_back < n_samples:
        raise ParameterError(
            f"--val-fraction {fraction} of {n_samples} samples leaves none to train on or none to "
            "validate with; choose another fraction"
        )
    # Sorted, so that a recipe that does not shuffle keeps the order of the file.
    return np.sort(order[n_kept_back:]), np.sort(order[:n_kept_back])


def as_given(samples: Samples | None) -> Any:
    """Return samples in the form in which `fit` takes those to validate on."""
    if samples is None:
        return None
    return samples.X if samples.y is None else (samples.X, samples.y)


def test_part(network: Network, dataset: Data, classes: NDArray[np.int64] | None) -> Samples | None:
    """Return the samples that are held out, as a network takes them."""
    if isinstance(dataset, LongTable):
        return _stream(network, dataset, dataset.test, dataset.n_test, classes)
    if dataset.test_inputs is None or dataset.test_labels is None:
        return None
    X = _scaled(network, dataset, dataset.test_inputs)
    y = _answers(network, dataset.test_labels, classes, f"{dataset.name} (test part)")
    return Samples(X, y, len(y))
