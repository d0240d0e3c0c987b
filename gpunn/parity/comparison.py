"""The same training on two devices, compared: first step by step, then epoch by epoch.

Two devices add the same numbers in another order, and round their exp differently. So they differ,
and the question is whether by more than that. Three parts answer it:

- **At the start**: the initial weights, equal to the bit; then, from those, outputs, loss and
  gradients.
- **Step by step**: `gpunn.fit` on one batch, on two, three and four. Each number's tolerance is
  what the same training on a `gpunn.parity.error_bounds.BoundBackend` says that rounding can do to
  it.
- **Epoch by epoch**: `gpunn.fit` on all of it. A worst case that grew with every step would soon
  say nothing, so the tolerance is the growth of random rounding errors, larger than any device's,
  through the same training in float64.

``docs/parity.md`` derives the tolerances.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import Backend
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.backends.select import cuda_problem, get_backend
from gpunn.errors import DeviceError, ParameterError
from gpunn.losses import LOSSES
from gpunn.network import Network
from gpunn.parity.checks import Check, Reading, checks_of_epochs, checks_of_steps
from gpunn.parity.error_bounds import Arithmetic, BoundBackend, RandomRoundingBackend
from gpunn.training.callbacks import Callback, EpochRecord
from gpunn.training.fitting import fit
from gpunn.training.samples import as_targets

STEPS = (1, 2, 3, 4)
"""After so many steps, devices are compared number by number."""

DRAWS = 3
"""How many trainings with random rounding show how errors grow."""

Values = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A training that is done twice; all but the name are the arguments of `Network` and `fit`.

    Attributes
    ----------
    layer_sizes : tuple of int
        Units from the inputs to the outputs.
    hidden_activation, output_activation, loss, biases, initializer, dtype, seed
        As in `gpunn.Network`.
    batch_size, optimizer, learning_rate, epochs
        As in `gpunn.fit`.
    """

    layer_sizes: tuple[int, ...]
    hidden_activation: str = "sigmoid"
    output_activation: str = "softmax"
    loss: str = "cross_entropy"
    biases: bool = True
    initializer: str = "normal"
    dtype: str = "float32"
    seed: int = 0
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    epochs: int = 3

    @property
    def name(self) -> str:
        """One line for a person."""
        how = "online" if self.batch_size == 1 else f"batches of {self.batch_size}"
        sizes = "-".join(map(str, self.layer_sizes))
        biases = "" if self.biases else ", no biases"
        return (
            f"{sizes} {self.hidden_activation}, {self.output_activation} {self.loss}{biases}, "
            f"{self.optimizer}, {how}, {self.dtype}"
        )

    def make_network(self, backend: Backend, dtype: str) -> Network:
        """Return the network on a device; weights are those of the case's own dtype."""
        network = self._network(backend, self.dtype)
        if dtype == self.dtype:
            return network
        wider = self._network(backend, dtype)
        wider.load_parameters(network.parameters())
        return wider

    def _network(self, backend: Backend, dtype: str) -> Network:
        return Network(
            self.layer_sizes,
            hidden_activation=self.hidden_activation,
            output_activation=self.output_activation,
            loss=self.loss,
            biases=self.biases,
            initializer=self.initializer,
            dtype=dtype,
            device=backend,
            seed=self.seed,
        )


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


class _Side(NamedTuple):
    """A device, and the dtype to compute in there."""

    backend: Backend
    dtype: str

    @property
    def label(self) -> str:
        precision = "" if self.backend.precision == "fp32" else f" {self.backend.precision}"
        return f"{self.backend.name} {self.dtype}{precision}"

    @property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic.of(self.dtype, self.backend.precision)


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
        If a device cannot be had. The message offers the comparison that needs no GPU.
    ParameterError
        If both are the same.
    """
    in_float64 = isinstance(against, str) and against == "float64"
    try:
        if device is None:
            device = "cpu" if in_float64 and precision == "fp32" else _best_gpu()
        tested = get_backend(device, precision)
        other = against if in_float64 else get_backend(against)
    except DeviceError as error:
        raise DeviceError(
            f"no second device: {error}; what needs none is the CPU's float32 compared with its "
            'float64: gpunn parity --against float64, or against="float64" in Python'
        ) from error
    if isinstance(other, Backend) and _same(tested, other):
        raise ParameterError(
            f"nothing to compare: both devices are {tested.name}; name another device, or compare "
            "with the CPU's float64: against 'float64'"
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
        If a device cannot be had.
    ParameterError
        If an argument is not one of those allowed, or there is nothing to compare.
    """
    tested, reference = _sides(case.dtype, *choose_devices(device, against, precision))
    inputs = np.ascontiguousarray(X, case.dtype)
    targets = _host_targets(case.make_network(NumpyBackend(), case.dtype), y)
    sides = (reference, tested, _bounds(tested, reference))
    checks = checks_of_steps(
        targets, *(list(_steps(case, side, inputs, targets)) for side in sides)
    )
    arithmetic = tested.arithmetic.beside(reference.arithmetic)
    draws = [
        _epochs(case, _Side(RandomRoundingBackend(arithmetic, seed), case.dtype), inputs, targets)
        for seed in range(DRAWS)
    ]
    sides = (reference, tested, _Side(NumpyBackend(), "float64"))
    checks += checks_of_epochs(
        targets, draws, *(_epochs(case, side, inputs, targets) for side in sides)
    )
    return Comparison(case, tested.label, reference.label, checks)


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
        If a device cannot be had.
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
        readings.append(list(_computed(twin, inputs, targets, len(inputs))))
    return checks_of_steps(targets, *readings)


def _sides(dtype: str, tested: Backend, against: str | Backend) -> tuple[_Side, _Side]:
    side = _Side(tested, dtype)
    if isinstance(against, Backend):
        return side, _Side(against, dtype)
    if tested.name == "cpu" and dtype == "float64":
        raise ParameterError(
            "nothing to compare: both are the CPU in float64; against 'float64' is for float32"
        )
    return side, _Side(NumpyBackend(), "float64")


def _bounds(tested: _Side, reference: _Side) -> _Side:
    return _Side(BoundBackend(tested.arithmetic.beside(reference.arithmetic)), tested.dtype)


def _host_targets(network: Network, y: ArrayLike) -> Values:
    targets: Values = np.ascontiguousarray(as_targets(network, y), network.dtype)
    return targets


# What a device comes to.


def _steps(case: Case, side: _Side, X: Values, T: Values) -> Iterator[Reading]:
    """Yield the initial weights, what is computed from them, and what the first steps make."""
    network = case.make_network(side.backend, side.dtype)
    yield Reading("initial weights", "start", 0, network.parameters())
    yield from _computed(network, X, T, case.batch_size)
    for n_steps in STEPS:
        n = min(n_steps * case.batch_size, len(X))
        network = case.make_network(side.backend, side.dtype)
        history = _fit(case, network, X[:n], T[:n], epochs=1, shuffle=False)
        yield Reading("loss", "step", n_steps, {"loss": np.array(history.train_loss)})
        yield Reading("weights", "step", n_steps, network.parameters())
        yield Reading("outputs", "step", n_steps, {"outputs": network.predict(X)})


def _computed(network: Network, X: Values, T: Values, n: int) -> Iterator[Reading]:
    """Yield a network's outputs for all samples, and loss and gradients for the first n."""
    yield Reading("outputs", "start", 0, {"outputs": network.predict(X)})
    loss, gradients = network.loss_and_gradients(X[:n], T[:n])
    yield Reading("loss", "start", 0, {"loss": np.array([loss])})
    yield Reading("gradients", "start", 0, gradients)


class _Recorder(Callback):
    """Takes readings after each epoch."""

    def __init__(self, X: Values) -> None:
        self.X = X
        self.readings: list[Reading] = []

    def on_epoch_end(self, network: Network, record: EpochRecord) -> None:
        for name, arrays in (
            ("loss", {"loss": np.array([record.train_loss])}),
            ("weights", network.parameters()),
            ("outputs", {"outputs": network.predict(self.X)}),
        ):
            self.readings.append(Reading(name, "epoch", record.epoch, arrays))


def _epochs(case: Case, side: _Side, X: Values, T: Values) -> list[Reading]:
    recorder = _Recorder(X)
    network = case.make_network(side.backend, side.dtype)
    _fit(case, network, X, T, epochs=case.epochs, callbacks=[recorder])
    return recorder.readings


def _fit(case: Case, network: Network, X: Values, T: Values, **options: Any) -> Any:
    return fit(
        network,
        X,
        T,
        batch_size=case.batch_size,
        optimizer=case.optimizer,
        learning_rate=case.learning_rate,
        seed=case.seed,
        **options,
    )


# What there is to compare.


def standard_cases(n_inputs: int, n_outputs: int, dtype: str = "float32") -> list[Case]:
    """Return every activation and every error, in batches and one sample at a time.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Number of values in a sample, and of classes.
    dtype : {"float32", "float64"}
        What is computed in.

    Returns
    -------
    list of Case
        Each hidden activation, each error with each output activation that it goes with, both ways
        of training; and each optimizer, a deep network, one without biases, and small batches.
    """
    base = Case((n_inputs, 32, n_outputs), dtype=dtype)
    kinds = [replace(base, hidden_activation=name) for name in ACTIVATIONS]
    kinds += [
        replace(base, hidden_activation="tanh", output_activation=output, loss=loss.name)
        for loss in LOSSES.values()
        for output in ACTIVATIONS
        if loss.required_activation in (None, output) and loss.required_activation != "softmax"
    ]
    # Where outputs are not bounded, a large step would leap out of the valley.
    kinds = [replace(kind, learning_rate=0.1 if _bounded(kind) else 0.01) for kind in kinds]
    cases = [*kinds, *(_online(kind) for kind in kinds)]
    cases += [
        replace(base, optimizer=optimizer, learning_rate=rate)
        for optimizer, rate in (("momentum", 0.03), ("nesterov", 0.03), ("adam", 0.001))
    ]
    deep = replace(base, layer_sizes=(n_inputs, 24, 24, n_outputs))
    without_biases = replace(base, biases=False)
    cases += [deep, _online(deep), without_biases, _online(without_biases)]
    return [*cases, replace(base, batch_size=10)]


def _online(case: Case) -> Case:
    return replace(case, batch_size=1, epochs=2)


def _bounded(case: Case) -> bool:
    return case.output_activation in ("sigmoid", "softmax")
