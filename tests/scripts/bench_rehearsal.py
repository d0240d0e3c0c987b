"""What the tests of the GPU benchmark share: a tiny plan, a row, and where its modules are."""

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import gpu_baselines
import gpu_machine
import pytest
from gpu_plan import Plan, Row
from gpu_results import Results

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "bench_gpu.py"
ROW = Row((8,), 20, least_ratio=2.0, least_rate=1.0, least_share=1e-9, products=True)


def tiny_plan(device: str, *contestants: str, seconds: float = 60) -> Plan:
    return Plan(
        device,
        time.monotonic() + seconds,
        contestants,
        n_samples=200,
        reps=3,
        run_seconds=1e-4,
        copy_bytes=2**12,
        compile_mode="reduce-overhead",
    )


def results_of(rows: list[Any], tmp_path: Path) -> Results:
    results = Results(Namespace(out=tmp_path / "gpu.json", device="cpu"), rows)
    results.take(("machine", gpu_machine.describe("cpu")))
    return results


def skip_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    problem = gpu_baselines.problem_of(name, "cpu")
    if problem is not None:
        pytest.skip(problem)
