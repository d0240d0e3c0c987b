"""The same on any number of ranks: real MPI processes, 1, 2, 3 and 4 of them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from mpi_start import HERE, run
from safetensors.numpy import load_file

import gpunn

NUMBERS = (2, 3, 4)
BOUND = 1e-12
"""How far weights may be off, as a part of the largest: a hundred steps round less."""

BY_ADAM = {"adam and dropout", "by samples"}
ADAM_BOUND = 1e-10
"""The same for Adam, which divides by the root of the squares of gradients, plus 1e-8. A gradient
that nearly cancels is off by some 1e-16, and so its step of 0.001 by up to 1e-11."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of 1, 2, 3 and 4 ranks, each started once."""
    folder = tmp_path_factory.mktemp("ranks")
    found = {}
    for n in (1, *NUMBERS):
        model = "-" if n == 1 else folder / "1.npz.safetensors"
        run(n, HERE / "rank_work.py", folder / f"{n}.npz", _mnist(), model)
        found[n] = dict(np.load(folder / f"{n}.npz"))
    found["folder"] = folder
    return found


def _mnist():
    import os

    folder = Path(os.environ.get("GPUNN_DATA_DIR", "-"), "mnist")
    return folder if folder.exists() else "-"


@pytest.mark.parametrize("n", NUMBERS)
def test_ranks_come_to_the_result_of_one_process(results, n):
    one, several = results[1], results[n]
    assert several["ranks"] == n
    compared = 0
    for name, expected in one.items():
        if expected.dtype.kind != "f" or name.startswith("bytes"):
            continue
        size = max(float(np.abs(expected).max()), 1e-300)
        bound = ADAM_BOUND if name.partition("/")[0] in BY_ADAM else BOUND
        np.testing.assert_allclose(several[name], expected, rtol=0, atol=bound * size, err_msg=name)
        compared += 1
    assert compared > 60


@pytest.mark.parametrize("n", NUMBERS)
def test_first_weights_have_the_same_bits_on_any_number_of_ranks(results, n):
    for name in [name for name in results[1] if name.startswith("wide/")]:
        np.testing.assert_array_equal(results[n][name], results[1][name], err_msg=name)
    mine, its = (results["folder"] / f"{m}.npz.safetensors" for m in (n, 1))
    assert mine.read_bytes() == its.read_bytes()


@pytest.mark.parametrize("n", NUMBERS)
def test_who_shares_what_and_holds_no_more(results, n):
    kinds = {name.partition("/")[0]: str(v) for name, v in results[n].items() if "/kind" in name}
    by_samples = {"softmax hidden", "by samples", "deep", "smaller than the ranks"}
    assert kinds == {name: "data" if name in by_samples else "hidden" for name in kinds}
    whole = 60 * (784 + 1 + 10) + 10
    assert results[1]["plain/held"] == whole == results[n]["by samples/held"]
    assert results[n]["plain/held"] == 60 // n * (784 + 1 + 10) + 10
    assert results[n]["from file/held"] == 10_000 // n * (20 + 1 + 3) + 3


@pytest.mark.parametrize("n", NUMBERS)
def test_what_a_rank_sends_in_a_step_does_not_depend_on_the_width(results, n):
    sent = float(results[n]["bytes/1000"])
    assert sent == results[n]["bytes/8000"]
    assert 0 < sent <= 8000 * np.log2(n)


def test_several_ranks_write_a_file_that_other_programs_read(results):
    arrays = load_file(results["folder"] / "3.npz.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, results[1][f"wide/{name}"])
    loaded = gpunn.Network.load(results["folder"] / "3.npz.safetensors", "cpu")
    assert loaded.architecture.layer_sizes == (20, 10_000, 3)


def test_a_fingerprint_of_weights_is_that_of_their_bits(results):
    for n in (1, *NUMBERS):
        parameters = [
            results[n][f"plain/layers.{index}.{kind}"]
            for index in (0, 1)
            for kind in ("weight", "bias")
        ]
        digest = hashlib.sha256(b"".join(array.tobytes() for array in parameters))
        assert results[n]["plain/fingerprint"] == digest.hexdigest()[:16]
