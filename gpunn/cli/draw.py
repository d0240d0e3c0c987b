"""``gpunn draw``: a page to draw on, in which a saved network answers."""

from argparse import ArgumentParser, Namespace

from gpunn.cli.console import Console
from gpunn.cli.options import add_json, add_model
from gpunn.cli.saved_network import forget_other_training
from gpunn.drawing.page import draw_page
from gpunn.errors import ParameterError
from gpunn.model_file import check_writable, write_text
from gpunn.network import Network
from gpunn.network.checks import check_weights
from gpunn.network.picture_inputs import picture_field_of


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
    check_weights(network)
    forget_other_training(network)
    try:
        page = draw_page(network)
    except ParameterError as error:
        raise ParameterError(f"{options.model}: {error}") from None
    field = picture_field_of(network)
    if field is not None and field.note is not None:
        console.say(f"pictures: {field.note}")
    write_text(options.out, page)
    n_bytes = len(page.encode())
    result = {"model": options.model, "out": options.out, "bytes": n_bytes}
    size = f"{n_bytes / 1000:,.0f} kB"
    console.report(f"wrote {options.out} ({size}): open it in a browser, and draw", result)
    return 0
