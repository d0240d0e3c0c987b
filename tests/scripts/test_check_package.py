"""What `scripts/check_package.py` would find wrong; the CI runs the whole of it."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import gpunn

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "check_package.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_package", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_that_are_missing_changed_or_too_many_are_named(script):
    expected = {"gpunn/a.py": b"1", "gpunn/b.cu": b"2", "gpunn/c.npz": b"3"}
    found = {"gpunn/a.py": b"1", "gpunn/c.npz": b"4", "tests/d.py": b""}
    assert script.wrong_files("the wheel", expected, expected) == []
    assert script.wrong_files("the wheel", found, expected) == [
        "the wheel lacks gpunn/b.cu",
        "the wheel should not have tests/d.py",
        "the wheel has a changed gpunn/c.npz",
    ]
    assert "the wheel has 0 files *.cu; expected at least 5" in script.wrong_kinds(found)


def test_the_project_has_files_of_every_kind_that_a_wheel_must_have(script):
    files = {path.name: b"" for path in (ROOT / "gpunn").rglob("*") if path.is_file()}
    assert script.wrong_kinds(files) == []


def test_the_citation_has_the_version_and_the_licence_of_the_project():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    fields = dict(re.findall(r"^([\w-]+): (.+)$", citation, re.MULTILINE))
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == gpunn.__version__
    assert fields["license"] == project["license"]
    assert f"name: {project['authors'][0]['name']}" in citation


def test_the_citation_is_valid():
    cffconvert = pytest.importorskip("cffconvert", reason="cffconvert is not installed")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cffconvert.Citation(citation).validate()
