"""What one process of bench_gpu.py does: rows, each with all contestants in turns."""

import dataclasses
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import gpu_baselines as baselines
from gpu_agreement import Pass, agreement, dropout_agreement
from gpu_baselines import one_line
from gpu_limits import measure_products
from gpu_parts import measure_parts
from gpu_plan import FEWEST_REPS, Plan, Row
from gpu_task import Contestant, Task, Weights
from gpu_timing import Clock, calibrate
from made_samples import Samples
from turns import turns

EVERYWHERE = "all rows"
"""The label of what is begun for no row alone."""

Send = Callable[[tuple[Any, ...]], None]
"""Takes an event: ("begin", label, who), ("row", label, result), ..."""


class Bench:
    """What the rows of a process share: samples, clock, and who is not here."""

    def __init__(self, plan: Plan, barred: dict[str, str], send: Send) -> None:
        self.plan, self.send = plan, send
        others = [name for name in baselines.CONTESTANTS if name not in plan.contestants]
        self.absent = dict.fromkeys(others, "not asked for")
        self.absent |= barred
        for name in baselines.CONTESTANTS:
            if name not in self.absent:
                # Libraries that do not go together may break where they are loaded.
                send(("begin", EVERYWHERE, name))
                problem = baselines.problem_of(name, plan.device)
                if problem is not None:
                    self.absent[name] = problem
        self.clock = Clock(plan.device)
        self.samples = Samples(plan.n_samples)
        self.compile_seconds = plan.compile_seconds
        self._others_seconds: list[float] = []

    def measure(self, row: Row, barred: dict[str, str], n_later: int = 0) -> dict[str, Any]:
        """Return the times of everyone who is there and computes what gpunn computes.

        So many rows come later: compiling for this one must leave them their time.
        """
        runner, began = RowRunner(self, row, barred), time.monotonic()
        try:
            runner.prepare(n_later)
            runner.take_turns()
            runner.measure_products()
            runner.measure_parts()
        finally:
            runner.close()
        self._others_seconds.append(time.monotonic() - began - runner.compiled_seconds)
        return runner.result

    @property
    def row_seconds(self) -> float:
        """What a row takes without torch.compile: a guess, until rows have taken longer."""
        seen = self._others_seconds
        return max(self.plan.row_seconds, sum(seen) / len(seen) if seen else 0.0)


class RowRunner:
    """All contestants in one row."""

    def __init__(self, bench: Bench, row: Row, barred: dict[str, str]) -> None:
        self._bench, self._row, self._plan = bench, row, bench.plan
        self._clock = bench.clock
        self._contestants: dict[str, Contestant] = {}
        self._start: Weights = {}
        self._ours: Pass | None = None
        self._absent = {**bench.absent, **barred}
        self.compiled_seconds = 0.0
        self.result = {
            **dataclasses.asdict(row),
            "label": row.label,
            "compile_mode": self._plan.compile_mode,
            "absent": self._absent,
            "agreement": {},
            "runs": {},
            "products": {},
            "parts": {},
        }

    def prepare(self, n_later: int) -> None:
        """Make everyone, check their first pass, and find out how long each takes."""
        for name in baselines.CONTESTANTS:
            if {name, "gpunn"} & set(self._absent):
                continue
            needed = self._bench.compile_seconds + (1 + n_later) * self._bench.row_seconds
            if name == "torch.compile" and self._plan.seconds_left() < needed:
                self._absent[name] = "not enough time left to compile"
                continue
            self._bench.send(("begin", self._row.label, name))
            began = time.monotonic()
            try:
                self._enter(name)
            except Exception as error:  # whatever a compiler, a driver or a full memory raises
                self._absent[name] = one_line(error)
                self._clock.synchronize()
            if name == "torch.compile":
                self.compiled_seconds = self._bench.compile_seconds = time.monotonic() - began

    def _enter(self, name: str) -> None:
        row, n_steps = self._row, self._check_steps
        # Where units sit out by chance, all but that chance is compared exactly, without it.
        contestant = self._make(name, dataclasses.replace(row, dropout=0.0))
        found = self._first_pass(contestant)
        if row.dropout:
            contestant.close()
            contestant = self._make(name, row)
            contestant.run(n_steps)
            if name == "gpunn":
                self._loss_with_dropout = contestant.loss()
            losses = self._loss_with_dropout, contestant.loss()
            found |= dropout_agreement(n_steps * row.batch, *losses)
            found["same"] = found["same"] and found["same_with_dropout"]
        if name != "gpunn":
            self.result["agreement"][name] = found
            if not found["same"]:
                self._absent[name] = "computes something else: see agreement"
                return
        most = len(self._bench.samples.inputs) // row.batch
        n_steps = calibrate(self._clock, contestant.run, n_steps, most, self._plan.run_seconds)
        self.result["runs"][name] = {"samples": n_steps * row.batch, "seconds": []}

    def _make(self, name: str, task: Task) -> Contestant:
        bench, kind = self._bench, baselines.CONTESTANTS[name]
        contestant = kind(task, bench.samples, self._plan.place, self._start or None)
        self._contestants[name] = contestant
        return contestant

    def _first_pass(self, contestant: Contestant) -> dict[str, Any]:
        """Return how a first pass agrees with gpunn's, which comes first."""
        if self._ours is None:
            self._start = contestant.weights()
        contestant.run(self._check_steps)
        first = Pass(self._check_steps, contestant.weights(), contestant.loss())
        self._ours = self._ours or first
        return agreement(self._row, self._start, self._ours, first)

    @property
    def _check_steps(self) -> int:
        """A few blocks of single samples, and steps enough that a wrong state would show."""
        batch = self._row.batch
        return min(max(6400 // batch, 8), 100, len(self._bench.samples.inputs) // batch)

    def take_turns(self) -> None:
        """Take times; each repetition begins with another one, so that all follow all."""
        runs = self.result["runs"]
        for rep in range(self._plan.reps if "gpunn" in runs else 0):
            if rep >= FEWEST_REPS and self._plan.seconds_left() < self._plan.row_seconds / 3:
                break
            for name in turns(list(runs), rep):
                self._bench.send(("begin", self._row.label, name))
                n_steps = runs[name]["samples"] // self._row.batch
                seconds = self._clock.seconds(self._contestants[name].run, n_steps)
                runs[name]["seconds"].append(seconds)
                runs[name]["last_loss"] = self._contestants[name].loss()

    def measure_products(self) -> None:
        """Measure the step's products by themselves, where the row wants that."""
        if self._row.products and not {"gpunn", "cuBLAS"} & set(self._absent):
            self._bench.send(("begin", self._row.label, "cuBLAS"))
            with_torch = "PyTorch" not in self._absent
            self.result["products"] = measure_products(
                self._row, self._plan, self._clock, with_torch=with_torch
            )

    def measure_parts(self) -> None:
        """Measure where gpunn's step spends its time."""
        in_time = self._plan.seconds_left() > self._plan.row_seconds / 3
        if "gpunn" in self.result["runs"] and "parts" not in self._absent and in_time:
            self._bench.send(("begin", self._row.label, "parts"))
            try:
                found = measure_parts(self._row, self._bench.samples, self._plan, self._clock)
            except Exception as error:  # it must not cost the row's times
                found = {"failed": one_line(error)}
                self._clock.synchronize()
            self.result["parts"] = found

    def close(self) -> None:
        """Give all memory back."""
        for contestant in self._contestants.values():
            contestant.close()
        self._contestants.clear()
        self._start, self._ours = {}, None
        gc.collect()
        if self._plan.device == "cuda":
            sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()
