"""Measure how fast gpunn trains on an NVIDIA GPU, beside PyTorch, JAX and the GPU's own limits.

    python scripts/bench/bench_gpu.py                  all of it; needs a GPU that does nothing else
    python scripts/bench/bench_gpu.py --seconds 170    in a short run the last rows may be left out
    python scripts/bench/bench_gpu.py --only adam      rows whose name contains a text
    python scripts/bench/bench_gpu.py --device cpu     a rehearsal; its numbers mean nothing
    python scripts/bench/bench_gpu.py --page FILE.json write a run's tables into docs/benchmarks

Exit status: 0 all that is asked was held, 1 something fell short or failed, 2 no usable GPU.
``docs/benchmarks/gpu.md`` says what is measured and how.
"""

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gpu_baselines as baselines
import gpu_page
import gpu_report
from gpu_accuracy import Accuracy
from gpu_baselines import one_line
from gpu_children import events_of, patience
from gpu_largest import Largest, search_largest
from gpu_limits import copy_rate
from gpu_machine import ROOT, describe, in_words
from gpu_plan import LONG_RUN, SHORT, Plan, Row
from gpu_race import race
from gpu_results import Results
from gpu_rows import ROWS, AnyRow, rehearsed
from gpu_runner import EVERYWHERE, Bench, Send
from gpu_verdicts import is_good

from gpunn.backends.select import cuda_problem

# Processes. What breaks a GPU's context, or hangs, takes its whole process with it. So all of this
# is done in a child that says what it begins; if it dies, another goes on without the culprit.


def work(rows: list[Row], barred: dict[str, dict[str, str]], plan: Plan, send: Send) -> None:
    """Measure rows and send what is found."""
    bench = Bench(plan, barred.get(EVERYWHERE, {}), send)
    send(("absent", bench.absent))
    send(("copy", copy_rate(plan, bench.clock)))
    for n_later, row in zip(reversed(range(len(rows))), rows, strict=True):
        if plan.seconds_left() < plan.row_seconds:
            send(("late", row.label))
        else:
            send(("row", row.label, bench.measure(row, barred.get(row.label, {}), n_later)))


def measure_rows(
    rows: Sequence[Row], plan: Plan, take: Send, target: Callable[..., None] = work
) -> None:
    """Measure rows in children and hand on what they send."""
    pending = {row.label: row for row in rows}
    barred: dict[str, dict[str, str]] = {}
    while pending and plan.seconds_left() > 0:
        doing, how = None, ""
        arguments = (list(pending.values()), barred, plan)
        for event in events_of(target, arguments, lambda: patience(plan)):
            if event[0] == "end":
                how = event[1]
                break
            doing = event[1:] if event[0] == "begin" else None
            if event[0] in ("row", "late"):
                del pending[event[1]]
            if doing is None:
                take(event)
        if not pending or plan.seconds_left() <= 0:
            break
        if doing is None or doing[1] in barred.get(doing[0], {}):
            take(("failure", f"the process that measures {how}, and none can be named for it"))
            return
        label, name = doing
        barred.setdefault(label, {})[name] = f"its process {how}"
        take(("failure", f"{label}: the process {how} in the turn of {name}"))
        if name == "gpunn":
            pending = {k: row for k, row in pending.items() if label not in (k, EVERYWHERE)}
    for label in pending:
        take(("late", label))


# The command.


def groups(rows: Sequence[AnyRow]) -> Iterator[list[Row] | Accuracy | Largest]:
    """Yield what goes into one process: rows together, and alone what has processes of its own."""
    together: list[Row] = []
    for row in rows:
        if isinstance(row, Row):
            together.append(row)
            continue
        if together:
            yield together
        yield row
        together = []
    if together:
        yield together


def measure(rows: Sequence[AnyRow], plan: Plan, results: Results) -> None:
    for group in groups(rows):
        if isinstance(group, list):
            measure_rows(group, plan, results.take)
        elif plan.seconds_left() < 2 * plan.row_seconds:
            results.take(("late", group.label))
        elif isinstance(group, Accuracy):
            absent = results.values["absent"]
            results.take(("race", group.label, race(group, plan, absent)))
        else:
            values = results.values
            found = search_largest(group, plan, values["machine"]["memory_free"], values["absent"])
            results.take(("largest", group.label, found))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse")
    parser.add_argument("--only", metavar="TEXT", help="measure rows whose name contains this")
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=baselines.CONTESTANTS,
        default=[*baselines.CONTESTANTS],
        help="who takes part; default: all",
    )
    parser.add_argument(
        "--seconds", type=float, default=1500, help="how long it may take; default: 1500"
    )
    parser.add_argument("--look", action="store_true", help="only print, as JSON, what is here")
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file to write, with a picture beside it; default: docs/benchmarks/gpu-NAME.json,"
        " or nothing with --only or --device cpu, which must not replace a whole run",
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE.json",
        help="measure nothing, but write this run's tables into docs/benchmarks/gpu.md",
    )
    return parser.parse_args()


def look_at(device: str, send: Send) -> None:
    """Send ("problem", why) if there is no such device, else ("machine", what it is)."""
    problem = cuda_problem() if device == "cuda" else None
    send(("machine", describe(device)) if problem is None else ("problem", problem))


def default_out(options: argparse.Namespace, machine: dict[str, Any]) -> Path | None:
    """Return where a whole run's results go, and nothing for any other run."""
    whole = options.seconds >= LONG_RUN and options.only is None and options.device == "cuda"
    if not whole or options.contestants != [*baselines.CONTESTANTS]:
        return None
    name = re.sub("[^a-z0-9]+", "-", machine["name"].lower()).strip("-")
    return ROOT / "docs" / "benchmarks" / f"gpu-{name}.json"


def chosen_rows(options: argparse.Namespace) -> list[AnyRow]:
    """Return the rows that the command line asks for, by importance."""
    rows = list(ROWS)
    if options.device == "cpu":
        # The CPU computes in fp32 alone.
        rows = [rehearsed(row) for row in rows if getattr(row, "precision", "fp32") == "fp32"]
    return [row for row in rows if (options.only or "") in row.label]


def make_plan(options: argparse.Namespace) -> Plan:
    plan = Plan(options.device, time.monotonic() + options.seconds, tuple(options.contestants))
    if options.seconds < LONG_RUN:
        plan = dataclasses.replace(plan, **SHORT)
    if options.device == "cpu":
        tiny = {"n_samples": 2000, "reps": 2, "run_seconds": 0.01, "copy_bytes": 2**24}
        plan = dataclasses.replace(plan, **tiny)
    return plan


def main() -> int:
    options = parse_arguments()
    if options.page is not None:
        return write_page(options.page)
    plan, rows = make_plan(options), chosen_rows(options)
    if not rows:
        print(f"no row's name contains {options.only!r}", file=sys.stderr)
        return 2
    # In a process of its own, as this one is not to hold any of the GPU's memory.
    (kind, found), *_ = events_of(look_at, (options.device,), lambda: 90.0)
    if kind != "machine":
        print(f"bench_gpu: no usable GPU: {found}", file=sys.stderr)
        return 2
    if options.look:
        print(json.dumps(found | {"words": in_words(found, found["commit"])}))
        return 0
    options.out = options.out or default_out(options, found)
    results = Results(options, rows)
    results.take(("machine", found))
    print(in_words(found, results.values["commit"]), file=sys.stderr)
    measure(rows, plan, results)
    gpu_report.print_report(results.values)
    if options.out is not None:
        print(f"\nwrote {options.out}")
        draw_beside(options.out, results.values)
    return 0 if is_good(results.values) else 1


def write_page(path: Path) -> int:
    """Write the tables of a run into the page for readers."""
    page = ROOT / "docs" / "benchmarks" / "gpu.md"
    page.write_text(gpu_page.with_tables(page.read_text(), json.loads(path.read_text()), path.name))
    print(f"wrote {page}")
    return 0


def draw_beside(path: Path, values: dict[str, Any]) -> None:
    """Draw the picture beside the file; that it fails must not cost the results."""
    try:
        if gpu_report.draw(values, path.with_suffix(".png")):
            print(f"wrote {path.with_suffix('.png')}")
    except ImportError:
        print("no picture: it needs matplotlib (pip install '.[plots]')")
    except Exception as error:
        print(f"no picture: {one_line(error)}")


if __name__ == "__main__":
    sys.exit(main())
