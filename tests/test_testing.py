"""The pytest plugin, in a project of somebody else's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpunn
from gpunn.backends.select import cuda_problem

no_gpu = pytest.mark.skipif(cuda_problem() is None, reason="there is a usable GPU")

PROJECT = """
import numpy as np
import pytest
import gpunn
from gpunn.testing import assert_parity

X = np.random.default_rng(0).uniform(size=(20, 4))
y = np.arange(20) % 3


def test_network(device):
    assert_parity(gpunn.Network([4, 8, 3], device=device), X, y)


@pytest.mark.gpu
def test_of_a_gpu_alone():
    gpunn.testing.require_gpu()
"""


@pytest.fixture
def project(tmp_path):
    """Run pytest, with the plugin, on a file of tests in a folder of its own."""
    (tmp_path / "test_mine.py").write_text(PROJECT)

    def run(*arguments, require_gpu=""):
        root = str(Path(gpunn.__file__).parents[1])
        command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "gpunn.testing"]
        command += ["-p", "no:cacheprovider", "--strict-markers", "-v", "-rs", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root, "GPUNN_REQUIRE_GPU": require_gpu},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_device_is_each_that_is_there(project):
    done = project()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_network[cpu] PASSED" in done.stdout
    if cuda_problem() is None:
        assert "3 passed" in done.stdout
    else:
        assert "1 passed, 2 skipped" in done.stdout
        assert done.stdout.count("no usable GPU: ") >= 1


def test_the_marker_selects(project):
    done = project("-m", "not gpu")
    assert (done.returncode, "1 passed, 2 deselected" in done.stdout) == (0, True), done.stdout
    assert "@pytest.mark.gpu: needs a usable NVIDIA GPU" in project("--markers").stdout


@no_gpu
def test_a_gpu_that_must_be_there_and_is_not_is_a_failure(project):
    done = project(require_gpu="1")
    assert done.returncode == 1
    assert "test_network[cuda] " in done.stdout
    assert "1 failed, 1 passed, 1 error" in done.stdout
    assert "no usable GPU: " in done.stdout


def test_assert_parity_fails_with_a_line_for_what_differs(project, tmp_path):
    (tmp_path / "test_mine.py").write_text(
        PROJECT
        + """

class Wrong(type(gpunn.get_backend("cpu"))):
    def sum_rows(self, a, out, *, alpha=1.0, beta=0.0):
        super().sum_rows(a, out, alpha=1.001 * alpha, beta=beta)


def test_wrong():
    assert_parity(gpunn.Network([4, 8, 3], device=Wrong()), X, y)
"""
    )
    done = project("-k", "wrong")
    assert done.returncode == 1
    assert "differs from float64" in done.stdout
    assert "gradients: relative difference" in done.stdout
    assert "outputs: relative difference" not in done.stdout
