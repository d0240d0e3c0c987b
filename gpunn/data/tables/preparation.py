"""From the columns of a table to a network's inputs: a record that is kept in the model file.

A network that was trained on a table must later be asked with the same columns, in the same order,
with the same word for each input and the same number for what is missing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.data.tables.layout import MISSING_RULES, Layout, Missing
from gpunn.data.tables.table_file import Kind, TableFile
from gpunn.errors import DataError, ModelFileError, one_line


@dataclass(frozen=True)
class Column:
    """A column of inputs.

    Attributes
    ----------
    name : str or None
        What the header calls it.
    position : int
        Its place in the file, counted from 0.
    words : tuple of str, or None
        The words that it may hold, each an input of its own that is 1 for this word and else 0;
        None for a column of numbers.
    fill : float or None
        What a missing number becomes; None if there must be none.
    """

    name: str | None
    position: int
    words: tuple[str, ...] | None = None
    fill: float | None = None

    @property
    def n_features(self) -> int:
        """How many inputs of the network it makes."""
        return 1 if self.words is None else len(self.words)

    @property
    def label(self) -> str:
        """What to call it: its name, or else its place."""
        return f"column {self.position + 1}" if self.name is None else self.name


@dataclass(frozen=True)
class Preparation:
    """How the columns of a table become inputs.

    Attributes
    ----------
    columns : tuple of Column
        The columns, in the order of the inputs that they make.
    targets : tuple of Column
        The columns that were learnt.
    n_columns : int
        How many columns the file had.
    missing : {"mean", "zero", "drop"} or None
        What was done where a field was missing; None if none was allowed to be.
    """

    columns: tuple[Column, ...]
    targets: tuple[Column, ...]
    n_columns: int
    missing: Missing | None = None

    @property
    def n_features(self) -> int:
        """How many inputs of the network there are."""
        return sum(column.n_features for column in self.columns)

    @property
    def feature_names(self) -> list[str] | None:
        """What the inputs are called, such as "age" or "colour=red"; None without a header."""
        if any(column.name is None for column in self.columns):
            return None
        return [
            str(column.name) if word is None else f"{column.name}={word}"
            for column in self.columns
            for word in column.words or (None,)
        ]

    @property
    def may_have_header(self) -> bool:
        """Whether the first line of another file may be a header.

        Words in it would be taken for names, so it may not if this file had words and no header.
        """
        has_words = any(column.words is not None for column in self.columns)
        return self.feature_names is not None or not has_words

    def features(
        self, numbers: NDArray[np.float64], codes: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """Return inputs.

        Parameters
        ----------
        numbers : ndarray of float64, shape (n, n_number_columns)
            The columns of numbers, in their order here; NaN where one is missing. They may be
            changed in place.
        codes : ndarray of int32, shape (n, n_word_columns)
            Which of its words each field of the other columns holds; -1 where it is missing.

        Returns
        -------
        ndarray of float64, shape (n, n_features)
        """
        given = [column for column in self.columns if column.words is None]
        for k, column in enumerate(given):
            if column.fill is not None:
                values = numbers[:, k]
                values[np.isnan(values)] = column.fill
        if len(given) == len(self.columns):
            return numbers
        features = np.zeros((len(numbers), self.n_features))
        n_numbers = n_words = 0
        for column, inputs in self.inputs_by_column():
            first = inputs.start
            if column.words is None:
                features[:, first] = numbers[:, n_numbers]
                n_numbers += 1
            else:
                held = codes[:, n_words]
                rows = np.flatnonzero(held >= 0)
                features[rows, first + held[rows]] = 1
                n_words += 1
        return features

    def inputs_by_column(self) -> Iterator[tuple[Column, slice]]:
        """Yield each column with the inputs that it makes."""
        first = 0
        for column in self.columns:
            yield column, slice(first, first + column.n_features)
            first += column.n_features

    def layout_of(self, file: TableFile, *, with_targets: bool) -> Layout:
        """Return which columns of another file are what: by name if both have names, else by place.

        Raises
        ------
        DataError
            If a column is not there.
        """
        by_name = file.names is not None and self.feature_names is not None
        find = self._by_name if by_name else self._by_place
        inputs = find(file, self.columns)
        targets = find(file, self.targets) if with_targets else ()
        kinds: list[Kind] = ["skip"] * file.n_columns
        for column, own in zip((*inputs, *targets), (*self.columns, *self.targets), strict=False):
            kinds[column] = "number" if own.words is None else "word"
        return Layout(inputs, targets, tuple(kinds))

    def has_targets(self, file: TableFile) -> bool:
        """Whether another file has the columns that were learnt."""
        if file.names is not None and self.feature_names is not None:
            return {column.name for column in self.targets} <= set(file.names)
        return file.n_columns == self.n_columns

    def _by_name(self, file: TableFile, columns: Sequence[Column]) -> tuple[int, ...]:
        names = {name: k for k, name in enumerate(file.names or ())}
        lacking = [column.name for column in columns if column.name not in names]
        if lacking:
            own = {column.name for column in (*self.columns, *self.targets)}
            others = [name for name in names if name not in own]
            raise DataError(
                f"{file.path}: lacks {_listed(lacking)}; expected the columns that the model was "
                f"trained on" + (f", found {_listed(others)} instead" if others else "")
            )
        return tuple(names[column.name or ""] for column in columns)

    def _by_place(self, file: TableFile, columns: Sequence[Column]) -> tuple[int, ...]:
        if file.n_columns == self.n_columns:
            return tuple(column.position for column in columns)
        gone = sorted(column.position for column in self.targets)
        if file.n_columns == self.n_columns - len(gone) and columns is self.targets:
            raise DataError(
                f"{file.path}: lacks what the model learnt; expected {self.n_columns} columns, got "
                f"{file.n_columns}"
            )
        if file.n_columns != self.n_columns - len(gone):
            raise DataError(
                f"{file.path}: has {file.n_columns} columns; expected {self.n_columns}, as the "
                f"model was trained on, or {self.n_columns - len(gone)} without what it learnt"
            )
        return tuple(c.position - sum(g < c.position for g in gone) for c in columns)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; `from_dict` gives back an equal record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Make a record from what `to_dict` returned, trusting nothing in it.

        Raises
        ------
        ModelFileError
            If it is not such a dict.
        """
        try:
            return cls._from_plain(values)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ModelFileError(f"preparation: {one_line(error)}") from None

    @classmethod
    def _from_plain(cls, values: Any) -> Self:
        columns, targets = (tuple(map(_column, values[name])) for name in ("columns", "targets"))
        n_columns, missing = values["n_columns"], values["missing"]
        if missing is not None and missing not in MISSING_RULES:
            raise ValueError(f"missing is {missing!r:.40}")
        positions = [column.position for column in (*columns, *targets)]
        if type(n_columns) is not int or not columns or not targets:
            raise ValueError("expected columns, targets and their number")
        if len(set(positions)) < len(positions) or not 0 <= min(positions) <= max(positions) < (
            n_columns
        ):
            raise ValueError(f"its columns are not {n_columns} different ones")
        return cls(columns, targets, n_columns, missing)


def _column(values: Any) -> Column:
    name, position, words, fill = (values[key] for key in ("name", "position", "words", "fill"))
    if not isinstance(name, str | None) or type(position) is not int:
        raise TypeError(f"a column is called {name!r:.40}, at {position!r:.40}")
    if words is not None:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TypeError(f"column {position} has the words {words!r:.40}")
        if not 0 < len(words) == len(set(words)):
            raise ValueError(f"column {position} has no words, or one twice")
        words = tuple(words)
    if fill is not None and not (type(fill) in (int, float) and math.isfinite(fill)):
        raise TypeError(f"column {position} is filled with {fill!r:.40}")
    return Column(name, position, words, None if fill is None else float(fill))


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(map(repr, names[:8])) + (
        f" and {len(names) - 8} more" if len(names) > 8 else ""
    )
    return one_line(f"column {shown}" if len(names) == 1 else f"columns {shown}", 300)
