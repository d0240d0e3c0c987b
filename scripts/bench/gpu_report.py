"""What bench_gpu.py found, in words, tables and a picture.

Everything here is made from the plain values of its JSON file, so an old file can be read again.
"""

import statistics
from pathlib import Path

from gpu_machine import in_words
from gpu_verdicts import (
    Values,
    best_other,
    own_absences,
    rate,
    share_of_products,
    timed,
    verdicts,
)
from ratio_plot import add_ratios, finish_axis
from text_table import print_table

COLOURS = {"PyTorch": "#d1495b", "torch.compile": "#edae49", "JAX": "#00798c"}


# Tables.


def print_report(values: Values) -> None:
    """Print everything that was found."""
    for row in values["rows"]:
        _print_row(row, own_absences(row, values))
        print_parts(row)
    for row in values["races"]:
        _print_race(row)
    for row in values["largest"]:
        _print_largest(row)
    print(f"\n{in_words(values['machine'], values['commit'])}")
    print(f"times: {values['timing']}")
    if values["copy_bytes_per_second"]:
        print(f"copying within the device: {values['copy_bytes_per_second'] / 1e9:.0f} GB/s")
    for name, why in values["absent"].items():
        print(f"{name} is not here: {why}")
    for label in values["late"]:
        print(f"not measured, no time left: {label}")
    for failure in values["failures"]:
        print(f"FAILED {failure}")
    _print_verdicts(values)


def _print_row(row: Values, absent: dict[str, str]) -> None:
    lines = [["samples/s", "median", "quartiles", "slowest", "fastest", "gpunn is", "differs by"]]
    runs = timed(row)
    for name, run in runs.items():
        rates = sorted(rate(run, seconds) for seconds in run["seconds"])
        low, _, high = statistics.quantiles(rates * 2, n=4, method="inclusive")
        faster = rate(runs["gpunn"]) / rate(run) if "gpunn" in runs else float("nan")
        numbers = [f"{rate(run):,.0f}", f"{low:,.0f} - {high:,.0f}"]
        numbers += [f"{rates[0]:,.0f}", f"{rates[-1]:,.0f}", f"{faster:.2f} x"]
        lines.append([in_full(name, row), *numbers, _difference(row["agreement"].get(name))])
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


def in_full(name: str, row: Values) -> str:
    """Return a contestant's name, with the mode of torch.compile."""
    return f"{name} ({row['compile_mode']})" if name == "torch.compile" else name


def print_parts(row: Values) -> None:
    """Print where gpunn's step spends its time, if that was measured."""
    parts = row["parts"]
    if "calls" not in parts:
        if parts:
            print(f"where a step's time goes is not known: {parts['failed']}")
        return
    total = sum(part["seconds_a_step"] for part in parts["calls"])
    lines = [["call, one after the other", "calls a step", "us a step", "share"]]
    for part in parts["calls"]:
        seconds = part["seconds_a_step"]
        numbers = [f"{part['calls_a_step']:.3g}", f"{1e6 * seconds:.2f}"]
        lines.append([part["call"], *numbers, f"{seconds / total:.0%}"])
    print_table(f"Where a step's time goes: {row['label']}", lines)
    whole = 1e6 * row["batch"] / rate(row["runs"]["gpunn"])
    launches = parts["launches_a_step"]
    recorded = f", recorded with {launches} launches" if launches else ""
    print(f"all calls {1e6 * total:.2f} us; a whole step {whole:.2f} us{recorded}")


def _print_race(row: Values) -> None:
    if "skipped" in row:
        print(f"\n{row['label']}: skipped, {row['skipped']}")
        return
    lines = [["seconds", "since the process began", "since the first step", "epochs", "accuracy"]]
    for name, run in row["races"].items():
        numbers = [f"{run['seconds_of_process']:.2f}", f"{run['seconds_of_training']:.2f}"]
        accuracy = f"{run['accuracies'][-1]:.4f}" + ("" if run["reached"] else ", NOT REACHED")
        lines.append([in_full(name, row), *numbers, str(run["epochs"]), accuracy])
    print_table(row["label"], lines)
    for name, why in row["absent"].items():
        print(f"{name} is out: {why}")


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
