"""``gpunn backquery``: what each class looks like to a saved network."""

import math
from argparse import ArgumentParser, Namespace

import numpy as np

from gpunn.cli.console import Console
from gpunn.cli.options import add_device, add_json, add_model
from gpunn.cli.saved_network import labels_of, load
from gpunn.errors import ParameterError
from gpunn.model_file import check_writable
from gpunn.network import Network
from gpunn.plots.figures import check_matplotlib
from gpunn.plots.images import save_images


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn backquery``."""
    parser.description = (
        "Run a saved network backwards, from each class to a picture of it, and draw the "
        "pictures. Needs matplotlib: pip install 'gpunn[plots]'."
    )
    add_model(parser)
    parser.add_argument("--out", metavar="FILE.png", required=True, help="the picture to write")
    add_device(parser)
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Draw what each class looks like to the network."""
    check_matplotlib()
    check_writable(options.out)
    network = load(options, console)
    shape = _image_shape(network, options.model)
    labels = labels_of(network)
    targets = np.full((len(labels), len(labels)), 0.01)
    np.fill_diagonal(targets, 0.99)
    images = network.backquery(targets).reshape(-1, *shape)
    save_images(
        options.out,
        images,
        [str(label) for label in labels],
        "What each class looks like to the network",
    )
    result = {"device": network.backend.name, "classes": labels.tolist(), "out": options.out}
    console.report(f"drew {len(labels)} classes in {options.out}", result)
    return 0


def _image_shape(network: Network, model: str) -> tuple[int, int]:
    """Return the rows and columns of the pictures that the network was trained on."""
    shape = network.training_record.get("image_shape")
    if isinstance(shape, list) and len(shape) == 2 and math.prod(shape) == network.n_inputs:
        return shape[0], shape[1]
    side = math.isqrt(network.n_inputs)
    if side * side != network.n_inputs:
        raise ParameterError(
            f"{model}: its {network.n_inputs} inputs are not the pixels of a square picture, "
            "so a class cannot be drawn"
        )
    return side, side
