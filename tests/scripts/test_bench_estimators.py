"""`scripts/bench/bench_estimators.py` runs, and notices when the two did not do the same work."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "bench_estimators.py"
sys.path.insert(0, str(SCRIPT.parent))

import bench_estimators as bench  # noqa: E402


def test_a_quick_run_writes_every_row(tmp_path):
    out = tmp_path / "figures.json"
    command = [sys.executable, SCRIPT, "--quick", "--only", "digits", "text", "--out", out]
    done = subprocess.run([*command, "--reps", "1"], capture_output=True, text=True, check=True)
    assert "these numbers mean nothing" in done.stdout
    found = json.loads(out.read_text())
    assert [(row["data"], row["hidden"]) for row in found["rows"]] == [
        (data, hidden) for data in ("digits", "text") for hidden in ([100], [1000], [256, 256])
    ]
    for row in found["rows"]:
        assert [len(times) for times in row["seconds"].values()] == [1, 1]
        assert row["losses"]["gpunn"] == pytest.approx(row["losses"]["scikit-learn"], rel=1e-6)
        assert f"{row['ratio']:.2f} (" in done.stdout


@pytest.mark.parametrize(("epochs", "loss"), [(1, 0.5), (2, 0.5001)])
def test_other_work_is_an_error(epochs, loss):
    contenders = {
        "gpunn": SimpleNamespace(n_iter_=epochs, loss_curve_=[1.0, loss]),
        "scikit-learn": SimpleNamespace(n_iter_=2, loss_curve_=[1.0, 0.5]),
    }
    with pytest.raises(bench.DifferentWorkError):
        bench.check_same_work(contenders, SimpleNamespace(epochs=2), "float64")
    contenders["gpunn"] = contenders["scikit-learn"]
    bench.check_same_work(contenders, SimpleNamespace(epochs=2), "float64")


def test_text_is_as_sparse_as_text():
    problem = bench.text(quick=True)
    assert 20 < problem.X.getnnz(axis=1).mean() <= 100
    assert problem.X.multiply(problem.X).sum(axis=1) == pytest.approx(1)
    assert problem.shape() == "400 x 5,000 sparse"
