"""The CPU's fused way through a block of samples, against the plain loop on the same device.

The bounds are those of test_online.py: both sum the same terms in another order.
"""

from typing import Any

import numpy as np
import pytest
from conftest import make_backend
from test_cupy_online import PAIRS, assert_same_learning, samples, twins

import gpunn
from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import Backend
from gpunn.backends.numpy_online import RUN, SHORT, WIDE, NumpySequencer
from gpunn.training.online import BLOCK_ROWS, OnlineTrainer

pytestmark = pytest.mark.usefixtures("several_threads")


@pytest.fixture(params=["cpu", "fast"])
def device(request: pytest.FixtureRequest) -> Backend:
    """The CPU, with and without compiled loops."""
    return make_backend(request.param)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("hidden", [name for name in ACTIVATIONS if name != "softmax"])
def test_every_kind_of_network(
    device: Backend, rng: np.random.Generator, hidden: str, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 2 * RUN + 3, 7, 3)
    for biases in (True, False):
        kinds = {"hidden_activation": hidden, "output_activation": pair[0], "loss": pair[1]}
        networks = twins((7, 9, 3), device, biases=biases, dtype="float64", **kinds)
        assert_same_learning(*networks, X, T)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_output_in_float32(
    device: Backend, rng: np.random.Generator, pair: tuple[str, str]
) -> None:
    X, T = samples(rng, 12, 7, 3)
    kinds = {"output_activation": pair[0], "loss": pair[1]}
    assert_same_learning(*twins((7, 9, 3), device, **kinds), X, T)


@pytest.mark.parametrize("n_outputs", [1, 10, SHORT + 1])
@pytest.mark.parametrize("n_hidden", [1, SHORT, SHORT + 1, WIDE])
def test_every_size(
    device: Backend, rng: np.random.Generator, dtype: np.dtype[Any], n_hidden: int, n_outputs: int
) -> None:
    """On both sides of where other formulas and other threads are used."""
    X, T = samples(rng, 3, 5, n_outputs)
    networks = twins((5, n_hidden, n_outputs), device, dtype=dtype)
    assert_same_learning(*networks, X, T)


@pytest.mark.parametrize("n", [1, 2, RUN, RUN + 1, BLOCK_ROWS - 1, 2 * BLOCK_ROWS + 5])
def test_any_number_of_samples(
    device: Backend, rng: np.random.Generator, dtype: np.dtype[Any], n: int
) -> None:
    X, T = samples(rng, n, 5, 3)
    assert_same_learning(*twins((5, 40, 3), device, dtype=dtype), X, T)


@pytest.mark.parametrize("output", ["sigmoid", "tanh", "identity", "softmax"])
@pytest.mark.parametrize("biases", [True, False])
def test_the_textbooks_rule(
    device: Backend, rng: np.random.Generator, output: str, biases: bool
) -> None:
    X, T = samples(rng, 2 * RUN + 3, 20, 4)
    kinds = {"output_activation": output, "hidden_errors": "textbook", "biases": biases}
    networks = twins((20, 11, 4), device, dtype="float64", **kinds)
    assert_same_learning(*networks, X, T)


def test_the_classic_network(
    device: Backend, rng: np.random.Generator, dtype: np.dtype[Any]
) -> None:
    X, T = samples(rng, 40, 20, 4)
    one, other = (gpunn.ThreeLayerNetwork(20, 11, 4, 0.1, dtype=dtype, device=device) for _ in "ab")
    assert_same_learning(one, other, X, T)


def test_the_compiled_loop_is_used_where_it_can_be(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make_backend("fast")

    def refuse(*arguments: object) -> None:
        raise AssertionError("left to Python")

    monkeypatch.setattr(NumpySequencer, "_learn_run", refuse)
    X, T = samples(rng, RUN + 3, 7, 3)
    one, _ = twins((7, 9, 3), device)
    OnlineTrainer(one).learn(*one.as_samples(X, T), 0.1)
    kinds = {"output_activation": "softmax", "hidden_errors": "textbook"}
    own, _ = twins((7, 9, 3), device, **kinds)
    with pytest.raises(AssertionError, match="left to Python"):
        OnlineTrainer(own).learn(*own.as_samples(X, T), 0.1)
