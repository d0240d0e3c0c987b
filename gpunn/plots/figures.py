"""Figures of matplotlib, which is an extra (``pip install 'gpunn[plots]'``), and their files."""

import os
from pathlib import Path
from typing import Any

from gpunn.errors import MissingPackageError, OutputError, one_line
from gpunn.model_file import replacing


def check_matplotlib() -> None:
    """Raise unless pictures can be drawn.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "pictures need matplotlib, which is not installed: pip install 'gpunn[plots]'"
        ) from error


def new_figure(size: tuple[float, float], heading: str) -> Any:
    """Return an empty figure of that size in inches, which needs no screen."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
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
