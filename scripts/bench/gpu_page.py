"""The tables of a run of bench_gpu.py in the page for readers, docs/benchmarks/gpu.md."""

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from gpu_machine import in_words
from gpu_verdicts import Values, best_other, rate, timed

BEGIN, END = "<!-- tables: bench_gpu.py --page -->", "<!-- end of tables -->"
OTHERS = ("PyTorch", "torch.compile", "JAX")


def with_tables(page: str, values: Values, file: str) -> str:
    """Return a page with the tables of a run, which a file beside it holds, in their place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(values, file)}\n\n{END}{after}"


def tables(values: Values, file: str) -> str:
    """Return what a run found, as Markdown."""
    values = {"races": [], **values}
    machine = in_words(values["machine"], values["commit"])
    date = datetime.fromisoformat(values["date"])
    day = f"{date.day} {date:%B %Y}"
    facts = f"{machine}, on {day}. [{file}]({file}) has every repetition and every check."
    found = [speeds(values), *races(values), *widths(values)]
    words = [lacking(values), promises(values), limits(values)]
    return "\n\n".join([wrapped(facts), *found, *map(wrapped, words)])


def wrapped(text: str) -> str:
    """Return a paragraph in lines as long as those of the pages."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(lines: list[list[str]]) -> str:
    head, *others = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *others])


def speeds(values: Values) -> str:
    """Return the table of samples a second."""
    rows = {row["label"]: row for row in values["rows"]}
    names = [name for name in OTHERS if any(name in timed(row) for row in rows.values())]
    lines = [["samples a second", "gpunn", *names, "gpunn is"]]
    lines += [
        [label.replace("batch 1,", "one at a time,"), *speeds_of(rows[label], names)]
        for label in (asked["label"] for asked in values["asked"])
        if label in rows
    ]
    return table(lines)


def speeds_of(row: Values, names: list[str]) -> list[str]:
    """Return the numbers of a row: speeds, and gpunn's over the best other's."""
    runs, best = timed(row), best_other(row)
    cells = [rounded(rate(runs[name])) if name in runs else "-" for name in ("gpunn", *names)]
    if best is None or "gpunn" not in runs:
        return [*cells, "-"]
    ratio = rate(runs["gpunn"]) / rate(runs[best])
    text = f"{ratio:.2f} x {best}"
    return [*cells, text if ratio >= 1 else f"**{text}**"]


def rounded(number: float) -> str:
    """Return a number with three digits that count."""
    return f"{float(f'{number:.3g}'):,.0f}"


def races(values: Values) -> Iterator[str]:
    """Yield a table for each training to an accuracy."""
    for row in values["races"]:
        if row.get("races"):
            lines = [[row["label"], "seconds, with imports", "from the first step", "epochs"]]
            for name, run in row["races"].items():
                seconds = (run["seconds_of_process"], run["seconds_of_training"])
                epochs = str(run["epochs"]) if run["reached"] else "not reached"
                lines.append([name, *(f"{number:.1f}" for number in seconds), epochs])
            yield table(lines)


def widths(values: Values) -> Iterator[str]:
    """Yield a table of the largest hidden layers, if there are any."""
    lines = [["units", "gpunn", "PyTorch", "gpunn is"]]
    for row in values["largest"]:
        found = [row.get(name, {}).get("trained") for name in ("gpunn", "PyTorch")]
        if all(found):
            millions = [f"{number / 1e6:.2f} million" for number in found]
            lines.append([row["label"], *millions, f"{found[0] / found[1]:.2f} x"])
    if len(lines) > 1:
        yield table(lines)


def lacking(values: Values) -> str:
    """Return a sentence on who and what is missing."""
    found = [f"{name} ({why})" for name, why in values["absent"].items()]
    found += [f"{row['label']} ({row['skipped']})" for row in values["races"] if "skipped" in row]
    found += [f"{label} (no time left)" for label in values["late"]]
    return f"This run lacks {'; '.join(found)}." if found else "This run lacks nothing."


def promises(values: Values) -> str:
    """Return a sentence on how many of the promises of that time were kept."""
    measured = [verdict for verdict in values["verdicts"] if verdict["held"] is not None]
    kept = sum(verdict["held"] for verdict in measured)
    return f"Of the {len(measured)} promises that were measured, it kept {kept}."


def limits(values: Values) -> str:
    """Return a sentence on what the GPU itself can do."""
    best: dict[str, float] = {}
    for row in values["rows"]:
        for product in row["products"].values():
            fastest = product["flops"] / min(v for k, v in product.items() if k != "flops")
            best[row["precision"]] = max(best.get(row["precision"], 0.0), fastest)
    parts = [f"{flops / 1e12:.3g} TFLOP/s in {precision}" for precision, flops in best.items()]
    text = f"The limits: copying within the device ran at {copied(values)}"
    return f"{text}, and the fastest products at {', '.join(parts)}." if parts else f"{text}."


def copied(values: dict[str, Any]) -> str:
    rate = values["copy_bytes_per_second"]
    return "an unknown rate" if rate is None else f"{rate / 1e12:.1f} TB/s"
