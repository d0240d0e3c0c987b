"""``gpunn backquery``: what each class looks like to a saved network."""

import math
from argparse import ArgumentParser, Namespace

from gpunn.cli.console import Console
from gpunn.cli.options import add_device, add_json, add_model
from gpunn.cli.saved_network import load
from gpunn.errors import ParameterError
from gpunn.model_file import check_writable
from gpunn.network.backquery import METHODS, best_method
from gpunn.network.class_images import class_images
from gpunn.network.labels import labels_of
from gpunn.network.picture_inputs import picture_field_of
from gpunn.plots.figures import check_matplotlib, check_picture_name, new_figure, save_figure
from gpunn.plots.images import draw_classes

_HEADINGS = {
    "inverse": "What each class looks like to the network, run backwards",
    "gradient": "What the network looks for in each class",
}


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn backquery``."""
    parser.description = (
        "Draw what each class looks like to a saved network of pictures. Needs matplotlib: "
        "pip install 'gpunn[plots]'."
    )
    add_model(parser)
    parser.add_argument("--out", metavar="FILE.png", required=True, help="the picture to write")
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="inverse runs the network backwards, as the textbook does. gradient begins with an "
        "empty picture and changes its pixels until the network sees the class (default: inverse "
        "for sigmoid networks without biases, else gradient)",
    )
    add_device(parser)
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Draw what each class looks like to the network."""
    check_matplotlib()
    check_picture_name(options.out)
    check_writable(options.out, options.model)
    network = load(options, console)
    field = picture_field_of(network)
    if field is None:
        raise ParameterError(
            f"{options.model}: its {network.n_inputs} inputs are not the pixels of a picture, so a "
            "class cannot be drawn"
        )
    if field.note is not None:
        console.say(f"pictures: {field.note}")
    labels = labels_of(network)
    method = options.method or best_method(network)
    images = class_images(network, field, method)
    figure = new_figure((8, 1 + 1.8 * math.ceil(len(images) / 5)), _HEADINGS[method])
    draw_classes(figure.subplots(), images, labels.tolist())
    save_figure(figure, options.out)
    result = {
        "device": network.backend.name,
        "method": method,
        "classes": labels.tolist(),
        "out": options.out,
    }
    console.report(f"drew {len(labels)} classes in {options.out}", result)
    return 0
