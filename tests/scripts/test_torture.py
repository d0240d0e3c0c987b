"""What `scripts/stress/torture.py` does in full, in short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "stress" / "torture.py"
TESTS = ("kill", "full", "removed", "forbidden", "files", "examples", "together", "stream")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, limits and fork")
@pytest.mark.parametrize("test", TESTS)
def test_nothing_is_lost(test):
    if test == "examples":
        pytest.importorskip("hypothesis")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", test], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.splitlines()[-1].split()
    assert (row[0], row[2]) == (test, "0")
