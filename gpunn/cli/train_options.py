"""The options of ``gpunn train``; `gpunn.cli.train_settings` says what they stand for."""

import math
from argparse import ArgumentParser, ArgumentTypeError

from gpunn.activations import ACTIVATIONS
from gpunn.cli.options import (
    add_data,
    add_delimiter,
    add_device,
    add_json,
    add_precision,
    number,
    whole,
)
from gpunn.cli.train_settings import FEWEST_STEPS, MOST_EPOCHS, SCHEDULES
from gpunn.data.tables.layout import MISSING_RULES, TASKS
from gpunn.losses import LOSSES
from gpunn.optimizers import OPTIMIZERS
from gpunn.parallel.sharing import PARALLEL
from gpunn.recipes import RECIPES
from gpunn.training.fitting import ON_DIVERGENCE


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn train``."""
    parser.description = (
        "Train a network, measure it on samples it has not seen, and save it. Without options it "
        "trains on the built-in digits, with settings that suit most classification tasks."
    )
    add_data(parser, default="digits")
    _add_table(parser)
    _add_network(parser)
    _add_training(parser)
    _add_weights(parser)
    _add_stopping(parser)
    _add_checkpoints(parser)
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--parallel",
        choices=[name for name in PARALLEL if name != "none"],
        default="auto",
        help="how the ranks that mpiexec or srun has started share the network. hidden: each has "
        "some of the units of the one hidden layer. data: each learns from its share of a batch. "
        "auto: hidden with one hidden layer, else data (default: auto)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="where to save the model (default: the name of DATA, such as digits.safetensors)",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write an HTML page about the network and its training; "
        "needs matplotlib and Jinja2: pip install 'gpunn[report]'",
    )
    parser.add_argument("--quiet", action="store_true", help="print only the result")
    add_json(parser)


def _add_table(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("tables (CSV and Parquet files)")
    add = group.add_argument
    add(
        "--target",
        metavar="COLUMN",
        action="append",
        help="the column to learn: its name or its number, where 1 is the first and -1 the last; "
        "repeat it to predict several numbers at once (default: the first column)",
    )
    add(
        "--task",
        choices=TASKS,
        help="whether to learn classes or numbers (default: classes if the column holds words or "
        "at most 100 different whole numbers)",
    )
    add(
        "--ignore",
        metavar="COLUMN",
        action="append",
        help="a column to leave out; repeat it for more",
    )
    add(
        "--missing",
        choices=MISSING_RULES,
        help="what to do with empty fields. mean: put the mean of the column there. zero: put 0 "
        "there. drop: leave out the row (default: refuse the file)",
    )
    add_delimiter(group)


def _add_network(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("network").add_argument
    add(
        "--recipe",
        choices=RECIPES,
        help="a complete set-up from a textbook; other options change parts of it",
    )
    add(
        "--hidden",
        **whole(1),
        action="append",
        help="units in a hidden layer; repeat the option for more layers (default: 100)",
    )
    add(
        "--activation",
        choices=[name for name in ACTIVATIONS if name != "softmax"],
        help="activation of the hidden layers (default: relu)",
    )
    add(
        "--loss",
        choices=LOSSES,
        metavar="LOSS",
        help=f"the loss function: {', '.join(LOSSES)} (default: cross_entropy; for numbers, "
        "squared_error)",
    )
    add(
        "--dtype",
        choices=["float32", "float64"],
        default="float32",
        help="the type of the network's numbers (default: float32)",
    )


def _add_training(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add(
        "--epochs",
        **whole(1),
        help="how often to go through the training samples (default: 20; for small tables as often "
        f"as makes {FEWEST_STEPS:,} steps, at most {MOST_EPOCHS})",
    )
    rates = ", ".join(f"{o.default_learning_rate:g} for {name}" for name, o in OPTIMIZERS.items())
    add("--batch-size", **whole(1), help="samples in one training step (default: 32)")
    add(
        "--lr",
        **number("RATE", open_low=True),
        help=f"learning rate: how far a step goes (default: {rates})",
    )
    add("--optimizer", choices=OPTIMIZERS, help="how gradients change the weights (default: adam)")
    add(
        "--momentum",
        **number("M", 0, 1),
        help="how much of the last step to keep, with sgd, momentum or nesterov (default: 0.9)",
    )
    add(
        "--weight-decay",
        **number("D"),
        default=0.0,
        help="pulls weights towards zero (default: 0)",
    )
    add(
        "--dropout",
        **number("RATE", 0, 1),
        default=0.0,
        help="probability that a hidden unit is left out of a step (default: 0)",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        metavar="SCHEDULE",
        default="constant",
        help="how the learning rate falls. constant: not at all. step: to a tenth, twice. "
        "exponential: to a hundredth at "
        "the end. inverse-scaling: with the square root of the epochs. cosine: to zero "
        "(default: constant)",
    )
    add(
        "--warmup",
        **number("EPOCHS"),
        default=0.0,
        help="number of epochs, such as 0.5, in which the learning rate first rises from zero "
        "(default: 0)",
    )
    add(
        "--seed",
        **whole(0),
        default=0,
        help="the same seed gives the same training again (default: 0)",
    )


def _add_weights(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("weights of samples").add_argument
    add(
        "--class-weight",
        metavar="LABEL=WEIGHT",
        type=_class_weight,
        action="append",
        help="how much each sample of this label counts; repeat it for more labels, the others "
        "count 1. Or balanced: the rarer a class, the more its samples count",
    )
    add(
        "--sample-weight",
        metavar="FILE.npy",
        help="how much each sample of DATA counts: one number for each, in the same order. If "
        "DATA has a test part, only the training part has weights",
    )


def _class_weight(text: str) -> str | tuple[str, float]:
    if text == "balanced":
        return text
    label, _, weight = text.rpartition("=")
    try:
        found = float(weight)
    except ValueError:
        found = -1.0
    if not label or found < 0 or not math.isfinite(found):
        raise ArgumentTypeError(
            "expected balanced, or LABEL=WEIGHT with a label of the data and a number of at "
            f"least 0, such as 3=2.5, got {text!r}"
        )
    return label, found


def _add_stopping(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("validation and stopping").add_argument
    add(
        "--val-fraction",
        **number("F", 0, 1),
        help="part of the training samples, such as 0.1, to keep back for validation after each "
        "epoch",
    )
    add(
        "--early-stopping",
        **whole(1, "PATIENCE"),
        nargs="?",
        const=10,
        help="stop when the validation loss has not improved for this many epochs (10 if no number "
        "is given), and keep the best weights. Without --val-fraction, a tenth of the training "
        "samples is kept back",
    )
    add(
        "--on-divergence",
        choices=ON_DIVERGENCE,
        default="stop",
        help="what to do when the loss of an epoch is NaN or infinite. stop: end with status 1. "
        "halve-lr: go back to the newest checkpoint and continue with half the learning rate "
        "(default: stop)",
    )


def _add_checkpoints(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("checkpoints").add_argument
    add(
        "--checkpoint",
        metavar="DIR",
        help="folder to save the state of the training in, from time to time and at Ctrl-C",
    )
    add(
        "--checkpoint-every",
        metavar="PERIOD",
        help="how often to save it: '5 minutes' (or seconds, hours), '50 steps' or '1 epoch' "
        "(default: 5 minutes)",
    )
    add(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in DIR, or start from the beginning if there is "
        "none. Data and options must be the same",
    )
