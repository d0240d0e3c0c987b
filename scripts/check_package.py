"""Build the wheel and the sdist, and check what is in them and that they work.

    python scripts/check_package.py
    python scripts/check_package.py --keep dist

needs git and a package index, and makes virtual environments of its own in a folder that it
removes. It checks that

- `twine check --strict` finds nothing wrong with the metadata, nor with the README in it;
- the wheel has every file of `gpunn/`, byte by byte, and nothing else but its metadata;
- the sdist has every file of the project, but for the CI's own and git's;
- the wheel that is built from the sdist is the same;
- in an environment with nothing but the wheel and what it depends on, `gpunn train` works.

Exit status: 0 if all of that is so, 1 with one line for each thing that is not.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOT_IN_SDIST = (".ci/", ".gitattributes", ".github/")
KINDS = {".py": 100, ".cu": 5, ".npz": 1, ".typed": 1}
"""At least so many files of each kind are in the wheel."""
LARGEST = {".whl": 1.0, ".gz": 3.0}
"""How many MB each may have."""


def main() -> int:
    """Build, check, and say what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder to copy the wheel and the sdist to")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as folder:
        problems = check(Path(folder), keep)
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if problems else 0


def check(work: Path, keep: Path | None) -> list[str]:
    """Return what is wrong with the wheel and the sdist; copy them to `keep`."""
    with ThreadPoolExecutor() as pool:
        # What the wheel depends on takes longest to arrive.
        needed = requirements()
        bare = pool.submit(environment, work / "bare", needed["project"]["dependencies"])
        tools = environment(work / "tools", ["build", "twine", *needed["build-system"]["requires"]])
        build = (tools, "-m", "build", "--no-isolation", ROOT, "--outdir")
        run(*build, work / "dist")
        run(*build, work / "direct", "--wheel")
        sdist, wheel = sorted((work / "dist").iterdir(), key=lambda path: path.suffix)
        run(tools, "-m", "twine", "check", "--strict", sdist, wheel)
        files = wheel_files(wheel)
        problems = [
            *wrong_files("the wheel", files, project_files("gpunn/")),
            *wrong_files("the sdist", sdist_files(sdist), project_files()),
            *wrong_kinds(files),
            *(
                f"{path.name} has {path.stat().st_size / 1e6:.1f} MB"
                for path in (sdist, wheel)
                if path.stat().st_size > 1e6 * LARGEST[path.suffix]
            ),
        ]
        if all_files(wheel) != all_files(next((work / "direct").iterdir())):
            problems.append("the wheel made from the sdist differs from the one of the project")
        problems += wrong_when_used(bare.result(), wheel, work)
    for path in (sdist, wheel):
        print(f"{path.name}: {path.stat().st_size / 1e3:,.0f} kB")
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, keep)
    return problems


def requirements() -> dict[str, Any]:
    """Return what `pyproject.toml` says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def environment(folder: Path, packages: Iterable[str]) -> Path:
    """Make a virtual environment with these packages, and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    quick = ("--quiet", "--disable-pip-version-check", "--no-compile")
    run(python, "-m", "pip", "install", *quick, *packages)
    return python


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command and return what it printed; if it fails, show that and end."""
    # Nothing of the project itself may be found but through what is installed.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        sys.exit(f"failed: {' '.join(words)}")
    return done.stdout


def project_files(folder: str = "") -> dict[str, bytes]:
    """Return the files that git has or would take, by their names."""
    listed = run(
        "git", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard", "--", f"./{folder}"
    )
    names = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
    return {name: (ROOT / name).read_bytes() for name in names if not name.startswith(NOT_IN_SDIST)}


def all_files(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel, by their names."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def wheel_files(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel, but for its metadata."""
    return {name: data for name, data in all_files(wheel).items() if ".dist-info/" not in name}


def sdist_files(sdist: Path) -> dict[str, bytes]:
    """Return the files of an sdist, but for its metadata."""
    found = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            file = archive.extractfile(member)
            if file is not None and name != "PKG-INFO":
                found[name] = file.read()
    return found


def wrong_files(what: str, found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Return what is missing, changed, or should not be there."""
    missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys()
    changed = {n for n in expected.keys() & found.keys() if expected[n] != found[n]}
    cases = (("lacks", missing), ("should not have", surplus), ("has a changed", changed))
    return [f"{what} {case} {name}" for case, names in cases for name in sorted(names)]


def wrong_kinds(files: dict[str, bytes]) -> list[str]:
    """Return which kinds of files the wheel has too few of."""
    counts = {kind: sum(name.endswith(kind) for name in files) for kind in KINDS}
    return [
        f"the wheel has {counts[kind]} files *{kind}; expected at least {least}"
        for kind, least in KINDS.items()
        if counts[kind] < least
    ]


def wrong_when_used(python: Path, wheel: Path, work: Path) -> list[str]:
    """Return what is wrong with the installed wheel; train and evaluate a network with it."""
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    run(python, "-m", "pip", "check")
    folder = work / "used"
    folder.mkdir()
    gpunn = python.with_name("gpunn")
    version = run(gpunn, "--version", cwd=folder).split()[-1]
    trained = run(gpunn, "train", "--epochs", "10", cwd=folder)
    measured = run(gpunn, "evaluate", "digits.safetensors", "digits", cwd=folder)
    where = run(python, "-c", "import gpunn; print(gpunn.__file__)", cwd=folder).strip()
    problems = []
    if version != wheel.name.split("-")[1]:
        problems.append(f"gpunn --version says {version}, but the wheel is {wheel.name}")
    if "saved digits.safetensors" not in trained or "accuracy 0.9" not in measured:
        problems.append(f"gpunn train and evaluate said:\n{trained}\n{measured}")
    if not Path(where).is_relative_to(python.parents[1]):
        problems.append(f"gpunn was imported from {where}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
