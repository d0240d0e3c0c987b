"""The contestants of bench_gpu.py: one training of 784-H-10, as gpunn, PyTorch and JAX do it.

All of them start from the same weights, take the same batches in the same order, and descend the
same mean squared error of sigmoid outputs. Samples and weights are on the device beforehand, and
each keeps its loss there and adds it up. A contestant is made once for a task and then trains on
the first so many batches, again and again, going on from the weights it has.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from made_samples import N_INPUTS, N_OUTPUTS, Samples
from numpy.typing import NDArray

import gpunn

LOSS = "mean_squared_error"
MOMENTUM = 0.9
INSTALL = "pip install '.[bench-gpu]'"

Weights = dict[str, NDArray[np.float32]]
"""Parameters on the host, named as gpunn names them."""


@dataclass(frozen=True)
class Task:
    """A training that is measured."""

    hidden: int
    batch: int
    optimizer: str = "sgd"
    precision: str = "fp32"

    @property
    def label(self) -> str:
        """What it is called in tables and pictures."""
        network = f"{N_INPUTS}-{self.hidden}-{N_OUTPUTS}"
        return f"{network}, batch {self.batch}, {self.optimizer}, {self.precision}"

    @property
    def learning_rate(self) -> float:
        """A step size that keeps networks of every width from saturating.

        All hidden units add to the same outputs, so the steps of more units must be shorter.
        """
        return (0.2 if self.optimizer == "adam" else 100.0) / self.hidden


class Contestant(ABC):
    """Who trains. `run` returns when the device has finished.

    Parameters
    ----------
    task : Task
        What to train.
    samples : Samples
        On what.
    device : {"cuda", "cpu"}
        Where.
    weights : dict or None
        What to start from; None for gpunn's own first weights.
    """

    @abstractmethod
    def __init__(
        self, task: Task, samples: Samples, device: str, weights: Weights | None = None
    ) -> None: ...

    @abstractmethod
    def run(self, n_steps: int) -> None:
        """Train on the first so many batches."""

    @abstractmethod
    def loss(self) -> float:
        """Return the mean loss of the last run, each batch's from before its step."""

    @abstractmethod
    def weights(self) -> Weights:
        """Return copies of the parameters on the host."""

    def close(self) -> None:  # noqa: B027  (most have nothing to give back)
        """Give back what a library would keep for later."""


class Gpunn(Contestant):
    """``gpunn.fit``, timed whole."""

    def __init__(
        self, task: Task, samples: Samples, device: str, weights: Weights | None = None
    ) -> None:
        self._task = task
        backend = gpunn.get_backend(device, task.precision)
        self._network = gpunn.Network([N_INPUTS, task.hidden, N_OUTPUTS], loss=LOSS, device=backend)
        if weights is not None:
            self._network.load_parameters(weights)
        self._inputs = backend.asarray(samples.inputs)
        self._targets = backend.asarray(samples.targets)

    def run(self, n_steps: int) -> None:
        rows = slice(0, n_steps * self._task.batch)
        self._history = gpunn.fit(
            self._network,
            self._inputs[rows],
            self._targets[rows],
            epochs=1,
            batch_size=self._task.batch,
            optimizer=self._task.optimizer,
            learning_rate=self._task.learning_rate,
            shuffle=False,
        )

    def loss(self) -> float:
        return self._history.train_loss[0]

    def weights(self) -> Weights:
        return self._network.parameters()


class Torch(Contestant):
    """PyTorch's usual loop, with its fused optimizers; bf16 is its automatic mixed precision."""

    mode: ClassVar[str | None] = None
    # PyTorch numbers all parts of a model; 1 and 3 are the sigmoids.
    NAMES: ClassVar = {"0": "layers.0", "2": "layers.1"}

    def __init__(
        self, task: Task, samples: Samples, device: str, weights: Weights | None = None
    ) -> None:
        import torch
        from torch import nn

        self._torch = torch
        torch.set_float32_matmul_precision("high" if task.precision == "tf32" else "highest")
        self._model = nn.Sequential(
            nn.Linear(N_INPUTS, task.hidden),
            nn.Sigmoid(),
            nn.Linear(task.hidden, N_OUTPUTS),
            nn.Sigmoid(),
        ).to(device)
        if weights is not None:
            self._model.load_state_dict(
                {
                    f"{theirs}.{part}": torch.from_numpy(weights[f"{ours}.{part}"])
                    for theirs, ours in self.NAMES.items()
                    for part in ("weight", "bias")
                }
            )
        rate, parameters = task.learning_rate, self._model.parameters()
        self._optimizer: Any = (
            torch.optim.Adam(parameters, lr=rate, fused=True)
            if task.optimizer == "adam"
            else torch.optim.SGD(
                parameters,
                lr=rate,
                momentum=MOMENTUM if task.optimizer == "momentum" else 0.0,
                fused=True,
            )
        )
        self._total = torch.zeros((), device=device)
        # Cut once, beforehand: not even the making of views is held against PyTorch.
        self._batches = [
            tuple(batches)
            for batches in zip(
                torch.from_numpy(samples.inputs).to(device).split(task.batch),
                torch.from_numpy(samples.targets).to(device).split(task.batch),
                strict=True,
            )
        ]
        model, mixed = self._model, task.precision == "bf16"

        def loss_of(inputs: Any, targets: Any) -> Any:
            with torch.autocast(device, torch.bfloat16, enabled=mixed):
                return nn.functional.mse_loss(model(inputs), targets)

        self._loss_of = loss_of if self.mode is None else torch.compile(loss_of, mode=self.mode)
        self._synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    def run(self, n_steps: int) -> None:
        mark = self._torch.compiler.cudagraph_mark_step_begin if self.mode else lambda: None
        self._n_steps = n_steps
        self._total.zero_()
        for inputs, targets in self._batches[:n_steps]:
            mark()
            loss = self._loss_of(inputs, targets)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._total += loss.detach()
        self._synchronize()

    def loss(self) -> float:
        return float(self._total) / self._n_steps

    def weights(self) -> Weights:
        found = {}
        for name, parameter in self._model.state_dict().items():
            layer, _, part = name.partition(".")
            found[f"{self.NAMES[layer]}.{part}"] = parameter.detach().float().cpu().numpy()
        return found

    def close(self) -> None:
        if self.mode is not None:
            self._torch.compiler.reset()


class CompiledTorch(Torch):
    """The same loop, with model and loss compiled; on a GPU this mode replays CUDA graphs."""

    mode = "max-autotune"


class Jax(Contestant):
    """JAX: the whole pass through the batches is one compiled ``lax.scan``."""

    PRECISION: ClassVar = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "BF16_BF16_F32"}

    def __init__(
        self, task: Task, samples: Samples, device: str, weights: Weights | None = None
    ) -> None:
        import jax
        from jax import numpy as jnp

        assert weights is not None
        self._jax, self._task = jax, task
        self._parameters = {name: jnp.array(value) for name, value in weights.items()}
        self._state = self._first_state()
        self._samples = [jnp.array(samples.inputs), jnp.array(samples.targets)]
        self._n_steps = 0
        # Parameters and state are given away, so that JAX may write the new ones over them.
        self._epoch = jax.jit(self._trace_epoch, donate_argnums=(0, 1))

    def _first_state(self) -> Any:
        zeros_like = self._jax.numpy.zeros_like
        first, second = (
            {name: zeros_like(value) for name, value in self._parameters.items()} for _ in range(2)
        )
        return {"sgd": (), "momentum": first, "adam": (0, first, second)}[self._task.optimizer]

    def _trace_epoch(self, parameters: Any, state: Any, inputs: Any, targets: Any) -> Any:
        jax, nn = self._jax, self._jax.nn

        def loss_of(p: Mapping[str, Any], x: Any, t: Any) -> Any:
            hidden = nn.sigmoid(x @ p["layers.0.weight"].T + p["layers.0.bias"])
            outputs = nn.sigmoid(hidden @ p["layers.1.weight"].T + p["layers.1.bias"])
            return jax.numpy.mean((outputs - t) ** 2)

        def step(carry: Any, batch: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(carry[0], *batch)
            return self._update(*carry, gradients), loss

        carry, losses = jax.lax.scan(step, (parameters, state), (inputs, targets))
        return *carry, losses.mean()

    def _update(self, parameters: Any, state: Any, gradients: Any) -> Any:
        sqrt, rate = self._jax.numpy.sqrt, self._task.learning_rate
        if self._task.optimizer == "sgd":
            return {n: p - rate * gradients[n] for n, p in parameters.items()}, state
        if self._task.optimizer == "momentum":
            state = {n: MOMENTUM * v - rate * gradients[n] for n, v in state.items()}
            return {n: p + state[n] for n, p in parameters.items()}, state
        count, first, second = state[0] + 1, *state[1:]
        first = {n: 0.9 * m + 0.1 * gradients[n] for n, m in first.items()}
        second = {n: 0.999 * v + 0.001 * gradients[n] ** 2 for n, v in second.items()}
        size, share = rate / (1 - 0.9**count), 1 / (1 - 0.999**count)
        parameters = {
            n: p - size * first[n] / (sqrt(second[n] * share) + 1e-8) for n, p in parameters.items()
        }
        return parameters, (count, first, second)

    def run(self, n_steps: int) -> None:
        if n_steps != self._n_steps:
            # Another length is another program, and other arrays; a run to warm up makes both.
            self._n_steps, n_rows = n_steps, n_steps * self._task.batch
            self._batches = [
                a[:n_rows].reshape(n_steps, self._task.batch, -1) for a in self._samples
            ]
        with self._jax.default_matmul_precision(self.PRECISION[self._task.precision]):
            self._parameters, self._state, self._loss = self._epoch(
                self._parameters, self._state, *self._batches
            )
        self._jax.block_until_ready((self._parameters, self._loss))

    def loss(self) -> float:
        return float(self._loss)

    def weights(self) -> Weights:
        return {name: np.array(value) for name, value in self._parameters.items()}

    def close(self) -> None:
        self._jax.clear_caches()


CONTESTANTS: dict[str, type[Contestant]] = {
    "gpunn": Gpunn,
    "PyTorch": Torch,
    "torch.compile": CompiledTorch,
    "JAX": Jax,
}


def problem_of(name: str, device: str) -> str | None:
    """Say in one line why a contestant cannot take part, with the remedy; None if it can."""
    if name == "JAX":
        return _jax_problem(device)
    return None if name == "gpunn" else _torch_problem(device)


def _torch_problem(device: str) -> str | None:
    if find_spec("torch") is None:
        return f"PyTorch is not installed: {INSTALL}"
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways
        return f"PyTorch does not load ({one_line(error)}): {INSTALL}"
    if device == "cuda" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} sees no GPU: {INSTALL}"
    return None


def _jax_problem(device: str) -> str | None:
    if find_spec("jax") is None:
        return f"JAX is not installed: {INSTALL}"
    # Before JAX is loaded: it must leave memory to the others, and not fall back in silence.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_PLATFORMS", device)
    try:
        import jax

        jax.devices()
    except Exception as error:  # no plugin, no driver, or versions that do not go together
        return f"JAX does not start here ({one_line(error)}): {INSTALL}"
    return None


def one_line(error: BaseException) -> str:
    """Return an error in one line of moderate length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
