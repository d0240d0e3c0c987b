"""What Parquet files say of themselves: true of good ones, and refused if it would cost too much.

The bad files are made here byte by byte, since no library would write them.
"""

import re

import numpy as np
import pytest

from gpunn.data import files, read_parquet, table_chunks, table_fits
from gpunn.data.tables import parquet_pages
from gpunn.data.tables.parquet_pages import BYTES_A_ROW, check_pages, read_row_groups
from gpunn.errors import DataError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DOUBLE_COLUMN, PLAIN, RLE_DICTIONARY, ZSTD = 5, 0, 8, 6


# Thrift's compact protocol.


def varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def integer(number):
    return varint(number << 1 if number >= 0 else ~number << 1 | 1)


def struct(*fields):
    """Return a struct of (number, kind, value), where a value that is bytes is written as it is."""
    parts, last = [], 0
    for number, kind, value in fields:
        parts += [bytes([number - last << 4 | kind]), value if type(value) is bytes else b""]
        if type(value) is int:
            parts.append(integer(value))
        last = number
    return b"".join(parts) + b"\0"


def array(kind, *items, count=None):
    count = len(items) if count is None else count
    return bytes([0xF0 | kind]) + varint(count) + b"".join(items)


def text(value):
    return varint(len(value)) + value.encode()


# Parquet's structs.


def page(content, n_values=10, size=None, encoding=PLAIN, dictionary=False, compressed=None):
    about = (
        (7, STRUCT, struct((1, I32, n_values), (2, I32, encoding)))
        if dictionary
        else (5, STRUCT, struct((1, I32, n_values), (2, I32, encoding), (3, I32, 3), (4, I32, 3)))
    )
    size = len(content) if size is None else size
    compressed = len(content) if compressed is None else compressed
    return struct((1, I32, 2 * dictionary), (2, I32, size), (3, I32, compressed), about) + content


def column(start, n_bytes, n_values=10, codec=0, dictionary=None, more=()):
    fields = [
        (1, I32, DOUBLE_COLUMN),
        (2, LIST, array(I32, integer(PLAIN))),
        (3, LIST, array(BINARY, text("c"))),
        (4, I32, codec),
        (5, I64, n_values),
        (6, I64, n_bytes),
        (7, I64, n_bytes),
        (9, I64, start),
    ]
    if dictionary is not None:
        fields.append((11, I64, dictionary))
    return struct((2, I64, start), (3, STRUCT, struct(*fields, *more)))


def footer(columns, n_rows=10, n_rows_of_file=None):
    names = (struct((1, I32, 5), (3, I32, 0), (4, BINARY, text(f"c{k}"))) for k in (0, 1))
    root = struct((4, BINARY, text("schema")), (5, I32, 2))
    group = struct((1, LIST, columns), (2, I64, 0), (3, I64, n_rows))
    return struct(
        (1, I32, 1),
        (2, LIST, array(STRUCT, root, *names)),
        (3, I64, n_rows if n_rows_of_file is None else n_rows_of_file),
        (4, LIST, array(STRUCT, group)),
    )


def file_of(pages, end):
    return b"PAR1" + pages + end + len(end).to_bytes(4, "little") + b"PAR1"


def file_of_pages(*pages, n_rows=10, codec=0, dictionary=False, **options):
    """Return a file of two columns, each with those pages."""
    content = b"".join(pages)
    columns = []
    for start in (4, 4 + len(content)):
        first = start + len(pages[0]) if dictionary else start
        place = start if dictionary else None
        columns.append(column(first, len(content), codec=codec, dictionary=place))
    return file_of(2 * content, footer(array(STRUCT, *columns), n_rows, **options))


ZEROS = page(bytes(80))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.parquet"


def test_files_made_here_are_parquet_files(path):
    path.write_bytes(file_of_pages(page(np.arange(10.0).tobytes())))
    np.testing.assert_array_equal(parquet.read_table(path)["c1"], np.arange(10))
    data = read_parquet(path)
    np.testing.assert_array_equal(data.labels, np.arange(10))
    np.testing.assert_array_equal(data.inputs[:, 0], np.arange(10))
    three = page(np.arange(3.0).tobytes(), 3, dictionary=True)
    repeated = page(bytes([2, 20, 2]), encoding=RLE_DICTIONARY)
    path.write_bytes(file_of_pages(three, repeated, dictionary=True))
    np.testing.assert_array_equal(read_parquet(path).labels, 10 * [2])


N_ROWS = 1000
WAYS = {
    "plain": {"use_dictionary": False, "compression": "none"},
    "dictionaries": {"compression": "zstd"},
    "version 1": {"version": "1.0", "compression": "gzip", "store_schema": False},
    "pages of version 2": {"data_page_version": "2.0", "write_statistics": False},
    "other encodings": {
        "use_dictionary": False,
        "column_encoding": {
            "label": "DELTA_BINARY_PACKED",
            "x": "BYTE_STREAM_SPLIT",
            "bytes": "DELTA_BINARY_PACKED",
        },
    },
    "row groups": {"row_group_size": 7, "write_page_index": True, "write_page_checksum": True},
    "tiny pages": {"data_page_size": 1, "write_batch_size": 1},
}


@pytest.mark.parametrize("way", WAYS)
def test_what_arrow_writes_is_read(path, way):
    rng = np.random.default_rng(0)
    columns = {
        "label": rng.integers(0, 10, N_ROWS),
        "x": rng.normal(size=N_ROWS),
        "bytes": rng.integers(0, 256, N_ROWS).astype(np.uint8),
        "zeros": np.zeros(N_ROWS, np.float32),
        "flags": rng.random(N_ROWS) < 0.5,
    }
    parquet.write_table(pyarrow.table(columns), path, **WAYS[way])
    groups = read_row_groups(path)
    written = parquet.read_metadata(path)
    assert [group.n_rows for group in groups] == [
        written.row_group(k).num_rows for k in range(written.num_row_groups)
    ]
    check_pages(path, groups, [BYTES_A_ROW] * len(groups[0].columns))
    table = np.concatenate(list(table_chunks(path)))
    np.testing.assert_array_equal(table, np.column_stack(list(columns.values())))


def bomb():
    zeros = pyarrow.compress(bytes(10**8), codec="zstd", asbytes=True)
    return file_of_pages(page(zeros, size=10**8), codec=ZSTD)


def deep(n):
    # An unknown field, in which structs are in structs.
    return file_of(b"", bytes([0x7C]) + n * bytes([0x1C]) + (n + 2) * b"\0")


BAD = {
    "a page that is unpacked to much": (bomb, "page at byte 4 claims 100000000 bytes"),
    "a page that claims much": (
        lambda: file_of_pages(page(bytes(80), size=2**31 - 1)),
        "page at byte 4 claims 2147483647 bytes, 80 in the file; its rows need at most "
        "65696, and 180 are left",
    ),
    "a dictionary that is unpacked to much": (
        lambda: file_of_pages(
            page(bytes(80), size=2**20, dictionary=True), ZEROS, dictionary=True, codec=ZSTD
        ),
        "page at byte 4 claims 1048576 bytes",
    ),
    "a second page that claims much": (
        lambda: file_of_pages(ZEROS, page(b"", size=2**20)),
        f"page at byte {4 + len(ZEROS)} claims 1048576 bytes",
    ),
    "a page less than empty": (
        lambda: file_of_pages(page(bytes(80), size=-1)),
        "page at byte 4 claims -1 bytes",
    ),
    "a page that leads backwards": (
        lambda: file_of_pages(page(bytes(80), compressed=-30)),
        "page at byte 4 claims 80 bytes, -30 in the file",
    ),
    "a page that ends where the next column does": (
        lambda: file_of_pages(page(bytes(80), compressed=181)),
        "page at byte 4 claims 80 bytes, 181 in the file",
    ),
    "a page without sizes": (
        lambda: file_of_pages(struct((1, I32, 0)) + bytes(99)),
        "header of the page at byte 4 lacks its sizes",
    ),
    "a page's header without end": (
        lambda: file_of_pages(struct((1, I32, 0), (8, BINARY, varint(2**40)))),
        "header of the page at byte 4 is cut short",
    ),
    "a size that does not fit its type": (
        lambda: file_of_pages(page(bytes(80), size=2**32 + 80)),
        "4294967376 does not fit 32 bits",
    ),
    "a million columns in 66 bytes": (
        lambda: file_of(b"", footer(array(STRUCT, bytes(10), count=10**6))),
        "footer is cut short",
    ),
    "more columns than anyone has": (
        lambda: file_of(b"", footer(array(STRUCT, bytes(300_000), count=300_000))),
        "more than 262144 columns",
    ),
    "empty columns": (
        lambda: file_of(b"", footer(array(STRUCT, bytes(10), count=10))),
        "footer lacks 'meta_data'",
    ),
    "columns of another type": (
        lambda: file_of(b"", footer(array(I32, bytes(10), count=10))),
        "columns have a wrong type",
    ),
    "long lists": (
        lambda: file_of(b"", struct((7, LIST, array(I32, count=2**30)))),
        "a list of 1073741824 elements",
    ),
    "more rows in the groups": (
        lambda: file_of_pages(ZEROS, n_rows=10**9, n_rows_of_file=10),
        "its 10 rows are not the sum of its row groups",
    ),
    "fewer rows than none": (
        lambda: file_of_pages(ZEROS, n_rows=-10),
        "its -10 rows are not the sum of its row groups",
    ),
    "columns on the same pages": (
        lambda: file_of(ZEROS, footer(array(STRUCT, *(9 * [column(4, len(ZEROS))])))),
        "columns share their pages",
    ),
    "columns elsewhere": (
        lambda: file_of(ZEROS, footer(array(STRUCT, column(4, 10**6)))),
        "footer points outside the file",
    ),
    "a column before the file": (
        lambda: file_of(ZEROS, footer(array(STRUCT, column(-5, 9)))),
        "footer points outside the file",
    ),
    "a column that ends before it begins": (
        lambda: file_of(ZEROS, footer(array(STRUCT, column(4, -2)))),
        "footer points outside the file",
    ),
    "a number that comes twice": (
        # Its second time with the field's number as a whole.
        lambda: file_of(b"", struct((3, I64, 10))[:-1] + bytes([I64]) + integer(3) + integer(9)),
        "num_rows has a wrong type, or comes twice",
    ),
    "a place of another type": (
        lambda: file_of(ZEROS, footer(array(STRUCT, struct((3, I64, 4))))),
        "meta_data has a wrong type",
    ),
    "a number of eleven bytes": (
        lambda: file_of(b"", struct((3, I64, 10 * b"\xff" + b"\1"))),
        "a number has more than ten bytes",
    ),
    "no such type": (lambda: file_of(b"", struct((7, 15, b""))), "unknown type 15"),
    "structs in structs": (lambda: deep(10**6), "recursion"),
    "a footer larger than the file": (
        lambda: b"PAR1" + (2**20).to_bytes(4, "little") + b"PAR1",
        "footer claims 1048576 bytes, more than 4",
    ),
    "another end": (lambda: b"PAR1" + bytes(80) + b"PARE", "should end in b'PAR1', not in b'PARE'"),
    "too few bytes": (lambda: b"PAR1", "should end in b'PAR1', not in b''"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(path, name):
    make, message = BAD[name]
    path.write_bytes(make())
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_parquet(path)
    assert str(error.value).startswith(f"{path}: not a Parquet file, or damaged (")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError):
        list(table_chunks(path))


def test_a_footer_is_looked_at_before_arrow_sees_it(path, monkeypatch):
    def fail(*_args, **_options):
        raise AssertionError("Arrow was asked")

    monkeypatch.setattr(parquet, "ParquetFile", fail)
    path.write_bytes(BAD["a million columns in 66 bytes"][0]())
    with pytest.raises(DataError, match="footer is cut short"):
        table_fits(path)


SKIPPED = {
    "true": (TRUE, b""),
    "false": (FALSE, b""),
    "i8": (I8, b"\x09"),
    "i16": (I16, 300),
    "i32": (I32, -1),
    "i64": (I64, 2**62),
    "double": (DOUBLE, bytes(range(8))),
    "binary": (BINARY, text("words")),
    "list of booleans": (LIST, array(TRUE, b"\1\1\1", count=3)),
    "list of i16": (LIST, array(I16, integer(3000), integer(-4))),
    "list of doubles": (LIST, array(DOUBLE, bytes(range(16)), count=2)),
    "list of structs": (LIST, array(STRUCT, struct((1, I32, 5)), struct())),
    "list of lists": (LIST, array(LIST, array(BINARY, text("a"), text("b")), array(I32))),
    "set of i8": (SET, bytes([3 << 4 | I8, 7, 8, 9])),
    "empty map": (MAP, b"\0"),
    "map": (MAP, bytes([2, BINARY << 4 | I32]) + 2 * (text("k") + integer(7))),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_fields_of_every_type_are_passed_over(path, name):
    kind, value = SKIPPED[name]
    known = column(4, len(ZEROS), more=[(20, kind, value)])
    path.write_bytes(file_of(ZEROS, footer(array(STRUCT, known))))
    assert read_row_groups(path) == [(10, [(4, 4 + len(ZEROS))])]
    # A field's number is given as a whole if it is more than 15 after the one before.
    far = bytes([kind]) + integer(2000) + (integer(value) if type(value) is int else value)
    path.write_bytes(file_of(ZEROS, footer(array(STRUCT, known))[:-1] + far + b"\0"))
    assert read_row_groups(path) == [(10, [(4, 4 + len(ZEROS))])]


def test_a_long_header_of_a_page_is_read(path):
    statistics = struct((5, BINARY, text(100_000 * "x")))
    header = struct((1, I32, 0), (2, I32, 0), (3, I32, 0), (4, STRUCT, statistics))
    path.write_bytes(file_of_pages(header, page(bytes(80), size=10**6)))
    with pytest.raises(DataError, match=f"page at byte {4 + len(header)} claims"):
        read_parquet(path)


def test_pages_that_do_not_fit_the_memory_are_refused(path, monkeypatch):
    monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 100)
    monkeypatch.setattr(files, "free_memory", lambda: 300)
    path.write_bytes(file_of_pages(ZEROS, page(b"", 0)))
    with pytest.raises(DataError) as error:
        list(table_chunks(path))
    assert str(error.value) == (
        f"{path}: its pages take 160 bytes at a time, more than this machine has memory for; write "
        "it with smaller pages or row groups"
    )
    monkeypatch.setattr(files, "free_memory", lambda: 320)
    assert len(np.concatenate(list(table_chunks(path)))) == 10


def test_a_page_may_end_a_little_after_its_column(path):
    # So it is in files of writers that did not count the dictionary's header.
    short = [column(4 + k * len(ZEROS), len(ZEROS) - 20) for k in (0, 1)]
    path.write_bytes(file_of(2 * ZEROS, footer(array(STRUCT, *short))))
    groups = read_row_groups(path)
    check_pages(path, groups, [BYTES_A_ROW] * len(groups[0].columns))


def test_a_column_without_values_may_have_its_pages_anywhere(path):
    path.write_bytes(file_of(b"", footer(array(STRUCT, column(10**9, -5, 0)), n_rows=0)))
    assert read_row_groups(path) == [(0, [(0, 0)])]


def test_the_largest_footer(path, monkeypatch):
    path.write_bytes(file_of_pages(ZEROS))
    n_bytes = int.from_bytes(path.read_bytes()[-8:-4], "little")
    monkeypatch.setattr(parquet_pages, "MOST_FOOTER", n_bytes)
    assert len(read_row_groups(path)) == 1
    monkeypatch.setattr(parquet_pages, "MOST_FOOTER", n_bytes - 1)
    with pytest.raises(ValueError, match=f"claims {n_bytes} bytes, more than {n_bytes - 1}"):
        read_row_groups(path)
