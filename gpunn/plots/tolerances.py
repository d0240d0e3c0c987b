"""How much of their tolerances the differences between two devices use."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpunn.plots.figures import new_figure, save_figure

MARKERS = (
    {"marker": "o", "color": "white", "edgecolor": "0.25", "s": 42},
    {"marker": "s", "color": "#6f9fd8", "edgecolor": "#2f5f98", "s": 38},
    {"marker": "D", "color": "#16324f", "edgecolor": "#16324f", "s": 34},
)
"""Of the stages in order: light, middle and dark, so that they differ in a grey print, too."""

FAULT = "#c1121f"
CROSS = {"marker": "X", "color": FAULT, "edgecolor": "black", "s": 95}

LEAST = 1e-4
"""Shares below this are drawn at the edge."""

BEYOND = 0.1
"""Part of a panel's width that is beyond the limit."""

BEYOND_WITH_LABELS = 0.5

Row = tuple[str, str | None]
"""A group, and a row of it; None is the group's own heading."""


class Share(NamedTuple):
    """How much of its tolerance a difference used.

    Attributes
    ----------
    column, group, row : str
        Where it belongs: a panel, and in it a row under the heading of a group.
    stage : str
        When it was measured; each has a marker of its own.
    share : float
        The difference divided by its tolerance. Above 1 it is too large; infinite if there must be
        none.
    what : str
        What differed, for a label.
    """

    column: str
    group: str
    row: str
    stage: str
    share: float
    what: str

    @property
    def place(self) -> Row:
        """The row that it belongs to."""
        return self.group, self.row

    @property
    def is_wrong(self) -> bool:
        """Whether it is over the limit."""
        return not self.share <= 1


def save_tolerances(path: str | os.PathLike[str], shares: Sequence[Share], heading: str) -> None:
    """Write a picture with a row for each kind of training, and the limit as a line across all.

    In each row, a stage has one marker: the largest share of it. What is over the limit is a cross
    beyond it, which says what it is; the largest share of all has its number.

    Parameters
    ----------
    path : path-like
        Where to, as in `gpunn.plots.figures.save_figure`.
    shares : sequence of Share
        What to draw.
    heading : str
        One over all.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    OutputError
        If the picture could not be written.
    """
    columns = _different(share.column for share in shares)
    stages = _different(share.stage for share in shares)
    drawn, heights = _largest(shares), _heights(shares)
    wrong = {share.place for share in drawn if share.is_wrong}
    width = 2.2 + (5.8 if wrong else 4.0) * len(columns)
    figure = new_figure((width, 1.9 + 0.26 * (1 + max(heights.values()))), heading)
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(columns), sharey=True)))
    for panel, column in zip(panels, columns, strict=True):
        own = [share for share in drawn if share.column == column]
        _set_up(panel, column, _limits(drawn))
        _draw(panel, own, heights, stages)
    if not wrong:
        largest = max(drawn, key=lambda share: share.share)
        _number(panels[columns.index(largest.column)], largest, heights[largest.place])
    _name_rows(panels[0], heights, wrong)
    legend = _legend(panels[0], stages, has_wrong=bool(wrong))
    figure.legend(*legend, loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


def _different(items: Iterable[str]) -> list[str]:
    """Return what is there, each once, in the order of the first time."""
    return list(dict.fromkeys(items))


def _heights(shares: Sequence[Share]) -> dict[Row, float]:
    """Return how far down each row is, and each group's heading."""
    heights: dict[Row, float] = {}
    for group in _different(share.group for share in shares):
        gap = 0.4 if heights else 0.0
        for row in (None, *_different(share.row for share in shares if share.group == group)):
            heights[group, row] = max(heights.values(), default=-1.0) + 1 + gap
            gap = 0.0
    return heights


def _largest(shares: Sequence[Share]) -> list[Share]:
    """Return the largest share of each stage in each row of each column."""
    largest: dict[tuple[str | None, ...], Share] = {}
    for share in sorted(shares, key=lambda share: share.share):
        largest[share.column, *share.place, share.stage] = share
    return list(largest.values())


def _limits(drawn: Sequence[Share]) -> tuple[float, float]:
    """Return the ends of the axis; beyond 1 it is only as long as labels need."""
    smallest = max(min(share.share for share in drawn), LEAST)
    low = math.floor(math.log10(min(smallest, 0.01)))
    beyond = BEYOND_WITH_LABELS if any(share.is_wrong for share in drawn) else BEYOND
    return 10.0**low, 10.0 ** (-low * beyond / (1 - beyond))


def _set_up(panel: Any, column: str, limits: tuple[float, float]) -> None:
    """Prepare a panel: its axis and the limit."""
    panel.set_title(column, fontsize=11)
    panel.set_xscale("log")
    panel.set_xlim(limits)
    ticks = [10.0**n for n in range(round(math.log10(limits[0])), 1)]
    panel.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel("share of the tolerance that the difference uses")
    panel.axvspan(1, limits[1], color="0.9", zorder=0)
    panel.axvline(1, color="black", lw=2, zorder=1)
    at_bottom = {"transform": panel.get_xaxis_transform(), "va": "bottom"}
    panel.text(0.97, 0.004, "limit ", ha="right", **at_bottom)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _draw(
    panel: Any, shares: Sequence[Share], heights: dict[Row, float], stages: list[str]
) -> None:
    """Draw the markers of a panel, each on the thin line of its row."""
    low, high = panel.get_xlim()
    for share in shares:
        height = heights[share.place]
        panel.plot((low, high), (height, height), "0.85", lw=0.8, zorder=0)
        if not share.is_wrong:
            style = MARKERS[stages.index(share.stage) % len(MARKERS)]
            panel.scatter(max(share.share, low), height, zorder=3, clip_on=False, **style)
    worst = {share.place: share for share in sorted(shares, key=lambda share: share.share)}
    for share in (share for share in worst.values() if share.is_wrong):
        # Beyond the limit the axis has no scale: the label says how far it is.
        panel.scatter(high**0.08, heights[share.place], zorder=4, **CROSS)
        says = f"{share.what}: {share.share:,.3g} × tolerance"
        if share.share >= 1000:
            says = f"{share.what}: over 1,000 × tolerance"
        if math.isinf(share.share):
            says = f"{share.what}: must not differ"
        panel.text(
            *(high**0.14, heights[share.place], says),
            **{"va": "center", "fontsize": 8.5, "weight": "bold", "color": FAULT},
        )


def _number(panel: Any, share: Share, height: float) -> None:
    """Write over a marker how large it is."""
    style = {"ha": "center", "fontsize": 8.5, "weight": "bold"}
    at = (max(share.share, panel.get_xlim()[0]), height)
    panel.annotate(f"{100 * share.share:.2g} %", at, (0, 6), textcoords="offset points", **style)


def _name_rows(panel: Any, heights: dict[Row, float], wrong: set[Row]) -> None:
    """Write the names beside the rows; those over the limit stand out."""
    names = [f"\u2717 {row}" if (group, row) in wrong else row or group for group, row in heights]
    panel.set_yticks(list(heights.values()), names)
    panel.set_ylim(max(heights.values()) + 0.6, -0.6)
    for place, text in zip(heights, panel.get_yticklabels(), strict=True):
        if place in wrong:
            text.set_color(FAULT)
        if place in wrong or place[1] is None:
            text.set_weight("bold")


def _legend(panel: Any, stages: list[str], *, has_wrong: bool) -> tuple[list[Any], list[str]]:
    """Return the markers and what they mean."""
    styles = [*MARKERS[: len(stages)], *([CROSS] if has_wrong else [])]
    names = [*stages, *(["over the limit"] if has_wrong else [])]
    return [panel.scatter([], [], **style) for style in styles], names
