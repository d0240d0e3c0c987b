"""``gpunn train``: data, recipe and options to a trained, measured and saved network."""

import dataclasses
import math
import os
import shlex
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn import __version__
from gpunn.backends.base import Backend
from gpunn.cli.console import Console, choose_device, plain
from gpunn.cli.evaluate import numbers_text
from gpunn.cli.held_out import HeldOut, fingerprint_of
from gpunn.cli.measured import Source, samples_to_measure
from gpunn.cli.options import files_of
from gpunn.cli.progress import Progress
from gpunn.cli.report import write_report
from gpunn.cli.train_data import (
    Data,
    Samples,
    as_given,
    class_weight_of,
    classes_of,
    counts,
    n_outputs_of,
    names_of,
    open_data,
    output_scaling_of,
    scaling_of,
    test_part,
    training_part,
    value_range_of,
    where_samples_stay,
)
from gpunn.cli.train_options import add_options as add_options
from gpunn.cli.train_settings import Settings, settings_of
from gpunn.data.formats import is_pictures
from gpunn.data.picture_records import AS_DIGITS, AS_THEY_ARE
from gpunn.data.tables.task import MANY_CLASSES
from gpunn.errors import DivergenceError, GpunnError, OutputError, ParameterError
from gpunn.model_file import check_writable
from gpunn.network import Network
from gpunn.parallel.alike import check_same
from gpunn.recipes import Recipe
from gpunn.reports.report import check_packages
from gpunn.training.callbacks import EarlyStopping, History
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.evaluation import Evaluation, evaluate
from gpunn.training.fitting import fit, weights_fingerprint
from gpunn.training.scores import NumberScorer, NumberScores
from gpunn.training.streams import Stream

_STATUS = {"interrupted": 130, "terminated": 143, "diverged": 1}


def run(options: Namespace, console: Console) -> int:
    """Train a network, measure it on samples it has not seen, and save it."""
    settings = settings_of(options)
    check_same(console.ranks, "the command", {"what was typed": options.typed})
    if console.ranks.size > 1 and settings.report is not None:
        raise ParameterError(
            "--report is written by one process: leave it out, and run gpunn report without "
            "mpiexec or srun afterwards"
        )
    backend = choose_device(options.device, console, options.precision)
    return _train(settings, backend, console)


def _train(settings: Settings, backend: Backend, console: Console) -> int:
    out = settings.out
    read = (*files_of(settings.source.data), *files_of(settings.source.sample_weight))
    check_writable(out, *read)
    if settings.report is not None:
        check_packages()
        check_writable(settings.report, out, *read)
    if settings.checkpoints is not None:
        settings.checkpoints.check()
    files = fingerprint_of(settings.source.data)
    dataset = open_data(settings.source)
    settings = settings.for_data(
        dataset.task, counts(dataset)[0], is_table=dataset.preparation is not None
    )
    classes = classes_of(dataset)
    network = _new_network(dataset, classes, settings, backend)
    _check_space(out, network)
    _say_what_is_learnt(dataset, classes, network, settings.recipe, console)

    # Before the training, so that a bad label in it does not come to light hours later.
    test = test_part(network, dataset, classes)
    parts = _parts(network, dataset, test, classes, settings, console)
    history = _fit(network, parts, settings, console)
    tested = None if test is None else evaluate(network, test.X, test.y)
    # What the last steps did shows in no epoch's loss.
    if history.stopped == "diverged" or (tested is not None and not math.isfinite(tested.loss)):
        _say_diverged(history, settings.checkpoints)
    figures = _test_figures(network, test, tested)
    result = _train_result(network, parts.samples.n, history, figures, out)
    held_out = HeldOut.of_training(dataset, files, settings.source.seed)
    network.training_record = _record(network, dataset, held_out, settings, result, history)
    _save(network, out)
    if settings.report is not None:
        # The data are read once more, so that there is one way to measure a saved network.
        _write_report(network, history, settings, console)
        result["report"] = str(settings.report)
    data = None if console.quiet else settings.source.data
    are_pictures = dataset.image_shape is not None
    text = _train_text(result, history, data, are_pictures=are_pictures)
    console.report(text, result)
    return _STATUS.get(history.stopped, 0)


def _new_network(
    dataset: Data, classes: NDArray[np.int64] | None, settings: Settings, backend: Backend
) -> Network:
    """Return an untrained network for some data, which knows how they become inputs and targets."""
    recipe = settings.recipe
    network = recipe.make_network(
        dataset.n_features,
        n_outputs_of(dataset, classes),
        dtype=settings.dtype,
        device=backend,
        seed=settings.source.seed,
        parallel=settings.parallel,
    )
    network.scaling = scaling_of(dataset, recipe)
    network.output_scaling = output_scaling_of(dataset)
    network.preparation = dataset.preparation
    if classes is not None:
        network.class_labels = names_of(dataset, classes)
    return network


def _say_what_is_learnt(
    dataset: Data,
    classes: NDArray[np.int64] | None,
    network: Network,
    recipe: Recipe,
    console: Console,
) -> None:
    n_train, n_test = counts(dataset)
    for note in dataset.notes:
        console.say(note)
    console.say(
        f"{dataset.name}: {n_train:,} samples to train on, {n_test:,} held out for testing, "
        + ("numbers to predict" if classes is None else f"{len(classes)} classes")
    )
    if classes is not None and len(classes) > MANY_CLASSES:
        console.say(
            f"classes: {len(classes):,} are many; if they are quantities, predict them with --task "
            "regression"
        )
    if dataset.preparation is not None and dataset.image_shape is not None:
        rows, columns = dataset.image_shape
        console.say(
            f"pictures: the inputs are whole numbers from 0 to 255, so they are taken for "
            f"{columns} x {rows} pixels"
        )
    if where := where_samples_stay(dataset, network, recipe):
        console.say(f"samples: {where}")
    scaling = network.scaling
    inputs = scaling.describe_inputs() if classes is None else scaling.describe()
    console.say(f"inputs: {inputs}")
    console.say(f"network: {network!r}, {network.n_parameters:,} parameters")
    if shares := network.sharing.describe():
        console.say(f"ranks: {shares}")


def _record(
    network: Network,
    dataset: Data,
    held_out: HeldOut | None,
    settings: Settings,
    result: dict[str, Any],
    history: History,
) -> dict[str, Any]:
    """Return what a model's file says of its training."""
    record = {
        **{key: value for key, value in result.items() if key != "model"},
        "gpunn": __version__,
        "data": dataset.name,
        "recipe": settings.recipe_name,
        "settings": _recorded(settings),
        "seed": settings.source.seed,
        "held_out": None if held_out is None else held_out._asdict(),
        "weights": weights_fingerprint(network),
        "image_shape": None if dataset.image_shape is None else list(dataset.image_shape),
        "value_range": value_range_of(dataset),
        "pictures": _kind_of_pictures(settings.source.data),
        "targets": _target_names(network),
        "command": settings.typed,
        "best_epoch": history.best_epoch,
        "restored_best": history.restored_best,
        "history": [dataclasses.asdict(record) for record in history.epochs],
    }
    plain_record: dict[str, Any] = plain(record)
    return plain_record


def _kind_of_pictures(data: str) -> str | None:
    """Return how pictures must be prepared, if not as MNIST's are."""
    if data == "digits":
        return AS_DIGITS
    return AS_THEY_ARE if is_pictures(data) else None


def _target_names(network: Network) -> list[str] | None:
    """Return what the columns that were learnt are called, if they have names."""
    preparation = network.preparation
    if preparation is None or any(column.name is None for column in preparation.targets):
        return None
    return [str(column.name) for column in preparation.targets]


def _test_figures(
    network: Network, test: Samples | None, tested: Evaluation | None
) -> dict[str, float | None]:
    """Return how good the network is on the test samples: accuracy, or R^2 and its error."""
    scores = None
    if network.output_scaling is not None and test is not None and tested is not None:
        scores = _score_numbers(network, test, tested.outputs)
    return {
        "test_accuracy": None if tested is None else tested.accuracy,
        "test_r2": None if scores is None else scores.r2,
        "test_rmse": None if scores is None else scores.rmse,
    }


def _score_numbers(
    network: Network, samples: Samples, outputs: NDArray[Any] | None
) -> NumberScores:
    """Return how well a network predicts some samples, of which a stream has kept no outputs."""
    scorer = NumberScorer(network)
    if outputs is not None and samples.y is not None:
        scorer.add(outputs, samples.y)
    else:
        for X, y in _parts_of(samples):
            scorer.add(network.predict(X), y)
    return scorer.scores()


def _write_report(network: Network, history: History, settings: Settings, console: Console) -> None:
    """Write the report; if it fails, say that the network itself is saved."""
    source, path = settings.source, settings.report
    assert path is not None
    given = Source(source.data, source.data_dir, source.table.delimiter)
    try:
        measured = samples_to_measure(given, network, console)
        write_report(network, history, measured, settings.out.name, path)
    except GpunnError as error:
        raise OutputError(
            f"there is no report: {error}; the network itself is saved in {settings.out}"
        ) from error


def _parts_of(samples: Samples) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Yield inputs and answers, all at once or chunk by chunk."""
    if samples.y is not None:
        yield samples.X, samples.y
    elif isinstance(samples.X, Stream):
        chunks = ((np.asarray(X), np.asarray(y)) for X, y in samples.X.chunks)
        yield from ((X, y) for X, y in chunks if len(X))


def _check_space(out: Path, network: Network) -> None:
    needed = network.n_parameters * network.dtype.itemsize
    free = shutil.disk_usage(out.resolve().parent).free
    if free < needed:
        raise OutputError(
            f"cannot write {out}: the model needs {_mebibytes(needed)} and its folder has "
            f"{_mebibytes(free)} free; make room or choose another --out"
        )


def _recorded(settings: Settings) -> dict[str, Any]:
    """Return the recipe, and what else was asked for, as the model's file has them."""
    source, recipe = settings.source, settings.recipe
    weights: Any = source.class_weight
    if isinstance(weights, Mapping):
        weights = {str(label): weight for label, weight in weights.items()}
    added = {
        "dropout": settings.dropout,
        "class_weight": weights,
        "sample_weight": source.sample_weight,
    }
    return {
        **dataclasses.asdict(recipe),
        "hidden": list(recipe.hidden),
        **{name: value for name, value in added.items() if value},
    }


class _Parts(NamedTuple):
    """What a training is given: samples, those to validate on, and when to end early."""

    samples: Samples
    validation: Samples | None
    early_stopping: EarlyStopping | None


def _parts(
    network: Network,
    dataset: Data,
    test: Samples | None,
    classes: NDArray[np.int64] | None,
    settings: Settings,
    console: Console,
) -> _Parts:
    recipe, seed = settings.recipe, settings.source.seed
    fraction, patience = settings.source.val_fraction, settings.patience
    if recipe.best_test_epoch and fraction is None and patience is None:
        console.say(
            "validation: on the test samples, and the best epoch is kept, as the recipe's source "
            "did; this makes the test accuracy look a little better than it is"
        )
        samples, _ = training_part(network, dataset, classes, recipe, 0.0, seed)
        return _Parts(samples, test, EarlyStopping(recipe.epochs, monitor="accuracy"))
    if fraction is None:
        fraction = 0.0 if patience is None else 0.1
    if patience is not None and fraction == 0:
        raise ParameterError(
            "--early-stopping needs samples to validate on: give --val-fraction a number above 0, "
            "or leave it out for a tenth of the samples"
        )
    samples, kept_back = training_part(network, dataset, classes, recipe, fraction, seed)
    if kept_back is not None:
        console.say(f"validation: {kept_back.n:,} of the samples are kept back")
    return _Parts(samples, kept_back, None if patience is None else EarlyStopping(patience))


def _fit(network: Network, parts: _Parts, settings: Settings, console: Console) -> History:
    history = fit(
        network,
        parts.samples.X,
        parts.samples.y,
        epochs=settings.recipe.epochs,
        batch_size=settings.recipe.batch_size,
        optimizer=settings.optimizer,
        learning_rate=settings.make_schedule(),
        validation_data=as_given(parts.validation),
        early_stopping=parts.early_stopping,
        shuffle=settings.recipe.shuffle,
        seed=[settings.source.seed, 1],
        callbacks=[Progress(console)],
        checkpoints=settings.checkpoints,
        sample_weight=parts.samples.weights,
        class_weight=class_weight_of(settings.source, network),
        dropout=settings.dropout,
        on_divergence=settings.on_divergence,
    )
    weights = "its latest weights"
    if history.restored_best:
        weights = f"the weights of epoch {history.best_epoch}, the best in validation"
    if history.restored_best or history.stopped != "finished":
        console.say(
            f"{history.stopped} after {len(history.epochs)} whole epochs: the network has {weights}"
        )
    return history


def _say_diverged(history: History, checkpoints: Checkpoints | None) -> None:
    """Raise unless the network was left with weights from before the training diverged."""
    if history.restored_best:
        return
    message = (
        f"the training diverged: in epoch {len(history.epochs)} the loss was NaN or infinite; "
        "try a smaller --lr, --warmup 1, or smaller inputs and targets"
    )
    if checkpoints is not None:
        message += f"; the last good checkpoint is in {checkpoints.folder}"
        message += ", and --on-divergence halve-lr goes back to it automatically"
    raise DivergenceError(f"{message}; no model was saved")


def _train_result(
    network: Network,
    n_train: int,
    history: History,
    figures: dict[str, float | None],
    out: Path,
) -> dict[str, Any]:
    n_trained = history.n_samples_trained
    return {
        "device": network.backend.name,
        "ranks": network.sharing.ranks.size,
        "task": "classification" if network.output_scaling is None else "regression",
        "layer_sizes": list(network.architecture.layer_sizes),
        "parameters": network.n_parameters,
        "epochs": len(history.epochs),
        "stopped": history.stopped,
        "train_samples": n_train,
        "seconds": history.seconds,
        "samples_per_second": n_trained / history.seconds if history.seconds else None,
        "train_loss": history.train_loss[-1] if history.epochs else None,
        "validation_accuracy": history.epochs[-1].validation_accuracy if history.epochs else None,
        **figures,
        "model": str(out),
    }


def _train_text(
    result: dict[str, Any], history: History, data: str | None, *, are_pictures: bool
) -> str:
    """Return the result in words and, if the data are named, what could come next."""
    lines = [
        f"trained {history.n_samples_trained:,} samples in {history.seconds:.1f} s "
        f"({result['samples_per_second'] or 0:,.0f} a second)"
    ]
    if result["test_accuracy"] is not None:
        lines.append(f"test accuracy {result['test_accuracy']:.4f}")
    if result["test_r2"] is not None:
        # Numbers of different units have no error together.
        rmse = result["test_rmse"] if result["layer_sizes"][-1] == 1 else None
        lines.append(f"test {numbers_text(result['test_r2'], rmse)}")
    lines.append(f"saved {result['model']}")
    if "report" in result:
        lines.append(f"wrote {result['report']}")
    if data is None:
        return "\n".join(lines)
    model, data = shlex.quote(result["model"]), shlex.quote(data)
    lines += [
        "",
        "next:",
        f"  gpunn evaluate {model} {data}     # where is it right and wrong?",
    ]
    if "report" not in result:
        lines.append(f"  gpunn report {model} {data} --out report.html     # a page about it")
    if are_pictures and result["task"] == "classification":
        lines.append(f"  gpunn draw {model} --out draw.html     # draw, and it answers")
    return "\n".join(lines)


def _save(network: Network, out: Path) -> None:
    """Save the network; if it cannot be saved there, save it where it can, and say so."""
    try:
        network.save(out)
    except OutputError as error:
        process = network.sharing.ranks.same(os.getpid())
        rescue = Path(tempfile.gettempdir()) / f"gpunn-rescued-{process}.safetensors"
        try:
            network.save(rescue)
        except OutputError:
            # Not there either; what must be mended is the first place.
            raise error from None
        raise OutputError(f"{error}; the trained model is in {rescue} instead") from error


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
