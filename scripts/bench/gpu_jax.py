"""JAX as a contestant of bench_gpu.py: the whole pass is one compiled ``lax.scan``."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from gpu_task import MOMENTUM, Contestant, Place, Task, Weights
from made_samples import Samples


class Jax(Contestant):
    """A jitted ``lax.scan`` over all batches, whose weights and state are donated.

    In bf16 the samples are bfloat16, the weights are rounded to it in each step, and so are all
    activations and deltas; the weights themselves, the loss and the optimizer's state are float32.
    """

    PRECISION: ClassVar = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "default"}

    def __init__(
        self, task: Task, samples: Samples, place: Place, weights: Weights | None = None
    ) -> None:
        import jax
        from jax import numpy as jnp

        assert weights is not None
        self._jax, self._task = jax, task
        self._kept_in = jnp.bfloat16 if task.precision == "bf16" else jnp.float32
        self._parameters = {name: jnp.array(value) for name, value in weights.items()}
        self._state = first_state(task, self._parameters)
        self._key = jax.random.key(0)
        self._samples = [jnp.array(samples.inputs, self._kept_in), jnp.array(samples.targets)]
        self._n_steps = 0
        # Parameters and state are given away, so that JAX may write the new ones over them.
        self._epoch = jax.jit(self._trace_epoch, donate_argnums=(0, 1))

    def _trace_epoch(self, parameters: Any, state: Any, key: Any, inputs: Any, targets: Any) -> Any:
        jax = self._jax

        def loss_of(p: Mapping[str, Any], x: Any, t: Any, key: Any) -> Any:
            return jax.numpy.mean((self.outputs(p, x, key) - t) ** 2)

        def step(carry: Any, batch: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(carry[0], *batch)
            return update(self._task, *carry, gradients), loss

        # Without dropout no step uses its key, and none is made.
        keys = jax.random.split(key, 1 + inputs.shape[0])
        carry, losses = jax.lax.scan(step, (parameters, state), (inputs, targets, keys[1:]))
        return *carry, keys[0], losses.mean()

    def outputs(self, parameters: Mapping[str, Any], inputs: Any, key: Any = None) -> Any:
        """Return the network's outputs in float32; with a step's key, as that step has them."""
        jax, dropout, a = self._jax, self._task.dropout if key is not None else 0.0, inputs
        top = len(self._task.hidden)
        for index in range(top + 1):
            weights, biases = (parameters[f"layers.{index}.{part}"] for part in ("weight", "bias"))
            z = a @ weights.astype(self._kept_in).T + biases.astype(self._kept_in)
            a = jax.nn.sigmoid(z if index < top else z.astype(np.float32))
            if dropout and index < top:
                kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1 - dropout, a.shape)
                a = jax.numpy.where(kept, a / (1 - dropout), 0)
        return a

    def run(self, n_steps: int) -> None:
        if n_steps != self._n_steps:
            # Another length is another program, and other arrays; a run to warm up makes both.
            self._n_steps, n_rows = n_steps, n_steps * self._task.batch
            self._batches = [
                a[:n_rows].reshape(n_steps, self._task.batch, -1) for a in self._samples
            ]
        with self._jax.default_matmul_precision(self.PRECISION[self._task.precision]):
            self._parameters, self._state, self._key, self._loss = self._epoch(
                self._parameters, self._state, self._key, *self._batches
            )
        self._jax.block_until_ready((self._parameters, self._loss))

    def loss(self) -> float:
        return float(self._loss)

    def weights(self) -> Weights:
        return {name: np.array(value) for name, value in self._parameters.items()}

    def predictor(self, inputs: Any) -> Callable[[], Any]:
        """Return what predicts the classes of some inputs, which are on the device from now on."""
        placed = self._jax.numpy.array(inputs, self._kept_in)
        classes = self._jax.jit(lambda parameters, x: self.outputs(parameters, x).argmax(1))
        return lambda: np.array(classes(self._parameters, placed))

    def close(self) -> None:
        self._jax.clear_caches()


def first_state(task: Task, parameters: Mapping[str, Any]) -> Any:
    """Return what the optimizer remembers before the first step."""
    from jax import numpy as jnp

    first, second = (
        {name: jnp.zeros_like(value) for name, value in parameters.items()} for _ in range(2)
    )
    return {"sgd": (), "momentum": first, "adam": (0, first, second)}[task.optimizer]


def update(task: Task, parameters: Any, state: Any, gradients: Any) -> Any:
    """Return parameters and the optimizer's state after a step."""
    from jax.numpy import sqrt

    rate = task.learning_rate
    if task.optimizer == "sgd":
        return {n: p - rate * gradients[n] for n, p in parameters.items()}, state
    if task.optimizer == "momentum":
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
