"""The GPU benchmark's own code: rehearsed at tiny size, on the CPU and over the double of CuPy."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import fake_memory
import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "bench_gpu.py"
sys.path.insert(0, str(BENCH.parent))

import bench_gpu  # noqa: E402
import gpu_baselines  # noqa: E402
import gpu_captures  # noqa: E402
import gpu_largest  # noqa: E402
import gpu_machine  # noqa: E402
import gpu_page  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_race  # noqa: E402
import gpu_report  # noqa: E402
import gpu_rows  # noqa: E402
import gpu_runner  # noqa: E402
import gpu_verdicts  # noqa: E402
from gpu_accuracy import Accuracy  # noqa: E402
from gpu_agreement import Pass, agreement, dropout_agreement  # noqa: E402
from gpu_children import events_of  # noqa: E402
from gpu_plan import Plan, Row  # noqa: E402
from gpu_results import Results  # noqa: E402
from gpu_runner import Bench  # noqa: E402
from gpu_task import Task  # noqa: E402
from gpu_timing import Clock  # noqa: E402
from made_samples import Samples  # noqa: E402

PAGE = BENCH.parents[2] / "docs" / "benchmarks" / "gpu.md"
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
    monkeypatch.setattr(fake_memory, "DEVICE_BYTES", 2**24)
    monkeypatch.setattr(gpu_largest, "WARM_HIDDEN", 10)
    said: list[tuple[Any, ...]] = []
    for hidden in (2000, 2**24 // (4 * 795)):
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


def test_agreement_is_measured_in_units_of_what_was_learnt() -> None:
    start = {"w": np.ones(1000, np.float32)}
    ours = Pass(10, {"w": start["w"] + np.float32(0.1)}, 0.5)
    for off, same in ((1e-6, True), (1e-3, False), (float("nan"), False)):
        theirs = Pass(10, {"w": ours.weights["w"] + np.float32(off)}, 0.5)
        assert agreement(ROW, start, ours, theirs)["same"] == same
    assert not agreement(ROW, start, ours, Pass(10, ours.weights, 0.501))["same"]


def skip_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    problem = gpu_baselines.problem_of(name, "cpu")
    if problem is not None:
        pytest.skip(problem)


@pytest.mark.parametrize("name", ["PyTorch", "JAX"])
@pytest.mark.parametrize(
    "row",
    [
        Row((8,), 20),
        Row((8,), 20, "momentum"),
        Row((8,), 20, "adam"),
        Row((8, 6), 20, "adam", dropout=0.5),
    ],
    ids=lambda row: row.label,
)
def test_baselines_compute_the_same(monkeypatch: pytest.MonkeyPatch, name: str, row: Row) -> None:
    skip_without(name, monkeypatch)
    found = Bench(tiny_plan("cpu", "gpunn", name), {}, lambda event: None).measure(row, {})
    assert found["agreement"][name]["same"], found
    assert ("loss_with_dropout" in found["agreement"][name]) == bool(row.dropout)
    assert min(found["runs"][name]["seconds"]) > 0


@pytest.mark.parametrize("name", ["PyTorch", "JAX"])
def test_baselines_in_bf16_are_as_close_as_their_roundings_are(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    skip_without(name, monkeypatch)
    row, samples, place = Row((50,), 100, precision="bf16"), Samples(3000), tiny_plan("cpu").place
    # On the CPU gpunn has no bf16: there it takes no part in the rounding.
    ours = gpu_baselines.Gpunn(dataclasses.replace(row, precision="fp32"), samples, place)
    start = ours.weights()
    theirs = gpu_baselines.CONTESTANTS[name](row, samples, place, start)
    passes = []
    for contestant in (ours, theirs):
        contestant.run(30)
        passes.append(Pass(30, contestant.weights(), contestant.loss()))
    found = agreement(row, start, *passes)
    assert found["same"], found
    # They did round: in fp32 the same difference would be refused.
    assert not agreement(dataclasses.replace(row, precision="fp32"), start, *passes)["same"]


def test_a_wrong_dropout_shows_in_the_loss() -> None:
    task, samples, place = Task((64, 64), 100, "adam"), Samples(4000), tiny_plan("cpu").place

    def loss(dropout: float) -> float:
        ours = gpu_baselines.Gpunn(dataclasses.replace(task, dropout=dropout), samples, place)
        ours.run(40)
        return ours.loss()

    right = loss(0.5)
    assert dropout_agreement(4000, right, 1.01 * right)["same_with_dropout"]
    for wrong in (0.0, 0.75):
        found = dropout_agreement(4000, right, loss(wrong))
        assert not found["same_with_dropout"], found


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


def test_what_is_asked_is_held_or_short() -> None:
    def run(seconds: float) -> dict[str, Any]:
        return {"samples": 1000, "seconds": [seconds, 2 * seconds, 9 * seconds]}

    products = {
        "a": {"flops": 1.0, "gpunn": 0.2, "PyTorch": 0.1},
        "b": {"flops": 1.0, "gpunn": 0.3},
    }
    row = {
        **{"label": "row", "batch": 100, "absent": {}, "agreement": {}, "products": products},
        **{"least_ratio": 2.0, "least_rate": 100.0, "least_share": 0.85},
        "runs": {"gpunn": run(2.0), "JAX": run(6.0), "PyTorch": run(5.0)},
    }
    wide = {
        "label": "wide",
        "least_ratio": 1.9,
        "gpunn": {"trained": 19},
        "PyTorch": {"trained": 10},
    }
    values: dict[str, Any] = {
        **{"rows": [row], "largest": [wide], "races": [], "late": [], "absent": {}},
        "failures": [],
        **{"asked": [{"label": "row"}, {"label": "wide"}], "rehearsal": False},
    }
    found = [
        (v["row"], v["asked"], v["measured"], v["held"]) for v in gpu_verdicts.verdicts(values)
    ]
    # 1000 samples in 4 s beside 10 s; a batch in 0.4 s, whose products alone take 0.1 + 0.3 s.
    assert found == [
        ("row", 2.0, 2.5, True),
        ("row", 100.0, 250.0, True),
        ("row", 0.85, pytest.approx(1.0), True),
        ("wide", 1.9, 1.9, True),
    ]
    assert gpu_verdicts.is_good(values)
    row["least_ratio"] = 2.6
    assert not gpu_verdicts.is_good(values)
    assert gpu_verdicts.is_good({**values, "rehearsal": True})


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


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    runs = {
        name: {"samples": 10, "seconds": [1.0 + i, 2.0 + i]}
        for i, name in enumerate(gpu_baselines.CONTESTANTS)
    }
    values = {"rows": [{"label": "a row", "runs": runs}], "rehearsal": True}
    assert gpu_report.draw(values, tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
    assert not gpu_report.draw({"rows": []}, tmp_path / "none.png")


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


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_calls_of_a_step_are_found_with_their_number_and_time(optimizer: str) -> None:
    task, clock = Task((8,), 100, optimizer), Clock("cpu")
    began = time.perf_counter()
    found = gpu_parts.measure_parts(task, Samples(2000), tiny_plan("cpu"), clock)
    took = time.perf_counter() - began
    calls = {part["call"]: part for part in found["calls"]}
    products = [part["calls_a_step"] for name, part in calls.items() if name.startswith("gemm")]
    assert sum(products) == 5
    total = sum(part["seconds_a_step"] for part in calls.values())
    assert 0 < total * found["steps"] < took
    assert found["launches_a_step"] is None
    updates = sum(p["calls_a_step"] for n, p in calls.items() if n.startswith("adam_update"))
    assert updates == 4 * (optimizer == "adam")


def test_the_time_of_a_call_is_without_that_of_calls_within_it() -> None:
    class Inner:
        def work(self) -> None:
            time.sleep(0.05)

    class Outer:
        problem = None

        def make_inner(self) -> Inner:
            return Inner()

        def work(self, inner: Inner) -> None:
            time.sleep(0.01)
            inner.work()

    watch, outer = gpu_parts.Watch(Clock("cpu"), lambda n: None), Outer()
    with watch.attached(outer):
        found = watch.totals(lambda: outer.work(outer.make_inner()), 0.0)
    assert {name: n for name, (n, _) in found.items()} == {"work ": 1, "inner.work": 1}
    assert found["inner.work"][1] >= 0.05
    assert 0.01 <= found["work "][1] < found["inner.work"][1]
    assert vars(outer) == {}


def test_a_recorder_is_told_not_to_record() -> None:
    class Recorder:
        problem = None

        def step(self) -> str:
            return str(self.problem)

    class Device:
        def make_recorder(self) -> Recorder:
            return Recorder()

    device = Device()
    with gpu_parts.Watch(Clock("cpu"), lambda n: None).attached(device):
        assert device.make_recorder().step() == "every call is timed"


def test_launches_are_counted_when_a_recording_ends() -> None:
    class Stream:
        ptr = 7

        def end_capture(self) -> str:
            return "graph"

    before = Stream.end_capture
    with gpu_captures.counted_captures(Stream, lambda pointer: 3 * pointer) as counts:
        assert Stream().end_capture() == "graph"
    with gpu_captures.counted_captures(Stream, lambda pointer: 1 // 0) as none:
        assert Stream().end_capture() == "graph"
    assert (counts, none) == ([21], [])
    assert Stream.end_capture is before


def save_images(folder: Path) -> None:
    """Save images that are easy to tell apart: one bright stripe for each class."""
    generator = np.random.default_rng(0)
    for prefix, n in (("", 2000), ("test_", 300)):
        labels = generator.integers(0, 10, n)
        inputs = generator.random((n, 10, 78), np.float32) * 0.2
        inputs[np.arange(n), labels] += 0.8
        flat = np.zeros((n, 784), np.float32)
        flat[:, :780] = inputs.reshape(n, -1)
        np.save(folder / f"{prefix}inputs.npy", flat)
        np.save(folder / f"{prefix}labels.npy", labels)


@pytest.mark.parametrize("name", ["gpunn", "PyTorch", "JAX"])
def test_everyone_learns_until_accurate_in_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    skip_without(name, monkeypatch)
    save_images(tmp_path)
    row, plan = Accuracy((20,), goal=0.9), tiny_plan("cpu", name, seconds=300)
    found = gpu_race.race_in(tmp_path, row, plan, {"somebody": "is not here"})
    run = found["races"][name]
    assert run["reached"]
    assert run["accuracies"][-1] >= 0.9 > max([0.0, *run["accuracies"][:-1]])
    assert run["epochs"] == len(run["accuracies"])
    assert run["seconds_of_process"] > run["seconds_of_training"] > 0


def test_who_fails_in_the_race_is_named(tmp_path: Path) -> None:
    plan = tiny_plan("cpu", "gpunn", "PyTorch")
    found = gpu_race.race_in(tmp_path, Accuracy((20,)), plan, {"PyTorch": "is not here"})
    assert found["races"] == {}
    assert found["absent"]["PyTorch"] == "is not here"
    assert "inputs.npy" in found["absent"]["gpunn"]


def test_without_mnist_the_race_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUNN_DATA_DIR", raising=False)
    found = gpu_race.race(Accuracy(), tiny_plan("cpu"), {})
    assert "GPUNN_DATA_DIR" in found["skipped"]
    assert "MNIST" in found["label"]


def test_mnist_is_saved_for_the_race(tmp_path: Path, mnist_dir: Path) -> None:
    del mnist_dir
    assert gpu_race.save_mnist(tmp_path) is None
    inputs = np.load(tmp_path / "test_inputs.npy")
    assert inputs.shape == (10_000, 784)
    assert (inputs.dtype, inputs.min(), inputs.max()) == (np.float32, 0, 1)


def test_the_page_shows_the_tables_of_its_file() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (name,) = {word for word in page.split("](")[1:] for word in [word.partition(")")[0]]} & {
        path.name for path in PAGE.parent.glob("*bench*.json")
    }
    values = json.loads((PAGE.parent / name).read_text())
    assert gpu_page.with_tables(page, values, name) == page
    for text in (values["commit"], values["machine"]["name"], "driver 5", "CuPy 1", "CUDA 1"):
        assert text in page


def test_a_new_run_replaces_the_tables_and_nothing_else(tmp_path: Path) -> None:
    results = results_of([ROW, Accuracy()], tmp_path)
    run = {"samples": 1000, "seconds": [1.0, 2.0, 3.0]}
    slow = {"samples": 1000, "seconds": [1.0, 2.5, 3.0]}
    row = {
        **{"label": ROW.label, "batch": 20, "precision": "fp32", "absent": {}, "agreement": {}},
        **{"least_ratio": 2.0, "least_rate": None, "least_share": None},
        "products": {"one": {"flops": 3e12, "gpunn": 2.0, "PyTorch": 1.0}},
        "runs": {"gpunn": slow, "JAX": run},
    }
    once = {"reached": True, "epochs": 5, "seconds_of_process": 4.04, "seconds_of_training": 1.0}
    race = {"label": "MNIST", "races": {"gpunn": once}}
    for event in (("row", ROW.label, row), ("race", "MNIST", race), ("late", "a wide row")):
        results.take(event)
    page = f"above\n\n{gpu_page.BEGIN}\n\nold\n\n{gpu_page.END}\nbelow\n"
    found = gpu_page.with_tables(page, results.values, "new.json")
    assert found.startswith("above\n")
    assert found.endswith("\nbelow\n")
    assert "old" not in found
    for text in ("| 400 | 500 | **0.80 x JAX** |", "| gpunn | 4.0 | 1.0 | 5 |", "(new.json)"):
        assert text in found
    assert "lacks a wide row (no time left)" in found
    words = " ".join(found.split())
    assert "Of the 1 promises that were measured, it kept 0" in words
    assert "3 TFLOP/s in fp32" in words


def test_a_report_names_machine_versions_mode_and_parts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = results_of([ROW], tmp_path)
    row = {
        **{"label": ROW.label, "batch": 20, "absent": {}, "agreement": {}, "products": {}},
        **{"least_ratio": None, "least_rate": None, "least_share": None},
        "compile_mode": "reduce-overhead",
        "runs": {name: {"samples": 1000, "seconds": [1.0]} for name in ("gpunn", "torch.compile")},
        "parts": {
            "launches_a_step": 9,
            "calls": [
                {"call": "gemm", "calls_a_step": 5.0, "seconds_a_step": 3e-6},
                {"call": "activate", "calls_a_step": 1.0, "seconds_a_step": 1e-6},
            ],
        },
    }
    results.take(("row", ROW.label, row))
    results.take(("race", "MNIST", {"label": "MNIST", "skipped": "it is not here"}))
    gpu_report.print_report(results.values)
    text = capsys.readouterr().out
    for words in ("torch.compile (reduce-overhead)", "75%", "9 launches", "it is not here"):
        assert words in text
    assert f"at commit {results.values['commit']}" in text
    assert "driver" in text
