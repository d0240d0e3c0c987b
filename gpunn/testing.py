"""A pytest plugin for projects that use gpunn: ``pytest -p gpunn.testing``.

It gives tests the fixture `device`, which is "cpu" and then "cuda". The second is marked ``gpu``
and skipped, with the reason, where there is no usable GPU; with ``GPUNN_REQUIRE_GPU=1`` that skip
is a failure, for machines that are there to have one. `assert_parity` holds what a network computes
on its device against float64::

    import gpunn
    from gpunn.testing import assert_parity

    def test_my_network_computes_the_same_everywhere(device):
        network = gpunn.Network([4, 8, 3], device=device)
        assert_parity(network, X, y)

This is the only module that imports pytest. It has no ``assert`` whose message pytest would
rewrite, and so may be imported before it is named as a plugin: PYTEST_DONT_REWRITE.
"""

import os

import pytest
from numpy.typing import ArrayLike

from gpunn.backends.base import Backend
from gpunn.backends.select import get_backend
from gpunn.errors import DeviceError
from gpunn.network import Network
from gpunn.parity.comparison import compare_network


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "gpu: needs a usable NVIDIA GPU (skipped without one; GPUNN_REQUIRE_GPU=1 turns the skip "
        "into a failure)",
    )


def require_gpu() -> None:
    """Skip the test that runs unless there is a usable GPU.

    With GPUNN_REQUIRE_GPU=1 it fails instead. Either way the reason is why there is none.
    """
    __tracebackhide__ = True
    try:
        get_backend("cuda")
    except DeviceError as error:
        if os.environ.get("GPUNN_REQUIRE_GPU") == "1":
            pytest.fail(f"no usable GPU: {error}")
        pytest.skip(f"no usable GPU: {error}")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Name every kind of device that is there, one after the other."""
    name: str = request.param
    if name == "cuda":
        require_gpu()
    return name


def assert_parity(
    network: Network, X: ArrayLike, y: ArrayLike, *, against: str | Backend = "float64"
) -> None:
    """Assert that a network computes on its device what it would compute on another.

    Outputs, mean error and gradients must agree within what rounding can do to them, as
    ``docs/parity.md`` derives it. To compare whole trainings: ``gpunn.parity.compare(...).ok``.

    Parameters
    ----------
    network : Network
        The network, which is not changed.
    X : array_like, shape (n, n_0)
        Inputs, scaled, on the host.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers or targets.
    against : {"cpu", "cuda:N", "float64"} or Backend
        The other device; "float64" is the CPU in float64.

    Raises
    ------
    AssertionError
        If something is not within its tolerance; the message has a line for each.
    DeviceError
        If the other device cannot be used.
    ParameterError
        If there is nothing to compare: a network is where it would be compared with.
    """
    __tracebackhide__ = True
    wrong = [
        f"{check.name}: relative difference {check.difference:.3g}, tolerance {check.tolerance:.3g}"
        for check in compare_network(network, X, y, against=against)
        if not check.ok
    ]
    if wrong:
        raise AssertionError("\n".join([f"{network!r} differs from {against}", *wrong]))
