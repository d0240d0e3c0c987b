"""Files from strangers: those that a fuzzer found to reach some code that no other one reaches.

`scripts/stress/fuzz.py` found them, among them all that ever went wrong. Each must be read, or be
refused by a `GpunnError` of one line that names it.
"""

import os
import sys
from pathlib import Path

import pytest

if os.name == "nt":
    pytest.skip("the scripts measure memory as POSIX does", allow_module_level=True)

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS.parent / "scripts" / "stress"))

from hostile_files import kinds_of_files  # noqa: E402
from hostile_judge import Judge  # noqa: E402

CORPUS = TESTS / "corpus"
READERS = sorted(path.name for path in CORPUS.iterdir())
NEEDED = {"estimator": "sklearn", "parquet": "pyarrow", "picture": "PIL"}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return kinds_of_files(tmp_path_factory.mktemp("good"))


def outcomes(kind, contents, folder):
    judge = Judge(kind)
    for content in contents:
        for stale in folder.iterdir():
            stale.unlink()
        (folder / kind.name).write_bytes(content)
        yield judge(folder / kind.name)


@pytest.mark.parametrize("reader", READERS)
def test_what_the_fuzzer_found_is_read_or_refused(kinds, reader, tmp_path):
    if reader in NEEDED:
        pytest.importorskip(NEEDED[reader])
    files = sorted((CORPUS / reader).iterdir())
    assert len(files) >= 8
    found = outcomes(kinds[reader], (path.read_bytes() for path in files), tmp_path)
    assert {
        path.name: outcome.problem
        for path, outcome in zip(files, found, strict=True)
        if outcome.problem is not None
    } == {}


def test_each_reader_reads_some_good_file(kinds, tmp_path):
    assert set(READERS) | set(NEEDED) == set(kinds) | set(NEEDED)
    for kind in kinds.values():
        found = list(outcomes(kind, kind.good, tmp_path))
        assert all(outcome.problem is None for outcome in found)
        assert any(outcome.n_refused < len(kind.reads) for outcome in found)
