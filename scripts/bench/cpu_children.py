"""Processes of bench_cpu.py, each of which does one task and hands back plain values.

Threads are chosen before a BLAS is loaded, and memory is a whole process's; so each number of
threads, and each training whose memory is measured, gets a process of its own.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from cpu_baselines import LEARNING_RATE, check_same_rule
from cpu_limits import add_limits
from cpu_plan import Plan
from cpu_results import Limits, MemoryUse
from cpu_timing import FEWEST_STEPS, measure_cell
from made_samples import N_INPUTS, N_OUTPUTS, Samples

import gpunn

SCRIPT = Path(__file__).with_name("bench_cpu.py")


def in_child(task: dict[str, Any], threads: int | None = None) -> dict[str, Any]:
    """Return what bench_cpu.py finds when it is run with a task, and perhaps so many threads.

    Raises
    ------
    SystemExit
        If it fails.
    """
    environment = dict(os.environ)
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(task))
        command = [sys.executable, str(SCRIPT), "--worker", str(path)]
        status = subprocess.run(command, env=environment, check=False).returncode
        if status != 0:
            raise SystemExit(f"bench_cpu: the process for {task['kind']} ended with {status}")
        result: dict[str, Any] = json.loads(path.read_text())
        return result


def work(path: Path) -> None:
    """Do a task and put its result into the file it came in."""
    task = json.loads(path.read_text())
    if task["kind"] == "speed":
        plan: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in task["plan"].items()
        }
        result = work_speed(Plan(**plan), task["threads"])
    else:
        result = work_memory(task["way"], task["hidden"])
    path.write_text(json.dumps(result))


def work_speed(plan: Plan, threads: int) -> dict[str, Any]:
    """Measure all cells with the threads that this process was started with."""
    from threadpoolctl import threadpool_info

    # The classes are random: that they are not learnt is no news.
    warnings.filterwarnings("ignore", module="sklearn")
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    limits, cells = Limits(threads), list(plan.cells())
    has_limits = "limits" in plan.sections or bool(cells)
    if has_limits:
        progress(threads, "limits")
        add_limits(limits, plan)
    rows = []
    if cells:
        if "online" in plan.sections:
            check_same_rule()
        samples = Samples(max(plan.most_samples, FEWEST_STEPS * max(c.batch for c in cells)))
        for cell in cells:
            progress(threads, cell.label)
            rows.append(measure_cell(cell, samples, threads, plan))
    if has_limits:
        progress(threads, "limits again")
        add_limits(limits, plan)
    pools = [
        {
            "library": pool["internal_api"],
            "version": pool.get("version"),
            "kernels": pool.get("architecture"),
            "threads": pool["num_threads"],
            "package": Path(pool["filepath"]).parent.name,
        }
        for pool in threadpool_info()
    ]
    return {
        "threads": threads,
        "rows": [asdict(row) for row in rows],
        "limits": asdict(limits) if has_limits else None,
        "thread_pools": pools,
    }


def work_memory(way: str, hidden: int) -> dict[str, Any]:
    """Train a network that is nearly all of the memory; return the most that was used."""
    # Enough samples that whole blocks are gone through: memory counts when it is first touched.
    samples = Samples(130)
    if way == "train":
        gpunn.ThreeLayerNetwork(N_INPUTS, hidden, N_OUTPUTS, LEARNING_RATE, device="cpu").train(
            samples.inputs, samples.targets
        )
    else:
        gpunn.fit(
            gpunn.Network([N_INPUTS, hidden, N_OUTPUTS], biases=False, device="cpu"),
            samples.inputs,
            samples.labels,
            epochs=1,
            batch_size=10,
            learning_rate=LEARNING_RATE,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak * (1 if sys.platform == "darwin" else 1024)}


def measure_memory(plan: Plan) -> list[MemoryUse]:
    """Measure both ways of training, each alone, where there is room for it."""
    hidden = plan.memory_hidden
    weights = 4 * hidden * (N_INPUTS + N_OUTPUTS)
    network = f"{N_INPUTS}-{hidden}-{N_OUTPUTS}"
    found = []
    for way, what in (("train", "one sample at a time"), ("fit", "fit, batch 10")):
        use = MemoryUse(f"{network}, {what}", weights)
        # More than is promised, as a benchmark that makes the machine swap helps nobody.
        needed, free = int(1.6 * weights), psutil.virtual_memory().available
        if free < needed:
            use.skipped = f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        else:
            progress(None, f"memory of {use.what}")
            use.peak = in_child({"kind": "memory", "way": way, "hidden": hidden})["peak"]
        found.append(use)
    return found


def progress(threads: int | None, what: str) -> None:
    where = "" if threads is None else f"{threads} thread{'s' * (threads > 1)}: "
    print(f"  {where}{what}", file=sys.stderr, flush=True)
