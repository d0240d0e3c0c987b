"""The script that runs everything on a machine with a GPU: its parts, without one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path[:0] = [str(SCRIPTS / "bench"), str(SCRIPTS / "gpu")]

import gpu_check  # noqa: E402
from gpu_check import Done, Part  # noqa: E402


def python(name: str, code: str, limit: float = 30.0) -> Part:
    return Part(name, [sys.executable, "-c", code], limit, lambda done: {"ok": done.status == 0})


def test_a_part_that_fails_or_hangs_keeps_no_other_from_running(tmp_path: Path) -> None:
    todo = [
        python("good", "print('said')"),
        python("bad", "raise SystemExit(3)"),
        python("slow", "import time; print('begun', flush=True); time.sleep(60)", limit=2.0),
        Part("odd", [sys.executable, "-c", ""], 30.0, lambda done: gpu_check.last_json("no JSON")),
        python("last", ""),
    ]
    results: dict[str, Any] = {"began": time.monotonic(), "parts": {}}
    out = tmp_path / "check.json"
    seen = []

    def watched() -> Any:
        for part in todo:
            yield part
            seen.append(len(json.loads(out.read_text())["parts"]))

    gpu_check.run_parts(watched(), results, out)
    assert seen == [1, 2, 3, 4, 5]
    found = json.loads(out.read_text())
    assert {name: part["ok"] for name, part in found["parts"].items()} == {
        **{"good": True, "bad": False, "slow": False, "odd": False, "last": True}
    }
    assert found["ok"] is False
    assert found["parts"]["good"]["output_tail"] == "said\n"
    assert found["parts"]["bad"]["status"] == 3
    assert found["parts"]["slow"]["timed_out"]
    assert "begun" in found["parts"]["slow"]["output_tail"]
    assert "ValueError" in found["parts"]["odd"]["summary_failed"]


def write_tests(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import time, pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'not the same'\n"
        "def test_skipped(): pytest.skip('no data')\n"
        "def test_zz_slow(): time.sleep(SLOW)\n"
    )


@pytest.mark.parametrize("slow", [0, 60])
def test_tests_are_counted_also_when_they_were_cut_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slow: int
) -> None:
    write_tests(tmp_path)
    file = tmp_path / "test_some.py"
    file.write_text(file.read_text().replace("SLOW", str(slow)))
    monkeypatch.setattr(gpu_check, "find_spec", lambda name: None)
    part = gpu_check.tests("tests", "not gpu", 8.0 if slow else 60.0, tmp_path)
    # Those tests, not the project's, whose options must go with them.
    part.command.extend([str(tmp_path), "--rootdir", str(tmp_path)])
    found = gpu_check.run_part(part)
    assert not found["ok"]
    assert found["timed_out"] == (slow > 0)
    assert found["failed"] >= 1
    assert "not the same" in found["failures"][0]["message"]
    assert found["failures"][0]["test"].endswith("test_some::test_bad")
    assert {"Skipped: no data", "no data"} & set(found["skip_reasons"])


def test_parity_is_what_its_last_line_says() -> None:
    for ok in (True, False):
        done = Done(0, f'device\n{{"ok": {str(ok).lower()}, "worst": 1e-6}}\n')
        assert gpu_check.summarize_parity(done)["ok"] is ok
    assert not gpu_check.summarize_parity(Done(1, '{"ok": true}'))["ok"]


def test_the_parts_fit_and_the_benchmark_gets_what_the_others_leave(tmp_path: Path) -> None:
    names = ["tests_gpu", "parity_fp32", "parity_tf32", "parity_bf16", "bench"]
    for left, limit in ((210.0, 210.0), (30.0, gpu_check.SHORTEST_BENCH)):
        found = {p.name: p for p in gpu_check.parts(tmp_path, lambda n=left: n, every=False)}
        assert list(found) == names
        assert found["bench"].limit == limit
        assert float(found["bench"].command[3]) < limit
    others = sum(part.limit for part in found.values()) - found["bench"].limit
    # Even if every part takes all that it may, six minutes are enough.
    assert gpu_check.MACHINE + others + gpu_check.SHORTEST_BENCH <= 360
    assert gpu_check.SECONDS <= 360


def test_tests_that_need_no_gpu_run_only_if_all_are_asked_for(tmp_path: Path) -> None:
    *_, last = gpu_check.parts(tmp_path, lambda: 100.0, every=True)
    assert last.name == "tests_other"
    assert "not gpu" in last.command


def test_no_gpu_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "gpu" / "gpu_check.py"), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    assert "no usable GPU: " in done.stderr.splitlines()[-1]
    assert not out.exists()
