"""Ranks that each have a GPU, for which the double of CuPy stands; MPI and processes are real."""

import fake_cuda
import numpy as np
import pytest
from mpi_start import HERE, run
from test_ranks import BOUND

from gpunn.cli.rank_facts import problems_of
from gpunn.parallel.watch import Watch

WORK = HERE / "rank_double.py"
NUMBERS = (2, 3, 4)

pytestmark = pytest.mark.skipif(fake_cuda.CXX is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    for n in (1, *NUMBERS):
        run(n, WORK, folder / f"{n}.npz", 4)
    return {n: dict(np.load(folder / f"{n}.npz")) for n in (1, *NUMBERS)}


@pytest.mark.parametrize("n", NUMBERS)
def test_devices_come_to_the_result_of_one(results, n):
    one, several = results[1], results[n]
    compared = 0
    for name, expected in one.items():
        if expected.dtype.kind != "f":
            continue
        size = float(np.abs(expected).max())
        np.testing.assert_allclose(several[name], expected, rtol=0, atol=BOUND * size, err_msg=name)
        compared += 1
    assert compared == 4 * 5 + 2
    kinds = {name: str(several[f"{name}/kind"]) for name in ("hidden", "dropout", "data", "deep")}
    assert kinds == {"hidden": "hidden", "dropout": "hidden", "data": "data", "deep": "data"}


@pytest.mark.parametrize("n", NUMBERS)
def test_each_rank_has_a_device_of_its_own_and_adds_up_there(results, n):
    # Which rank of a machine is its second is the launcher's choice: Open MPI goes round sockets.
    assert sorted(results[n]["hidden/devices"]) == [f"cuda:{rank}" for rank in range(n)]
    assert results[n]["hidden/devices"][0] == "cuda:0"
    # Six steps, of which the last of each epoch has 10 samples, and the losses of none.
    outputs = 2 * (20 + 20 + 10) * 3 * 8
    assert results[n]["hidden/sent"] >= 2 * (n - 1) * outputs // n
    assert results[1]["deep/sent"] == 0


def test_two_ranks_with_one_gpu_are_refused(tmp_path):
    out, _ = run(2, WORK, tmp_path / "1.npz", 1)
    assert out.count("ranks 0 and 1 have the same GPU") == 2
    assert "start one rank for each GPU, or use device 'cpu'" in out


def test_a_sum_that_a_device_does_not_end_is_waited_for():
    watch, done = object.__new__(Watch), [True]
    watch._mine, watch._since = [0], 0.0
    watch.note_sum(lambda: done[0])
    assert (watch._mine[0], watch._waits_since()) == (1, 0.0)
    done[0] = False
    assert watch._waits_since() > 0.0


def _rank(**differs):
    return {
        "host": "here", "device": "cpu", "gpu": None, "cores": 2, "nccl": None,
        "versions": {"gpunn": "1", "NumPy": "2"}, **differs,
    }  # fmt: skip


def _gpu(number, nccl=22703, **differs):
    return _rank(device=f"cuda:{number}", gpu=f"0000:0{number}:00.0", nccl=nccl, **differs)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ([_rank(), _rank()], None),
        ([_gpu(0), _gpu(1)], None),
        ([_gpu(0), _gpu(0, host="there")], None),
        ([_gpu(0), _gpu(0)], "2 ranks on here have the same GPU (0000:00:00.0)"),
        ([_gpu(0), _rank()], "some ranks have a GPU and others have none"),
        ([_gpu(0), _gpu(1, nccl=None)], "CuPy finds no NCCL on some ranks"),
        ([_rank()] * 3, "3 ranks share the 2 cores of here"),
        (
            [_rank(), _rank(versions={"gpunn": "1", "NumPy": "3"})],
            "the ranks have different versions of NumPy: 2, 3",
        ),
    ],
)
def test_what_is_wrong_with_ranks_is_said(ranks, said):
    found = problems_of(ranks)
    assert found == [] if said is None else said in found[0].cause
