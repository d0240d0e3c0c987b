"""The options of ``gpunn train``, and the settings that they stand for."""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

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
from gpunn.data.tables.layout import (
    MISSING_RULES,
    NO_OPTIONS,
    TASKS,
    TableOptions,
    Task,
    table_options,
)
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
from gpunn.recipes import RECIPES, REGRESSION, STANDARD, Recipe
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.fitting import ON_DIVERGENCE

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


FEWEST_STEPS = 2000
"""A network that is trained on a small table makes so many steps, unless epochs are asked for."""

MOST_EPOCHS = 500
"""But it does not go through the table more often than this."""


@dataclass(frozen=True)
class DataSettings:
    """Which samples there are, and which of them are kept back."""

    data: str
    data_dir: str | None
    seed: int
    val_fraction: float | None
    sample_weight: str | None = None
    """The .npy file of the samples' weights."""
    class_weight: Mapping[str, float] | str | None = None
    """Weights by label, as they were typed, or how they are worked out."""
    table: TableOptions = NO_OPTIONS
    """What is to be learnt, and how columns are read."""


@dataclass(frozen=True)
class Settings:
    """What ``gpunn train`` is to do."""

    source: DataSettings
    recipe: Recipe
    recipe_name: str | None
    optimizer: Optimizer
    schedule: str
    warmup: float
    chooses_epochs: bool
    """Whether the number of epochs is left to the data."""
    chooses_loss: bool
    """Whether the loss function follows from what is to be learnt."""
    patience: int | None
    on_divergence: str
    checkpoints: Checkpoints | None
    dtype: str
    out: Path
    dropout: float = 0.0

    def make_schedule(self) -> Schedule:
        """Return the learning rate over the epochs."""
        recipe = self.recipe
        return _SCHEDULES[self.schedule](recipe.learning_rate, recipe.epochs, self.warmup)

    def for_data(self, task: Task, n_samples: int, *, is_table: bool) -> "Settings":
        """Return the settings for what is to be learnt, and from how many samples.

        Raises
        ------
        ParameterError
            If they are not for that.
        """
        recipe = self.recipe
        if self.chooses_epochs and is_table:
            steps = math.ceil(n_samples / recipe.batch_size)
            epochs = min(math.ceil(FEWEST_STEPS / steps), MOST_EPOCHS)
            recipe = replace(recipe, epochs=max(recipe.epochs, epochs))
        if task == "regression":
            recipe = self._for_numbers(recipe)
        return replace(self, recipe=recipe)

    def _for_numbers(self, recipe: Recipe) -> Recipe:
        if self.recipe_name is not None:
            raise ParameterError(
                f"--recipe {self.recipe_name} is for classes, and here are numbers to predict: "
                "leave it out, or choose --task classification"
            )
        if self.source.class_weight is not None:
            raise ParameterError(
                "--class-weight is for classes, and here are numbers to predict: leave it out, or "
                "use --sample-weight"
            )
        if self.chooses_loss:
            recipe = replace(recipe, loss=REGRESSION.loss)
        if LOSSES[recipe.loss].required_activation is not None:
            fitting = [name for name, loss in LOSSES.items() if loss.required_activation is None]
            raise ParameterError(
                f"--loss {recipe.loss} is for classes, and here are numbers to predict: choose "
                f"{', '.join(fitting[:-1])} or {fitting[-1]}"
            )
        return replace(recipe, predicts_numbers=True)


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
        "--out", metavar="FILE", help="where to save the model (default: DATA.safetensors)"
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
        help="the column to learn: its name, or its number, from 1 on or from -1 for the last one; "
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
        help="what to do with missing fields. mean: put the mean of the column there. zero: put 0 "
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
        help="the loss function (default: cross_entropy; for numbers, squared_error)",
    )
    add(
        "--dtype",
        choices=["float32", "float64"],
        default="float32",
        help="number type (default: float32)",
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
    return Settings(
        source=DataSettings(
            data=options.data,
            data_dir=options.data_dir,
            seed=options.seed,
            val_fraction=options.val_fraction,
            sample_weight=options.sample_weight,
            class_weight=_class_weights(options.class_weight or []),
            table=table_options(
                options.target,
                options.task,
                options.ignore or (),
                options.missing,
                options.delimiter,
            ),
        ),
        recipe=recipe,
        recipe_name=options.recipe,
        optimizer=_optimizer(recipe.optimizer, options.momentum, options.weight_decay),
        schedule=options.schedule,
        warmup=options.warmup,
        chooses_loss=options.loss is None,
        chooses_epochs=options.epochs is None and options.recipe is None,
        patience=options.early_stopping,
        on_divergence=options.on_divergence,
        checkpoints=_checkpoints(options),
        dtype=options.dtype,
        out=Path(options.out or _default_name(options.data, options.recipe)),
        dropout=options.dropout,
    )


def _class_weights(given: list[str | tuple[str, float]]) -> Mapping[str, float] | str | None:
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
