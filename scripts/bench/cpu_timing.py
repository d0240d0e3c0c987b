"""How bench_cpu.py takes times: everyone in turns, on as many samples as fill the planned time."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

from cpu_baselines import Run, gpunn_run, plain_run, sklearn_run, torch_run
from cpu_plan import Cell, Plan
from cpu_results import Row, Timing
from made_samples import Samples
from turns import PAUSE, turns

from gpunn.backends.numba_library import loops_problem
from gpunn.backends.numpy_backend import NumpyBackend

FEWEST_STEPS = 4
LONGEST_RUN = 2.0
"""Who would take longer, in seconds, is given fewer samples; times are compared per sample."""


def seconds_of(run: Run, n_samples: int) -> float:
    began = time.perf_counter()
    run(n_samples)
    return time.perf_counter() - began


def whole_batches(n_samples: float, batch: int, most: int) -> int:
    """Return about so many samples as whole batches, a few at least and `most` at most."""
    n_batches = min(round(n_samples / batch), most // batch)
    return max(n_batches, FEWEST_STEPS) * batch


def calibrate(run: Run, batch: int, plan: Plan) -> int:
    """Return how many samples make a run of about the planned seconds."""
    n_samples = whole_batches(0, batch, plan.most_samples)
    run(n_samples)  # first calls allocate
    while True:
        seconds = seconds_of(run, n_samples)
        wanted = whole_batches(n_samples * plan.run_seconds / seconds, batch, plan.most_samples)
        # Short runs say little of long ones, so grow in steps.
        if wanted <= 4 * n_samples:
            return wanted
        n_samples = whole_batches(4 * n_samples, batch, plan.most_samples)


def warm_up(run: Run, n_samples: int, batch: int) -> int:
    """Run once; return how many samples to give this contestant."""
    n_few = min(n_samples, FEWEST_STEPS * batch)
    run(n_few)
    expected = seconds_of(run, n_few) * n_samples / n_few
    if expected > LONGEST_RUN:
        return whole_batches(n_samples * LONGEST_RUN / expected, batch, n_samples)
    run(n_samples)
    return n_samples


def fastest(choices: dict[str, Callable[[], Run]], n_samples: int) -> tuple[str, Run, list[str]]:
    """Return the name and the run of the fastest choice, and what went wrong with others.

    Raises
    ------
    RuntimeError
        If all of them fail.
    """
    best: tuple[float, str, Run] | None = None
    problems = []
    for name, make in choices.items():
        try:
            run = make()
            run(n_samples)
            seconds = min(seconds_of(run, n_samples) for _ in range(3))
        except Exception as error:  # whatever a compiler or an option not offered here raises
            problems.append(f"{name} fails: {str(error).strip().splitlines()[:1]}")
            continue
        if best is None or seconds < best[0]:
            best = (seconds, name, run)
    if best is None:
        raise RuntimeError("; ".join(problems))
    return best[1], best[2], problems


def torch_runs(
    cell: Cell, samples: Samples, n_samples: int, plan: Plan, row: Row
) -> Iterator[tuple[str, str, Run]]:
    """Yield name, note and run of PyTorch, each way with what makes it fastest in this cell."""
    # Enough to tell the choices apart, and much less than is timed in the end.
    few = max(FEWEST_STEPS * cell.batch, min(n_samples, n_samples // 10, 20 * cell.batch))
    name, run, problems = fastest(
        {
            "default": lambda: torch_run(cell, samples, fused=False),
            "fused": lambda: torch_run(cell, samples, fused=True),
        },
        few,
    )
    row.notes += problems
    yield "torch", f"optimizer {name}", run
    if not plan.compile:
        return
    fused = name == "fused"
    try:
        mode, run, problems = fastest(
            {
                mode: partial(torch_run, cell, samples, fused=fused, mode=mode)
                for mode in ("default", "max-autotune-no-cudagraphs")
            },
            few,
        )
        row.notes += problems
        yield "compile", f"mode {mode}, optimizer {name}", run
    except RuntimeError as error:
        row.notes.append(f"torch.compile: {error}")


def baseline_runs(
    cell: Cell, samples: Samples, n_samples: int, plan: Plan, row: Row
) -> Iterator[tuple[str, str, Run]]:
    """Yield name, note and run of each baseline that is installed; put problems into the row."""
    if loops_problem() is None:
        yield "numpy", "", gpunn_run(cell, samples, NumpyBackend())
    if cell.section == "online":
        yield "plain", "", plain_run(cell, samples)
    if find_spec("torch") is not None:
        yield from torch_runs(cell, samples, n_samples, plan, row)
    if cell.section != "online" and find_spec("sklearn") is not None:
        yield "sklearn", "", sklearn_run(cell, samples)


def measure_cell(cell: Cell, samples: Samples, threads: int, plan: Plan) -> Row:
    """Time everyone in turns."""
    row = Row(cell, threads)
    runs = {"gpunn": gpunn_run(cell, samples)}
    n_samples = calibrate(runs["gpunn"], cell.batch, plan)
    row.timings["gpunn"] = Timing(n_samples)
    runs["gpunn"](n_samples)
    for name, note, run in baseline_runs(cell, samples, n_samples, plan, row):
        runs[name] = run
        row.timings[name] = Timing(warm_up(run, n_samples, cell.batch), note=note)
    for rep in range(plan.reps):
        for name in turns(list(runs), rep):
            time.sleep(PAUSE)
            timing = row.timings[name]
            timing.seconds.append(seconds_of(runs[name], timing.n_samples))
    return row
