"""What bench_gpu.py found, in words, tables and a picture.

Everything here is made from the plain values of its JSON file, so an old file can be read again.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratio_plot import add_ratios, finish_axis
from text_table import print_table

Values = dict[str, Any]

TIMING = {
    "cuda": "CUDA events on an idle device before and after each run, the same for everyone",
    "cpu": "wall clock: a rehearsal on the CPU, whose numbers mean nothing",
}
COLOURS = {"PyTorch": "#d1495b", "torch.compile": "#edae49", "JAX": "#00798c"}


def rate(run: Values, seconds: float | None = None) -> float:
    """Return samples a second of a run: the median one's, or that of so many seconds."""
    return float(run["samples"] / (seconds or statistics.median(run["seconds"])))


def timed(row: Values) -> dict[str, Values]:
    """Return the runs that have times, by contestant."""
    return {name: run for name, run in row["runs"].items() if run["seconds"]}


def best_other(row: Values) -> str | None:
    """Return the fastest contestant but gpunn."""
    others = [name for name in timed(row) if name != "gpunn"]
    return max(others, key=lambda name: rate(row["runs"][name]), default=None)


def share_of_products(row: Values) -> float | None:
    """Return the step's rate over that of its products by themselves, at the faster caller's."""
    if not row["products"] or "gpunn" not in timed(row):
        return None
    alone = sum(
        min(v for k, v in product.items() if k != "flops") for product in row["products"].values()
    )
    run = row["runs"]["gpunn"]
    return float(alone / (row["batch"] / rate(run)))


# What was asked, and whether it was held.


def verdicts(values: Values) -> list[Values]:
    """Return, for all that is asked, what was measured and whether it was held.

    ``held`` is None where it could not be measured; ``note`` says why, or beside whom.
    """
    found = {row["label"]: row for row in values["rows"] + values["largest"]}
    result = []
    for asked in values["asked"]:
        row = found.get(asked["label"])
        if row is not None:
            wide = "runs" not in row
            judged = _largest(row) if wide else _row(row, _own_absences(row, values))
        else:
            note = "no time left" if asked["label"] in values["late"] else "failed or not reached"
            judged = [
                (what, asked.get(bound), None, note)
                for bound, what in {
                    "least_ratio": "x the best other",
                    "least_rate": "samples/s",
                    "least_share": "of cuBLAS",
                }.items()
            ]
        result += [
            {
                "row": asked["label"],
                "what": what,
                "asked": bound,
                "measured": measured,
                "held": None if measured is None else measured >= bound,
                "note": note,
            }
            for what, bound, measured, note in judged
            if bound is not None
        ]
    return result


def _row(
    row: Values, own_absences: dict[str, str]
) -> Iterator[tuple[str, float | None, float | None, str]]:
    runs, other = timed(row), best_other(row)
    absent = "; ".join(f"{name}: {why}" for name, why in own_absences.items())
    ours = rate(runs["gpunn"]) if "gpunn" in runs else None
    ratio = ours / rate(runs[other]) if ours and other else None
    note = f"beside {other}" if other else "nobody to compare with"
    yield "x the best other", row["least_ratio"], ratio, f"{note}; {absent}" if absent else note
    yield "samples/s", row["least_rate"], ours, ""
    yield "of cuBLAS", row["least_share"], share_of_products(row), ""


def _largest(row: Values) -> Iterator[tuple[str, float | None, float | None, str]]:
    ours, theirs = row.get("gpunn", {}), row.get("PyTorch", {})
    ratio = None
    if ours.get("trained") and theirs.get("trained"):
        ratio = ours["trained"] / theirs["trained"]
    note = f"{ours.get('trained')} units beside {theirs.get('trained', 'no PyTorch')}"
    yield "x PyTorch's width", row["least_ratio"], ratio, note


def is_good(values: Values) -> bool:
    """Say whether nothing failed and, unless this is a rehearsal, all that is asked was held."""
    failed = values["failures"] or any(
        "gpunn" not in timed(row) or not all(a["same"] for a in row["agreement"].values())
        for row in values["rows"]
    )
    held = all(verdict["held"] for verdict in verdicts(values))
    return not failed and (held or values["rehearsal"])


# Tables.


def print_report(values: Values) -> None:
    """Print everything that was found."""
    for row in values["rows"]:
        _print_row(row, _own_absences(row, values))
    for row in values["largest"]:
        _print_largest(row)
    print(f"\ntimes: {values['timing']}")
    if values["copy_bytes_per_second"]:
        print(f"copying within the device: {values['copy_bytes_per_second'] / 1e9:.0f} GB/s")
    for name, why in values["absent"].items():
        print(f"{name} is not here: {why}")
    for label in values["late"]:
        print(f"not measured, no time left: {label}")
    for failure in values["failures"]:
        print(f"FAILED {failure}")
    _print_verdicts(values)


def _own_absences(row: Values, values: Values) -> dict[str, str]:
    """Return who is absent in this row, but not from the whole run."""
    return {n: why for n, why in row["absent"].items() if n not in values["absent"]}


def _print_row(row: Values, absent: dict[str, str]) -> None:
    lines = [["samples/s", "median", "quartiles", "slowest", "fastest", "gpunn is", "differs by"]]
    runs = timed(row)
    for name, run in runs.items():
        rates = sorted(rate(run, seconds) for seconds in run["seconds"])
        low, _, high = statistics.quantiles(rates * 2, n=4, method="inclusive")
        faster = rate(runs["gpunn"]) / rate(run) if "gpunn" in runs else float("nan")
        numbers = [f"{rate(run):,.0f}", f"{low:,.0f} - {high:,.0f}"]
        numbers += [f"{rates[0]:,.0f}", f"{rates[-1]:,.0f}", f"{faster:.2f} x"]
        lines.append([name, *numbers, _difference(row["agreement"].get(name))])
    print_table(row["label"], lines)
    for name, why in absent.items():
        print(f"{name} is out: {why}")
        if name in row["agreement"]:
            print(f"  differences (found, allowed): {row['agreement'][name]['differences']}")
    share = share_of_products(row)
    if share is not None:
        rates = {
            name: max(p["flops"] / v / 1e12 for k, v in p.items() if k != "flops")
            for name, p in row["products"].items()
        }
        print(", ".join(f"{name} {tera:.3g} TFLOP/s" for name, tera in rates.items()))
        flops = sum(product["flops"] for product in row["products"].values())
        tera = flops * rate(runs["gpunn"]) / row["batch"] / 1e12
        print(f"gpunn's whole step: {tera:.3g} TFLOP/s, {share:.2f} of its products by themselves")


def _difference(agreement: Values | None) -> str:
    if agreement is None:
        return "-"
    worst = max(agreement["differences"].values(), key=lambda pair: pair[0] / pair[1])
    return f"{worst[0]:.1e} of {worst[1]:.1e} allowed"


def _print_largest(row: Values) -> None:
    lines = [["units", "trained", "did not", "tries"]]
    for name in ("gpunn", "PyTorch"):
        if name in row:
            found = row[name]
            lines.append(
                [
                    name,
                    f"{found['trained']:,}",
                    f"{found['failed'] or 0:,}",
                    str(len(found["tries"])),
                ]
            )
    print_table(row["label"], lines)
    for name in ("gpunn", "PyTorch"):
        for hidden, how in row.get(name, {}).get("tries", []):
            print(f"  {name} {hidden:,}: {how[:160]}")


def _print_verdicts(values: Values) -> None:
    lines = [["asked", "at least", "measured", ""]]
    notes = []
    for verdict in verdicts(values):
        word = {True: "held", False: "SHORT", None: "not measured"}[verdict["held"]]
        measured = "-" if verdict["measured"] is None else f"{verdict['measured']:,.2f}"
        name = f"{verdict['row']}: {verdict['what']}"
        lines.append([name, f"{verdict['asked']:,.2f}", measured, word])
        if verdict["note"]:
            notes.append(f"  {verdict['row']}: {verdict['note']}")
    if len(lines) > 1:
        print_table("What is asked", lines)
        print(*notes, sep="\n")
    if values["rehearsal"]:
        print("\na rehearsal on a CPU: these numbers mean nothing")


# The picture.


def draw(values: Values, path: Path) -> bool:
    """Draw how many times as fast gpunn is, with the spread; say whether there was any to draw."""
    rows = [row for row in values["rows"] if "gpunn" in timed(row) and best_other(row)]
    if not rows:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (8.5, 1.8 + 0.42 * len(rows))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for index, (name, colour) in enumerate(COLOURS.items()):
        here = [(place, timed(row)) for place, row in enumerate(rows) if name in timed(row)]
        if here:
            add_ratios(
                axis,
                [_ratio_and_spread(runs["gpunn"], runs[name]) for _, runs in here],
                [place + 0.2 * (index - 1) for place, _ in here],
                label=name,
                colour=colour,
            )
    finish_axis(axis)
    axis.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("times as fast (right of 1: gpunn is faster)")
    where = "a rehearsal: no measurement" if values["rehearsal"] else values["machine"]["name"]
    axis.set_title(f"Training speed of gpunn over others, {where}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def _ratio_and_spread(ours: Values, theirs: Values) -> tuple[float, float, float]:
    """Return the medians' ratio, and the lowest and the highest ratio of any two runs."""
    return (
        rate(ours) / rate(theirs),
        rate(ours, max(ours["seconds"])) / rate(theirs, min(theirs["seconds"])),
        rate(ours, min(ours["seconds"])) / rate(theirs, max(theirs["seconds"])),
    )
