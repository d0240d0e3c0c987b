"""Every command and code block of the README runs as it stands.

The two commands that set up an environment of their own are run by `.ci/run`, which takes them from
the README; here it is only checked that they are the first two.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LATER_COMMANDS = "".join(SHELL[2:]).splitlines()


def test_every_block_is_of_a_kind_that_is_run():
    assert len(re.findall(r"^```", README, re.MULTILINE)) == 2 * (len(PYTHON) + len(SHELL))


def test_the_first_two_commands_do_their_own_set_up():
    assert SHELL[0] == "python -m pip install . && gpunn train\n"
    assert SHELL[1] == "python -m pip install -e '.[test]' && python -m pytest -n auto\n"


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_block(block, tmp_path):
    subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:running on the CPU", "-c", block],
        cwd=tmp_path,
        check=True,
        timeout=120,
    )


def test_ten_lines_of_python_are_ten_and_reach_95_percent(tmp_path):
    assert len([line for line in PYTHON[0].splitlines() if line]) == 10
    result = subprocess.run(
        [sys.executable, "-c", PYTHON[0]],
        cwd=tmp_path,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert float(result.stdout.split()[-1]) > 0.95
    assert (tmp_path / "digits.safetensors").exists()


def run_shell(command, folder):
    """Run a command with the ``gpunn`` that belongs to this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("gpunn", path=path) is None:
        pytest.skip("the command gpunn is not there: python -m pip install -e '.[test]'")
    environment = {**os.environ, "PATH": path}
    subprocess.run(command, shell=True, cwd=folder, check=True, timeout=300, env=environment)


def test_shell_commands_run_one_after_the_other(tmp_path):
    for command in LATER_COMMANDS:
        if " mnist " not in command:
            run_shell(command, tmp_path)
    for name in ("digits.safetensors", "predictions.csv", "classes.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_shell_commands_that_need_mnist(tmp_path, mnist_dir):
    commands = [command for command in LATER_COMMANDS if " mnist " in command]
    assert commands
    for command in commands:
        run_shell(command, tmp_path)


def test_links_lead_somewhere():
    links = [
        link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")
    ]
    assert links
    for link in links:
        assert (Path(__file__).parents[1] / link).exists(), link
