"""What computes for an estimator: its network on a device, and the rule that it learns by.

A fitted estimator's numbers are host arrays, `coefs_` (n_in, n_out) and `intercepts_`. The network
beside them is made when it is needed, and left out of pickles and copies: what was trained on a GPU
can be loaded where there is none. On the CPU the arrays are the network's own memory; arrays that
were brought from a GPU are read-only, since changing them would not change what is there. Arrays
that a user puts in their place are taken over at the next prediction.

The rule's memory (velocities, or Adam's means) is kept beyond a fit, because `partial_fit` goes on
from there, and pickled.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Backend
from gpunn.backends.select import get_backend
from gpunn.errors import DeviceError, DeviceWarning
from gpunn.network import Network
from gpunn.network.architecture import Architecture
from gpunn.optimizers import Optimizer

Arrays = Sequence[NDArray[Any]]

SMALLEST_RATE = 1e-6
"""An adaptive step size is not divided further from here."""


class StepRule:
    """An optimizer and its step size, which outlive a fit.

    Parameters
    ----------
    optimizer : Optimizer
        From gradients to steps.
    learning_rate_init : float
        The first step size.
    schedule : {"constant", "invscaling", "adaptive"}
        How the step size changes after epochs.
    power_t : float
        The exponent of "invscaling".

    Attributes
    ----------
    learning_rate : float
        The step size now.
    """

    def __init__(
        self, optimizer: Optimizer, learning_rate_init: float, schedule: str, power_t: float
    ) -> None:
        self.optimizer, self.schedule, self.power_t = optimizer, schedule, power_t
        self.learning_rate_init = self.learning_rate = float(learning_rate_init)
        self._network: Network | None = None
        self._remembered: dict[str, NDArray[Any]] = {}

    def attach(self, network: Network) -> None:
        """Go on with this network: bring there what is remembered, or begin with nothing."""
        if network is self._network:
            return
        remembered = self._on_host()
        n_steps = self.optimizer.n_steps
        self.optimizer.prepare(network)
        self.optimizer.n_steps = n_steps
        self._network, self._remembered = network, {}
        for name, array in self.optimizer.state().items():
            if name in remembered:
                host = remembered[name].astype(network.dtype, copy=False)
                network.backend.copy_into(network.backend.asarray(host), array)

    def end_epoch(self, n_samples_seen: int) -> None:
        """Set the step size of "invscaling" for the next epoch."""
        if self.schedule == "invscaling":
            self.learning_rate = self.learning_rate_init / (n_samples_seen + 1) ** self.power_t

    def slow_down(self) -> bool:
        """Divide an adaptive step size by 5; False if there is no going on."""
        if self.schedule != "adaptive" or self.learning_rate <= SMALLEST_RATE:
            return False
        self.learning_rate /= 5.0
        return True

    def _on_host(self) -> dict[str, NDArray[Any]]:
        if self._network is None:
            return self._remembered
        backend = self._network.backend
        return {name: backend.to_host(a) for name, a in self.optimizer.state().items()}

    def __getstate__(self) -> dict[str, Any]:
        numbers = {f.name: getattr(self.optimizer, f.name) for f in fields(self.optimizer)}  # type: ignore[arg-type]
        return {
            **vars(self),
            "optimizer": (type(self.optimizer), numbers, self.optimizer.n_steps),
            "_network": None,
            "_remembered": self._on_host(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        kind, numbers, n_steps = state["optimizer"]
        self.optimizer = kind()
        vars(self.optimizer).update(numbers)
        self.optimizer.n_steps = n_steps


class Engine:
    """The network of an estimator, on its device.

    Attributes
    ----------
    rule : StepRule or None
        What the last stochastic fit learnt by.
    """

    def __init__(self) -> None:
        self.rule: StepRule | None = None
        self._forget()

    def _forget(self) -> None:
        # Several threads may ask for the network at once; one of them makes it.
        self._lock = threading.RLock()
        self._network: Network | None = None
        self._arrays: tuple[NDArray[Any], ...] = ()
        self._device: tuple[str, Backend] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"rule": self.rule}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.rule = state["rule"]
        self._forget()

    def network_to_train(
        self, architecture: Architecture, coefs: Arrays, intercepts: Arrays, device: str
    ) -> Network:
        """Return a network of these numbers on the device, in memory that may be written to."""
        backend = self.backend(device)
        if self._is_current(architecture, coefs, intercepts, backend):
            network = self._network
            # Not into memory that was mapped for reading.
            if network is not None and _is_writeable(network):
                return network
        return _network_of(architecture, coefs, intercepts, backend, np.array)

    def network_to_ask(
        self, architecture: Architecture, coefs: Arrays, intercepts: Arrays, device: str
    ) -> Network:
        """Return a network of these numbers.

        If the device can no longer be used, it is the CPU, and a `DeviceWarning` says so.
        """
        with self._lock:
            try:
                backend = self.backend(device)
            except DeviceError as error:
                warnings.warn(
                    f"running on the CPU, not on {device!r} as in training: {error}",
                    DeviceWarning,
                    stacklevel=5,
                )
                backend = get_backend("cpu")
                self._device = (device, backend)
            if not self._is_current(architecture, coefs, intercepts, backend):
                self._network = _network_of(architecture, coefs, intercepts, backend, np.asarray)
                self._arrays = (*coefs, *intercepts)
            assert self._network is not None
            return self._network

    def holds(self, network: Network) -> bool:
        """Say whether predictions are that network's already."""
        return network is self._network

    def adopt(self, network: Network) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Keep a trained network, and return its numbers on the host: coefs and intercepts."""
        hosts: list[NDArray[Any]] = []
        for array in network.device_parameters().values():
            if isinstance(array, np.ndarray):
                hosts.append(array)
                continue
            hosts.append(network.backend.to_host(array))
            hosts[-1].flags.writeable = False
        coefs, intercepts = [weights.T for weights in hosts[::2]], hosts[1::2]
        with self._lock:
            self._network, self._arrays = network, (*coefs, *intercepts)
        return coefs, intercepts

    def backend(self, device: str) -> Backend:
        """Return the device of that name."""
        # Kept, because "auto" would look for GPUs, and perhaps warn, at every prediction.
        if self._device is None or self._device[0] != device:
            self._device = (device, get_backend(device))
        return self._device[1]

    def _is_current(
        self, architecture: Architecture, coefs: Arrays, intercepts: Arrays, backend: Backend
    ) -> bool:
        """Say whether the network there is has these numbers, and would hear of a change."""
        network, arrays = self._network, (*coefs, *intercepts)
        if network is None or network.backend is not backend:
            return False
        if network.architecture != architecture or len(arrays) != len(self._arrays):
            return False
        own = network.device_parameters().values()
        return all(
            array is known for array, known in zip(arrays, self._arrays, strict=True)
        ) and all(
            not array.flags.writeable or any(_share(array, parameter) for parameter in own)
            for array in arrays
        )


def _network_of(
    architecture: Architecture,
    coefs: Arrays,
    intercepts: Arrays,
    backend: Backend,
    convert: Callable[..., NDArray[Any]],
) -> Network:
    """Return a network of these numbers; `convert` says whether it gets memory of its own."""
    to_own = partial(convert, dtype=architecture.dtype, order="C")
    parameters = zip((to_own(coef.T) for coef in coefs), map(to_own, intercepts), strict=True)
    return Network.from_parameters(architecture, parameters, backend)


def _is_writeable(network: Network) -> bool:
    parameters = network.device_parameters().values()
    return all(not isinstance(p, np.ndarray) or p.flags.writeable for p in parameters)


def _share(array: NDArray[Any], parameter: Any) -> bool:
    return isinstance(parameter, np.ndarray) and np.may_share_memory(array, parameter)
