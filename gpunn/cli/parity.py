"""``gpunn parity``: whether another device computes the same, as a table."""

import platform
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn import __version__
from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import Backend
from gpunn.cli.console import Console
from gpunn.cli.options import add_data, add_json, add_precision
from gpunn.cli.parity_chart import STAGES, draw
from gpunn.cli.train_data import classes_of, scaling_of
from gpunn.data.formats import load_dataset
from gpunn.data.labels import class_numbers
from gpunn.errors import ParameterError
from gpunn.losses import LOSSES
from gpunn.model_file import check_writable
from gpunn.parallel.alike import describe_ranks
from gpunn.parity.cases import Case, standard_cases
from gpunn.parity.comparison import Comparison, choose_devices, compare
from gpunn.plots.figures import check_matplotlib, check_picture_name
from gpunn.recipes import STANDARD

SAMPLES = 200
ONLINE_SAMPLES = 65
"""Enough for several steps and a last, smaller batch; or for a whole block and a single sample."""


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn parity``."""
    parser.description = (
        "Train the same networks from the same seed on two devices and compare them: after each "
        "step at first, then after each epoch. Each number has a tolerance that follows from its "
        "arithmetic. Without options, this covers every activation and every loss function, in "
        "batches and one sample at a time. Exit status: 0 if all is within tolerance, 1 if not, "
        "2 if there is no second device. Started by mpiexec or srun, it compares all ranks "
        "together with one process."
    )
    add_data(parser, default="digits")
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="the device to test: cuda, cuda:N or cpu (default: cuda; with --against float64, cpu)",
    )
    parser.add_argument(
        "--against",
        metavar="DEVICE",
        default="cpu",
        help="what to compare it with: cpu, cuda:N, or float64: the CPU in float64, which needs no "
        "GPU (default: cpu)",
    )
    parser.add_argument(
        "--activation", choices=ACTIVATIONS, help="only networks with this hidden activation"
    )
    parser.add_argument(
        "--loss",
        choices=LOSSES,
        metavar="LOSS",
        help=f"only networks with this loss function: {', '.join(LOSSES)}",
    )
    parser.add_argument(
        "--mode", choices=["batch", "online"], help="only in batches, or only one sample at a time"
    )
    add_precision(parser)
    parser.add_argument(
        "--out",
        metavar="FILE.png",
        help="draw a chart: how much of its tolerance each training used",
    )
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Train everything twice, on two devices, and compare."""
    if options.out:
        check_matplotlib()
        check_picture_name(options.out)
        check_writable(options.out)
    tested, against = choose_devices(options.device, options.against, options.precision)
    reference = against.describe() if isinstance(against, Backend) else "cpu, float64"
    where = tested.describe()
    if console.ranks.size > 1:
        where, reference = describe_ranks(console.ranks, tested), f"one process on {reference}"
    console.say(f"running on {where}, compared with {reference}")
    inputs, y, n_classes = _samples(options)
    cases = _cases(options, against, inputs.shape[1], n_classes)
    console.say(f"{len(cases)} trainings; the largest differences, as parts of their tolerances")
    console.say(f"  {'at the start':>12} {'in steps':>9} {'in epochs':>9}")
    comparisons = []
    for case in cases:
        n = ONLINE_SAMPLES if case.batch_size == 1 else SAMPLES
        comparison = compare(case, inputs[:n], y[:n], device=tested, against=against)
        comparisons.append(comparison)
        console.say(_row(comparison))
    if options.out and console.ranks.is_first:
        draw(options.out, comparisons)
    result = _result(comparisons, tested, reference)
    console.report(_text(comparisons), result)
    return 0 if result["ok"] else 1


def _samples(options: Namespace) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Return scaled inputs and class numbers of some samples, and how many classes there are."""
    dataset = load_dataset(options.data, options.data_dir, task="classification")
    classes = classes_of(dataset)
    assert classes is not None
    some = np.random.default_rng(0).permutation(len(dataset.labels))[:SAMPLES]
    inputs = scaling_of(dataset, STANDARD).apply(dataset.inputs[some], np.float32)
    return inputs, class_numbers(dataset.labels[some], classes, dataset.name), len(classes)


def _cases(options: Namespace, against: str | Backend, n_inputs: int, n_classes: int) -> list[Case]:
    dtypes = ["float32"]
    if isinstance(against, Backend) and options.precision == "fp32":
        dtypes.append("float64")
    chosen = [
        case
        for dtype in dtypes
        for case in standard_cases(n_inputs, n_classes, dtype)
        if options.activation in (None, case.hidden_activation)
        and options.loss in (None, case.loss)
        and options.mode in (None, "online" if case.batch_size == 1 else "batch")
    ]
    if not chosen:
        raise ParameterError(
            "no training is left: loss functions are tested with tanh in the hidden layer, and "
            "activations with cross_entropy; give --activation or --loss, not both"
        )
    return chosen


def _row(comparison: Comparison) -> str:
    start, step, epoch = (comparison.share(stage) for stage in STAGES)
    verdict = "ok  " if comparison.ok else "FAIL"
    return f"  {start:>12.3f} {step:>9.3f} {epoch:>9.3f}  {verdict}  {comparison.case.name}"


def _text(comparisons: list[Comparison]) -> str:
    n_right = sum(comparison.ok for comparison in comparisons)
    lines = [f"{n_right} of {len(comparisons)} trainings agree within tolerance"]
    for comparison in comparisons:
        wrong = [check for check in comparison.checks if not check.ok]
        if wrong:
            lines += ["", comparison.case.name]
        for check in wrong:
            when = "at the start" if check.stage == "start" else f"{check.stage} {check.number}"
            lines.append(
                f"  {check.name:<16} {when:<12}  difference {check.difference:.3g}, "
                f"tolerance {check.tolerance:.3g}"
            )
    return "\n".join(lines)


def _result(comparisons: list[Comparison], tested: Backend, reference: str) -> dict[str, Any]:
    return {
        "ok": all(comparison.ok for comparison in comparisons),
        "devices": {"tested": tested.describe(), "reference": reference},
        "precision": tested.precision,
        "versions": {
            "gpunn": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "scipy")},
        },
        "cases": [
            {
                "name": comparison.case.name,
                "ok": comparison.ok,
                "devices": [comparison.device, comparison.against],
                "training": asdict(comparison.case),
                "checks": [asdict(check) for check in comparison.checks],
            }
            for comparison in comparisons
        ],
    }
