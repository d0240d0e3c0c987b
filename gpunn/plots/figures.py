"""Figures of matplotlib, which is an extra (``pip install 'gpunn[plots]'``), and their files."""

import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.errors import MissingPackageError, OutputError, ParameterError, one_line
from gpunn.model_file import replacing


def check_matplotlib(extra: str = "plots") -> None:
    """Raise unless pictures can be drawn; `extra` is what to install.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"pictures need matplotlib, which is not installed: pip install 'gpunn[{extra}]'"
        ) from error


def check_picture_name(path: str | os.PathLike[str]) -> None:
    """Raise unless the ending of a file's name is that of a picture that can be written.

    Raises
    ------
    ParameterError
        If it is not.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    ending = Path(path).suffix.removeprefix(".")
    if ending and ending.lower() not in known:
        raise ParameterError(
            f"{path}: no picture can have the ending .{one_line(ending, 20)}; expected .png, .pdf, "
            ".svg or another of matplotlib's"
        )


def new_figure(size: tuple[float, float], heading: str | None = None) -> Any:
    """Return an empty figure of that size in inches, which needs no screen."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    if heading is not None:
        figure.suptitle(heading)
    return figure


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file, whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : path-like
        Where to; the ending chooses the format, such as ``.png``, ``.pdf`` or ``.svg``.

    Raises
    ------
    OutputError
        If it could not be written.
    """
    kind = Path(path).suffix.removeprefix(".") or "png"
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format=kind)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def axes_for(given: Any, n: int, size: tuple[float, float]) -> list[Any]:
    """Return the axes to draw on: those that a caller has given, or new ones of ``pyplot``.

    Parameters
    ----------
    given : matplotlib.axes.Axes, a sequence of them, or None
        What the caller has given.
    n : int
        How many are needed, side by side.
    size : (float, float)
        Width and height of each new one, in inches.

    Raises
    ------
    ParameterError
        If another number of axes was given.
    MissingPackageError
        If matplotlib is not installed.
    """
    check_matplotlib()
    if given is None:
        from matplotlib import pyplot

        _, axes = pyplot.subplots(
            1, n, figsize=(n * size[0], size[1]), squeeze=False, layout="constrained"
        )
        return list(axes[0])
    from matplotlib.axes import Axes

    found = np.atleast_1d(np.asarray(given, object)).ravel().tolist()
    wrong = [each for each in found if not isinstance(each, Axes)]
    if wrong:
        raise ParameterError(f"axes: expected axes of matplotlib, got {wrong[0]!r:.60}")
    if len(found) != n:
        raise ParameterError(f"axes: expected {n} axes to draw on, got {len(found)}")
    return found


def literal(text: object, limit: int = 30) -> str:
    """Return a stranger's text as one short line that matplotlib draws as it is, without maths."""
    return one_line(text, limit).replace("$", r"\$")


def as_svg(figure: Any, name: str) -> str:
    """Return a figure as an SVG element for a page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    name : str
        Another one for each figure of a page, so that no two use the same ids.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # The page's reader has fonts of their own for names in other scripts.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = re.search(r"<svg.*</svg>", text.getvalue(), re.DOTALL)
    assert found is not None
    return found[0]
