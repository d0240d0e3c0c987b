"""The options of ``gpunn train``."""

from argparse import ArgumentParser

from gpunn.activations import ACTIVATIONS
from gpunn.cli.options import add_data, add_device, add_json, add_precision, number, whole
from gpunn.losses import LOSSES
from gpunn.optimizers import OPTIMIZERS
from gpunn.recipes import RECIPES
from gpunn.training.fitting import ON_DIVERGENCE

SCHEDULES = ("constant", "step", "exponential", "inverse-scaling", "cosine")


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn train``."""
    parser.description = (
        "Train a network, measure it on samples it has not seen, and save it. Without options: "
        "on the built-in digits, with settings that suit most classification tasks."
    )
    add_data(parser, default="digits")
    _add_network(parser)
    _add_training(parser)
    _add_stopping(parser)
    _add_checkpoints(parser)
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="where to save the model (default: DATA.safetensors)"
    )
    parser.add_argument("--quiet", action="store_true", help="print the result alone")
    add_json(parser)


def _add_network(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("network").add_argument
    add(
        "--recipe",
        choices=RECIPES,
        help="a whole set-up by name, from a textbook; other options overrule parts of it",
    )
    add(
        "--hidden",
        **whole(1),
        action="append",
        help="units in a hidden layer; repeat it for more layers (default: 100)",
    )
    add(
        "--activation",
        choices=[name for name in ACTIVATIONS if name != "softmax"],
        help="the hidden layers' activation (default: relu)",
    )
    add("--loss", choices=LOSSES, help="the error function (default: cross_entropy)")
    add("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")


def _add_training(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--epochs", **whole(1), help="times to go through the training samples (default: 20)")
    add("--batch-size", **whole(1), help="samples to learn from in one step (default: 32)")
    add(
        "--lr",
        **number("RATE", open_low=True),
        help="the learning rate, how far a step goes (default: 0.001 for adam, 0.1 for sgd)",
    )
    add("--optimizer", choices=OPTIMIZERS, help="how gradients become steps (default: adam)")
    add(
        "--momentum",
        **number("M", 0, 1),
        help="how much of the last step is kept, with sgd, momentum or nesterov (default: 0.9)",
    )
    add(
        "--weight-decay",
        **number("D"),
        default=0.0,
        help="pulls weights towards zero (default: 0)",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        default="constant",
        help="how the learning rate falls: step, to a tenth twice; exponential, to a hundredth in "
        "all; inverse-scaling, with the root of the epochs; cosine, to zero (default: constant)",
    )
    add(
        "--warmup",
        **number("EPOCHS"),
        default=0.0,
        help="let the learning rate rise from zero over so many epochs, which may be a fraction",
    )
    add(
        "--seed",
        **whole(0),
        default=0,
        help="the same number gives the same training again (default: 0)",
    )


def _add_stopping(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("validation and stopping").add_argument
    add(
        "--val-fraction",
        **number("F", 0, 1),
        help="keep this part of the training samples back to validate on after each epoch",
    )
    add(
        "--early-stopping",
        **whole(1, "PATIENCE"),
        nargs="?",
        const=10,
        help="end when the validation loss has not improved for so many epochs (10 if no number "
        "is given), and keep the best weights; a tenth is kept back unless --val-fraction says",
    )
    add(
        "--on-divergence",
        choices=ON_DIVERGENCE,
        default="stop",
        help="when an epoch's error is no finite number: stop, with status 1; or halve-lr, go "
        "back to the newest checkpoint and on with half the learning rate (default: stop)",
    )


def _add_checkpoints(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("checkpoints").add_argument
    add(
        "--checkpoint",
        metavar="DIR",
        help="keep the state of the training in this folder, from time to time and at a signal",
    )
    add(
        "--checkpoint-every",
        metavar="PERIOD",
        help="how often: '5 minutes' (seconds, hours), '50 steps' or '1 epoch' (default: "
        "5 minutes)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in DIR, from the beginning if there is none; data "
        "and options must be the same",
    )
