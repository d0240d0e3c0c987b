"""Measure how fast gpunn trains on an NVIDIA GPU, beside PyTorch, JAX and the GPU's own limits.

    python scripts/bench/bench_gpu.py                  all of it; needs a GPU that does nothing else
    python scripts/bench/bench_gpu.py --quick          a short pass over the rows with a target
    python scripts/bench/bench_gpu.py --only adam      rows whose name contains a text
    python scripts/bench/bench_gpu.py --device cpu     a rehearsal; its numbers mean nothing

Exit status: 0 all that is asked was held, 1 something fell short or failed, 2 no usable GPU.
``docs/benchmarks/README.md`` says what is measured and how.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpu_baselines as baselines
import gpu_report
from gpu_baselines import one_line
from gpu_children import events_of, patience
from gpu_largest import Largest, search_largest
from gpu_limits import copy_rate
from gpu_plan import ROW_SECONDS, Plan, Row
from gpu_runner import EVERYWHERE, Bench, Send
from machine_facts import cpu_model, version_of

import gpunn
from gpunn.backends.select import cuda_problem
from gpunn.cli.doctor import examine

ROOT = Path(__file__).resolve().parents[2]


WIDE: dict[str, Any] = {"least_ratio": 1.0, "least_share": 0.85, "products": True}
# By importance, as a run that is short of time leaves out the last ones.
ROWS: tuple[Row | Largest, ...] = (
    Row(200, 1, least_ratio=20, least_rate=200_000),
    Row(200, 100, least_ratio=2),
    Row(65_536, 1024, **WIDE),
    Row(65_536, 1024, precision="tf32", **WIDE),
    Largest(100),
    Row(65_536, 1024, precision="bf16", **WIDE),
    Row(2048, 256, "adam"),
    Row(2048, 256, "momentum"),
    Row(1000, 1),
    Row(200, 10),
    Row(1000, 100),
    Row(8192, 1024, products=True),
    Row(8192, 1024, precision="tf32", products=True),
    Row(8192, 1024, precision="bf16", products=True),
    Largest(20),
)


def rehearsed(row: Row | Largest) -> Row | Largest:
    """Return a row at a size that a CPU goes through at once."""
    if isinstance(row, Largest):
        return row
    return dataclasses.replace(row, hidden=round(row.hidden**0.4), batch=min(row.batch, 128))


def describe(device: str) -> dict[str, Any]:
    """Return what machine and which versions this is; it opens the GPU."""
    backend = gpunn.get_backend(device)
    packages = ("numpy", "scipy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "jax")
    return {
        "name": gpu_name() if device == "cuda" else "CPU",
        "device": backend.describe(),
        "doctor": doctor(),
        "nvidia_smi": nvidia_smi(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_free": backend.memory_info().free,
        "versions": {
            "python": platform.python_version(),
            "gpunn": gpunn.__version__,
            **{package: version_of(package) for package in packages},
        },
    }


def doctor() -> dict[str, Any]:
    """Return what gpunn finds here; that it fails must not keep anything from being measured."""
    try:
        return examine()
    except Exception as error:
        return {"failed": one_line(error)}


def gpu_name() -> str:
    """Return what CUDA calls the first GPU."""
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())


def nvidia_smi() -> str | None:
    """Return name, driver, clocks, temperature and power as the driver's tool gives them."""
    fields = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,temperature.gpu,power.draw"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv"]
    return output_of(command)


def output_of(command: list[str]) -> str | None:
    """Return what a short command prints, or None if it cannot."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True, cwd=ROOT
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# Processes. What breaks a GPU's context, or hangs, takes its whole process with it. So all of this
# is done in a child that says what it begins; if it dies, another goes on without the culprit.


def work(rows: list[Row], barred: dict[str, dict[str, str]], plan: Plan, send: Send) -> None:
    """Measure rows and send what is found."""
    bench = Bench(plan, barred.get(EVERYWHERE, {}), send)
    send(("absent", bench.absent))
    send(("copy", copy_rate(plan, bench.clock)))
    for row in rows:
        if plan.seconds_left() < ROW_SECONDS:
            send(("late", row.label))
        else:
            send(("row", row.label, bench.measure(row, barred.get(row.label, {}))))


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


class Results:
    """What is found, written down whenever something is added."""

    def __init__(self, options: argparse.Namespace, rows: Sequence[Row | Largest]) -> None:
        self._out, self._began = options.out, time.monotonic()
        self.values: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": output_of(["git", "describe", "--always", "--dirty"]),
            "device": options.device,
            "rehearsal": options.device != "cuda",
            "quick": options.quick,
            "timing": gpu_report.TIMING[options.device],
            "asked": [dataclasses.asdict(row) | {"label": row.label} for row in rows],
            "machine": {},
            "absent": {},
            "copy_bytes_per_second": None,
            "rows": [],
            "largest": [],
            "late": [],
            "failures": [],
        }

    def take(self, event: tuple[Any, ...]) -> None:
        """Add what a process sends."""
        kind, values = event[0], self.values
        if kind in ("machine", "absent"):
            values[kind] = event[1]
        elif kind == "copy":
            values["copy_bytes_per_second"] = event[1]
        elif kind == "failure":
            values["failures"].append(event[1])
        elif kind == "late":
            values["late"].append(event[1])
        else:
            values["largest" if kind == "largest" else "rows"].append(event[2])
        what = f"{kind} {event[1]}" if isinstance(event[1], str) else kind
        print(f"{time.monotonic() - self._began:6.0f} s  {what}", file=sys.stderr, flush=True)
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self.values["verdicts"] = gpu_report.verdicts(self.values)
        if self._out is not None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            part = self._out.with_suffix(".part")
            part.write_text(json.dumps(self.values, indent=1) + "\n")
            part.replace(self._out)


def groups(rows: Sequence[Row | Largest]) -> Iterator[list[Row] | Largest]:
    """Yield what goes into one process: rows together, a search for the largest network alone."""
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


def measure(rows: Sequence[Row | Largest], plan: Plan, results: Results) -> None:
    for group in groups(rows):
        if isinstance(group, list):
            measure_rows(group, plan, results.take)
        elif plan.seconds_left() < 2 * ROW_SECONDS:
            results.take(("late", group.label))
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
    parser.add_argument("--quick", action="store_true", help="a short pass: rows with a target")
    parser.add_argument("--look", action="store_true", help="only print, as JSON, what is here")
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file to write, with a picture beside it; default: docs/benchmarks/gpu-NAME.json,"
        " or nothing with --only, --quick or --device cpu, which must not replace a whole run",
    )
    return parser.parse_args()


def look_at(device: str, send: Send) -> None:
    """Send ("problem", why) if there is no such device, else ("machine", what it is)."""
    problem = cuda_problem() if device == "cuda" else None
    send(("machine", describe(device)) if problem is None else ("problem", problem))


def default_out(options: argparse.Namespace, machine: dict[str, Any]) -> Path | None:
    """Return where a whole run's results go, and nothing for any other run."""
    whole = not options.quick and options.only is None and options.device == "cuda"
    if not whole or options.contestants != [*baselines.CONTESTANTS]:
        return None
    name = re.sub("[^a-z0-9]+", "-", machine["name"].lower()).strip("-")
    return ROOT / "docs" / "benchmarks" / f"gpu-{name}.json"


def chosen_rows(options: argparse.Namespace) -> list[Row | Largest]:
    """Return the rows that the command line asks for, by importance."""
    rows = [row for row in ROWS if not options.quick or row.least_ratio is not None]
    if options.device == "cpu":
        # The CPU computes in fp32 alone.
        rows = [rehearsed(row) for row in rows if getattr(row, "precision", "fp32") == "fp32"]
    return [row for row in rows if (options.only or "") in row.label]


def make_plan(options: argparse.Namespace) -> Plan:
    plan = Plan(options.device, time.monotonic() + options.seconds, tuple(options.contestants))
    if options.device == "cpu":
        tiny = {"n_samples": 2000, "reps": 2, "run_seconds": 0.01, "copy_bytes": 2**24}
        return dataclasses.replace(plan, **tiny)
    return dataclasses.replace(plan, reps=3, run_seconds=0.1) if options.quick else plan


def main() -> int:
    options = parse_arguments()
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
        print(json.dumps(found))
        return 0
    options.out = options.out or default_out(options, found)
    results = Results(options, rows)
    results.take(("machine", found))
    measure(rows, plan, results)
    gpu_report.print_report(results.values)
    if options.out is not None:
        print(f"\nwrote {options.out}")
        draw_beside(options.out, results.values)
    return 0 if gpu_report.is_good(results.values) else 1


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
