"""What the options of ``gpunn train`` stand for: data, recipe, optimizer and where things go."""

import math
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gpunn.data.tables.layout import NO_OPTIONS, TableOptions, Task, table_options
from gpunn.errors import ParameterError
from gpunn.losses import LOSSES
from gpunn.optimizers import (
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

SCHEDULES: dict[str, Callable[[float, int, float], Schedule]] = {
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
    parallel: str = "auto"
    """How several ranks share the network."""
    report: Path | None = None
    """Where a page about the network goes, if there is to be one."""
    typed: str | None = None
    """What the user typed."""

    def make_schedule(self) -> Schedule:
        """Return the learning rate over the epochs."""
        recipe = self.recipe
        return SCHEDULES[self.schedule](recipe.learning_rate, recipe.epochs, self.warmup)

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
        parallel=options.parallel,
        report=None if options.report is None else Path(options.report),
        typed=getattr(options, "typed", None),
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
