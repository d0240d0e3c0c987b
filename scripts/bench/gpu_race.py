"""How long everyone takes to learn MNIST, each in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_accuracy import Accuracy
from gpu_children import GRACE
from gpu_plan import Plan

import gpunn

SCRIPT = Path(__file__).with_name("gpu_accuracy.py")
ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 90.0
"""For one contestant."""


def save_mnist(folder: Path) -> str | None:
    """Write MNIST's arrays into a folder, inputs from 0 to 1; say why if it is not here."""
    if not os.environ.get("GPUNN_DATA_DIR"):
        return "no MNIST: GPUNN_DATA_DIR does not say where it is"
    try:
        mnist = gpunn.load_dataset("mnist")
    except gpunn.GpunnError as error:
        return f"no MNIST: {error}"
    for name in ("inputs", "test_inputs"):
        np.save(folder / f"{name}.npy", getattr(mnist, name).astype(np.float32) / 255)
    for name in ("labels", "test_labels"):
        np.save(folder / f"{name}.npy", getattr(mnist, name))
    return None


def race(row: Accuracy, plan: Plan, absent: dict[str, str]) -> dict[str, Any]:
    """Return how long everyone who is here takes."""
    with tempfile.TemporaryDirectory() as name:
        problem = save_mnist(Path(name))
        if problem is not None:
            return {**description(row), "skipped": problem}
        return race_in(Path(name), row, plan, absent)


def race_in(folder: Path, row: Accuracy, plan: Plan, absent: dict[str, str]) -> dict[str, Any]:
    """Return how long everyone takes for the images in a folder."""
    found: dict[str, Any] = {**description(row), "absent": dict(absent), "races": {}}
    found["compile_mode"] = plan.compile_mode
    for name in plan.contestants:
        if name in absent:
            continue
        if plan.seconds_left() < plan.row_seconds:
            found["absent"][name] = "no time left"
            continue
        result = run_one(name, folder, row, plan)
        if isinstance(result, str):
            found["absent"][name] = result
        else:
            found["races"][name] = result
    return found


def description(row: Accuracy) -> dict[str, Any]:
    return {**dataclasses.asdict(row), "learning_rate": row.learning_rate, "label": row.label}


def run_one(name: str, folder: Path, row: Accuracy, plan: Plan) -> dict[str, Any] | str:
    """Return how one contestant's process went, or why it did not."""
    command = [sys.executable, str(SCRIPT), name, str(folder), "--device", plan.device]
    command += ["--compile-mode", plan.compile_mode, "--hidden", str(row.hidden[0])]
    command += ["--goal", str(row.goal), "--began"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"JAX_PLATFORMS": plan.device} | os.environ
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        done = subprocess.run(
            [*command, repr(time.time())],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=min(MOST_SECONDS, max(plan.seconds_left(), 0.0) + GRACE),
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        return f"ended with {done.returncode}: {lines[-1][:300]}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
