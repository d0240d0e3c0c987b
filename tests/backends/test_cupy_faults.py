# ruff: noqa: E501
"""Kernels with something wrong in them: each fault must be noticed, by a bound, a race or a guard.

The texts of the passes and of the recorder are changed in one place at a time, and go through the
same comparison as the right ones.
"""

from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from conftest import assert_same, make_backend

import gpunn
from gpunn import fit
from gpunn.backends.base import Backend
from gpunn.network import Network
from gpunn.optimizers import Momentum, exponential_decay

FOLDER = Path(gpunn.__file__).parent / "backends" / "cuda"

FAULTS = {
    "thin.cu": [
        # A barrier left out, and another one.
        ("__syncthreads();  // each part needs the sums of all warps", ""),
        ("__syncthreads();  // a sample's sums are all there", ""),
        # Sums that miss something, or have it twice.
        ("for (int tile = 0; tile <", "for (int tile = 1; tile <"),
        ("gradient[k][u] += d[r * N_OUT + k] * value;", "gradient[k][u] = d[r * N_OUT + k] * value;"),
        ("for (int part = 0; part < n_parts; ++part) { g += parts[part * n_all + e]; }", "g = parts[e];"),
        # A factor forgotten, or in the wrong place.
        ("weight * row[k] * *scale", "row[k] * *scale"),
        ("weight * row[k] * *scale", "weight * row[k]"),
        ("        value *= kept;\n", ""),
        ("back *= sits_out(place + u,", "back *= !sits_out(place + u,"),
        ("e - n_weights, g, numbers,\n                false", "e - n_weights, g, numbers,\n                true"),
        # Where others write, and beyond the end.
        ("const bool is_there = first_row + e / N_OUT < n;", "const bool is_there = true;"),
    ],
    "warp.cu": [
        ("numbers[i] = kept + __shfl", "numbers[i] = __shfl"),
        ("const T given = upper ? numbers[i] : second;", "const T given = second;"),
        ("if (threadIdx.x & DISTANCE) index += half;", "if (threadIdx.x & DISTANCE) index += half - 1;"),
    ],
    "hidden.cu": [
        ("of_biases[u] += load(d.at[u]);", "of_biases[u] = load(d.at[u]);"),
        ("        value *= kept;\n", ""),
        ("load(pack.at[u]) + bias[u]", "load(pack.at[u])"),
        ("end = min(first + rows, n);", "end = first + rows;"),
    ],
    "steps.cu": [
        ("order ? (size_t)order[place] : place", "place"),
        ("(size_t)at * batch_size + i", "(size_t)at * gridDim.x + i"),
        ("*step = at + 1;", "*step = at;"),
        ("all_numbers[(size_t)at * n_numbers + j]", "all_numbers[j]"),
        ("row_weights[i] = all_row_weights[place]", "row_weights[i] = all_row_weights[i]"),
    ],
}  # fmt: skip


@pytest.fixture
def changed_texts(monkeypatch: pytest.MonkeyPatch) -> dict[Path, tuple[str, str]]:
    """What to put in the place of what, in the kernels' files as they are read."""
    changes: dict[Path, tuple[str, str]] = {}
    read_text = Path.read_text

    def read(self: Path, *arguments: Any, **named: Any) -> str:
        text = read_text(self, *arguments, **named)
        if self in changes:
            assert text.count(changes[self][0]) >= 1, changes[self][0]
            text = text.replace(*changes[self])
        return text

    monkeypatch.setattr(Path, "read_text", read)
    module = fake_cuda.load_cupy_backend()
    caches = [
        module.CupyThinTop.make.__globals__["load_passes"],
        module.CupyRecorder.__init__.__globals__["_fetch_kernel"],
    ]
    for cache in caches:
        cache.cache_clear()
    yield changes
    for cache in caches:
        cache.cache_clear()


def learn(device: Backend) -> Network:
    """Train so that every line counts: weights, dropout, decay, a short last batch, an order."""
    rng = np.random.default_rng(0)
    X, T = rng.uniform(-1, 1, (250, 3)), rng.uniform(0, 1, (250, 2))
    network = Network((3, 6, 530, 2), dtype="float64", device=device, seed=1)
    fit(
        network,
        X,
        T,
        epochs=2,
        batch_size=110,
        optimizer=Momentum(0.9, weight_decay=0.5),
        learning_rate=exponential_decay(0.5, factor=0.5),
        sample_weight=rng.uniform(0.5, 2, 250),
        dropout=0.4,
    )
    return network


@pytest.fixture(scope="module")
def expected() -> Network:
    return learn(make_backend("cpu"))


def test_the_right_texts_agree(double: Backend, expected: Network) -> None:
    assert_same(expected, learn(double), 6)


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [(file, *pair) for file, pairs in FAULTS.items() for pair in pairs],
)
def test_each_fault_is_noticed(
    double: Backend,
    expected: Network,
    changed_texts: dict[Path, tuple[str, str]],
    file: str,
    right: str,
    wrong: str,
) -> None:
    changed_texts[FOLDER / file] = (right, wrong)
    with pytest.raises((AssertionError, RuntimeError, IndexError, ValueError)):
        assert_same(expected, learn(double), 6)
