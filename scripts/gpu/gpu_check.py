"""Run everything that needs an NVIDIA GPU, and write one JSON file about it.

    python scripts/gpu/gpu_check.py --out gpu_check.json
    python scripts/gpu/gpu_check.py --all --out gpu_check.json

The parts, each in a process of its own with a limit of its own; seconds as one H100 with 16 cores
took them, or as they are estimated, and the limits:

    machine       12, at most  60   what machine this is
    tests_gpu     85, at most 110   tests that need a GPU, on 12 processes
    parity_*      40, at most  70   parity with the CPU in fp32, tf32 and bf16
    bench        210, at least 120  the benchmark, in what is left of 350 seconds

A part that takes too long is cut, and the others still run; the file is written after each. Tests
that need a GPU fail here where elsewhere they are skipped. All other tests run with ``--all`` only,
last and in ten minutes more: they need no GPU, and pass or fail the same where there is none.

It needs the package, CuPy and pytest, and PyTorch and JAX to compare with; with pytest-xdist the
tests share the CPU's cores.

Exit status: 0 all held, 1 something failed or fell short, 2 no usable GPU.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "scripts" / "bench" / "bench_gpu.py"
SECONDS = 350
"""Six minutes, with some to spare."""
MACHINE, TESTS, OTHER_TESTS = 60, 110, 600
PARITY = {"fp32": 30, "tf32": 20, "bf16": 20}
"""Seconds for each precision; fp32 has twice as many networks, as it has float64 beside it."""
SHORTEST_BENCH, BENCH_END = 120, 25
"""Seconds that the benchmark gets at least, and how long before its limit it ends by itself."""
WORKERS = 12
"""Processes that share a GPU; with them the tests took 85 seconds."""
TAIL = 8000
"""Characters of a part's output that are kept."""


@dataclass(frozen=True)
class Done:
    """How a part's process went: its status (None if it took too long) and what it printed."""

    status: int | None
    output: str


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes
    ----------
    name : str
        Its name in the file.
    command : list of str
        What is run, in the repository's root.
    limit : float
        After so many seconds it is interrupted, and a little later killed.
    summarize : callable
        Returns what else is kept; its "ok" says whether the part held.
    """

    name: str
    command: list[str]
    limit: float
    summarize: Callable[[Done], dict[str, Any]]


def run_part(part: Part) -> dict[str, Any]:
    """Run a part and return what is to be kept of it; nothing that it does raises."""
    print(f"--- {part.name}, at most {part.limit:.0f} s", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = run(part.command, part.limit)
    result = {
        "ok": False,
        "status": done.status,
        "timed_out": done.status is None,
        "seconds": round(time.monotonic() - began, 1),
        "limit": part.limit,
        "command": part.command,
    }
    try:
        result |= part.summarize(done)
    except Exception as error:  # what should be there is not, or is only half there
        result["summary_failed"] = f"{type(error).__name__}: {error}"
    result["output_tail"] = done.output[-TAIL:]
    return result


def run(command: list[str], limit: float) -> Done:
    """Run a command; interrupt it at its limit, as Ctrl-C would, and kill what does not end."""
    # The package is found where it lies, also where it cannot be installed.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "GPUNN_REQUIRE_GPU": "1",
        # Whatever else is installed for pytest is no part of these tests; some of it warns.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return Done(status, output.read())


# What is kept of each part.


def last_json(output: str) -> dict[str, Any]:
    """Return the last line of an output that is a JSON object."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise ValueError("no line of the output is a JSON object")


def summarize_machine(done: Done) -> dict[str, Any]:
    return {"ok": done.status == 0, **last_json(done.output)}


def summarize_parity(done: Done) -> dict[str, Any]:
    found = last_json(done.output)
    return {"parity": found, "ok": done.status == 0 and found["ok"] is True}


def summarize_tests(report: Path) -> Callable[[Done], dict[str, Any]]:
    """Return what reads pytest's report: counts, failures with their messages, skips' reasons."""

    def summarize(done: Done) -> dict[str, Any]:
        cases = list(ET.parse(report).getroot().iter("testcase"))
        failed = [
            {
                "test": f"{case.get('classname')}::{case.get('name')}",
                "message": (child.get("message") or "")[:500],
                "end": (child.text or "")[-1500:],
            }
            for case in cases
            for child in case
            if child.tag in ("failure", "error")
        ]
        skips = Counter(
            (child.get("message") or "")[:200]
            for case in cases
            for child in case
            if child.tag == "skipped"
        )
        return {
            "ok": done.status == 0 and not failed,
            "tests": len(cases),
            "failed": len(failed),
            "skipped": sum(skips.values()),
            "skip_reasons": dict(skips.most_common(20)),
            "failures": failed[:40],
        }

    return summarize


def summarize_bench(path: Path) -> Callable[[Done], dict[str, Any]]:
    """Return what reads the benchmark's file, which is there as far as the benchmark came."""

    def summarize(done: Done) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(path.read_text())
        return {"ok": done.status == 0, "bench": found}

    return summarize


# The parts.


def tests(name: str, marks: str, limit: float, folder: Path) -> Part:
    """Return the part that runs the tests of some marks."""
    report = folder / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", marks, f"--junitxml={report}"]
    if find_spec("xdist") is not None:
        command += ["-p", "xdist.plugin", "-n", str(min(WORKERS, os.cpu_count() or 1))]
    return Part(name, command, limit, summarize_tests(report))


def machine_part() -> Part:
    command = [sys.executable, str(BENCH), "--look"]
    return Part("machine", command, MACHINE, summarize_machine)


def parity_part(precision: str, limit: float) -> Part:
    # To compile the CPU's loops first would take longer than all that it computes.
    command = ["env", "GPUNN_FAST=0", sys.executable, "-m", "gpunn", "parity", "--json"]
    command += ["--precision", precision]
    return Part(f"parity_{precision}", command, limit, summarize_parity)


def bench_part(limit: float, folder: Path) -> Part:
    out = folder / "bench.json"
    seconds = str(round(limit - BENCH_END))
    command = [sys.executable, str(BENCH), "--seconds", seconds, "--out", str(out)]
    return Part("bench", command, limit, summarize_bench(out))


def parts(folder: Path, seconds_left: Callable[[], float], *, every: bool) -> Iterable[Part]:
    """Yield the parts, by what only a GPU can tell; the benchmark gets what the others leave."""
    # They compile the GPU's kernels side by side, and CuPy keeps those for what comes next.
    yield tests("tests_gpu", "gpu", TESTS, folder)
    for precision, limit in PARITY.items():
        yield parity_part(precision, limit)
    yield bench_part(max(SHORTEST_BENCH, seconds_left()), folder)
    if every:
        yield tests("tests_other", "not gpu", OTHER_TESTS, folder)


# The file.


def save(path: Path, results: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(path)


def run_parts(todo: Iterable[Part], results: dict[str, Any], out: Path) -> None:
    """Run parts one after the other, and write the file after each."""
    for part in todo:
        results["parts"][part.name] = run_part(part)
        results["ok"] = all(found["ok"] for found in results["parts"].values())
        results["seconds"] = round(time.monotonic() - results["began"], 1)
        save(out, results)


def print_summary(results: dict[str, Any]) -> None:
    """Print what is worth reading at once, the most important last."""
    bench = results["parts"].get("bench", {})
    print(bench.get("output_tail", ""))
    print(results["parts"].get("machine", {}).get("words", ""))
    for name, part in results["parts"].items():
        for failure in part.get("failures", [])[:10]:
            print(f"{name}: {failure['test']}\n    {failure['message']}")
    for name, part in results["parts"].items():
        counts = [f"{key} {part[key]}" for key in ("tests", "failed", "skipped") if key in part]
        state = "ok" if part["ok"] else "took too long" if part["timed_out"] else "NOT OK"
        print(f"{name:<14} {state:<14} {part['seconds']:6.1f} s  {', '.join(counts)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="JSON file")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it may take")
    parser.add_argument("--all", action="store_true", help="run the other tests too, after that")
    options = parser.parse_args()
    began = time.monotonic()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "began": began,
        "ok": False,
        "parts": {},
    }
    machine = run_part(machine_part())
    if not machine["ok"]:
        lines = [line for line in machine["output_tail"].splitlines() if line.strip()]
        print(f"gpu_check: {lines[-1] if lines else 'no usable GPU'}", file=sys.stderr)
        return 2
    results["parts"]["machine"] = machine
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        todo = parts(
            folder, lambda: options.seconds - (time.monotonic() - began), every=options.all
        )
        run_parts(todo, results, options.out)
        with suppress(OSError):
            shutil.copy(folder / "bench.png", options.out.with_suffix(".png"))
    print_summary(results)
    print(f"\nwrote {options.out}: {'all held' if results['ok'] else 'not all held'}")
    return 0 if results["ok"] else 1


def commit() -> str | None:
    """Return the commit that is checked out, with a mark if something differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
