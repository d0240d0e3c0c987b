"""The samples of one's own data that a training held out for testing, chosen once more."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.train_data import HELD_OUT, Data
from gpunn.data.datasets import choose_held_out
from gpunn.data.files import fingerprint
from gpunn.data.formats import source_files
from gpunn.data.tables.long_table import LongTable, TablePart
from gpunn.data.tables.prepared import PreparedTable
from gpunn.errors import DataError

Chooser = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Tells which samples were held out, of some whose places among all samples are given in order."""


class HeldOut(NamedTuple):
    """How samples were held out from data without a test part of their own.

    Attributes
    ----------
    files : str
        What tells their files from others.
    seed : int
        Seed of the choice.
    by_chance : bool
        Whether each row was chosen for itself, as in a table larger than the memory, and not so
        many of each class.
    """

    files: str
    seed: int
    by_chance: bool

    @classmethod
    def of_training(cls, dataset: Data, files: str | None, seed: int) -> Self | None:
        """Return how samples were held out from the data of a training; None if they were not.

        The files are those of before they were read: they may be others by now.
        """
        by_chance = isinstance(dataset, LongTable)
        if not files or not (isinstance(dataset, LongTable) or dataset.test_rows is not None):
            return None
        return cls(files, seed, by_chance)

    @classmethod
    def of_record(cls, record: Mapping[str, Any], data: str) -> Self | None:
        """Return how a training held out samples of these very data, by a model's record.

        None if it had other data, or the record does not say.
        """
        said = record.get("held_out")
        if not isinstance(said, Mapping):
            return None
        files, seed = said.get("files"), said.get("seed")
        # A record may hold anything.
        if type(seed) is not int or seed < 0 or not files or files != fingerprint_of(data):
            return None
        return cls(files, seed, said.get("by_chance") is True)

    def chooser(self, labels: NDArray[Any]) -> Chooser:
        """Return what tells which samples were held out from data with these labels."""
        _, chosen = choose_held_out(labels, HELD_OUT, self.seed)
        return lambda places: chosen[places]

    def chooser_of_rows(self, table: PreparedTable) -> Chooser:
        """Return the same for a table, which is gone through once if that is needed."""
        if not self.by_chance:
            return self.chooser(np.concatenate([labels for _, labels in table]))
        _, test = TablePart(table, self.seed).split(HELD_OUT)
        choose = test.chooser()
        return lambda places: choose(len(places))


def fingerprint_of(data: str) -> str | None:
    """Return what tells the files of data from others; None if there are none to be read."""
    try:
        files = source_files(data)
        return fingerprint(files) if files else None
    except (OSError, DataError):
        return None  # Whoever reads them says what is wrong.
