"""The GPU benchmark's own code: rehearsed at tiny size, on the CPU and over the double of CuPy."""

import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import bench_gpu
import fake_memory
import gpu_baselines
import gpu_largest
import gpu_machine
import gpu_parts
import gpu_rows
import gpu_runner
import gpu_verdicts
import pytest
from bench_rehearsal import BENCH, ROW, results_of, tiny_plan
from gpu_children import events_of
from gpu_plan import Plan, Row
from gpu_runner import Bench
from gpu_timing import Clock


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize(("batch", "optimizer"), [(1, "sgd"), (20, "sgd"), (20, "adam")])
def test_gpunns_part_runs_as_on_a_gpu(
    installed_double: Any,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    batch: int,
    optimizer: str,
) -> None:
    del installed_double  # in place as cupy
    monkeypatch.setattr(gpu_parts, "HELD", 10)
    row = Row((8,), batch, optimizer, precision, products=batch > 1)
    events: list[tuple[Any, ...]] = []
    bench_gpu.work([row], {}, tiny_plan("cuda", "gpunn"), events.append)
    found = {event[0]: event for event in events}
    assert gpu_machine.describe("cuda")["name"].startswith("Host memory")
    assert found["copy"][1] > 0
    run = found["row"][2]["runs"]["gpunn"]
    assert run["samples"] % batch == 0
    assert len(run["seconds"]) == 3
    assert min(run["seconds"]) > 0
    flops = sum(product["flops"] for product in found["row"][2]["products"].values())
    assert flops == (batch > 1) * 2 * batch * 8 * (2 * 784 + 3 * 10)
    assert "calls" in found["row"][2]["parts"], found["row"][2]["parts"]


def test_a_gpu_that_is_too_small_is_told_from_one_that_is_not(
    installed_double: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del installed_double
    gc.collect()
    # For what other tests have left, the network, cuBLAS's workspace, and recordings.
    n_bytes = fake_memory.used_bytes(0) + 2**24 + 2**25 + 2**20
    monkeypatch.setattr(fake_memory, "DEVICE_BYTES", n_bytes)
    monkeypatch.setattr(gpu_largest, "WARM_HIDDEN", 10)
    said: list[tuple[Any, ...]] = []
    for hidden in (2000, n_bytes // (4 * 795)):
        gpu_largest.try_hidden("gpunn", hidden, 20, "cuda", said.append)
    assert [event[0] for event in said] == ["trained", "failed"]
    assert "OutOfMemoryError" in said[1][1]


class Wrong(gpu_baselines.Gpunn):
    """What somebody else might do by mistake: nearly the same step size."""

    def __init__(self, task: Any, samples: Any, place: Any, weights: Any = None) -> None:
        super().__init__(task, samples, place, weights)

        class Faster(type(task)):  # type: ignore[misc]
            learning_rate = 1.01 * task.learning_rate

        self._task = Faster(task.hidden, task.batch)


class Broken(gpu_baselines.Gpunn):
    def run(self, n_steps: int) -> None:
        raise RuntimeError("out of\nluck")


def test_who_computes_something_else_or_fails_is_named_and_not_compared_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everyone = {"gpunn": gpu_baselines.Gpunn, "PyTorch": gpu_baselines.Gpunn}
    everyone |= {"torch.compile": Wrong, "JAX": Broken}
    monkeypatch.setattr(gpu_baselines, "CONTESTANTS", everyone)
    monkeypatch.setattr(gpu_baselines, "problem_of", lambda name, device: None)
    row = dataclasses.replace(ROW, products=False)
    # Long enough that nobody is left out for want of time to compile.
    plan = tiny_plan("cpu", *everyone, seconds=600)
    found = Bench(plan, {}, lambda event: None).measure(row, {})
    assert list(found["runs"]) == ["gpunn", "PyTorch"]
    assert found["absent"]["JAX"] == "RuntimeError: out of luck"
    assert "something else" in found["absent"]["torch.compile"]
    assert found["agreement"]["PyTorch"]["same"]
    results = results_of([row], tmp_path)
    results.take(("row", row.label, found))
    assert gpu_verdicts.best_other(found) == "PyTorch"
    assert not gpu_verdicts.is_good(results.values)


def dies_in_the_turn_of_jax(rows: list[Row], barred: Any, plan: Plan, send: Any) -> None:
    """Do as `bench_gpu.work`, but break with one contestant, and hang with another."""
    if "torch.compile" not in barred.get(gpu_runner.EVERYWHERE, {}):
        send(("begin", gpu_runner.EVERYWHERE, "torch.compile"))
        os._exit(8)
    for row in rows:
        send(("begin", row.label, "gpunn"))
        for name in ("JAX", "PyTorch"):
            if name not in barred.get(row.label, {}):
                send(("begin", row.label, name))
                if name == "JAX":
                    os._exit(7)
                time.sleep(60)
        send(("row", row.label, {"barred": barred[row.label]}))


def test_the_benchmark_goes_on_without_a_contestant_that_kills_or_hangs_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpu_children.LONGEST_SILENCE", 10.0)
    taken: list[tuple[Any, ...]] = []
    bench_gpu.measure_rows([ROW], tiny_plan("cpu"), taken.append, dies_in_the_turn_of_jax)
    assert [event[0] for event in taken] == ["failure", "failure", "failure", "row"]
    assert taken[3][2]["barred"] == {
        "JAX": "its process ended with 7",
        "PyTorch": "its process was silent for too long",
    }


def test_rows_that_time_does_not_allow_are_named(tmp_path: Path) -> None:
    results = results_of([ROW], tmp_path)
    bench_gpu.measure([ROW], tiny_plan("cpu", "gpunn", seconds=-1), results)
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["late"] == [ROW.label]
    assert [v["held"] for v in written["verdicts"]] == [None] * 3
    assert {v["note"] for v in written["verdicts"]} == {"no time left"}


@pytest.mark.parametrize("guess", [50, 990, 1000, 1010, 2000])
def test_the_largest_is_found_from_any_guess(guess: int) -> None:
    low, high = gpu_largest.find_largest(lambda n: n <= 1000, guess, lambda: 1.0)
    assert low <= 1000 < high
    assert high <= 1.02 * low


def test_a_search_without_time_ends() -> None:
    assert gpu_largest.find_largest(lambda n: True, 10, lambda: 0.0) == (0, None)


def test_the_whole_command_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [
        sys.executable,
        str(BENCH),
        "--device",
        "cpu",
        "--seconds",
        "100",
    ]
    command += [
        "--only",
        "batch 128, sgd, fp32",
        "--contestants",
        "gpunn",
        "PyTorch",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "these numbers mean nothing" in done.stdout
    written = json.loads(out.read_text())
    assert written["rehearsal"]
    assert [row["hidden"] for row in written["rows"]] == [[37], [84], [21]]
    assert written["failures"] == written["late"] == []


def test_no_gpu_is_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(BENCH),
        "--out",
        str(tmp_path / "gpu.json"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("bench_gpu: no usable GPU: ")
    assert not list(tmp_path.iterdir())


def test_the_rehearsal_promises_no_more_rows_than_there_are() -> None:
    labels = [row.label for row in gpu_rows.ROWS]
    assert len(set(labels)) == len(labels)
    small = [gpu_rows.rehearsed(row) for row in gpu_rows.ROWS]
    assert len({row.label for row in small}) == len(small)


def test_a_child_that_never_speaks_is_ended() -> None:
    began = time.monotonic()
    assert list(events_of(time.sleep, (), lambda: 0.5))[-1][0] == "end"
    assert time.monotonic() - began < 30


def test_times_are_those_of_the_run() -> None:
    clock = Clock("cpu")
    assert clock.seconds(time.sleep, 0) < 0.05  # type: ignore[arg-type]
    assert 0.1 <= clock.seconds(lambda n: time.sleep(n / 10), 1) < 1.0


def test_a_short_run_compiles_in_the_quick_mode_and_leaves_later_rows_their_time() -> None:
    modes = {
        seconds: bench_gpu.make_plan(
            Namespace(device="cuda", seconds=seconds, contestants=["gpunn"])
        ).compile_mode
        for seconds in (170, 599, 600, 1500)
    }
    assert modes == {
        **{170: "reduce-overhead", 599: "reduce-overhead", 600: "max-autotune"},
        1500: "max-autotune",
    }


def test_torch_compile_gives_way_to_rows_that_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = dict.fromkeys(("gpunn", "torch.compile"), gpu_baselines.Gpunn)
    monkeypatch.setattr(gpu_baselines, "CONTESTANTS", everyone)
    monkeypatch.setattr(gpu_baselines, "problem_of", lambda name, device: None)
    plan = dataclasses.replace(
        tiny_plan("cpu", *everyone, seconds=100), row_seconds=10, compile_seconds=20
    )
    bench = Bench(plan, {}, lambda event: None)
    row = dataclasses.replace(ROW, products=False)
    assert bench.measure(row, {}, n_later=9)["absent"] == {
        "torch.compile": "not enough time left to compile"
    }
    found = bench.measure(row, {}, n_later=2)
    assert found["absent"] == {}
    assert found["compile_mode"] == "reduce-overhead"
