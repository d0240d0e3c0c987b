"""Measure how fast gpunn trains on a CPU, beside other ways and beside the machine's own limits.

    python scripts/bench/bench_cpu.py                 all of it; needs an otherwise idle machine
    python scripts/bench/bench_cpu.py --only online   a part
    python scripts/bench/bench_cpu.py --quick         tiny and meaningless, to see that it works

Everything that is compared is measured in one run, in turns, so that a machine that becomes slower
or faster does so for everyone. ``docs/benchmarks/README.md`` says what each row means.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cpu_plot
import psutil
from cpu_children import in_child, measure_memory, work
from cpu_plan import FULL, QUICK, SECTIONS, Plan
from cpu_report import Report
from cpu_results import Limits, Row
from machine_facts import cpu_model, version_of

import gpunn

INSTALL = "pip install '.[bench]'"
DEFAULT_OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "cpu.json"


def describe_machine() -> dict[str, Any]:
    """Return versions, CPU and load, as plain values."""
    packages = ("gpunn", "numpy", "scipy", "numba", "torch", "scikit-learn")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            **{package: version_of(package) for package in packages},
        },
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_total": psutil.virtual_memory().total,
        "load_at_start": psutil.getloadavg()[0],
    }


def print_machine(machine: dict[str, Any]) -> None:
    versions = machine["versions"]
    print(f"{machine['date']}  {machine['cpu']}, {machine['cores']} cores")
    print(", ".join(f"{name} {version or '-'}" for name, version in versions.items()))
    print(f"gpunn computes on {gpunn.get_backend('cpu').describe()}")
    for package, name in (("torch", "PyTorch"), ("scikit-learn", "scikit-learn")):
        if versions[package] is None:
            print(f"{name} is not installed, so its columns are empty: {INSTALL}")
    if machine["load_at_start"] > 0.5:
        load = machine["load_at_start"]
        print(f"the machine is busy (load {load:.1f}): what follows is not to be relied on")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these parts alone")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="default: 1 2")
    parser.add_argument("--reps", type=int, help="repetitions; default: 5")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--quick", action="store_true", help="tiny; the numbers mean nothing")
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file to write, with a picture beside it; default: docs/benchmarks/cpu.json, "
        "or nothing with --only or --quick, which must not replace a whole run's results",
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.threads) < 1 or (options.reps is not None and options.reps < 1):
        parser.error("--threads and --reps must be at least 1")
    if options.out is None and options.only is None and not options.quick:
        options.out = DEFAULT_OUT
    return options


def save(path: Path, values: dict[str, Any], rows: list[Row]) -> None:
    """Write what was found, and a picture of it where there is something to draw."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")
    print(f"\nwrote {path}")
    if not any(len(row.timings) > 1 for row in rows):
        return
    if find_spec("matplotlib") is None:
        print("no picture: it needs matplotlib (pip install '.[plots]')")
        return
    cpu_plot.draw(rows, path.with_suffix(".png"))
    print(f"wrote {path.with_suffix('.png')}")


def make_plan(options: argparse.Namespace) -> Plan:
    """Return the plan that the command line asks for."""
    plan = QUICK if options.quick else FULL
    return dataclasses.replace(
        plan,
        sections=tuple(options.only or SECTIONS),
        reps=options.reps or plan.reps,
        compile=options.compile,
    )


def main() -> int:
    options = parse_arguments()
    if options.worker is not None:
        work(options.worker)
        return 0
    plan, machine = make_plan(options), describe_machine()
    print_machine(machine)
    sys.stdout.flush()
    children = []
    if set(plan.sections) != {"memory"}:
        children = [
            in_child(
                {"kind": "speed", "plan": dataclasses.asdict(plan), "threads": threads}, threads
            )
            for threads in sorted(set(options.threads))
        ]
    memory = measure_memory(plan) if "memory" in plan.sections else []
    rows = [Row.from_dict(row) for child in children for row in child["rows"]]
    # By cell, so that a network's thread counts stand below each other.
    order = {cell: place for place, cell in enumerate(plan.cells())}
    rows.sort(key=lambda row: (order[row.cell], row.threads))
    limits = {child["threads"]: Limits(**child["limits"]) for child in children}
    Report(machine["cpu"], rows, limits, memory).print()
    if options.quick:
        print("\n--quick: these numbers mean nothing")
    if options.out is not None:
        found = {
            **machine,
            "quick": options.quick,
            "plan": dataclasses.asdict(plan),
            "rows": [
                {
                    **dataclasses.asdict(row),
                    "ratios": {baseline: row.ratio(baseline) for baseline in row.timings},
                }
                for row in rows
            ],
            "limits": [dataclasses.asdict(limit) for limit in limits.values()],
            "memory": [dataclasses.asdict(use) for use in memory],
            "thread_pools": {child["threads"]: child["thread_pools"] for child in children},
        }
        save(options.out, found, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
