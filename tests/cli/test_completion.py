"""Completion in real shells, whose Tab key is pressed in a terminal."""

import os
import shutil
import subprocess
import sys

import pytest

from gpunn import cli
from gpunn.cli.completion import SHELLS

if os.name == "nt":
    pytest.skip("needs POSIX terminals", allow_module_level=True)
shtab = pytest.importorskip("shtab")
from terminal import Terminal  # noqa: E402

SCRIPT = [sys.executable, "-m", "gpunn", "--print-completion"]
SHELL = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
    "tcsh": ["tcsh", "-f", "-i"],
}
BEGIN = {
    "bash": "PS1='> '; source _gpunn",
    "zsh": "PS1='> '; fpath=($PWD $fpath); autoload -U compinit; compinit -u -D",
    "fish": "source _gpunn",
    "tcsh": "source _gpunn",
}


@pytest.fixture
def pressed(tmp_path):
    """Type something in a shell, press Tab, and return what the line has become."""
    for name in ("model.safetensors", "my-table.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "pictures").mkdir()

    def run(shell, typed, expected):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        with (tmp_path / "_gpunn").open("w") as file:
            subprocess.run([*SCRIPT, shell], stdout=file, check=True)
        with Terminal(SHELL[shell], 200, tmp_path) as terminal:
            # The answer differs from the line, so it is not the line's own echo that is found.
            terminal.press(f"{BEGIN[shell]}; echo rea''dy\r".encode())
            terminal.wait_for(lambda lines: any(line.endswith("ready") for line in lines))
            terminal.press(f"{typed}\t".encode())
            terminal.wait_for(lambda lines: any(expected in line for line in lines))

    return run


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("gpunn bac", "gpunn backquery"),
        ("gpunn train --early", "gpunn train --early-stopping"),
        ("gpunn train --schedule inv", "--schedule inverse-scaling"),
        ("gpunn evaluate mod", "gpunn evaluate model.safetensors"),
        ("gpunn evaluate model.safetensors my", "model.safetensors my-table.csv"),
        ("gpunn train --checkpoint pic", "--checkpoint pictures"),
        ("gpunn predict m d --out my", "--out my-table.csv"),
    ],
)
@pytest.mark.parametrize("shell", SHELL)
def test_tab_completes_commands_options_choices_and_files(pressed, shell, typed, expected):
    if shell == "tcsh" and "safetensors my" in typed:
        pytest.skip("in tcsh, shtab's script completes the first file of a command alone")
    pressed(shell, typed, expected)


def test_every_shell_has_a_script(capsys):
    assert set(SHELLS) == set(SHELL) <= set(shtab.SUPPORTED_SHELLS)
    for shell in SHELLS:
        with pytest.raises(SystemExit) as end:
            cli.main(["--print-completion", shell])
        assert not end.value.code
        assert "early-stopping" in capsys.readouterr().out


def test_without_shtab_one_line_says_what_to_type(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["--print-completion", "bash"])
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "gpunn: error: completion needs shtab, which is not installed: "
        "pip install 'gpunn[completion]'\n",
    )


def test_shtab_is_loaded_for_scripts_alone():
    code = "import sys; from gpunn.cli import make_parser; make_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "shtab" not in done.stdout.split()
