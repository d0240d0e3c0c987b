"""Options of several commands, and the numbers that options take."""

import os
from argparse import ArgumentParser, ArgumentTypeError, _ArgumentGroup
from typing import Any

from gpunn.backends.base import PRECISIONS
from gpunn.data.formats import describe_formats
from gpunn.data.tables.csv_dialect import delimiter_of
from gpunn.errors import ParameterError

DATA = describe_formats()


def whole(low: int, metavar: str = "N") -> dict[str, Any]:
    """Return how `add_argument` takes a whole number of at least `low`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise ArgumentTypeError(f"expected a whole number of at least {low}, got {text!r}")
        return value

    return {"type": convert, "metavar": metavar}


def number(
    metavar: str, low: float = 0, high: float = float("inf"), *, open_low: bool = False
) -> dict[str, Any]:
    """Return how `add_argument` takes a number from `low` on and below `high`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (low < value if open_low else low <= value) or not value < high:
            bound = f"above {low:g}" if open_low else f"of at least {low:g}"
            until = "" if high == float("inf") else f" and below {high:g}"
            raise ArgumentTypeError(f"expected a number {bound}{until}, got {text!r}")
        return value

    return {"type": convert, "metavar": metavar}


def add_model(parser: ArgumentParser) -> None:
    """Add the saved network."""
    parser.add_argument("model", metavar="MODEL", help="a network that gpunn train saved")


def add_data(
    parser: ArgumentParser, *, default: str | None = None, optional: bool = False, more: str = ""
) -> None:
    """Add the data, which must be given unless there is a default or none are needed."""
    kinds = DATA + more
    if optional:
        parser.add_argument("data", metavar="DATA", nargs="?", help=kinds)
    elif default is None:
        parser.add_argument("data", metavar="DATA", help=kinds)
    else:
        kinds += f" (default: {default})"
        parser.add_argument("data", metavar="DATA", nargs="?", default=default, help=kinds)
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder that holds the folders mnist and fashion-mnist (default: $GPUNN_DATA_DIR; "
        "without it they are downloaded once)",
    )


def files_of(data: str | None) -> list[str]:
    """Return the files that DATA names, which no result may replace; a known data set has none."""
    return [path for path in (data or "").split(",") if os.path.isfile(path)]


def add_delimiter(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add what stands between the fields of a CSV file."""
    parser.add_argument(
        "--delimiter",
        metavar="CHAR",
        type=_delimiter,
        help="what is between the fields of a CSV file, such as ';' or tab (default: what the file "
        "itself shows)",
    )


def _delimiter(text: str) -> str:
    try:
        return delimiter_of(text)
    except ParameterError as error:
        raise ArgumentTypeError(str(error)) from None


def add_device(parser: ArgumentParser) -> None:
    """Add the device."""
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default="auto",
        help="cpu, cuda, cuda:N, or auto: a GPU if one can be used, else the CPU (default: auto)",
    )


def add_precision(parser: ArgumentParser) -> None:
    """Add the precision of products on a GPU."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="how exactly a GPU multiplies float32 numbers. fp32: as they are. tf32: rounded to 11 "
        "significant bits. bf16: rounded to 8, which takes less memory, too. tf32 and bf16 are "
        "faster, but less exact (default: fp32)",
    )


def add_json(parser: ArgumentParser) -> None:
    """Add the form of the result."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as one line of JSON, and everything else to standard error",
    )
