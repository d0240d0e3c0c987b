"""What only the double shows of the kernel that learns in order with its weights in registers.

Which networks it takes and how, and that the tests of what it learns would notice its faults.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fake_cuda
import numpy as np
import pytest
from test_cupy_online import (
    MEMORY,
    REGISTERS,
    assert_same_learning,
    kernel_of,
    module_of_sequencers,
    samples,
    twins,
)

from gpunn.backends.base import Backend
from gpunn.network import Network
from gpunn.training.online import BLOCK_ROWS, OnlineTrainer


@pytest.mark.parametrize(
    ("kibibytes", "way", "keeps_deltas"),
    [(20, REGISTERS, False), (40, REGISTERS, True), (16, MEMORY, None)],
)
def test_a_gpu_with_little_shared_memory(
    double: Backend,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    kibibytes: int,
    way: str,
    keeps_deltas: bool | None,
) -> None:
    """Products alone take 16 KiB, deltas 10 KiB."""
    attributes = dict(fake_cuda.Device(0).attributes)
    attributes["MaxSharedMemoryPerBlockOptin"] = kibibytes * 1024
    monkeypatch.setattr(fake_cuda.Device, "attributes", attributes)
    monkeypatch.setattr(type(double), "rows_in_block", lambda *_: BLOCK_ROWS)
    networks = twins((5, 40, 3), double)
    choose_layout = module_of_sequencers(double)["choose_layout"]
    layout = choose_layout(40, 3, BLOCK_ROWS, 4, kibibytes * 1024)
    assert (layout and layout.keeps_deltas) == keeps_deltas
    assert kernel_of(networks[1]) == way
    X, T = samples(rng, 40, 5, 3)
    assert_same_learning(*networks, X, T)


@pytest.mark.parametrize(
    ("kibibytes", "n_hidden", "rows"),
    [(227, 40, 128), (64, 40, 64), (16, 40, 32), (227, 500, 64), (227, 1000, 32), (227, 5000, 64)],
)
def test_rows_of_a_block(
    double: Backend, monkeypatch: pytest.MonkeyPatch, kibibytes: int, n_hidden: int, rows: int
) -> None:
    attributes = dict(fake_cuda.Device(0).attributes)
    attributes["MaxSharedMemoryPerBlockOptin"] = kibibytes * 1024
    monkeypatch.setattr(fake_cuda.Device, "attributes", attributes)
    assert OnlineTrainer(Network((2, n_hidden, 3), device=double)).block_rows == rows


def test_layouts(double: Backend) -> None:
    """All units have a thread, and no more threads are there than a block may have."""
    choose_layout = module_of_sequencers(double)["choose_layout"]
    for n_hidden in (*range(1, 100), *range(100, 5000, 50)):
        for n_outputs in (1, 10, 32):
            layout = choose_layout(n_hidden, n_outputs, BLOCK_ROWS, 4, 227 * 1024)
            if layout is None:
                assert n_hidden > 1000, n_outputs
                continue
            assert layout.n_threads % 32 == 0
            assert layout.n_threads <= 1024
            assert n_hidden <= layout.n_threads * layout.units < n_hidden + 32 * layout.units
            assert layout.units == 1 or n_hidden > 512


# That these tests would notice.

FAULTS = {
    "no barrier": ("    __syncthreads();\n\n    T x", "    T x"),
    "parts of one sample": ("row % 2 * N_WARPS * N_OUTPUTS", "0"),
    "no correction by earlier groups": (
        "correct(z, block.products + s * PITCH + first, delta, 0);",
        "",
    ),
    "no correction within a group": (
        "correct(z, block.products + row * PITCH + first, delta, FROM + 1);",
        "",
    ),
    "the next sample not corrected": ("first, delta, FROM + 1);", "first, delta, FROM + 2);"),
    "biases without an input": ("hidden_biases ? T(1) : T(0)", "T(0)"),
    "errors before all is written": (
        "    __syncthreads();  // the first warp",
        "    // the first warp",
    ),
    "weights that change first": (
        "            back[u] += kept.weights[u][k] * error;\n"
        "            kept.weights[u][k] -= scale * a[u] * step;\n",
        "            kept.weights[u][k] -= scale * a[u] * step;\n"
        "            back[u] += kept.weights[u][k] * error;\n",
    ),
    "biases that stay": ("if (block.has_biases) kept.bias -= block.scale * out.step;", ""),
}


@pytest.fixture
def folder(double: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the kernels' files in their place."""
    names = module_of_sequencers(double)["load_kernel"].__globals__
    for file in names["FOLDER"].glob("*.cu"):
        shutil.copy(file, tmp_path)
    monkeypatch.setitem(names, "FOLDER", tmp_path)
    names["_module"].cache_clear()
    yield tmp_path
    names["_module"].cache_clear()


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_fault_in_the_kernel_is_noticed(
    double: Backend, rng: np.random.Generator, folder: Path, fault: str | None
) -> None:
    X, T = samples(rng, 40, 5, 3)
    networks = twins((5, 70, 3), double, dtype="float64")
    if fault is None:
        assert_same_learning(*networks, X, T)
        return
    text, (right, wrong) = (folder / "online.cu").read_text(), FAULTS[fault]
    assert text.count(right) == 1
    (folder / "online.cu").write_text(text.replace(right, wrong))
    with pytest.raises((AssertionError, RuntimeError)):
        assert_same_learning(*networks, X, T)
