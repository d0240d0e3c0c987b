"""What the commands share that take a saved network."""

from argparse import Namespace
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console, choose_device
from gpunn.data.formats import open_table
from gpunn.data.labels import class_numbers
from gpunn.data.matrices import Matrix, blocks, stays_on_disk
from gpunn.data.tables.prepared import PreparedTable, label_first, without_targets
from gpunn.errors import DataError
from gpunn.network import Network
from gpunn.network.checks import check_weights
from gpunn.network.labels import class_words_of, labels_of
from gpunn.training.fitting import weights_fingerprint


def load(options: Namespace, console: Console) -> Network:
    """Return the saved network, on the device that was chosen; refuse one that has diverged."""
    network = Network.load(options.model, choose_device(options.device, console))
    check_weights(network)
    forget_other_training(network)
    network.feature_names = None  # samples from files have none that they could be compared with
    return network


def forget_other_training(network: Network) -> None:
    """Forget what the file says of a training if the weights are no longer those that it made.

    Whoever writes weights by hand and saves the network keeps its record otherwise.
    """
    said = network.training_record.get("weights")
    if said is not None and said != weights_fingerprint(network):
        network.forget_training()


def open_prepared(
    data: str, network: Network, delimiter: str | None, *, with_targets: bool
) -> PreparedTable:
    """Return a table as the network was trained to read it.

    Parameters
    ----------
    data : str
        The path of the table.
    network : Network
        Its record of preparation is used; without one, the table has numbers, label first.
    delimiter : str or None
        What stands between the fields of a CSV file; None to find out.
    with_targets : bool
        Whether the columns that were learnt are read, too; they must then be there.

    Raises
    ------
    DataError
        If the table does not have the columns that it must have.
    """
    preparation = network.preparation or label_first(network.n_inputs)
    file = open_table(data, delimiter, may_have_header=preparation.may_have_header)
    if not with_targets:
        return without_targets(file, preparation)
    return PreparedTable(
        file,
        preparation.layout_of(file, with_targets=True),
        preparation,
        "regression" if network.output_scaling is not None else "classification",
        class_words_of(network),
        preparation.missing,
    )


def class_numbers_of(
    labels: NDArray[np.int64],
    names: Sequence[int | str] | None,
    network: Network,
    where: str,
) -> NDArray[np.int64]:
    """Return which of the network's classes each label is.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Labels, or places in `names`.
    names : sequence of int or str, or None
        What the labels stand for, if not for themselves.
    network : Network
        Whose classes they must be.
    where : str
        What the data are called, for the error.

    Raises
    ------
    DataError
        If a label is none of the classes.
    """
    classes = labels_of(network)
    if names is None:
        if class_words_of(network) is not None:
            raise DataError(f"{where}: has numbers as labels, but the model's classes are words")
        return class_numbers(labels, classes, where)
    known = {label: number for number, label in enumerate(classes.tolist())}
    numbers = np.array([known.get(name, -1) for name in names], np.int64)
    found: NDArray[np.int64] = numbers[labels]
    if (found < 0).any():
        unknown = names[int(labels[np.argmin(found)])]
        shown = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
        raise DataError(f"{where}: {unknown!r} is no class of the model, which knows {shown}")
    return found


def check_features(inputs: Matrix, network: Network, where: str) -> None:
    """Raise unless the samples have as many values as the network takes."""
    if inputs.shape[1] != network.n_inputs:
        raise DataError(
            f"{where}: its samples have {inputs.shape[1]} values, but the model takes "
            f"{network.n_inputs}; use the data that it was trained for"
        )


def row_chunks(inputs: Matrix) -> Iterable[slice]:
    """Return slices of inputs that fit the memory: one of all, unless they stay on the disk."""
    return blocks(inputs) if stays_on_disk(inputs) else [slice(None)]
