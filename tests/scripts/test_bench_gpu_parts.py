"""Where a step's time goes: calls of a backend, timed and counted."""

import time

import gpu_captures
import gpu_parts
import pytest
from bench_rehearsal import tiny_plan
from gpu_task import Task
from gpu_timing import Clock
from made_samples import Samples


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
