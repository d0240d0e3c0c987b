"""The same training on two devices, compared: first step by step, then epoch by epoch.

Two devices add the same numbers in another order, and round their exp differently. So they differ,
and the question is whether by more than that. Three parts answer it:

- **At the start**: the initial weights, equal to the bit; then, from those, outputs, loss and
  gradients.
- **Step by step**: `gpunn.fit` on one batch, on two, three and four. Each number's tolerance is
  what the same training on a `gpunn.parity.error_bounds.BoundBackend` says that rounding can do to
  it.
- **Epoch by epoch**: `gpunn.fit` on all of it. A worst case that grew with every step would soon
  say nothing, so the tolerance is the growth of random rounding errors, none smaller than a
  device's, through the same training in float64.

``docs/parity.md`` derives the tolerances.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backends.base import Backend
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.backends.select import cuda_problem, get_backend
from gpunn.errors import DeviceError, ParameterError
from gpunn.network import Network
from gpunn.parallel.world import ranks_here
from gpunn.parity.cases import Case
from gpunn.parity.checks import Check, Growth, checks_of_epochs, checks_of_steps, growth_of
from gpunn.parity.error_bounds import BoundBackend
from gpunn.parity.random_rounding import RandomRoundingBackend
from gpunn.parity.readings import (
    Side,
    Values,
    readings_at_start,
    readings_of_epochs,
    readings_of_steps,
)
from gpunn.training.samples import as_targets

DRAWS = 3
"""How many trainings with random rounding show how errors grow, where that is enough."""

MOST_DRAWS = 100
"""How many there are before a difference is called too large: a jump at a kink may be rare."""

FACTOR, LATER_FACTOR = 4.0, 2.0
"""What deviations are multiplied by to be a tolerance: those of the first `DRAWS`, and later ones.

Three may all be small by accident; many hardly can.
"""


@dataclass(frozen=True)
class Comparison:
    """What came of a case on two devices.

    Attributes
    ----------
    case : Case
        What was trained.
    device, against : str
        The two devices.
    checks : list of Check
        All that was compared, in the order of time.
    """

    case: Case
    device: str
    against: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether everything was within tolerance."""
        return all(check.ok for check in self.checks)

    def share(self, stage: str) -> float:
        """Return the largest share of a tolerance that a stage used; above 1, a check failed."""
        return max(check.share for check in self.checks if check.stage == stage)


def choose_devices(
    device: str | Backend | None = None,
    against: str | Backend = "cpu",
    precision: str = "fp32",
) -> tuple[Backend, str | Backend]:
    """Return the device to test, and what to compare it with.

    Parameters
    ----------
    device, against, precision
        As in `compare`.

    Returns
    -------
    tested : Backend
        The device to test.
    against : Backend or "float64"
        Its counterpart.

    Raises
    ------
    DeviceError
        If a device cannot be used. The message offers the comparison that needs no GPU.
    ParameterError
        If both are the same.
    """
    several = ranks_here().size > 1
    in_float64 = isinstance(against, str) and against == "float64"
    try:
        if device is None and several:
            device = "auto"
        elif device is None:
            device = "cpu" if in_float64 and precision == "fp32" else _best_gpu()
        tested = get_backend(device, precision)
        other = against if in_float64 else get_backend(against)
    except DeviceError as error:
        raise DeviceError(
            f"no second device: {error}; or compare the CPU's float32 with its float64: "
            'gpunn parity --against float64, or against="float64" in Python'
        ) from error
    if isinstance(other, Backend) and _same(tested, other) and not several:
        raise ParameterError(
            f"nothing to compare: both devices are {tested.name}; name another device, or compare "
            "the CPU's float32 with its float64: gpunn parity --against float64, or "
            'against="float64" in Python'
        )
    return tested, other


def _best_gpu() -> str:
    problem = cuda_problem()
    if problem is not None:
        raise DeviceError(f"{problem}; see gpunn info")
    return "auto"


def _same(one: Backend, other: Backend) -> bool:
    return type(one) is type(other) and (one.name, one.precision) == (other.name, other.precision)


def compare(
    case: Case,
    X: ArrayLike,
    y: ArrayLike,
    *,
    device: str | Backend | None = None,
    against: str | Backend = "cpu",
    precision: str = "fp32",
) -> Comparison:
    """Train a network twice, on two devices, and compare at every stage.

    Parameters
    ----------
    case : Case
        The network and its training.
    X : array_like, shape (n, n_0)
        Inputs, scaled, on the host. The outputs for all of them are compared too.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers or targets.
    device : {"cpu", "cuda", "cuda:N"} or Backend, optional
        The device that is tested. By default the best GPU, or with ``against="float64"`` the CPU.
        On several ranks the tested side is all of them, and its counterpart a process by itself;
        then both may be on the same device.
    against : {"cpu", "cuda:N", "float64"} or Backend
        What it is compared with. "float64" is the CPU in float64, from the same weights.
    precision : {"fp32", "tf32", "bf16"}
        What the tested device rounds the factors of float32 products to.

    Returns
    -------
    Comparison
        All checks, with difference, tolerance and whether it is within.

    Raises
    ------
    DeviceError
        If a device cannot be used.
    ParameterError
        If an argument is not one of those allowed, or there is nothing to compare.
    """
    tested, reference = _sides(case.dtype, *choose_devices(device, against, precision))
    inputs = np.ascontiguousarray(X, case.dtype)
    targets = _host_targets(case.make_network(NumpyBackend(), case.dtype), y)
    sides = (reference, tested, _bounds(tested, reference))
    checks = checks_of_steps(
        targets, *(list(readings_of_steps(case, side, inputs, targets)) for side in sides)
    )
    # A fault that the sharp checks have found needs no more draws.
    most = MOST_DRAWS if all(check.ok for check in checks) else DRAWS
    checks += _compare_epochs(case, reference, tested, inputs, targets, most)
    return Comparison(case, tested.label, reference.label, checks)


def _compare_epochs(
    case: Case, reference: Side, tested: Side, inputs: Values, targets: Values, most: int
) -> list[Check]:
    """Compare whole trainings, with more draws, up to the most, as long as a check fails."""
    sides = (reference, tested, Side(NumpyBackend(), "float64"))
    one, other, exact = (readings_of_epochs(case, side, inputs, targets) for side in sides)
    arithmetic = tested.arithmetic.beside(reference.arithmetic)
    allowed, checks = [Growth()] * len(exact), []
    for seed in range(most):
        side = Side(RandomRoundingBackend(arithmetic, seed), case.dtype)
        grown = growth_of(readings_of_epochs(case, side, inputs, targets), exact)
        factor = FACTOR if seed < DRAWS else LATER_FACTOR
        allowed = [old.or_more(new.times(factor)) for old, new in zip(allowed, grown, strict=True)]
        checks = checks_of_epochs(targets, allowed, one, other)
        if seed + 1 >= DRAWS and all(check.ok for check in checks):
            break
    return checks


def compare_network(
    network: Network, X: ArrayLike, y: ArrayLike, *, against: str | Backend = "float64"
) -> list[Check]:
    """Compare what a network computes where it is with what it would compute elsewhere.

    Outputs, mean error and gradients, from the weights that it has; nothing is trained.

    Parameters
    ----------
    network : Network
        The network, on the device that is tested.
    X : array_like, shape (n, n_0)
        Inputs, scaled, on the host.
    y : array_like, shape (n,) or (n, n_L)
        Class numbers or targets.
    against : {"cpu", "cuda:N", "float64"} or Backend
        As in `compare`.

    Returns
    -------
    list of Check
        What was compared, with differences and tolerances.

    Raises
    ------
    DeviceError
        If a device cannot be used.
    ParameterError
        If there is nothing to compare.
    """
    dtype, weights = network.dtype.name, network.parameters()
    tested, reference = _sides(dtype, *choose_devices(network.backend, against))
    inputs, targets = np.ascontiguousarray(X, dtype), _host_targets(network, y)
    readings = []
    for side in (reference, tested, _bounds(tested, reference)):
        architecture = {**vars(network.architecture), "dtype": side.dtype}
        twin = Network(architecture.pop("layer_sizes"), **architecture, device=side.backend)
        twin.load_parameters(weights)
        readings.append(list(readings_at_start(twin, inputs, targets, len(inputs))))
    return checks_of_steps(targets, *readings)


def _sides(dtype: str, tested: Backend, against: str | Backend) -> tuple[Side, Side]:
    # Where a launcher has started several ranks, the tested side is all of them.
    side = Side(tested, dtype, "none" if ranks_here().size == 1 else "auto")
    if isinstance(against, Backend):
        return side, Side(against, dtype)
    if tested.name == "cpu" and dtype == "float64":
        raise ParameterError(
            "nothing to compare: both are the CPU in float64; against 'float64' is for float32"
        )
    return side, Side(NumpyBackend(), "float64")


def _bounds(tested: Side, reference: Side) -> Side:
    return Side(BoundBackend(tested.arithmetic.beside(reference.arithmetic)), tested.dtype)


def _host_targets(network: Network, y: ArrayLike) -> Values:
    targets: Values = np.ascontiguousarray(as_targets(network, y), network.dtype)
    return targets
