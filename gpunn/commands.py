"""What the commands of the command line do.

Each takes the parsed options and a `Console`, and returns an exit status. They print for a person;
with ``--json`` the last line of standard output is one JSON object, and all else goes to standard
error.
"""

import csv
import dataclasses
import json
import math
import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn import __version__
from gpunn.backend import Backend
from gpunn.data import Dataset, load_dataset
from gpunn.devices import select_backend
from gpunn.doctor import examine
from gpunn.errors import DataError, OutputError, ParameterError
from gpunn.model_file import check_writable, replacing
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
from gpunn.plots import check_matplotlib, save_images
from gpunn.readers import read_csv_table, read_npy
from gpunn.recipes import RECIPES, STANDARD, Recipe
from gpunn.scaling import Scaling
from gpunn.training import (
    Callback,
    EarlyStopping,
    EpochRecord,
    History,
    evaluate,
    fit,
)

HELD_OUT = 0.2
"""The part of a data set without a test part of its own that is held out for testing."""

# Step sizes that suit an optimizer when nobody says one.
_LEARNING_RATES = {"sgd": 0.1, "momentum": 0.01, "nesterov": 0.01, "adam": 0.001}


class Console:
    """Where lines go: to standard output, or beside it when that is for JSON alone."""

    def __init__(self, *, as_json: bool, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet

    def say(self, text: str = "") -> None:
        """Print a line for a person."""
        if not self.quiet:
            print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def report(self, text: str, result: dict[str, Any]) -> None:
        """Print a command's result: as text, or as one line of JSON."""
        print(json.dumps(_plain(result), allow_nan=False) if self.as_json else text, flush=True)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, which knows no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# train


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
    backend = _backend(options, console)
    recipe = _recipe(options)
    out = Path(options.out or _default_name(options))
    check_writable(out)
    dataset = load_dataset(options.data, options.data_dir).split(HELD_OUT, options.seed)
    classes = _classes(dataset)
    scaling = _scaling(dataset, recipe)
    network = recipe.make_network(
        dataset.n_features,
        len(classes),
        dtype=options.dtype,
        device=backend,
        seed=options.seed,
    )
    network.scaling, network.class_labels = scaling, classes.tolist()
    _check_space(out, network)
    console.say(
        f"{dataset.name}: {len(dataset.labels):,} samples to train on, "
        f"{_count(dataset.test_labels):,} held out for testing, {len(classes)} classes"
    )
    console.say(f"inputs: {scaling.describe()}")
    console.say(f"network: {network!r}, {network.n_parameters:,} parameters")

    parts = _parts(network, dataset, classes, recipe, options, console)
    history = _fit(network, parts, recipe, options, console)
    test = _test_part(network, dataset, classes)
    test_accuracy = None if test is None else evaluate(network, *test).accuracy
    result = _train_result(network, len(parts.y), history, test_accuracy, out)
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
    network.training_record = _plain(network.training_record)
    _save(network, out)
    console.report(_train_text(result, history, options), result)
    return 130 if history.stopped == "interrupted" else 0


def _backend(options: Namespace, console: Console) -> Backend:
    backend, reason = select_backend(options.device)
    console.say(f"running on {backend.describe()}: {reason}")
    return backend


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


def _classes(dataset: Dataset) -> NDArray[np.int64]:
    classes = np.unique(dataset.labels)
    if len(classes) < 2:
        raise DataError(
            f"{dataset.name}: all training samples have label {classes[0]}; "
            "a classifier needs at least two classes"
        )
    return classes


def _class_numbers(
    labels: NDArray[np.int64], classes: NDArray[np.int64], where: str
) -> NDArray[np.int64]:
    """Return which class of the model each label is."""
    order = np.argsort(classes)
    places = np.searchsorted(classes, labels, sorter=order)
    numbers: NDArray[np.int64] = order[places.clip(max=len(classes) - 1)]
    wrong = np.flatnonzero(classes[numbers] != labels)
    if len(wrong):
        known = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
        raise DataError(
            f"{where}: the label of sample {wrong[0] + 1} is {labels[wrong[0]]}, which is out of "
            f"range: the model knows {known}"
        )
    return numbers


def _scaling(dataset: Dataset, recipe: Recipe) -> Scaling:
    ends = {"target_low": recipe.target_low, "target_high": recipe.target_high}
    low, high = recipe.input_low, recipe.input_high
    if dataset.value_range is None:
        return Scaling.per_feature(dataset.inputs, low, high, **ends)
    return Scaling.to_range(*dataset.value_range, low, high, **ends)


def _check_space(out: Path, network: Network) -> None:
    import shutil

    needed = network.n_parameters * network.dtype.itemsize
    free = shutil.disk_usage(out.resolve().parent).free
    if free < needed:
        raise OutputError(
            f"cannot write {out}: the model needs {_mebibytes(needed)} and its folder has "
            f"{_mebibytes(free)} free; make room or choose another --out"
        )


class _Parts(NamedTuple):
    """What a training is given: samples, samples to validate on, and when to end early."""

    X: NDArray[Any]
    y: NDArray[np.int64]
    validation: tuple[NDArray[Any], NDArray[np.int64]] | None
    early_stopping: EarlyStopping | None


def _parts(
    network: Network,
    dataset: Dataset,
    classes: NDArray[np.int64],
    recipe: Recipe,
    options: Namespace,
    console: Console,
) -> _Parts:
    X = network.scaling.apply(dataset.inputs[: recipe.n_train], network.dtype)
    y = _class_numbers(dataset.labels[: recipe.n_train], classes, dataset.name)
    fraction, patience = options.val_fraction, options.early_stopping
    if recipe.best_test_epoch and fraction is None and patience is None:
        console.say(
            "validation: on the test samples, and the best epoch is kept, as the recipe's source "
            "did; that flatters the test accuracy a little"
        )
        best = EarlyStopping(recipe.epochs, monitor="accuracy")
        return _Parts(X, y, _test_part(network, dataset, classes), best)
    if fraction is None:
        fraction = 0.0 if patience is None else 0.1
    stopping = None if patience is None else EarlyStopping(patience)
    if fraction == 0:
        return _Parts(X, y, None, stopping)
    chosen, kept_back = _divide(len(y), fraction, options.seed)
    console.say(f"validation: {len(kept_back):,} of the samples are kept back for it")
    return _Parts(X[chosen], y[chosen], (X[kept_back], y[kept_back]), stopping)


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
    network: Network, parts: _Parts, recipe: Recipe, options: Namespace, console: Console
) -> History:
    history = fit(
        network,
        parts.X,
        parts.y,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=_optimizer(recipe, options),
        learning_rate=_schedule(recipe, options),
        validation_data=parts.validation,
        early_stopping=parts.early_stopping,
        shuffle=recipe.shuffle,
        seed=[options.seed, 1],
        callbacks=[_Progress(console)],
    )
    weights = "its latest weights"
    if history.restored_best:
        weights = f"the weights of epoch {history.best_epoch}, the best in validation"
    if history.restored_best or history.stopped != "finished":
        console.say(
            f"{history.stopped} after {len(history.epochs)} whole epochs: the network has {weights}"
        )
    return history


def _test_part(
    network: Network, dataset: Dataset, classes: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    if dataset.test_inputs is None or dataset.test_labels is None:
        return None
    X = network.scaling.apply(dataset.test_inputs, network.dtype)
    return X, _class_numbers(dataset.test_labels, classes, f"{dataset.name} (test part)")


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


# evaluate


def evaluate_model(options: Namespace, console: Console) -> int:
    """Measure a model on labelled samples: accuracy, a table by class, the confusion matrix."""
    network = _load(options, console)
    dataset = load_dataset(options.data, options.data_dir)
    if options.data == "digits":
        # The very samples that training on the digits held out.
        dataset = dataset.split(HELD_OUT, network.training_record.get("seed", 0))
    part = "all samples"
    inputs, labels = dataset.inputs, dataset.labels
    if dataset.test_inputs is not None and dataset.test_labels is not None:
        inputs, labels, part = dataset.test_inputs, dataset.test_labels, "the test part"
    classes = _labels_of(network)
    y = _class_numbers(labels, classes, dataset.name)
    _check_features(inputs, network, dataset.name)
    outcome = evaluate(network, network.scaling.apply(inputs, network.dtype), y)
    predicted = outcome.outputs.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (y, predicted), 1)
    result = {
        "device": network.backend.name,
        "samples": len(y),
        "accuracy": outcome.accuracy,
        "loss": outcome.loss,
        "classes": _by_class(confusion, classes),
        "confusion_matrix": confusion.tolist(),
    }
    heading = f"{dataset.name}, {part}: {len(y):,} samples"
    console.report(_evaluation_text(heading, result, confusion, classes), result)
    return 0


def _by_class(
    confusion: NDArray[np.int64], classes: NDArray[np.int64]
) -> list[dict[str, float | int | None]]:
    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return [
        {
            "label": int(label),
            "samples": int(confusion[k].sum()),
            "right": int(confusion[k, k]),
            "recall": share(confusion[k, k], confusion[k].sum()),
            "precision": share(confusion[k, k], confusion[:, k].sum()),
        }
        for k, label in enumerate(classes)
    ]


def _evaluation_text(
    heading: str,
    result: dict[str, Any],
    confusion: NDArray[np.int64],
    classes: NDArray[np.int64],
) -> str:
    lines = [
        heading,
        f"accuracy {result['accuracy']:.4f}, loss {result['loss']:.6f}",
        "",
        "class   samples   right   recall   precision",
    ]
    for row in result["classes"]:
        recall, precision = (
            "-" if row[key] is None else f"{row[key]:.4f}" for key in ("recall", "precision")
        )
        lines.append(
            f"{row['label']:>5}{row['samples']:>10}{row['right']:>8}{recall:>9}{precision:>12}"
        )
    lines += ["", "recall: of this class, the share that was recognised"]
    lines += ["precision: of those taken for this class, the share that was"]
    width = max(6, len(str(confusion.max())) + 2)
    lines += ["", "confusion matrix (row: the true class, column: what the network said)"]
    lines.append(" " * 6 + "".join(f"{label:>{width}}" for label in classes))
    for label, row in zip(classes, confusion, strict=True):
        lines.append(f"{label:>6}" + "".join(f"{n:>{width}}" for n in row))
    return "\n".join(lines)


def _load(options: Namespace, console: Console) -> Network:
    backend, reason = select_backend(options.device)
    network = Network.load(options.model, backend)
    console.say(f"running on {backend.describe()}: {reason}")
    return network


def _labels_of(network: Network) -> NDArray[np.int64]:
    return np.asarray(
        range(network.n_outputs) if network.class_labels is None else network.class_labels,
        np.int64,
    )


def _check_features(inputs: NDArray[Any], network: Network, where: str) -> None:
    if inputs.shape[1] != network.n_inputs:
        raise DataError(
            f"{where}: its samples have {inputs.shape[1]} values, but the model takes "
            f"{network.n_inputs}; use the data that it was trained for"
        )


# predict


def predict(options: Namespace, console: Console) -> int:
    """Say which class each sample is, with the network's outputs."""
    network = _load(options, console)
    if options.out:
        check_writable(options.out)
    inputs = _inputs_to_predict(options, network)
    outputs = network.predict(network.scaling.apply(inputs, network.dtype))
    labels = _labels_of(network)
    predictions = labels[outputs.argmax(axis=1)]
    if options.out:
        _write_predictions(Path(options.out), labels, predictions, outputs)
    result = {
        "device": network.backend.name,
        "samples": len(predictions),
        "predictions": predictions.tolist(),
        "out": options.out,
    }
    text = "\n".join(map(str, predictions.tolist()))
    if options.out:
        text = f"wrote {len(predictions):,} predictions to {options.out}"
    console.report(text, result)
    return 0


def _inputs_to_predict(options: Namespace, network: Network) -> NDArray[Any]:
    """Return raw inputs; the files may have labels, which are not looked at, or none."""
    data = options.data
    if data.endswith(".npy") and "," not in data:
        array = read_npy(data)
        inputs = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
    elif data.endswith((".csv", ".csv.gz")):
        table = read_csv_table(data, labelled=False)
        has_labels = table.shape[1] == network.n_inputs + 1
        inputs = table[:, 1:] if has_labels else table
    else:
        dataset = load_dataset(data, options.data_dir)
        inputs = dataset.inputs if dataset.test_inputs is None else dataset.test_inputs
    _check_features(inputs, network, data)
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        row = int(np.argwhere(~np.isfinite(inputs))[0, 0])
        raise DataError(f"{data}: sample {row + 1} holds NaN or infinity; mend or remove it")
    return inputs


def _write_predictions(
    path: Path, labels: NDArray[np.int64], predictions: NDArray[np.int64], outputs: NDArray[Any]
) -> None:
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["prediction", *(f"output_{label}" for label in labels)])
            for prediction, row in zip(predictions, outputs, strict=True):
                writer.writerow([prediction, *(f"{value:.6g}" for value in row)])
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


# backquery


def backquery(options: Namespace, console: Console) -> int:
    """Draw what each class looks like to the network."""
    check_matplotlib()
    check_writable(options.out)
    network = _load(options, console)
    shape = _image_shape(network, options.model)
    labels = _labels_of(network)
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


# info


def info(options: Namespace, console: Console) -> int:
    """Say what this machine offers, and what to do about what is missing."""
    found = examine()
    console.report(_info_text(found), found)
    return 0


def _info_text(found: dict[str, Any]) -> str:
    lines = [found["platform"], "", "packages"]
    for name, version in found["versions"].items():
        lines.append(f"  {name:<14} {version or 'not installed'}")
    cpu = found["cpu"]
    lines += [
        "",
        "processor",
        f"  {cpu['cores']} cores, {_gibibytes(cpu['memory_free'])} of "
        f"{_gibibytes(cpu['memory_total'])} memory free",
    ]
    for blas in found["blas"]:
        use = "used for all products" if blas["used"] else "not used by gpunn"
        lines.append(
            f"  {blas['library']} {blas['version']} ({blas['package']}), "
            f"{blas['threads']} threads: {use}"
        )
    lines += ["", "graphics processors"]
    for gpu in found["gpus"]:
        lines.append(
            f"  {gpu['device']}: {gpu['name']}, compute capability {gpu['compute_capability']}, "
            f"{_gibibytes(gpu['memory_free'])} of {_gibibytes(gpu['memory_total'])} free, "
            f"driver for CUDA {gpu['driver']}, runtime {gpu['runtime']}"
        )
    if not found["gpus"]:
        lines.append("  none that can be used")
    auto = found["auto"]
    lines += ["", f"device auto is {auto['description']}: {auto['reason']}"]
    if found["environment"]:
        lines += ["", "environment"]
        lines += [f"  {name}={value}" for name, value in found["environment"].items()]
    if found["problems"]:
        lines += ["", "to do"]
        lines += [f"  {problem}" for problem in found["problems"]]
    return "\n".join(lines)


def _gibibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"


def _count(labels: NDArray[np.int64] | None) -> int:
    return 0 if labels is None else len(labels)
