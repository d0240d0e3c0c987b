"""Whether the GPU benchmark's contestants compute the same, up to rounding."""

import dataclasses

import gpu_baselines
import numpy as np
import pytest
from bench_rehearsal import ROW, skip_without, tiny_plan
from gpu_agreement import Pass, agreement, dropout_agreement
from gpu_plan import Row
from gpu_runner import Bench
from gpu_task import Task
from made_samples import Samples


def test_agreement_is_measured_in_units_of_what_was_learnt() -> None:
    start = {"w": np.ones(1000, np.float32)}
    ours = Pass(10, {"w": start["w"] + np.float32(0.1)}, 0.5)
    for off, same in ((1e-6, True), (1e-3, False), (float("nan"), False)):
        theirs = Pass(10, {"w": ours.weights["w"] + np.float32(off)}, 0.5)
        assert agreement(ROW, start, ours, theirs)["same"] == same
    assert not agreement(ROW, start, ours, Pass(10, ours.weights, 0.501))["same"]


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
