"""A table's rows with the columns told apart: inputs, and what is to be learnt; all checked."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.tables.layout import Layout, Missing
from gpunn.data.tables.table_file import Chunk, TableFile, Words, quoted
from gpunn.errors import DataError, one_line

MOST_WORDS = 65_536
"""More different words are surely no classes, and would fill the memory."""


class Part(NamedTuple):
    """Some rows.

    Attributes
    ----------
    numbers : ndarray of float64, shape (n, n_number_columns)
        The inputs that are numbers, in the order of the layout; NaN where one is missing.
    codes : ndarray of int32, shape (n, n_word_columns)
        The inputs that are words, as numbers of their vocabularies; -1 where one is missing.
    targets : ndarray of float64, shape (n, n_targets)
        What is to be learnt: numbers, or words as numbers of their vocabularies.
    rows : ndarray of int64, shape (n,)
        Which rows of the file they are, counted from 0.
    """

    numbers: NDArray[np.float64]
    codes: NDArray[np.int32]
    targets: NDArray[np.float64]
    rows: NDArray[np.int64]


class Vocabulary:
    """The words of a column, each with a number.

    Parameters
    ----------
    known : sequence of str, optional
        The only words that there may be; without it, new words are taken in.
    """

    def __init__(self, known: Sequence[str] | None = None) -> None:
        self.index = {word: number for number, word in enumerate(known or ())}
        self._is_open = known is None

    def numbers_of(self, words: Words) -> tuple[NDArray[np.int32], str | None]:
        """Return the number of each word, -1 for an empty one, and an unknown word if there is one.

        The number of unknown ones is -2.
        """
        numbers, unknown = [], None
        held = set(np.unique(words.codes).tolist())
        for code, word in enumerate(map(str.strip, words.known)):
            if code not in held:
                numbers.append(-1)
            elif word and self._is_open:
                numbers.append(self.index.setdefault(word, len(self.index)))
            else:
                numbers.append(self.index.get(word, -2) if word else -1)
            if numbers[-1] == -2:
                unknown = word
        lookup = np.array([*numbers, -1], np.int32)  # the last one is for codes of -1
        return lookup[words.codes], unknown

    def in_order(self) -> tuple[list[str], NDArray[np.int32]]:
        """Return the words in sorted order, and the place of each number in it; the last is -1."""
        words = sorted(self.index)
        places = np.full(len(words) + 1, -1, np.int32)
        for place, word in enumerate(words):
            places[self.index[word]] = place
        return words, places


class PartReader:
    """Reads a table part by part, again and again.

    Parameters
    ----------
    file : TableFile
        The table.
    layout : Layout
        Which of its columns are what.
    missing : {"mean", "zero", "drop"} or None
        Whether inputs may be missing, or rows with something missing are dropped. What is to be
        learnt must be there, unless rows are dropped.
    vocabularies : sequence of Vocabulary
        Those of the columns of words, first of the inputs, then of the targets.
    advice : str
        What to do about missing inputs but to fill them in.

    Attributes
    ----------
    n_missing : dict of int to int
        How many fields of each column of the file were missing in the last pass, so far.
    n_dropped : int
        How many rows have been dropped in it.
    """

    def __init__(
        self,
        file: TableFile,
        layout: Layout,
        missing: Missing | None,
        vocabularies: Sequence[Vocabulary],
        advice: str = "choose --missing mean, zero or drop",
    ) -> None:
        self._file, self._layout, self._missing = file, layout, missing
        self._vocabularies, self._advice = vocabularies, advice
        self._numbers = layout.number_columns(layout.inputs)
        self._words = layout.word_columns(layout.inputs)
        self._target_numbers = layout.number_columns(layout.targets)
        self._target_words = layout.word_columns(layout.targets)
        self._number_inputs = [c for c in layout.inputs if layout.kinds[c] == "number"]
        self._word_inputs = [c for c in layout.inputs if layout.kinds[c] == "word"]
        self.n_missing = dict.fromkeys((*layout.inputs, *layout.targets), 0)
        self.n_dropped = 0

    def __iter__(self) -> Iterator[Part]:
        self.n_missing = dict.fromkeys(self.n_missing, 0)
        self.n_dropped = 0
        for chunk in self._file.chunks(self._layout.kinds):
            yield self._part(chunk)

    def _part(self, chunk: Chunk) -> Part:
        rows = np.arange(chunk.first, chunk.first + len(chunk.numbers))
        if self._missing == "drop":
            whole = ~self._has_holes(chunk)
            self.n_dropped += len(rows) - int(np.count_nonzero(whole))
            rows = rows[whole]
            words = [Words(codes[whole], known) for codes, known in chunk.words]
            chunk = Chunk(chunk.first, chunk.numbers[whole], words)
        numbers = _selected(chunk.numbers, self._numbers)
        n_rows = len(rows)
        codes = np.empty((n_rows, len(self._words)), np.int32)
        for k, (place, column) in enumerate(zip(self._words, self._word_inputs, strict=True)):
            codes[:, k] = self._encode(chunk.words[place], rows, column, self._vocabularies[k])
        targets = np.empty((n_rows, len(self._layout.targets)))
        for k, place in enumerate(self._target_numbers):
            targets[:, k] = chunk.numbers[:, place]
        for k, place in enumerate(self._target_words):
            column = self._layout.targets[k]
            vocabulary = self._vocabularies[len(self._words) + k]
            held = self._encode(chunk.words[place], rows, column, vocabulary)
            targets[:, k] = np.where(held < 0, np.nan, held)
        part = Part(numbers, codes, targets, rows)
        self._check(part)
        return part

    def _has_holes(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Return for each row whether something is missing in it."""
        holes = np.zeros(len(chunk.numbers), np.bool_)
        for column in self.n_missing:
            if self._layout.kinds[column] == "number":
                (place,) = self._layout.number_columns([column])
                gone = np.isnan(chunk.numbers[:, place])
            else:
                (place,) = self._layout.word_columns([column])
                codes, known = chunk.words[place]
                gone = np.array([*(not word.strip() for word in known), True])[codes]
            self.n_missing[column] += int(np.count_nonzero(gone))
            holes |= gone
        return holes

    def _encode(
        self, words: Words, rows: NDArray[np.int64], column: int, vocabulary: Vocabulary
    ) -> NDArray[np.int32]:
        held, unknown = vocabulary.numbers_of(words)
        if unknown is not None:
            where = self._file.place(int(rows[np.argmax(held == -2)]), column)
            known = ", ".join(map(repr, list(vocabulary.index)[:10]))
            raise DataError(
                f"{where}: {quoted(unknown)} is not among the words that the model knows: "
                f"{one_line(known, 200)}"
            )
        if len(vocabulary.index) > MOST_WORDS:
            raise DataError(
                f"{self._file.path}: {self._file.call(column)} holds more than {MOST_WORDS:,} "
                f"different words; leave it out with --ignore {self._file.option(column)}"
            )
        return held

    def _check(self, part: Part) -> None:
        """Raise where something is infinite, or missing and must not be; count what is missing."""
        layout = self._layout
        self._check_finite(part.numbers, part.rows, self._number_inputs)
        self._check_finite(part.targets, part.rows, layout.targets)
        for values, columns in (
            (part.numbers, self._number_inputs),
            (part.codes, self._word_inputs),
            (part.targets, layout.targets),
        ):
            for k in _columns_that_lack(values):
                gone = values[:, k] == -1 if values.dtype.kind == "i" else np.isnan(values[:, k])
                if gone.any():
                    self._take_note(gone, part.rows, columns[k])

    def _check_finite(
        self, values: NDArray[np.float64], rows: NDArray[np.int64], columns: Sequence[int]
    ) -> None:
        # One pass without a temporary array; a sum may be infinite of finite values, too.
        if not np.isfinite(_sums(values)).all() and np.isinf(values).any():
            row, k = np.argwhere(np.isinf(values))[0]
            where = self._file.place(int(rows[row]), columns[k])
            raise DataError(f"{where}: holds {values[row, k]}, which is not finite; correct it")

    def _take_note(self, gone: NDArray[np.bool_], rows: NDArray[np.int64], column: int) -> None:
        is_target = column in self._layout.targets
        if self._missing is None or is_target:
            where = self._file.place(int(rows[np.argmax(gone)]), column)
            raise DataError(
                f"{where}: is missing; "
                + (
                    "what is to be learnt must be there, or drop such rows with --missing drop"
                    if is_target
                    else f"fill it in, or {self._advice}"
                )
            )
        self.n_missing[column] += int(np.count_nonzero(gone))


def _selected(numbers: NDArray[np.float64], columns: Sequence[int]) -> NDArray[np.float64]:
    """Return some columns; those that lie side by side are not copied."""
    if not columns:
        return numbers[:, :0]
    if list(columns) == list(range(columns[0], columns[0] + len(columns))):
        return numbers[:, columns[0] : columns[0] + len(columns)]
    return numbers[:, columns]


def _columns_that_lack(values: NDArray[np.float64] | NDArray[np.int32]) -> list[int]:
    """Return the columns in which something may be missing."""
    if values.dtype.kind == "i":
        return np.flatnonzero((values == -1).any(axis=0)).tolist()
    # A sum is NaN where a value is.
    return np.flatnonzero(np.isnan(_sums(values))).tolist()


def _sums(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of each column, which tells whether all of it is finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.sum(axis=0)  # type: ignore[no-any-return]
