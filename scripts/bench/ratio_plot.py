"""What the pictures of several benchmarks have in common: ratios with their spread, by place."""

from collections.abc import Sequence
from typing import Any


def add_ratios(
    axis: Any,
    ratios: Sequence[tuple[float, float, float]],
    places: Sequence[float],
    *,
    label: str,
    colour: str,
    marker: str = "o",
) -> None:
    """Draw each ratio, with its lowest and its highest value, at its place."""
    axis.errorbar(
        [middle for middle, _, _ in ratios],
        places,
        xerr=[
            [middle - low for middle, low, _ in ratios],
            [high - middle for middle, _, high in ratios],
        ],
        fmt=marker,
        color=colour,
        markersize=5,
        linewidth=1,
        label=label,
    )


def finish_axis(axis: Any) -> None:
    """Make the axis of ratios a log axis, and mark where both are equally fast."""
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
