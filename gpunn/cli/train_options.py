"""The options of ``gpunn train``, and the settings that they stand for."""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gpunn.activations import ACTIVATIONS
from gpunn.cli.options import add_data, add_device, add_json, add_precision, number, whole
from gpunn.errors import ParameterError
from gpunn.losses import LOSSES
from gpunn.optimizers import (
    OPTIMIZERS,
    Momentum,
    Optimizer,
    Schedule,
    constant,
    cosine,
    default_learning_rate,
    exponential_decay,
    get_optimizer,
    inverse_scaling,
    step_decay,
)
from gpunn.recipes import RECIPES, STANDARD, Recipe
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.fitting import ON_DIVERGENCE
from gpunn.training.weights import ClassWeight

_SCHEDULES: dict[str, Callable[[float, int, float], Schedule]] = {
    "constant": lambda rate, _, warmup: constant(rate, warmup=warmup),
    "step": lambda rate, n, warmup: step_decay(rate, every=max(1, n / 3), warmup=warmup),
    "exponential": lambda rate, n, warmup: exponential_decay(
        rate, factor=0.01 ** (1 / n), warmup=warmup
    ),
    "inverse-scaling": lambda rate, _, warmup: inverse_scaling(rate, warmup=warmup),
    "cosine": lambda rate, n, warmup: cosine(rate, epochs=n, warmup=warmup),
}
"""From the first learning rate, the number of epochs and the warm-up to a schedule."""


@dataclass(frozen=True)
class DataSettings:
    """Which samples there are, and which of them are kept back."""

    data: str
    data_dir: str | None
    seed: int
    val_fraction: float | None
    sample_weight: str | None = None
    """The .npy file of the samples' weights."""
    class_weight: ClassWeight = None
    """Weights by label, or how they are worked out."""


@dataclass(frozen=True)
class Settings:
    """What ``gpunn train`` is to do."""

    source: DataSettings
    recipe: Recipe
    recipe_name: str | None
    optimizer: Optimizer
    schedule: Schedule
    patience: int | None
    on_divergence: str
    checkpoints: Checkpoints | None
    dtype: str
    out: Path
    dropout: float = 0.0


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn train``."""
    parser.description = (
        "Train a network, measure it on samples it has not seen, and save it. Without options it "
        "trains on the built-in digits, with settings that suit most classification tasks."
    )
    add_data(parser, default="digits")
    _add_network(parser)
    _add_training(parser)
    _add_weights(parser)
    _add_stopping(parser)
    _add_checkpoints(parser)
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="where to save the model (default: DATA.safetensors)"
    )
    parser.add_argument("--quiet", action="store_true", help="print only the result")
    add_json(parser)


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
    add("--loss", choices=LOSSES, help="the loss function (default: cross_entropy)")
    add(
        "--dtype",
        choices=["float32", "float64"],
        default="float32",
        help="number type (default: float32)",
    )


def _add_training(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--epochs", **whole(1), help="how often to go through the training samples (default: 20)")
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
        choices=_SCHEDULES,
        default="constant",
        help="how the learning rate falls. step: to a tenth, twice. exponential: to a hundredth at "
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


def _class_weight(text: str) -> str | tuple[int, float]:
    if text == "balanced":
        return text
    label, _, weight = text.partition("=")
    try:
        found = int(label), float(weight)
    except ValueError:
        found = -1, -1.0
    if min(found) < 0 or not math.isfinite(found[1]):
        raise ArgumentTypeError(
            "expected balanced, or LABEL=WEIGHT with a label of the data and a number of at "
            f"least 0, such as 3=2.5, got {text!r}"
        )
    return found


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
        help="folder to save the state of the training in, from time to time and at a signal",
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


def settings_of(options: Namespace) -> Settings:
    """Return what the options of ``gpunn train`` stand for.

    Raises
    ------
    ParameterError
        If some of them do not go together.
    """
    recipe = _recipe(options)
    if options.dropout and recipe.textbook_rule:
        raise ParameterError(
            f"--dropout does not go with --recipe {options.recipe}, whose rule for hidden units "
            "has no dropout; leave out one of the two"
        )
    make_schedule = _SCHEDULES[options.schedule]
    return Settings(
        source=DataSettings(
            data=options.data,
            data_dir=options.data_dir,
            seed=options.seed,
            val_fraction=options.val_fraction,
            sample_weight=options.sample_weight,
            class_weight=_class_weights(options.class_weight or []),
        ),
        recipe=recipe,
        recipe_name=options.recipe,
        optimizer=_optimizer(recipe.optimizer, options.momentum, options.weight_decay),
        schedule=make_schedule(recipe.learning_rate, recipe.epochs, options.warmup),
        patience=options.early_stopping,
        on_divergence=options.on_divergence,
        checkpoints=_checkpoints(options),
        dtype=options.dtype,
        out=Path(options.out or _default_name(options.data, options.recipe)),
        dropout=options.dropout,
    )


def _class_weights(given: list[str | tuple[int, float]]) -> ClassWeight:
    pairs = [pair for pair in given if not isinstance(pair, str)]
    if len(pairs) < len(given):
        if pairs:
            raise ParameterError(
                "--class-weight is either balanced or LABEL=WEIGHT, got both; leave out one"
            )
        return "balanced"
    weights = dict(pairs)
    if len(weights) < len(pairs):
        raise ParameterError("--class-weight: a label has two weights; give each label only one")
    return weights or None


def _recipe(options: Namespace) -> Recipe:
    """Return the recipe with what the command line overrules."""
    base = RECIPES[options.recipe] if options.recipe else STANDARD
    changes = {
        "hidden": tuple(options.hidden) if options.hidden else None,
        "activation": options.activation,
        "loss": options.loss,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "optimizer": options.optimizer,
        "learning_rate": options.lr,
    }
    recipe = replace(base, **{k: v for k, v in changes.items() if v is not None})
    if options.lr is None and options.optimizer not in (None, base.optimizer):
        # A step size suits an optimizer: one of gradient descent would make Adam leap.
        recipe = replace(recipe, learning_rate=default_learning_rate(options.optimizer))
    if options.recipe and options.activation and options.activation != base.activation:
        # First weights suit an activation, so a recipe's own no longer apply.
        recipe = replace(recipe, initializer=None)
    return recipe


def _optimizer(name: str, momentum: float | None, weight_decay: float) -> Optimizer:
    if momentum is not None and name == "sgd":
        name = "momentum"
    optimizer = get_optimizer(
        name,
        momentum=0.9 if momentum is None else momentum,
        weight_decay=weight_decay,
    )
    if momentum is not None and not isinstance(optimizer, Momentum):
        raise ParameterError(f"--momentum needs --optimizer sgd, momentum or nesterov, not {name}")
    return optimizer


def _checkpoints(options: Namespace) -> Checkpoints | None:
    if options.checkpoint is None:
        for name in ("checkpoint_every", "resume"):
            if getattr(options, name):
                raise ParameterError(f"--{name.replace('_', '-')} needs --checkpoint DIR")
        if options.on_divergence == "halve-lr":
            raise ParameterError("--on-divergence halve-lr needs --checkpoint DIR")
        return None
    every = options.checkpoint_every or "5 minutes"
    return Checkpoints(options.checkpoint, every, options.resume)


def _default_name(data: str, recipe: str | None) -> str:
    stem = Path(data.split(",")[0]).name.split(".")[0] or "model"
    return f"{stem}-{recipe}.safetensors" if recipe else f"{stem}.safetensors"
