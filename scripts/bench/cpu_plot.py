"""The picture of what bench_cpu.py found."""

from pathlib import Path

from cpu_baselines import BASELINES
from cpu_results import Row
from ratio_plot import add_ratios, finish_axis

COLOURS = dict(zip(BASELINES, ("#7b5ea7", "#4c4c4c", "#d1495b", "#edae49", "#00798c"), strict=True))


def draw(rows: list[Row], path: Path) -> None:
    """Draw each cell's ratios with their spread, on a log axis, beside the line of equal speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    threads = sorted({row.threads for row in rows})
    cells = list(dict.fromkeys(row.cell for row in rows))
    baselines = [baseline for baseline in BASELINES if any(baseline in row.timings for row in rows)]
    figure, axes = plt.subplots(
        1,
        len(threads),
        figsize=(2.5 + 4.5 * len(threads), 1.8 + 0.36 * len(cells)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, n in zip(axes[0], threads, strict=True):
        for index, baseline in enumerate(baselines):
            here = [row for row in rows if row.threads == n and baseline in row.timings]
            # One below the other, so that their spreads do not hide each other.
            shift = 0.16 * (index - (len(baselines) - 1) / 2)
            add_ratios(
                axis,
                [(row.ratio(baseline), *row.ratio_spread(baseline)) for row in here],
                [cells.index(row.cell) + shift for row in here],
                label=BASELINES[baseline],
                colour=COLOURS[baseline],
                marker="os^Dv"[index],
            )
        finish_axis(axis)
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_axisbelow(True)
        axis.set_title(f"{n} thread{'s' * (n > 1)}")
        axis.set_xlabel("times as fast as")
    axes[0, 0].set_yticks(range(len(cells)), [cell.label for cell in cells])
    axes[0, 0].invert_yaxis()
    figure.suptitle("Training speed of gpunn over others (right of 1: gpunn is faster)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(baselines), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
