"""Data frames, their columns and tensors as plain arrays, and the names of columns.

None of the libraries is imported: whoever has one of their objects has imported it already.
"""

import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import DataError, DeviceError, one_line


class _Library(NamedTuple):
    """What a library calls its tables and its single columns, and how a table gives its parts."""

    tables: tuple[str, ...]
    columns: tuple[str, ...]
    names_of: Callable[[Any], Iterable[Any]]
    columns_of: Callable[[Any], Iterable[Any]]


_LIBRARIES = {
    "pandas": _Library(
        ("DataFrame",),
        ("Series",),
        lambda frame: frame.columns,
        lambda frame: (column for _, column in frame.items()),
    ),
    "polars": _Library(
        ("DataFrame",),
        ("Series",),
        lambda frame: frame.columns,
        lambda frame: frame.get_columns(),
    ),
    "pyarrow": _Library(
        ("Table", "RecordBatch"),
        ("ChunkedArray", "Array"),
        lambda table: table.schema.names,
        lambda table: table.columns,
    ),
}


def _is(values: object, library: str, kinds: Iterable[str]) -> bool:
    """Whether something is of one of a library's classes."""
    module = sys.modules.get(library)
    return module is not None and isinstance(
        values, tuple(getattr(module, kind, ()) for kind in kinds)
    )


def _library_of_table(values: object) -> _Library | None:
    for name, library in _LIBRARIES.items():
        if _is(values, name, library.tables):
            return library
    return None


def column_names(values: object) -> list[str] | None:
    """Return the names of a table's columns, or None if they have none that are words.

    Parameters
    ----------
    values : object
        A data frame of pandas or polars, a table of PyArrow, or a row of pandas' (a Series, whose
        index has the names). Nothing else has names.

    Returns
    -------
    list of str or None

    Raises
    ------
    DataError
        If some names are words and others are not.
    """
    if isinstance(values, np.ndarray):
        return None
    library = _library_of_table(values)
    if library is not None:
        names = list(library.names_of(values))
    elif _is(values, "pandas", ("Series",)):
        names = list(values.index)  # type: ignore[attr-defined]
    else:
        return None
    words = [name for name in names if isinstance(name, str)]
    if words and len(words) < len(names):
        strange = next(name for name in names if not isinstance(name, str))
        raise DataError(
            f"column names must all be words, or none of them, got {words[0]!r:.40} and "
            f"{strange!r:.40}: X.columns = X.columns.astype(str) makes words of them"
        )
    return words or None


def plain_values(values: Any, name: str) -> Any:
    """Return a table, a column or a tensor as an array, and anything else as it is.

    Parameters
    ----------
    values : object
        What was given.
    name : str
        What to call it in a message.

    Returns
    -------
    object
        Of a table or a column, an array of numbers of the common dtype of its columns; float64 for
        Python's own numbers. A value that is missing is never made NaN.

    Raises
    ------
    DataError
        If a column has missing values or something else than numbers, which the message names, or
        a tensor cannot be read, or the values are sparse or not there yet.
    DeviceError
        If a tensor is not on the host.
    """
    if isinstance(values, np.ndarray | list | tuple):
        return values
    if library := _library_of_table(values):
        return _table_values(values, library, name)
    if any(_is(values, key, library.columns) for key, library in _LIBRARIES.items()):
        return _column_values(values, name)
    if _is(values, "torch", ("Tensor",)):
        return _tensor_values(values, name)
    if _is(values, "polars", ("LazyFrame",)):
        raise DataError(f"{name} are a LazyFrame, which has no values yet: call its collect()")
    if hasattr(values, "toarray"):
        raise DataError(
            f"{name} are sparse, but must be an array: call toarray(), or use MLPClassifier or "
            "MLPRegressor, which take sparse samples"
        )
    return values


def _table_values(table: Any, library: _Library, name: str) -> NDArray[Any]:
    dtypes = set(getattr(table, "dtypes", ()))
    if len(dtypes) == 1 and _is_numpys(*dtypes):
        return np.asarray(table)  # pandas has such a frame as one array, so nothing is copied
    arrays = []
    for label, column in zip(library.names_of(table), library.columns_of(table), strict=True):
        what = f"column {label!r:.60} of the {name}"
        arrays.append(_column_values(column, what))
        if arrays[-1].ndim != 1:
            raise DataError(f"{what} must hold numbers, got lists: make each place a column")
    if not arrays:
        return np.empty((table.shape[0], 0))
    # Each column in one piece, since all of them are in memory like that.
    return np.stack(arrays).T


def _is_numpys(dtype: object) -> bool:
    """Whether this is one of NumPy's dtypes of real numbers, which know no missing values."""
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def _column_values(column: Any, what: str) -> NDArray[Any]:
    if not _is_numpys(getattr(column, "dtype", None)):
        missing = np.asarray(column.isna() if hasattr(column, "isna") else column.is_null())
        if missing.any():
            raise DataError(
                f"{what} must have a number in each row, but row {missing.argmax()} has none: "
                "fill such places, or leave the rows out"
            )
    array = np.asarray(column)
    if array.dtype == object:
        array = _numbers(array, what)
    if array.dtype.kind not in "biuf":
        raise _no_number(array, 0, what)
    return array


def _numbers(objects: NDArray[Any], what: str) -> NDArray[np.float64]:
    for row, value in enumerate(objects):
        if not isinstance(value, Real | Decimal | np.bool_):
            raise _no_number(objects, row, what)
    try:
        return objects.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what} must hold numbers that fit float64: {one_line(error)}") from error


def _no_number(array: NDArray[Any], row: int, what: str) -> DataError:
    came = repr(array[row].item() if array.dtype.kind in "UT" else array[row])
    return DataError(
        f"{what} must hold numbers, got {one_line(came, 60)} in row {row}: put numbers in their "
        "place, or leave them out"
    )


def _tensor_values(tensor: Any, name: str) -> NDArray[Any]:
    if tensor.device.type != "cpu":
        raise DeviceError(
            f"{name} are a tensor on {tensor.device}: give X.cpu() or, to a network on that GPU, "
            "cupy.from_dlpack(X.detach())"
        )
    try:
        array: NDArray[Any] = tensor.numpy(force=True)
    except (TypeError, RuntimeError) as error:
        raise DataError(
            f"{name} are a tensor that is no array of NumPy's: {one_line(error, 120)}; "
            "X.to_dense().float() may be one"
        ) from error
    return array
