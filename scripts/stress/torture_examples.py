"""Public functions, called with arrays of all shapes, dtypes and layouts that hypothesis finds."""

import random
from collections.abc import Callable, Iterator

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpunn import GpunnError, Network, Scaling, check_gradients, evaluate, fit

DTYPES = ("f4", "f8", ">f4", "f2", "i1", "u1", "i8", ">i2", "?", "c8", "O", "U3")
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "list")


@st.composite
def arrays(draw: Callable) -> object:
    """Draw an array or a list of lists; many, but not all, fit a network with four inputs."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    if draw(st.booleans()):
        shape = (draw(st.integers(0, 6)), 4)
    dtype, layout = np.dtype(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(LAYOUTS))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 2, shape)
    array = values.astype(dtype)
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    elif layout == "reversed" and array.ndim:
        array = np.ascontiguousarray(array[::-1])[::-1]
    elif layout == "read-only":
        array.flags.writeable = False
    return array.tolist() if layout == "list" else array


def oracle(network: Network, X: np.ndarray) -> np.ndarray:
    """Return the outputs of two sigmoid layers, computed plainly in float64."""
    a = X.astype(np.float64)
    for index in range(2):
        p = network.parameters()
        a = 1 / (1 + np.exp(-(a @ p[f"layers.{index}.weight"].T + p[f"layers.{index}.bias"])))
    return a


def calls(network: Network, X: object, y: object) -> dict[str, Callable[[], object]]:
    """Return the public functions by name, each ready to be called with the arrays."""
    return {
        "predict": lambda: network.predict(X),
        "evaluate": lambda: evaluate(network, X, y),
        "fit": lambda: fit(
            Network([4, 5, 2], device="cpu"), X, y, epochs=1, batch_size=2, learning_rate=0.1
        ),
        "loss_and_gradients": lambda: network.loss_and_gradients(X, y),
        "backquery": lambda: network.backquery(y),
        "check_gradients": lambda: check_gradients(network, X, y),
        "per_feature": lambda: Scaling.per_feature(X).apply(X, "float32"),
        "to_range": lambda: Scaling.to_range(0, 2).apply(X, "float64"),
        "load_parameters": lambda: network.load_parameters(network.parameters() | {"x": X}),
    }


def check(network: Network, X: object, y: object) -> None:
    """Call everything; it must do what it says, or say in one line why not."""
    given_X = np.asarray(X)
    numbers = given_X.dtype.kind in "biuf"
    fits = given_X.ndim in (1, 2) and given_X.shape[-1] == 4
    for name, call in calls(network, X, y).items():
        try:
            result = call()
        except GpunnError as error:
            if "\n" in str(error) or (name == "predict" and numbers and fits):
                raise AssertionError(f"{name}: {error}") from error
        else:
            if name == "predict":
                assert fits, f"predict took {given_X.shape}"
                # 4 and 5 products of numbers of at most about 2, and two exponentials.
                np.testing.assert_allclose(result, oracle(network, given_X), rtol=0, atol=1e-14)


def examples(n_examples: int, rng: random.Random) -> Iterator[str]:
    """Call public functions with arrays of all shapes; yield wrong results and unclear errors."""
    network = Network([4, 5, 2], device="cpu", dtype="float64")

    @seed(rng.randrange(2**32))
    @settings(max_examples=n_examples, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(arrays(), arrays())
    def check_all(X: object, y: object) -> None:
        check(network, X, y)

    try:
        check_all()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever went wrong; hypothesis says with which arrays
        yield " ".join(f"{error!r}".split())[:600]
        yield " | ".join(getattr(error, "__notes__", []))[:600].replace("\n", " ")
