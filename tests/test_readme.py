"""Every command and code block of the README and the pages in `docs` runs as it stands.

The two commands that set up an environment of their own are run by `.ci/run`, which takes them from
the README; here it is only checked that they are the first two. The blocks of
`docs/from_scikit_learn.md` are run beside its other tests. Those of the tutorial continue one
another, and print what stands below them.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_import import FLOORS

from gpunn.cli import make_parser

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
}
README = PAGES["README.md"]
TUTORIAL = "docs/tutorial.md"
SET_UP = 2
"""So many commands, at the README's start, make an environment of their own."""


FLAGS = re.MULTILINE | re.DOTALL


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGES[page], FLAGS)


def commands(page):
    """Return the lines of a page's shell blocks, but for those that the README begins with."""
    return "".join(blocks(page, "sh")[SET_UP if page == "README.md" else 0 :]).splitlines()


PYTHON = [
    (page, n)
    for page in PAGES
    if page not in ("docs/from_scikit_learn.md", TUTORIAL)
    for n in range(len(blocks(page, "python")))
]
PACKAGES = ("pandas", "torch")
"""What some blocks need and the tests' environment does not have."""


def needed(page, n):
    return [name for name in PACKAGES if f"import {name}" in blocks(page, "python")[n]]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_known_kind(page):
    known = sum(len(blocks(page, kind)) for kind in ("python", "sh", "text"))
    assert len(re.findall(r"^\s*```", PAGES[page], re.MULTILINE)) == 2 * known


def test_the_readme_fits_one_screen():
    assert len(README.splitlines()) <= 90


def test_the_first_two_commands_do_their_own_set_up():
    assert blocks("README.md", "sh")[:SET_UP] == [
        "python -m pip install . && gpunn train\n",
        "python -m pip install -e '.[test]' && python -m pytest -n auto\n",
    ]


def without_figures(text):
    """Return the lines of a text with 0 in place of each number, and one space for several."""
    lines = re.sub(r"-?\d[\d.,]*", "0", text).splitlines()
    return [re.sub(r"\s+", " ", line) for line in lines]


def with_output(page):
    """Return a page's Python blocks, each with the text that stands below it, or with nothing."""
    return re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", PAGES[page], FLAGS)


def run_python(code, folder):
    """Run code with the warnings of the tests, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:running on the CPU", "-c", code],
        cwd=folder,
        check=True,
        timeout=120,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def test_the_mathematics_are_right_to_the_last_digit_shown(tmp_path):
    shown = [(block, text) for block, text in with_output("docs/mathematics.md") if text]
    assert len(shown) >= 5
    for block, text in shown:
        assert run_python(block, tmp_path) == text


def test_the_notebook_runs_as_a_plain_script(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run_python((ROOT / "docs" / "notebook.py").read_text(encoding="utf-8"), tmp_path)
    assert (tmp_path / "digits.safetensors").exists()


@pytest.mark.parametrize(
    ("page", "n"), PYTHON, ids=["-".join([page, str(n), *needed(page, n)]) for page, n in PYTHON]
)
def test_python_block(page, n, tmp_path):
    for package in needed(page, n):
        pytest.importorskip(package, reason=f"{package} is not installed")
    run_python(blocks(page, "python")[n], tmp_path)


def test_the_tutorial_prints_what_it_shows(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    shown = with_output(TUTORIAL)
    assert len(shown) == len(blocks(TUTORIAL, "python"))
    mark = "----"
    printed = run_python(f"print({mark!r})\n".join(block for block, _ in shown), tmp_path)
    for (block, text), lines in zip(shown, printed.split(f"{mark}\n"), strict=True):
        if text or "print(" not in block:
            assert without_figures(lines) == without_figures(text), block
    accuracies = [float(x) for x in re.findall(r"\b0\.\d{3}\b(?= of the test|\n| after)", printed)]
    assert len(accuracies) == 8
    assert min(accuracies[-4:]) > 0.9
    assert (tmp_path / "backwards.png").stat().st_size > 0


def test_ten_lines_of_python_are_ten_and_reach_95_percent(tmp_path):
    ten_lines = blocks("README.md", "python")[0]
    assert len([line for line in ten_lines.splitlines() if line]) == 10
    result = subprocess.run(
        [sys.executable, "-c", ten_lines],
        cwd=tmp_path,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert float(result.stdout.split()[-1]) > 0.95
    assert (tmp_path / "digits.safetensors").exists()


def run_shell(command, folder):
    """Run a command with the ``gpunn`` that belongs to this Python, and return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("gpunn", path=path) is None:
        pytest.skip("the command gpunn is not there: python -m pip install -e '.[test]'")
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        check=False,
        timeout=300,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sample_output_is_what_the_first_command_prints(tmp_path):
    (sample,) = blocks("README.md", "text")
    device, *others = [line for line in without_figures(sample) if line != "..."]
    printed = without_figures(run_shell("gpunn train", tmp_path))
    assert [line for line in others if line not in printed] == []
    assert device.startswith("running on cpu (NumPy 0): ")
    assert printed[0].startswith("running on ")


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_shell_commands_run_one_after_the_other(page, tmp_path):
    for command in commands(page):
        if " mnist " not in command:
            run_shell(command, tmp_path)
    for name in re.findall(r"--out (\S+)", "\n".join(commands(page))):
        assert name.startswith("mnist") or (tmp_path / name).stat().st_size > 0


def test_shell_commands_that_need_mnist(tmp_path, mnist_dir):
    found = [line for page in WITH_COMMANDS for line in commands(page) if " mnist " in line]
    assert found
    for command in found:
        run_shell(command, tmp_path)


def test_the_commands_that_the_readme_had_are_still_run():
    every = "\n".join(line for page in WITH_COMMANDS for line in commands(page))
    for command in ("train digits", "train mnist", "evaluate", "predict", "backquery", "info"):
        assert f"gpunn {command}" in every
    for words in ("parity --against float64", "--resume", "--recipe rashid"):
        assert words in every


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_exist(page):
    parsers = make_parser()._subparsers._group_actions[0].choices
    named = {
        (words[1], word.partition("=")[0])
        for line in (*commands(page), *re.findall(r"`(gpunn [^`]*)`", PAGES[page]))
        for words in [shlex.split(line)]
        for word in words[2:]
        if word.startswith("--")
    }
    for command, option in named:
        assert command == "COMMAND" or option in parsers[command]._option_string_actions, option


def anchors(text):
    """Return what GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", PAGES[page])
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_readme_leads_to_every_page():
    links = set(re.findall(r"\]\(([^)#]+)", README))
    assert {page for page in PAGES if page != "README.md"} <= links


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    names = re.findall(r"\b((?:gpunn|scripts|tests|docs)/[\w/]*[\w.]*\w)", PAGES[page])
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_extras_that_are_named_exist(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"'(?:gpunn|\.)\[([\w,-]+)\]'", PAGES[page])
    for extra in ",".join(named).split(",") if named else ():
        assert extra in project["optional-dependencies"]


def test_the_design_has_every_folder_and_the_order_of_imports():
    design = PAGES["docs/design.md"]
    folders = {path.parent.name for path in (ROOT / "gpunn").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", design, re.MULTILINE)) == folders
    (order,) = blocks("docs/design.md", "text")
    assert [line.split(", ") for line in order.splitlines()] == [list(names) for names in FLOORS]
