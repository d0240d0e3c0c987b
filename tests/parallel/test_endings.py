"""How ranks end: killed, stopped, failing alone or together, and what is left to go on from."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from mpi_start import HERE, mpiexec, run, start

from gpunn.parallel.watch import Watch

WORK = HERE / "rank_fails.py"


def begun(process):
    """Return the processes of the ranks once they train."""
    line = process.stdout.readline()
    assert line.startswith("begins"), line + process.stderr.read()
    return [int(word) for word in line.split()[1:]]


def ended(process, seconds=30):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def result(out):
    return re.search(r"ends (\w{64})", out)[1]


def test_a_killed_rank_ends_all_and_others_go_on(tmp_path):
    whole = result(run(2, WORK, "plain", tmp_path / "whole")[0])
    folder = tmp_path / "killed"
    process = start(2, WORK, "slow", folder)
    pids = begun(process)
    time.sleep(0.25)
    os.kill(pids[1], signal.SIGKILL)
    status, _, _ = ended(process, 10)
    assert status != 0
    assert list(folder.glob("checkpoint-*"))
    # On another number of ranks from a copy, and on the same number to the same bits.
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.glob("checkpoint-*"):
        (other / path.name).write_bytes(path.read_bytes())
    result(run(3, WORK, "plain", other)[0])
    assert result(run(2, WORK, "plain", folder)[0]) == whole
    assert not list(folder.glob(".*"))


def test_a_rank_that_is_gone_is_named_where_the_launcher_says_nothing():
    """Most launchers end all ranks before any can say a word, so no real one is asked here."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    watch = object.__new__(Watch)
    watch._comm, watch._limit = SimpleNamespace(size=3, rank=0), 60.0
    watch._members = [(0, os.getpid()), (2, os.getpid())]
    watch._mine, watch._counts = [5, 0], [[5, 0], [5, 0]]
    assert watch._why(2.0) is None
    watch._members[1] = (2, ended.pid)
    assert watch._why(2.0) == "rank 2 of 3 is gone"


def test_a_rank_that_hangs_is_named(tmp_path):
    process = start(2, WORK, "slow", tmp_path / "c", GPUNN_RANK_SECONDS="2")
    pids = begun(process)
    os.kill(pids[1], signal.SIGSTOP)
    status, _, err = ended(process)
    assert status != 0
    assert re.search(rf"rank 0 of 2 has waited \d s for rank 1 \(process {pids[1]}\)", err)


def test_an_error_on_one_rank_ends_all(tmp_path):
    _, err = run(2, WORK, "raise", tmp_path / "c", status=1)
    assert "rank 1 of 2: Traceback" in err
    assert "RuntimeError: a callback fails; all ranks end" in err


def test_an_error_on_all_ranks_is_said_once(tmp_path):
    _, err = run(2, WORK, "raise on all", tmp_path / "c", status=1)
    assert err.count("RuntimeError: a callback fails") == 1
    assert "rank 1" not in err


def test_ranks_that_differ_are_found_at_the_start(tmp_path):
    _, err = run(2, WORK, "other data", tmp_path / "c", status=1)
    assert err.count("the training is not the same on all ranks: inputs on rank 1") == 1
    assert not list(tmp_path.glob("c/*"))


OTHER = "on rank 1 is another than on rank 0"
DIFFERENCES = {
    "predict": f"what is predicted is not the same on all ranks: inputs {OTHER}",
    "predict fewer": "inputs is 'float64 [12, 6]' on rank 0, but 'float64 [11, 6]' on rank 1",
    "evaluate": f"what is measured on is not the same on all ranks: targets {OTHER}",
    "gradients": f"what is learnt from is not the same on all ranks: inputs {OTHER}",
    "input gradients": f"what is learnt from is not the same on all ranks: targets {OTHER}",
    "load parameters": f"the network is not the same on all ranks: layers.0.weight {OTHER}",
    "fit": f"the network is not the same on all ranks: layers.0.weight {OTHER}",
    "seed": f"seed {OTHER}; give all ranks the same seed, and not None",
    "save": "1' on rank 1; give all ranks the same path",
    "load": f"the model file is not the same on all ranks: content {OTHER}; give all ranks the",
    "load how": "not the same on all ranks: parallel is 'hidden' on rank 0, but 'data' on rank 1",
}


def test_ranks_that_do_not_do_the_same_are_told(tmp_path):
    out, _ = run(2, HERE / "rank_differs.py", tmp_path)
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines.keys() == DIFFERENCES.keys()
    for name, said in DIFFERENCES.items():
        assert said in lines[name]


def test_a_rank_that_ends_before_the_others_is_named():
    _, err = run(2, HERE / "rank_differs.py", "ends", status=1)
    assert "gpunn: rank 1 of 2 has ended, and the others wait for it, so all ranks end" in err


def test_the_command_line_speaks_once_and_evaluates_and_predicts(tmp_path):
    def gpunn(n, *words, status=0):
        return run(n, "-m", "gpunn", *words, status=status)

    model = tmp_path / "m.safetensors"
    out, err = gpunn(2, "train", "digits", "--epochs", "2", "--out", model, "--json")
    result = json.loads(out)
    assert (result["ranks"], result["layer_sizes"]) == (2, [64, 100, 10])
    assert err.count("running on 2 ranks by ") == 1
    assert err.count("epoch   2/2") == 1
    assert "ranks: each has 50 of the 100 hidden units" in err
    out, _ = gpunn(2, "evaluate", model, "digits", "--json")
    assert json.loads(out)["accuracy"] == result["test_accuracy"]
    gpunn(2, "predict", model, "digits", "--out", tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1798
    out, _ = gpunn(2, "info", "--json")
    assert [rank["device"] for rank in json.loads(out)["ranks"]["ranks"]] == ["cpu", "cpu"]
    out, _ = gpunn(2, "info")
    assert re.search(r"2 ranks by .+ [\d.]+ \(mpi4py [\d.]+\)", out)
    assert re.search(r"  1: cpu of \S+, process \d+", out)
    _, err = gpunn(2, "report", model, "digits", "--out", tmp_path / "r.html", status=2)
    # Open MPI has lines of its own to add.
    assert [line for line in err.splitlines() if "gpunn" in line] == [
        "gpunn: error: gpunn report runs in one process, and 2 were started: start it without "
        "mpiexec or srun"
    ]


def test_a_signal_ends_all_ranks_in_good_order(tmp_path):
    process = start(2, WORK, "slow", tmp_path / "c")
    pids = begun(process)
    time.sleep(0.1)
    os.kill(pids[1], signal.SIGTERM)
    status, out, err = ended(process)
    assert status == 0, err
    result(out)


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process uses from /proc")
def test_a_network_that_fits_no_rank_as_a_whole(tmp_path):
    mpiexec()
    path = tmp_path / "m"
    # The whole takes 181 MiB; half of it fits 150, with all that a training needs.
    out, _ = run(1, HERE / "rank_wide.py", "none", 150)
    assert "too wide 181" in out
    trained, _ = run(2, HERE / "rank_wide.py", path, 150)
    loaded, _ = run(3, HERE / "rank_wide.py", path, 150)
    assert float(trained) == pytest.approx(float(loaded), rel=1e-5)
    assert Path(path).stat().st_size > 181 * 2**20
