"""Who was fastest in a row of bench_gpu.py, what was asked, and whether it was held.

Everything here is made from the plain values of its JSON file, so an old file can be read again.
"""

import statistics
from collections.abc import Iterator
from typing import Any

Values = dict[str, Any]


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
            judged = _largest(row) if wide else _row(row, own_absences(row, values))
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
    row: Values, absences: dict[str, str]
) -> Iterator[tuple[str, float | None, float | None, str]]:
    runs, other = timed(row), best_other(row)
    absent = "; ".join(f"{name}: {why}" for name, why in absences.items())
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


def own_absences(row: Values, values: Values) -> dict[str, str]:
    """Return who is absent in this row, but not from the whole run."""
    return {n: why for n, why in row["absent"].items() if n not in values["absent"]}


def is_good(values: Values) -> bool:
    """Say whether nothing failed and, unless this is a rehearsal, all that is asked was held."""
    failed = values["failures"] or any(
        "gpunn" not in timed(row) or not all(a["same"] for a in row["agreement"].values())
        for row in values["rows"]
    )
    failed = failed or any(
        "skipped" not in row and not row["races"].get("gpunn", {}).get("reached", False)
        for row in values["races"]
    )
    held = all(verdict["held"] for verdict in verdicts(values))
    return not failed and (held or values["rehearsal"])
