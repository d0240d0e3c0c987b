"""What the GPU benchmark says of a run: verdicts, report, picture, and the page for readers."""

import json
from pathlib import Path
from typing import Any

import gpu_baselines
import gpu_page
import gpu_report
import gpu_verdicts
import pytest
from bench_rehearsal import BENCH, ROW, results_of
from gpu_accuracy import Accuracy

PAGE = BENCH.parents[2] / "docs" / "benchmarks" / "gpu.md"


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


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    runs = {
        name: {"samples": 10, "seconds": [1.0 + i, 2.0 + i]}
        for i, name in enumerate(gpu_baselines.CONTESTANTS)
    }
    values = {"rows": [{"label": "a row", "runs": runs}], "rehearsal": True}
    assert gpu_report.draw(values, tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
    assert not gpu_report.draw({"rows": []}, tmp_path / "none.png")


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
