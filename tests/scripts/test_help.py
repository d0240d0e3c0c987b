"""Every script that is a command says what it does and how it is called."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COMMANDS = sorted(
    str(path.relative_to(SCRIPTS))
    for path in SCRIPTS.rglob("*.py")
    if "__main__" in path.read_text()
)


def test_every_script_has_a_docstring_and_every_command_shows_its_call():
    assert len(COMMANDS) >= 8
    for path in SCRIPTS.rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert docstring, path
        name = path.relative_to(SCRIPTS)
        assert str(name) not in COMMANDS or f"    python scripts/{name.as_posix()}" in docstring


@pytest.mark.skipif(os.name == "nt", reason="some scripts measure memory as POSIX does")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_the_docstring_says(command, tmp_path):
    path = SCRIPTS / command
    done = subprocess.run(
        [sys.executable, path, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
    assert first in " ".join(done.stdout.split())
    assert not list(tmp_path.iterdir())
