"""``gpunn draw``: a page to draw on, in which a saved network answers."""

import os
from argparse import ArgumentParser, Namespace

from gpunn.cli.console import Console
from gpunn.cli.options import add_json, add_model
from gpunn.drawing.page import draw_page
from gpunn.errors import OutputError, ParameterError, one_line
from gpunn.model_file import check_writable, replacing
from gpunn.network import Network


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn draw``."""
    parser.description = (
        "Make a web page to draw on, in which a saved network answers while you draw. The network "
        "is in the page: open the file in any browser, also on a phone. Nothing is sent anywhere."
    )
    add_model(parser)
    parser.add_argument("--out", metavar="FILE.html", required=True, help="the page to write")
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Write a page to draw on, in which the network answers."""
    check_writable(options.out, options.model)
    network = Network.load(options.model, "cpu")
    try:
        page = draw_page(network).encode()
    except ParameterError as error:
        raise ParameterError(f"{options.model}: {error}") from None
    _write(options.out, page)
    result = {"model": options.model, "out": options.out, "bytes": len(page)}
    size = f"{len(page) / 1000:,.0f} kB"
    console.report(f"wrote {options.out} ({size}): open it in a browser, and draw", result)
    return 0


def _write(path: str | os.PathLike[str], page: bytes) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(page)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error
