"""PyTorch as two contestants of bench_gpu.py: its usual loop, and that loop compiled."""

from collections.abc import Callable
from typing import Any

from gpu_task import MOMENTUM, Contestant, Place, Task, Weights
from made_samples import Samples


class Torch(Contestant):
    """PyTorch's usual loop, with its fused optimizers; bf16 is its automatic mixed precision."""

    compiled = False

    def __init__(
        self, task: Task, samples: Samples, place: Place, weights: Weights | None = None
    ) -> None:
        import torch

        self._torch, device = torch, place.device
        torch.set_float32_matmul_precision("high" if task.precision == "tf32" else "highest")
        self.model = make_model(task).to(device)
        if weights is not None:
            self._load(weights)
        self._optimizer = make_optimizer(task, self.model.parameters())
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
        model, mixed, mse_loss = self.model, task.precision == "bf16", torch.nn.functional.mse_loss

        def loss_of(inputs: Any, targets: Any) -> Any:
            with torch.autocast(device, torch.bfloat16, enabled=mixed):
                return mse_loss(model(inputs), targets)

        self._loss_of, self._mark = loss_of, lambda: None
        if self.compiled:
            self._loss_of = torch.compile(loss_of, mode=place.compile_mode)
            self._mark = torch.compiler.cudagraph_mark_step_begin
        self._synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    def _parameters(self) -> list[tuple[str, Any]]:
        """Return the parameters by gpunn's names."""
        linear = [part for part in self.model if isinstance(part, self._torch.nn.Linear)]
        return [
            (f"layers.{index}.{name}", parameter)
            for index, layer in enumerate(linear)
            for name, parameter in layer.named_parameters()
        ]

    def _load(self, weights: Weights) -> None:
        with self._torch.no_grad():
            for name, parameter in self._parameters():
                parameter.copy_(self._torch.from_numpy(weights[name]))

    def run(self, n_steps: int) -> None:
        self._n_steps = n_steps
        self._total.zero_()
        for inputs, targets in self._batches[:n_steps]:
            self._mark()
            loss = self._loss_of(inputs, targets)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._total += loss.detach()
        self._synchronize()

    def loss(self) -> float:
        return float(self._total) / self._n_steps

    def weights(self) -> Weights:
        return {name: p.detach().float().cpu().numpy().copy() for name, p in self._parameters()}

    def predictor(self, inputs: Any) -> Callable[[], Any]:
        """Return what predicts the classes of some inputs, which are on the device from now on."""
        placed = self._torch.from_numpy(inputs).to(self._total.device)

        def predict() -> Any:
            with self._torch.no_grad():
                return self.model(placed).argmax(1).cpu().numpy()

        return predict

    def close(self) -> None:
        if self.compiled:
            self._torch.compiler.reset()


class CompiledTorch(Torch):
    """The same loop, with model and loss compiled; on a GPU both modes replay CUDA graphs."""

    compiled = True


def make_model(task: Task) -> Any:
    """Return the network, with PyTorch's own first weights."""
    from torch import nn

    parts: list[Any] = []
    *hidden, outputs = task.layers[1:]
    below = task.layers[0]
    for n_units in hidden:
        parts += [nn.Linear(below, n_units), nn.Sigmoid()]
        if task.dropout:
            parts.append(nn.Dropout(task.dropout))
        below = n_units
    return nn.Sequential(*parts, nn.Linear(below, outputs), nn.Sigmoid())


def make_optimizer(task: Task, parameters: Any) -> Any:
    """Return PyTorch's fused optimizer."""
    from torch import optim

    if task.optimizer == "adam":
        return optim.Adam(parameters, lr=task.learning_rate, fused=True)
    momentum = MOMENTUM if task.optimizer == "momentum" else 0.0
    return optim.SGD(parameters, lr=task.learning_rate, momentum=momentum, fused=True)
