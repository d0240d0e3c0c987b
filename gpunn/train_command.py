"""``gpunn train``: data, recipe and options to a trained, measured and saved network."""

import dataclasses
import math
import os
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn import __version__
from gpunn.backend import in_gib
from gpunn.checkpoints import Checkpoints
from gpunn.console import Console, choose_device, plain
from gpunn.data import Dataset, is_table, load_dataset, table_fits
from gpunn.errors import DataError, DivergenceError, OutputError, ParameterError
from gpunn.evaluation import evaluate
from gpunn.history import Callback, EarlyStopping, EpochRecord, History
from gpunn.long_table import LongTable, Prepared, TablePart, go_through
from gpunn.model_file import check_writable
from gpunn.network import Network
from gpunn.optimizers import (
    Optimizer,
    Schedule,
    constant,
    cosine,
    exponential_decay,
    get_optimizer,
    inverse_scaling,
    step_decay,
)
from gpunn.readers import free_memory
from gpunn.recipes import RECIPES, STANDARD, Recipe
from gpunn.rows import Matrix, select
from gpunn.scaling import Scaling, class_numbers
from gpunn.streams import Stream
from gpunn.training import fit

HELD_OUT = 0.2
"""The part of a data set without a test part of its own that is held out for testing."""

# Step sizes that suit an optimizer when nobody says one.
_LEARNING_RATES = {"sgd": 0.1, "momentum": 0.01, "nesterov": 0.01, "adam": 0.001}


_STATUS = {"interrupted": 130, "terminated": 143, "diverged": 1}


class _Progress(Callback):
    """A progress bar on a terminal, and a line for each epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        from tqdm import tqdm

        self.n_epochs = n_epochs
        self.bar = tqdm(
            total=n_epochs * n_samples,
            unit=" samples",
            unit_scale=True,
            leave=False,
            # None: only where standard error is a terminal.
            disable=True if self.console.quiet else None,
        )

    def on_step_end(self, n_samples: int) -> None:
        self.bar.update(n_samples)

    def on_resume(self, n_samples: int) -> None:
        self.bar.n = n_samples
        self.bar.refresh()

    def on_notice(self, text: str) -> None:
        self.bar.clear()
        self.console.say(text)

    def on_streaming(self, reason: str) -> None:
        self.bar.clear()
        self.console.say(f"samples: streamed from the host in each epoch, because {reason}")

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        text = f"epoch {record.epoch:>3}/{self.n_epochs}  training loss {record.train_loss:.6f}"
        if record.validation_loss is not None:
            text += f"  validation loss {record.validation_loss:.6f}"
        if record.validation_accuracy is not None:
            text += f"  validation accuracy {record.validation_accuracy:.4f}"
        self.bar.clear()
        self.console.say(f"{text}  {record.seconds:.1f} s")

    def on_train_end(self, history: History) -> None:
        self.bar.close()


def train(options: Namespace, console: Console) -> int:
    """Train a network, measure it on samples it has not seen, and save it."""
    backend = choose_device(options.device, console, options.precision)
    recipe = _recipe(options)
    out = Path(options.out or _default_name(options))
    check_writable(out)
    checkpoints = _checkpoints(options)
    dataset = _open_data(options)
    classes = classes_of(dataset)
    scaling = scaling_of(dataset, recipe)
    network = recipe.make_network(
        dataset.n_features,
        len(classes),
        dtype=options.dtype,
        device=backend,
        seed=options.seed,
    )
    network.scaling, network.class_labels = scaling, classes.tolist()
    _check_space(out, network)
    n_train, n_test = _counts(dataset)
    console.say(
        f"{dataset.name}: {n_train:,} samples to train on, {n_test:,} held out for testing, "
        f"{len(classes)} classes"
    )
    if where := _where_samples_stay(dataset, network):
        console.say(f"samples: {where}")
    console.say(f"inputs: {scaling.describe()}")
    console.say(f"network: {network!r}, {network.n_parameters:,} parameters")

    # Before the training, so that a bad label in it does not come to light hours later.
    test = _test_part(network, dataset, classes)
    parts = _parts(network, dataset, test, classes, recipe, options, console)
    history = _fit(network, parts, recipe, options, checkpoints, console)
    tested = None if test is None else evaluate(network, test.X, test.y)
    test_accuracy = None if tested is None else tested.accuracy
    # What the last steps did shows in no epoch's error.
    if history.stopped == "diverged" or (tested is not None and not math.isfinite(tested.loss)):
        _say_diverged(history, options)
    result = _train_result(network, parts.samples.n, history, test_accuracy, out)
    network.training_record = {
        **{key: value for key, value in result.items() if key != "model"},
        "gpunn": __version__,
        "data": dataset.name,
        "recipe": options.recipe,
        "settings": {**dataclasses.asdict(recipe), "hidden": list(recipe.hidden)},
        "seed": options.seed,
        "image_shape": None if dataset.image_shape is None else list(dataset.image_shape),
        "history": [dataclasses.asdict(record) for record in history.epochs],
    }
    network.training_record = plain(network.training_record)
    _save(network, out)
    console.report(_train_text(result, history, options), result)
    return _STATUS.get(history.stopped, 0)


def _open_data(options: Namespace) -> Dataset | LongTable:
    """Return the data; a table that does not fit the memory has been gone through once."""
    if is_table(options.data) and not table_fits(options.data):
        return go_through(options.data, HELD_OUT, options.seed)
    return load_dataset(options.data, options.data_dir).split(HELD_OUT, options.seed)


def _counts(dataset: Dataset | LongTable) -> tuple[int, int]:
    if isinstance(dataset, LongTable):
        return dataset.n_train, dataset.n_test
    return len(dataset.labels), 0 if dataset.test_labels is None else len(dataset.test_labels)


def _where_samples_stay(dataset: Dataset | LongTable, network: Network) -> str | None:
    """Say that samples stay on the disk, if they do, and how they are shuffled then."""
    if isinstance(dataset, LongTable):
        n_rows = dataset.buffer_rows(network.dtype)
        shuffle = f"each epoch shuffles {n_rows:,} rows at a time"
        return f"they stay on the disk, because {dataset.why}; {shuffle}"
    if not dataset.stays_on_disk:
        return None
    inputs = dataset.inputs
    n_bytes = inputs.size * inputs.dtype.itemsize
    return (
        f"they stay on the disk, because they take {in_gib(n_bytes)}, which are to fit twice, and "
        f"{in_gib(free_memory())} of memory are free; the shuffle is exact"
    )


def _checkpoints(options: Namespace) -> Checkpoints | None:
    if options.checkpoint is None:
        for name in ("checkpoint_every", "resume"):
            if getattr(options, name):
                raise ParameterError(f"--{name.replace('_', '-')} goes with --checkpoint DIR")
        if options.on_divergence == "halve-lr":
            raise ParameterError("--on-divergence halve-lr goes with --checkpoint DIR")
        return None
    every = options.checkpoint_every or "5 minutes"
    checkpoints = Checkpoints(options.checkpoint, every, options.resume)
    checkpoints.check()
    return checkpoints


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
    recipe = dataclasses.replace(base, **{k: v for k, v in changes.items() if v is not None})
    if options.lr is None and options.optimizer not in (None, base.optimizer):
        # A step size suits an optimizer: one of gradient descent would make Adam leap.
        recipe = dataclasses.replace(recipe, learning_rate=_LEARNING_RATES[options.optimizer])
    if options.recipe and options.activation and options.activation != base.activation:
        # First weights suit an activation, so a recipe's own no longer apply.
        recipe = dataclasses.replace(recipe, initializer=None)
    return recipe


def _optimizer(recipe: Recipe, options: Namespace) -> Optimizer:
    name, momentum = recipe.optimizer, options.momentum
    if momentum is not None and name == "adam":
        raise ParameterError("--momentum goes with --optimizer sgd, momentum or nesterov, not adam")
    if momentum is not None and name == "sgd":
        name = "momentum"
    return get_optimizer(
        name,
        momentum=0.9 if momentum is None else momentum,
        weight_decay=options.weight_decay,
    )


def _schedule(recipe: Recipe, options: Namespace) -> Schedule:
    rate, epochs, warmup = recipe.learning_rate, recipe.epochs, options.warmup
    if options.schedule == "step":
        return step_decay(rate, every=max(1, epochs / 3), warmup=warmup)
    if options.schedule == "exponential":
        return exponential_decay(rate, factor=0.01 ** (1 / epochs), warmup=warmup)
    if options.schedule == "inverse-scaling":
        return inverse_scaling(rate, warmup=warmup)
    if options.schedule == "cosine":
        return cosine(rate, epochs=epochs, warmup=warmup)
    return constant(rate, warmup=warmup)


def _default_name(options: Namespace) -> str:
    stem = Path(options.data.split(",")[0]).name.split(".")[0] or "model"
    return f"{stem}-{options.recipe}.safetensors" if options.recipe else f"{stem}.safetensors"


def classes_of(dataset: Dataset | LongTable) -> NDArray[np.int64]:
    """Return the labels that there are.

    Raises
    ------
    DataError
        If there is only one.
    """
    classes = dataset.classes if isinstance(dataset, LongTable) else np.unique(dataset.labels)
    if len(classes) < 2:
        raise DataError(
            f"{dataset.name}: all training samples have label {classes[0]}; "
            "a classifier needs at least two classes"
        )
    return classes


def scaling_of(dataset: Dataset | LongTable, recipe: Recipe) -> Scaling:
    """Return how a data set's values become a recipe's inputs and targets."""
    ends = {"target_low": recipe.target_low, "target_high": recipe.target_high}
    low, high = recipe.input_low, recipe.input_high
    if dataset.value_range is None:
        inputs = dataset.extremes if isinstance(dataset, LongTable) else dataset.inputs
        return Scaling.per_feature(inputs, low, high, **ends)
    return Scaling.to_range(*dataset.value_range, low, high, **ends)


def _check_space(out: Path, network: Network) -> None:
    needed = network.n_parameters * network.dtype.itemsize
    free = shutil.disk_usage(out.resolve().parent).free
    if free < needed:
        raise OutputError(
            f"cannot write {out}: the model needs {_mebibytes(needed)} and its folder has "
            f"{_mebibytes(free)} free; make room or choose another --out"
        )


class _Samples(NamedTuple):
    """Samples for `fit` and `evaluate`, and how many they are; a stream has its labels in it."""

    X: Matrix | Stream
    y: NDArray[np.int64] | None
    n: int


class _Parts(NamedTuple):
    """What a training is given: samples, samples to validate on, and when to end early."""

    samples: _Samples
    validation: _Samples | None
    early_stopping: EarlyStopping | None


def _parts(
    network: Network,
    dataset: Dataset | LongTable,
    test: _Samples | None,
    classes: NDArray[np.int64],
    recipe: Recipe,
    options: Namespace,
    console: Console,
) -> _Parts:
    fraction, patience = options.val_fraction, options.early_stopping
    if recipe.best_test_epoch and fraction is None and patience is None:
        console.say(
            "validation: on the test samples, and the best epoch is kept, as the recipe's source "
            "did; that flatters the test accuracy a little"
        )
        samples, _ = _training_part(network, dataset, classes, recipe, 0.0, options.seed)
        return _Parts(samples, test, EarlyStopping(recipe.epochs, monitor="accuracy"))
    if fraction is None:
        fraction = 0.0 if patience is None else 0.1
    samples, kept_back = _training_part(network, dataset, classes, recipe, fraction, options.seed)
    if kept_back is not None:
        console.say(f"validation: {kept_back.n:,} of the samples are kept back for it")
    return _Parts(samples, kept_back, None if patience is None else EarlyStopping(patience))


def _training_part(
    network: Network,
    dataset: Dataset | LongTable,
    classes: NDArray[np.int64],
    recipe: Recipe,
    fraction: float,
    seed: int,
) -> tuple[_Samples, _Samples | None]:
    """Return the samples to train on, and a fraction of them kept back."""
    if isinstance(dataset, LongTable):
        return _streamed_part(network, dataset, classes, recipe, fraction)
    n_samples = min(recipe.n_train or len(dataset.labels), len(dataset.labels))
    inputs = dataset.inputs
    if n_samples < len(inputs):
        inputs = select(inputs, np.arange(n_samples))
    X = _scaled(network, dataset, inputs)
    y = class_numbers(dataset.labels[:n_samples], classes, dataset.name)
    if fraction == 0:
        return _Samples(X, y, n_samples), None
    parts = _divide(n_samples, fraction, seed)
    chosen, kept_back = (_Samples(select(X, part), y[part], len(part)) for part in parts)
    return chosen, kept_back


def _scaled(network: Network, dataset: Dataset, inputs: Matrix) -> Matrix:
    rows = network.scaling.rows(inputs, network.dtype)
    return rows if dataset.stays_on_disk else np.asarray(rows)


def _streamed_part(
    network: Network,
    table: LongTable,
    classes: NDArray[np.int64],
    recipe: Recipe,
    fraction: float,
) -> tuple[_Samples, _Samples | None]:
    if recipe.n_train is not None:
        raise ParameterError(
            f"{table.name}: the recipe trains on {recipe.n_train:,} samples, but the file is "
            "larger than the memory; give it a file of as many"
        )
    if fraction == 0:
        return _stream(network, table, table.train, table.n_train, classes), None
    chosen, kept_back = table.train.split(fraction)
    n_kept_back = kept_back.count(table.n_train + table.n_test)
    if not 0 < n_kept_back < table.n_train:
        raise ParameterError(f"--val-fraction {fraction} of {table.n_train} samples leaves none")
    return (
        _stream(network, table, chosen, table.n_train - n_kept_back, classes),
        _stream(network, table, kept_back, n_kept_back, classes),
    )


def _stream(
    network: Network, table: LongTable, part: TablePart, n: int, classes: NDArray[np.int64]
) -> _Samples:
    chunks = Prepared(part, network.scaling, classes, network.dtype)
    fingerprint = f"{table.fingerprint} {part.low:g} {part.high:g}"
    return _Samples(Stream(chunks, n, table.buffer_rows(network.dtype), fingerprint), None, n)


def _divide(
    n_samples: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on, and a random fraction kept back."""
    order = np.random.default_rng([seed, 2]).permutation(n_samples)
    n_kept_back = round(fraction * n_samples)
    if not 0 < n_kept_back < n_samples:
        raise ParameterError(f"--val-fraction {fraction} of {n_samples} samples leaves none")
    # Sorted, so that a recipe that does not shuffle keeps the order of the file.
    return np.sort(order[n_kept_back:]), np.sort(order[:n_kept_back])


def _fit(
    network: Network,
    parts: _Parts,
    recipe: Recipe,
    options: Namespace,
    checkpoints: Checkpoints | None,
    console: Console,
) -> History:
    history = fit(
        network,
        parts.samples.X,
        parts.samples.y,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=_optimizer(recipe, options),
        learning_rate=_schedule(recipe, options),
        validation_data=_as_given(parts.validation),
        early_stopping=parts.early_stopping,
        shuffle=recipe.shuffle,
        seed=[options.seed, 1],
        callbacks=[_Progress(console)],
        checkpoints=checkpoints,
        on_divergence=options.on_divergence,
    )
    weights = "its latest weights"
    if history.restored_best:
        weights = f"the weights of epoch {history.best_epoch}, the best in validation"
    if history.restored_best or history.stopped != "finished":
        console.say(
            f"{history.stopped} after {len(history.epochs)} whole epochs: the network has {weights}"
        )
    return history


def _say_diverged(history: History, options: Namespace) -> None:
    """Raise unless the network was left with weights from before the training diverged."""
    if history.restored_best:
        return
    message = (
        f"the training diverged: in epoch {len(history.epochs)} its error was no finite number; "
        "try a smaller --lr, --warmup 1, or inputs and targets of a smaller range"
    )
    if options.checkpoint is not None:
        message += f"; the last good checkpoint is in {options.checkpoint}"
        message += ", and --on-divergence halve-lr goes back to such a one by itself"
    raise DivergenceError(f"{message}; no model was saved")


def _as_given(samples: _Samples | None) -> Any:
    """Return samples in the form in which `fit` takes those to validate on."""
    if samples is None or samples.y is None:
        return None if samples is None else samples.X
    return samples.X, samples.y


def _test_part(
    network: Network, dataset: Dataset | LongTable, classes: NDArray[np.int64]
) -> _Samples | None:
    if isinstance(dataset, LongTable):
        return _stream(network, dataset, dataset.test, dataset.n_test, classes)
    if dataset.test_inputs is None or dataset.test_labels is None:
        return None
    X = _scaled(network, dataset, dataset.test_inputs)
    y = class_numbers(dataset.test_labels, classes, f"{dataset.name} (test part)")
    return _Samples(X, y, len(y))


def _train_result(
    network: Network, n_train: int, history: History, test_accuracy: float | None, out: Path
) -> dict[str, Any]:
    n_trained = history.n_samples_trained
    return {
        "device": network.backend.name,
        "layer_sizes": list(network.architecture.layer_sizes),
        "parameters": network.n_parameters,
        "epochs": len(history.epochs),
        "stopped": history.stopped,
        "train_samples": n_train,
        "seconds": history.seconds,
        "samples_per_second": n_trained / history.seconds if history.seconds else None,
        "train_loss": history.train_loss[-1] if history.epochs else None,
        "validation_accuracy": history.epochs[-1].validation_accuracy if history.epochs else None,
        "test_accuracy": test_accuracy,
        "model": str(out),
    }


def _train_text(result: dict[str, Any], history: History, options: Namespace) -> str:
    lines = [
        f"trained {history.n_samples_trained:,} samples in {history.seconds:.1f} s "
        f"({result['samples_per_second'] or 0:,.0f} a second)"
    ]
    if result["test_accuracy"] is not None:
        lines.append(f"test accuracy {result['test_accuracy']:.4f}")
    model = result["model"]
    lines += [
        f"saved {model}",
        "",
        "next:",
        f"  gpunn evaluate {model} {options.data}     where is it right and wrong?",
        f"  gpunn backquery {model} --out classes.png     what does a class look like to it?",
    ]
    return "\n".join(lines)


def _save(network: Network, out: Path) -> None:
    """Save the network; if it cannot be saved there, save it where it can, and say so."""
    try:
        network.save(out)
    except OutputError as error:
        rescue = Path(tempfile.gettempdir()) / f"gpunn-rescued-{os.getpid()}.safetensors"
        try:
            network.save(rescue)
        except OutputError:
            # Not there either; what must be mended is the first place.
            raise error from None
        raise OutputError(f"{error}; the trained model is in {rescue} instead") from error


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
