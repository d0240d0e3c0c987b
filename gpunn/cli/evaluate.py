"""``gpunn evaluate``: how right a saved network is, and which classes it confuses."""

import math
from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.cli.measured import Measured, Source, samples_to_measure
from gpunn.cli.options import add_data, add_delimiter, add_device, add_json, add_model
from gpunn.cli.saved_network import load
from gpunn.errors import counted, one_line
from gpunn.network import Network
from gpunn.network.labels import labels_of, target_names_of
from gpunn.training.evaluation import evaluate
from gpunn.training.scores import ClassScorer, Confusion, NumberScorer


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn evaluate``."""
    parser.description = (
        "Measure a saved network: its accuracy, a table by class, and which classes it confuses; "
        "or, if it predicts numbers, R^2 and the root mean squared error. If the data have a test "
        "part, only that part is used."
    )
    add_model(parser)
    add_data(parser)
    add_delimiter(parser)
    add_device(parser)
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Measure a model on samples with labels, or with the numbers that it is to predict."""
    network = load(options, console)
    measured = samples_to_measure(Source.of(options), network, console)
    if network.output_scaling is None:
        text, result = _measure_classes(network, measured)
    else:
        text, result = _measure_numbers(network, measured)
    if caution := measured.caution(network):
        console.say(f"caution: {caution}")
    heading = f"{measured.name}, {measured.part}: {counted(result['samples'], 'sample')}"
    console.report(f"{heading}\n{text}", {"device": network.backend.name, **result})
    return 0


def _measure_classes(network: Network, measured: Measured) -> tuple[str, dict[str, Any]]:
    classes = labels_of(network)
    scorer, loss, n_samples = ClassScorer(len(classes)), 0.0, 0
    for X, y, _ in measured.parts(network):
        outcome = evaluate(network, X, y)
        scorer.add(np.asarray(outcome.outputs).argmax(axis=1), y)
        n_samples += len(y)
        loss += (outcome.loss - loss) * (len(y) / n_samples)
    confusion = scorer.confusion()
    matrix = confusion.matrix()
    result = {
        "samples": n_samples,
        "accuracy": confusion.accuracy,
        "loss": loss,
        "classes": _by_class(confusion, classes),
        "confusion_matrix": matrix.tolist(),
    }
    return _evaluation_text(result, matrix, classes), result


def _measure_numbers(network: Network, measured: Measured) -> tuple[str, dict[str, Any]]:
    scorer, loss, n_samples = NumberScorer(network), 0.0, 0
    for X, y, _ in measured.parts(network):
        outcome = evaluate(network, X, y)
        scorer.add(np.asarray(outcome.outputs), y)
        n_samples += len(y)
        loss += (outcome.loss - loss) * (len(y) / n_samples)
    scores = scorer.scores()
    names = target_names_of(network)
    by_target = list(zip(names, scores.r2_of_each, scores.rmse_of_each, strict=True))
    each = [{"target": name, "r2": float(r2), "rmse": float(rmse)} for name, r2, rmse in by_target]
    result = {
        "samples": n_samples,
        "loss": loss,
        "r2": scores.r2,
        "rmse": scores.rmse,
        "targets": each,
    }
    lines = [f"{numbers_text(scores.r2, scores.rmse)}, loss {loss:.6f}"]
    if len(each) > 1:
        lines = [f"mean {numbers_text(scores.r2)}, loss {loss:.6f}"]
        lines += [
            f"{one_line(name, 40)}: {numbers_text(float(r2), float(rmse))}"
            for name, r2, rmse in by_target
        ]
    lines += ["", "R^2: the share of the variance that is predicted; 1 is best, 0 is the mean"]
    lines += ["RMSE: the root of the mean squared error, in the units of the data"]
    return "\n".join(lines), result


def numbers_text(r2: float, rmse: float | None = None) -> str:
    """Return in words how well numbers are predicted."""
    text = "R^2 undefined, for all true numbers are the same" if math.isnan(r2) else f"R^2 {r2:.4f}"
    return text if rmse is None else f"{text}, RMSE {rmse:.6g}"


def _by_class(confusion: Confusion, classes: NDArray[Any]) -> list[dict[str, Any]]:
    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    columns = (confusion.samples, confusion.right, confusion.answers)
    return [
        {
            "label": label,
            "samples": samples,
            "right": right,
            "recall": share(right, samples),
            "precision": share(right, answers),
        }
        for label, samples, right, answers in zip(
            classes.tolist(), *(column.tolist() for column in columns), strict=True
        )
    ]


def _evaluation_text(
    result: dict[str, Any], confusion: NDArray[np.int64], classes: NDArray[Any]
) -> str:
    names = [one_line(label, 30) for label in classes.tolist()]
    longest = max(5, *map(len, names))
    lines = [
        f"accuracy {result['accuracy']:.4f}, loss {result['loss']:.6f}",
        "",
        f"{'class':<{longest}}   samples   right   recall   precision",
    ]
    for name, row in zip(names, result["classes"], strict=True):
        recall, precision = (
            "-" if row[key] is None else f"{row[key]:.4f}" for key in ("recall", "precision")
        )
        lines.append(
            f"{name:>{longest}}{row['samples']:>10}{row['right']:>8}{recall:>9}{precision:>12}"
        )
    lines += ["", "recall: the share of this class that was recognised"]
    lines += ["precision: the share of samples predicted as this class that belong to it"]
    width = max(6, len(str(confusion.max())) + 2, *(len(name) + 2 for name in names))
    lines += ["", "confusion matrix (row: the true class, column: the predicted class)"]
    lines.append(" " * (longest + 1) + "".join(f"{name:>{width}}" for name in names))
    for name, counts in zip(names, confusion, strict=True):
        lines.append(f"{name:>{longest + 1}}" + "".join(f"{n:>{width}}" for n in counts))
    return "\n".join(lines)
