"""CSV files read by Apache Arrow, on all cores, where pyarrow is installed.

It reads what is plain: every line a row, every field of its column's kind. At the first block in
which something is not, it ends, and `gpunn.data.tables.csv_files` goes on from there; so there is
one set of rules, and one place that knows what to say of a bad file.
"""

import codecs
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.files import FilePath, open_file
from gpunn.data.tables.csv_dialect import Dialect
from gpunn.data.tables.table_file import MISSING, Chunk, Kind, Words

BLOCK_BYTES = 2**23
"""What is read at a time."""

_PIECE_BYTES = 2**20
"""What each core takes of it at a time, if it holds a line."""

_BYTES_A_FIELD = 64

_LONGEST_REST = 2**25


def arrow_chunks(
    path: FilePath, dialect: Dialect, kinds: Sequence[Kind]
) -> Generator[Chunk, None, int | None]:
    """Yield the rows of a CSV file, as many as are plain.

    Returns
    -------
    int or None
        How many rows came before the first that is not plain; None if all have been read.
    """
    try:
        import pyarrow
        from pyarrow import csv
    except ImportError:
        return 0
    options = _options(csv, pyarrow, dialect, kinds)
    n_rows = 0
    for block in _blocks(path, dialect.first_line - 1):
        lines = block.rstrip(b"\r\n")
        if not lines:
            continue
        if lines.count(b"\r") != lines.count(b"\r\n"):
            return n_rows
        try:
            table = csv.read_csv(pyarrow.py_buffer(lines), *options)
        except (pyarrow.ArrowException, OSError, ValueError):
            return n_rows
        # Fewer rows than lines: lines are blank, or go on within quotes, where a block may end.
        if table.num_rows != lines.count(b"\n") + 1:
            return n_rows
        chunk = _chunk(table, n_rows, kinds)
        if np.isinf(chunk.numbers).any():
            return n_rows
        yield chunk
        n_rows += table.num_rows
    return None if n_rows else 0


def _options(csv: Any, pyarrow: Any, dialect: Dialect, kinds: Sequence[Kind]) -> tuple[Any, ...]:
    names = [str(k) for k in range(len(kinds))]
    types = {"number": pyarrow.float64(), "word": pyarrow.string()}
    read = [name for name, kind in zip(names, kinds, strict=True) if kind != "skip"]
    return (
        csv.ReadOptions(
            column_names=names, block_size=max(_PIECE_BYTES, _BYTES_A_FIELD * len(names))
        ),
        csv.ParseOptions(delimiter=dialect.delimiter),
        csv.ConvertOptions(
            column_types={name: types[kinds[int(name)]] for name in read},
            include_columns=read,
            null_values=list(MISSING),
            strings_can_be_null=False,
        ),
    )


def _blocks(path: FilePath, n_before: int) -> Iterator[bytes]:
    """Yield the lines of a file after so many, some whole ones at a time."""
    with open_file(path) as (stream, _):
        rest = b""
        for _ in range(n_before):
            stream.readline()
        if not n_before:
            rest = stream.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
        while block := stream.read(BLOCK_BYTES):
            block = rest + block
            end = block.rfind(b"\n") + 1
            yield block[:end]
            rest = block[end:]
            if len(rest) > _LONGEST_REST:
                # Hardly any line ends, and Arrow will not take such lines.
                break
        yield rest


def _chunk(table: Any, first: int, kinds: Sequence[Kind]) -> Chunk:
    read = [kind for kind in kinds if kind != "skip"]
    numbers = _numbers(table, [k for k, kind in enumerate(read) if kind == "number"])
    words = [_words(table.column(k)) for k, kind in enumerate(read) if kind == "word"]
    return Chunk(first, numbers, words)


def _numbers(table: Any, columns: Sequence[int]) -> NDArray[np.float64]:
    """Return columns of numbers side by side; a piece at a time, which stays in the cache."""
    numbers = np.empty((table.num_rows, len(columns)))
    first = 0
    for batch in table.select(columns).to_batches() if columns else ():
        rows = numbers[first : first + batch.num_rows]
        rows[...] = batch.to_tensor(null_to_nan=True).to_numpy()
        first += batch.num_rows
    return numbers


def _words(column: Any) -> Words:
    encoded = column.combine_chunks().dictionary_encode()
    return Words(
        encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        encoded.dictionary.to_pylist(),
    )
