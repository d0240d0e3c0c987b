"""What one process of bench_gpu.py does: rows, each with all contestants in turns."""

import dataclasses
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import gpu_baselines as baselines
from gpu_agreement import Pass, agreement
from gpu_baselines import Weights, one_line
from gpu_limits import measure_products
from gpu_plan import COMPILE_SECONDS, FEWEST_REPS, ROW_SECONDS, Plan, Row
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
        self.compile_seconds = COMPILE_SECONDS

    def measure(self, row: Row, barred: dict[str, str]) -> dict[str, Any]:
        """Return the times of everyone who is there and computes what gpunn computes."""
        runner = RowRunner(self, row, barred)
        try:
            runner.prepare()
            runner.take_turns()
            runner.measure_products()
        finally:
            runner.close()
        return runner.result


class RowRunner:
    """All contestants in one row."""

    def __init__(self, bench: Bench, row: Row, barred: dict[str, str]) -> None:
        self._bench, self._row, self._plan = bench, row, bench.plan
        self._clock = bench.clock
        self._contestants: dict[str, baselines.Contestant] = {}
        self._start: Weights = {}
        self._ours: Pass | None = None
        self._absent = {**bench.absent, **barred}
        self.result = {
            **dataclasses.asdict(row),
            "label": row.label,
            "absent": self._absent,
            "agreement": {},
            "runs": {},
            "products": {},
        }

    def prepare(self) -> None:
        """Make everyone, check their first pass, and find out how long each takes."""
        for name in baselines.CONTESTANTS:
            if {name, "gpunn"} & set(self._absent):
                continue
            needed = self._bench.compile_seconds + ROW_SECONDS
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
                self._bench.compile_seconds = time.monotonic() - began

    def _enter(self, name: str) -> None:
        row, samples = self._row, self._bench.samples
        contestant = baselines.CONTESTANTS[name](
            row, samples, self._plan.device, self._start or None
        )
        self._contestants[name] = contestant
        if self._ours is None:
            self._start = contestant.weights()
        # A few blocks of single samples, and steps enough that a wrong state would show.
        n_steps = min(max(6400 // row.batch, 8), 100, len(samples.inputs) // row.batch)
        contestant.run(n_steps)
        first = Pass(n_steps, contestant.weights(), contestant.loss())
        if self._ours is None:
            self._ours = first
        else:
            found = agreement(row, self._start, self._ours, first)
            self.result["agreement"][name] = found
            if not found["same"]:
                self._absent[name] = "computes something else: see agreement"
                return
        most = len(samples.inputs) // row.batch
        n_steps = calibrate(self._clock, contestant.run, n_steps, most, self._plan.run_seconds)
        self.result["runs"][name] = {"samples": n_steps * row.batch, "seconds": []}

    def take_turns(self) -> None:
        """Take times; each repetition begins with another one, so that all follow all."""
        runs = self.result["runs"]
        for rep in range(self._plan.reps if "gpunn" in runs else 0):
            if rep >= FEWEST_REPS and self._plan.seconds_left() < ROW_SECONDS / 3:
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
