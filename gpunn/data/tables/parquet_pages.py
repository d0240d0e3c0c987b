"""How much memory a Parquet file's pages take, looked up before Apache Arrow reads them.

Arrow makes room for whatever a file says of itself: for a million columns that are said to be in a
file of 66 bytes, and for a page that 12 kB of zstd unpack to 400 MB, in every column. So what the
footer and the headers of the pages say is compared here with the file, with its number of rows, and
with the memory.

Both are structs in Thrift's compact protocol, of which only the fields that matter are kept. What
is read here and what Arrow reads must not differ, so that a field that comes twice, or of another
type, or a number that does not fit its type is refused, though Arrow would make something of it.

Sources: *Apache Parquet format*, parquet.thrift; *Thrift compact protocol encoding*.
"""

import os
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from gpunn.data.files import FilePath, fits
from gpunn.errors import DataError

MOST_FOOTER = 2**24
"""Bytes that a footer may have, of which Arrow makes up to forty times as many."""

MOST_COLUMNS = 2**18
"""How many columns all row groups may have together; Arrow takes some 700 bytes for each."""

BYTES_A_ROW = 16
"""A page has at most this much for each row. No encoding of an 8-byte number takes more."""

BYTES_A_WORD = 256
"""And this much where the rows are words: no one has longer names for classes."""

BYTES_BESIDE = 2**16
"""And at most this much beside: what encodings put before their numbers, and round up to."""

_MAGIC = b"PAR1"
# A column may go on after its end by so much: old writers forgot to count a header.
_SLACK = 100
# Arrow has the same limit.
_MOST_ELEMENTS = 1_000_000
# A page's header is looked for in so many bytes, and in more if it does not end there.
_WINDOWS = (2**9, 2**14, 2**19, 2**24)

_I32, _I64, _BINARY, _LIST, _SET, _MAP, _STRUCT = 5, 6, 8, 9, 10, 11, 12
_VARINTS = {4, _I32, _I64}
# Bytes by type: true, false (which a field's type says, but a list's not), i8 and double.
_FIELD_WIDTHS = {1: 0, 2: 0, 3: 1, 7: 8}
_ELEMENT_WIDTHS = {1: 1, 2: 1, 3: 1, 7: 8}


class _Field(NamedTuple):
    """A field to keep: its name and type, and the fields of the structs in it."""

    name: str
    kind: int
    fields: dict[int, "_Field"] | None = None


_COLUMN = {
    3: _Field(
        "meta_data",
        _STRUCT,
        {
            5: _Field("num_values", _I64),
            7: _Field("total_compressed_size", _I64),
            9: _Field("data_page_offset", _I64),
            11: _Field("dictionary_page_offset", _I64),
        },
    )
}
_ROW_GROUP = {1: _Field("columns", _LIST, _COLUMN), 3: _Field("num_rows", _I64)}
_FOOTER = {3: _Field("num_rows", _I64), 4: _Field("row_groups", _LIST, _ROW_GROUP)}
_PAGE = {2: _Field("uncompressed_page_size", _I32), 3: _Field("compressed_page_size", _I32)}


class RowGroup(NamedTuple):
    """Some rows of a file: how many, and where the pages of each column begin and end."""

    n_rows: int
    columns: list[tuple[int, int]]


class _CompactReader:
    """Structs in Thrift's compact protocol.

    It raises ValueError at what is not allowed, and IndexError where the bytes end too early.
    """

    def __init__(self, data: bytes) -> None:
        self.place = 0
        self._data = data
        self._n_structs = 0

    def struct(self, fields: dict[int, _Field]) -> dict[str, Any]:
        """Return the fields that are asked for and there, by name."""
        found: dict[str, Any] = {}
        number = 0
        while head := self._byte():
            step, kind = divmod(head, 16)
            number = number + step if step else self._integer(16)
            field = fields.get(number)
            if field is None:
                self._skip(kind, _FIELD_WIDTHS)
            elif field.kind != kind or field.name in found:
                raise ValueError(f"{field.name} has a wrong type, or comes twice")
            else:
                found[field.name] = self._value(field)
        return found

    def _value(self, field: _Field) -> Any:
        if field.kind == _STRUCT:
            return self.struct(field.fields or {})
        if field.kind == _LIST:
            return self._structs(field)
        return self._integer(32 if field.kind == _I32 else 64)

    def _structs(self, field: _Field) -> list[dict[str, Any]]:
        count, kind = self._list_head()
        if count and kind != _STRUCT:
            raise ValueError(f"{field.name} have a wrong type")
        self._n_structs += count
        if self._n_structs > MOST_COLUMNS:
            raise ValueError(f"it has more than {MOST_COLUMNS} columns in row groups")
        return [self.struct(field.fields or {}) for _ in range(count)]

    def _skip(self, kind: int, widths: dict[int, int]) -> None:
        # Structs in structs without end run into Python's limit, which is an error like any other,
        # and what is said to go on after the end of the bytes, into the end that a struct has.
        if kind in widths:
            self.place += widths[kind]
        elif kind in _VARINTS:
            self._varint()
        elif kind == _BINARY:
            n_bytes = self._varint()  # which moves the place itself
            self.place += n_bytes
        elif kind in (_LIST, _SET):
            self._skip_all(*self._list_head())
        elif kind == _MAP:
            count = self._count(self._varint())
            self._skip_all(count, *divmod(self._byte(), 16) if count else ())
        elif kind == _STRUCT:
            self.struct({})
        else:
            raise ValueError(f"unknown type {kind}")

    def _skip_all(self, count: int, *kinds: int) -> None:
        for _ in range(count):
            for kind in kinds:
                self._skip(kind, _ELEMENT_WIDTHS)

    def _list_head(self) -> tuple[int, int]:
        count, kind = divmod(self._byte(), 16)
        return self._count(self._varint() if count == 15 else count), kind

    def _count(self, count: int) -> int:
        if count > _MOST_ELEMENTS:
            raise ValueError(f"a list of {count} elements")
        if count > len(self._data) - self.place:  # Every element has a byte at least.
            raise IndexError
        return count

    def _integer(self, bits: int) -> int:
        zigzag = self._varint()
        value = (zigzag >> 1) ^ -(zigzag & 1)
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"{value} does not fit {bits} bits")
        return value

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a number has more than ten bytes")

    def _byte(self) -> int:
        byte = self._data[self.place]
        self.place += 1
        return byte


def read_row_groups(path: FilePath) -> list[RowGroup]:
    """Return where the footer of a Parquet file says that its pages are.

    Raises
    ------
    ValueError
        If it is not such a file, or what it says cannot be.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - 8))
        n_bytes, magic = int.from_bytes(file.read(4), "little"), file.read(4)
        if magic != _MAGIC:
            raise ValueError(f"it should end in {_MAGIC!r}, not in {magic!r}")
        most = min(MOST_FOOTER, size - 8)
        if n_bytes > most:
            raise ValueError(f"its footer claims {n_bytes} bytes, more than {most}")
        file.seek(size - 8 - n_bytes)
        footer = file.read(n_bytes)
    try:
        found = _CompactReader(footer).struct(_FOOTER)
        groups = [_row_group(group) for group in found["row_groups"]]
        n_rows = found["num_rows"]
    except IndexError:
        raise ValueError("its footer is cut short") from None
    except KeyError as error:
        raise ValueError(f"its footer lacks {error}") from None
    _check_row_groups(groups, n_rows, size)
    return groups


def _check_row_groups(groups: list[RowGroup], n_rows: int, size: int) -> None:
    # Arrow goes by the rows of the groups, and who asks whether a table fits, by those of the file.
    counts = [group.n_rows for group in groups]
    if min(counts, default=0) < 0 or sum(counts) != n_rows:
        raise ValueError(f"its {n_rows} rows are not the sum of its row groups")
    places = [place for group in groups for place in group.columns]
    if any(not 0 <= start <= stop <= size for start, stop in places):
        raise ValueError("its footer points outside the file")
    # Without this, a page could be looked up, and decompressed, any number of times.
    if sum(stop - start for start, stop in places) > size:
        raise ValueError("its columns share their pages")


def _row_group(group: dict[str, Any]) -> RowGroup:
    return RowGroup(group["num_rows"], [_place(column["meta_data"]) for column in group["columns"]])


def _place(column: dict[str, int]) -> tuple[int, int]:
    """Return where Arrow begins to read a column's pages, and where it ends."""
    start, n_bytes = column["data_page_offset"], column["total_compressed_size"]
    if column["num_values"] == 0:  # Then it reads none, and the offset may be anything.
        return 0, 0
    if 0 < column.get("dictionary_page_offset", 0) < start:
        start = column["dictionary_page_offset"]
    return start, start + n_bytes


def check_pages(path: FilePath, groups: list[RowGroup], bytes_a_row: Sequence[int]) -> None:
    """Raise unless the pages are no larger than they need, and one of each column fits.

    Parameters
    ----------
    path : path
        The file.
    groups : list of RowGroup
        What `read_row_groups` found.
    bytes_a_row : sequence of int
        How much a row of each column needs at most; 0 for columns that are not going to be read.

    Raises
    ------
    ValueError
        If a page's header is damaged, or it is said to be larger than its numbers can be.
    DataError
        If the memory has no room for the largest page of each column.
    """
    with open(path, "rb") as file:
        for group in groups:
            total = sum(
                _largest_page(file, *place, BYTES_BESIDE + n_bytes * group.n_rows)
                for place, n_bytes in zip(group.columns, bytes_a_row, strict=True)
                if n_bytes
            )
            if not fits(total):
                raise DataError(
                    f"{path}: its pages take {total} bytes at a time, more than this machine has "
                    "memory for; write it with smaller pages or row groups"
                )


def _largest_page(file: IO[bytes], start: int, stop: int, limit: int) -> int:
    """Return the decompressed size of the largest page of a column."""
    largest = 0
    while start < stop:
        header, n_bytes = _page_header(file, start)
        size, compressed = header["uncompressed_page_size"], header["compressed_page_size"]
        rest = stop - start - n_bytes + _SLACK
        if not (0 <= size <= limit and 0 <= compressed <= rest):
            raise ValueError(
                f"the page at byte {start} claims {size} bytes, {compressed} in the file; "
                f"its rows need at most {limit}, and {rest} are left"
            )
        largest = max(largest, size)
        start += n_bytes + compressed
    return largest


def _page_header(file: IO[bytes], start: int) -> tuple[dict[str, Any], int]:
    """Return a page's header, and its length in the file."""
    for window in _WINDOWS:
        file.seek(start)
        reader = _CompactReader(file.read(window))
        try:
            header = reader.struct(_PAGE)
        except IndexError:
            continue
        if len(header) < len(_PAGE):
            raise ValueError(f"the header of the page at byte {start} lacks its sizes")
        return header, reader.place
    raise ValueError(f"the header of the page at byte {start} is cut short")
