"""The picture of ``gpunn parity``: each kind of training with the shares of tolerances it used."""

import math
from collections.abc import Iterator, Sequence

from gpunn.parity.cases import Case
from gpunn.parity.checks import Check
from gpunn.parity.comparison import Comparison
from gpunn.plots.tolerances import Share, save_tolerances

STAGES = {"start": "at the start", "step": "after steps", "epoch": "after epochs"}


def draw(path: str, comparisons: Sequence[Comparison]) -> None:
    """Write the picture of some comparisons.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    OutputError
        If it could not be written.
    """
    save_tolerances(path, list(shares_of(comparisons)), heading_of(comparisons))


def heading_of(comparisons: Sequence[Comparison]) -> str:
    """Return what came of all, in two lines."""
    devices = dict.fromkeys(f"{one.device} and {one.against}" for one in comparisons)
    n, n_wrong = len(comparisons), sum(not one.ok for one in comparisons)
    if n_wrong:
        verdict = f"{n_wrong} of {n} trainings DO NOT AGREE within tolerance"
    else:
        verdict = f"{'all ' if n > 1 else ''}{n} training{'s' * (n > 1)} within tolerance"
    return f"{'; '.join(devices)}\n{verdict}"


def shares_of(comparisons: Sequence[Comparison]) -> Iterator[Share]:
    """Yield the largest share of each stage of each training."""
    several = len({one.case.dtype for one in comparisons}) > 1
    for one in comparisons:
        column = "one sample at a time" if one.case.batch_size == 1 else "in batches"
        for stage, name in STAGES.items():
            checks = [check for check in one.checks if check.stage == stage]
            worst = max(checks, key=_share)
            what = worst.name + ("" if stage == "start" else f", {stage} {worst.number}")
            if several:
                what += f", {one.case.dtype}"
            yield Share(column, *family_of(one.case), name, _share(worst), what)


def _share(check: Check) -> float:
    """Return the share of a check, beyond all tolerance if it failed all the same.

    Each sample's prediction is judged by itself, so one may be wrong where few of them differ.
    """
    return math.inf if check.share <= 1 and not check.ok else check.share


def family_of(case: Case) -> tuple[str, str]:
    """Return what a standard training is there to test: of what kind, and which."""
    if len(case.layer_sizes) > 3:
        return "network", "two hidden layers"
    if not case.biases:
        return "network", "no biases"
    if case.batch_size not in (1, Case.batch_size):
        return "network", f"batches of {case.batch_size}"
    if case.optimizer != Case.optimizer:
        return "optimizer", case.optimizer
    if case.loss != Case.loss:
        return "loss function", case.loss.replace("_", " ")
    return "hidden activation", case.hidden_activation
