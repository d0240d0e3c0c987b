"""What every reader of tables gives: columns of numbers or of words, some rows at a time.

A table is a file with a row for each sample. `TableFile` is what the rest of gpunn knows of it; CSV
and Parquet are two kinds. Which of its columns mean what is told by `gpunn.data.tables.layout`.
"""

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.files import FilePath
from gpunn.errors import one_line

Kind = Literal["number", "word", "skip"]
"""How a column is read."""

MISSING = (
    *("", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT"),
    *("NULL", "null", "Null", "None", "none", "\\N", "?", "-"),
)
"""What stands for a missing number. Of words, only the empty one is missing: NA may be Namibia."""


class Words(NamedTuple):
    """A column of words.

    Attributes
    ----------
    codes : ndarray of int32, shape (n,)
        Which word each row has; -1 where the file has none.
    known : list of str
        The words, as they are in the file.
    """

    codes: NDArray[np.int32]
    known: list[str]


class Chunk(NamedTuple):
    """Some rows of a table.

    Attributes
    ----------
    first : int
        How many rows of the file came before.
    numbers : ndarray of float64, shape (n, n_number_columns)
        The columns of numbers, in the order of the file; NaN where one is missing.
    words : list of Words
        The columns of words, in the order of the file.
    """

    first: int
    numbers: NDArray[np.float64]
    words: list[Words]


@dataclass(frozen=True)
class TableFile(ABC):
    """A file of rows and columns.

    Attributes
    ----------
    path : path
        Where it is.
    names : tuple of str, or None
        What its columns are called; None if the file does not say.
    kinds : tuple of {"number", "word", "skip"}
        What its columns hold, by its beginning or by its own account; "skip" is what a network
        cannot learn from, such as dates.
    """

    path: FilePath
    names: tuple[str, ...] | None
    kinds: tuple[Kind, ...]

    @property
    def n_columns(self) -> int:
        """How many columns it has."""
        return len(self.kinds)

    @abstractmethod
    def n_bytes(self) -> int:
        """Return about how many bytes its numbers take in memory, without reading them."""

    @abstractmethod
    def chunks(self, kinds: Sequence[Kind]) -> Iterator[Chunk]:
        """Read the columns, each as the kind that is given for it, some rows at a time.

        Raises
        ------
        DataError
            If the file is damaged, or a column does not hold what it is to be read as. The message
            says where.
        """

    @abstractmethod
    def place(self, row: int, column: int) -> str:
        """Return where a value is, for a message; rows are counted from 0."""

    def why_skipped(self, column: int) -> str:
        """Return what a column holds that a network cannot learn from."""
        return "holds neither numbers nor words"

    def notes(self) -> list[str]:
        """Return what was found out about how it is written, in lines for a person."""
        return []

    def option(self, column: int) -> str:
        """Return what a user types to name a column: its name, or else its number."""
        if self.names is None:
            return str(column + 1)
        return shlex.quote(one_line(self.names[column], 60))

    def call(self, column: int) -> str:
        """Return what a column is called in a message."""
        if self.names is None:
            return f"field {column + 1}"
        return f"column {one_line(repr(self.names[column]), 60)}"


def quoted(text: str) -> str:
    """Return a value of a file for a message: in quotes, and short."""
    return repr(text if len(text) <= 30 else text[:27] + "...")


def encode(texts: Sequence[str]) -> Words:
    """Return words as codes, each with a number of its own."""
    index: dict[str, int] = {}
    codes = (index.setdefault(text, len(index)) for text in texts)
    return Words(np.fromiter(codes, np.int32, len(texts)), list(index))
