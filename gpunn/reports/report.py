"""One HTML file about a trained network, which needs neither a network connection nor a server."""

import html
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.data.picture_records import PictureField
from gpunn.errors import MissingPackageError, ParameterError, one_line
from gpunn.model_file import write_text
from gpunn.network import Network
from gpunn.network.checks import check_network, check_weights
from gpunn.network.labels import labels_of, target_names_of
from gpunn.network.picture_inputs import picture_field_of
from gpunn.plots.figures import check_matplotlib
from gpunn.plots.training import history_svgs
from gpunn.reports import figures, views
from gpunn.reports.findings import Findings, find
from gpunn.reports.importance import N_TIMES, importance_of
from gpunn.reports.past import history_of
from gpunn.reports.views import SAMPLES, SampleNames
from gpunn.training.callbacks import History
from gpunn.training.streams import Stream

_NAME_LENGTH = 40


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes
    ----------
    html : str
        The page.
    """

    html: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, whole or not at all.

        Raises
        ------
        OutputError
            If it could not be written. What was there before is still there.
        """
        write_text(path, self.html)

    def _repr_html_(self) -> str:
        page = html.escape(self.html)
        return f'<iframe srcdoc="{page}" sandbox style="width:100%;height:40em;border:0"></iframe>'


def report(
    network: Network,
    history: History | None = None,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    title: str = "network",
) -> Report:
    """Make a report about a trained network.

    Needs matplotlib and Jinja2: ``pip install 'gpunn[report]'``.

    Parameters
    ----------
    network : Network
        The network.
    history : History, optional
        What `gpunn.fit` returned; by default, what the network's own record says.
    X : array_like, shape (n, n_0), optional
        Inputs to measure the network on, scaled as in training. Without them, the report says
        only what the network itself knows.
    y : array_like, shape (n,) or (n, n_L), optional
        Their class numbers, or targets, scaled as in training.
    title : str
        What the report is about, such as the model's name.

    Returns
    -------
    Report
        Its `save` writes the page to a file.

    Raises
    ------
    ParameterError
        If only one of `X` and `y` is given, or an argument is of another type.
    ShapeError, DataError
        If the samples do not fit the network; see `gpunn.evaluate`.
    MissingPackageError
        If matplotlib or Jinja2 is not installed.
    """
    check_packages()
    _check_types(network, history, X)
    if (X is None) != (y is None):
        raise ParameterError("a report takes X and y together; give both, or neither")
    findings = None
    if X is not None and y is not None:
        network.check_names(X)
        inputs, answers = _on_host(network, X), _on_host(network, y)
        findings = find(network, [(inputs, answers, np.arange(len(answers)))])
    return make_report(network, history, findings, title or "network", "the samples given")


def _check_types(network: Any, history: Any, X: Any) -> None:
    check_network(network)
    check_weights(network)
    if history is not None and not isinstance(history, History):
        raise ParameterError(
            f"history must be a gpunn.History or None, got {type(history).__name__}; samples come "
            "after it: report(network, None, X, y)"
        )
    if isinstance(X, Stream):
        raise ParameterError("a report takes arrays and no Stream; give a part of the samples")


def _on_host(network: Network, values: Any) -> Any:
    return network.backend.to_host(values) if network.backend.owns(values) else values


def check_packages() -> None:
    """Raise unless reports can be made.

    Raises
    ------
    MissingPackageError
        If matplotlib or Jinja2 is not installed.
    """
    check_matplotlib("report")
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "reports need Jinja2, which is not installed: pip install 'gpunn[report]'"
        ) from error


def make_report(
    network: Network,
    history: History | None,
    findings: Findings | None,
    title: str,
    data: str,
    sample_names: SampleNames = SAMPLES,
) -> Report:
    """Return the report of what was found out.

    Parameters
    ----------
    network : Network
        The network.
    history : History or None
        Its training; None to look in the network's record.
    findings : Findings or None
        What samples have shown.
    title, data : str
        What the network, and what the samples are called.
    sample_names : SampleNames
        What a person can find a sample by.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gpunn.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = _view(network, history, findings, sample_names)
    page = environment.get_template("report.html").render(
        title=one_line(title, 100), data=one_line(data, 400), **view
    )
    return Report(page)


def _view(
    network: Network,
    history: History | None,
    findings: Findings | None,
    sample_names: SampleNames,
) -> dict[str, Any]:
    record = network.training_record
    recorded = history_of(record)
    if history is None:
        history = recorded
    elif recorded is None or recorded.epochs != history.epochs:
        record = {}  # It is about another training.
    command = record.get("command")
    field = picture_field_of(network)
    names = _output_names(network)
    classifies = network.predicts_classes
    view: dict[str, Any] = {
        "has_hidden_units": len(network.layers) > 1,
        "guess": None if field is None else field.note,
        "network": repr(network).strip("<>"),
        "n_parameters": f"{network.n_parameters:,}",
        "facts": views.training_facts(record, history),
        "command": command if isinstance(command, str) and command.isprintable() else None,
        "curves": history_svgs(history) if history is not None and history.epochs else [],
        "hidden_units": figures.hidden_units(network),
        "inputs": None if field is not None else figures.weights_by_input(network),
        "class_images": figures.classes(network, field, names) if field and classifies else None,
        "n_classes_drawn": min(len(names), figures.MOST_CLASSES_DRAWN),
        "n_outputs": len(names),
        "classes": None,
        "numbers": None,
        "importance": None,
    }
    if findings is not None:
        view |= {"n_samples": f"{findings.n_samples:,}", "loss": views.number(findings.loss, 6)}
        view["classes"] = _classes(network, findings, names, field, sample_names)
        view["numbers"] = _numbers(network, findings, names)
        is_defined = classifies or findings.scores is None or not math.isnan(findings.scores.r2)
        if field is None and findings.n_samples > 1 and is_defined:
            view["importance"] = _importance(network, findings, classifies=classifies)
    return view


def _output_names(network: Network) -> list[str]:
    """Return what the outputs are called, as a page can show it."""
    is_class = network.predicts_classes
    names = labels_of(network).tolist() if is_class else target_names_of(network)
    return [one_line(name, _NAME_LENGTH) if str(name).strip() else "(empty)" for name in names]


def _classes(
    network: Network,
    findings: Findings,
    names: list[str],
    field: PictureField | None,
    sample_names: SampleNames,
) -> dict[str, Any] | None:
    confusion, mistakes, calibration = findings.confusion, findings.mistakes, findings.calibration
    if confusion is None or mistakes is None:
        return None
    rows, n_left_out = views.class_rows(confusion, names)
    return {
        "accuracy": views.number(confusion.accuracy),
        "n_wrong": f"{confusion.n_samples - int(confusion.right.sum()):,}",
        "rows": rows,
        "n_left_out": n_left_out,
        "matrix": figures.confusion_matrix(confusion, names),
        "pairs": views.mistaken_pairs(confusion, names),
        "mistakes": views.mistake_cards(network, mistakes, names, field, sample_names),
        "how_counted": sample_names.note,
        "calibration": None if calibration is None else figures.reliability(calibration),
        "calibration_error": None if calibration is None else views.number(calibration.error),
        "is_softmax": network.architecture.output_activation == "softmax",
    }


def _numbers(network: Network, findings: Findings, names: list[str]) -> dict[str, Any] | None:
    scores = findings.scores
    if scores is None:
        return None
    return {
        "r2": views.number(scores.r2),
        "rmse": f"{scores.rmse:.6g}" if len(names) == 1 else None,
        "rows": views.number_rows(scores, names),
        "figures": (drawn := figures.true_and_predicted(network, findings, names)),
        "n_not_drawn": len(names) - len(drawn),
    }


def _importance(network: Network, findings: Findings, *, classifies: bool) -> dict[str, Any]:
    (X, y, _), score = findings.some, "accuracy" if classifies else "R²"
    found = importance_of(network, X, y)
    return {
        "figure": figures.importance(found, score),
        "lost": score,
        "n_rows": f"{found.n_samples:,}",
        "n_times": N_TIMES,
        "n_left_out": found.n_left_out,
    }
