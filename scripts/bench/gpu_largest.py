"""The largest hidden layer that trains in a GPU's memory, by trying."""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_baselines import one_line
from gpu_children import events_of, patience
from gpu_plan import Plan
from gpu_task import LOSS
from made_samples import N_INPUTS, N_OUTPUTS, Samples

import gpunn
from gpunn.network.architecture import Architecture

SECONDS, FACTOR = 45.0, 1.01
"""How long a search for one library's network may take, and how close it comes."""
REHEARSAL_BYTES = 2**28
WARM_HIDDEN = 500
"""A training of so few units comes first: libraries and kernels are loaded while there is room."""


@dataclass(frozen=True)
class Largest:
    """The search for the largest hidden layer that trains in the device's memory."""

    batch: int
    least_ratio: float = 1.8

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"largest hidden layer, batch {self.batch}, sgd"


def try_hidden(
    name: str, hidden: int, batch: int, device: str, send: Callable[[tuple[Any, ...]], None]
) -> None:
    """Train three steps of a network that may be too large, and send how that went."""
    samples = Samples(3 * batch)
    train = {"gpunn": train_gpunn, "PyTorch": train_torch}[name]
    try:
        moved = train(samples, hidden, batch, device)
    except Exception as error:  # each library has its own ways to say that memory is full
        send(("failed", one_line(error)))
    else:
        send(("trained", "") if moved else ("failed", "the last unit's weights did not move"))


def limit_memory(device: str) -> None:
    """Give this process little more memory than it has, on a CPU, which others need too."""
    if device == "cpu":
        import psutil

        limit = psutil.Process().memory_info().vms + REHEARSAL_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def train_gpunn(samples: Samples, hidden: int, batch: int, device: str) -> bool:
    backend = gpunn.get_backend(device)

    def train(network: gpunn.Network) -> None:
        gpunn.fit(
            network,
            samples.inputs,
            samples.targets,
            epochs=1,
            batch_size=batch,
            learning_rate=100.0 / hidden,
            shuffle=False,
        )

    train(gpunn.Network([N_INPUTS, WARM_HIDDEN, N_OUTPUTS], loss=LOSS, device=backend))
    limit_memory(device)
    # The weights are made where they are, and zero: to draw them on the host would take minutes,
    # and as much memory there. Zeros move too, and what fits does not depend on values.
    architecture = Architecture((N_INPUTS, hidden, N_OUTPUTS), loss=LOSS)
    parameters = [
        (backend.zeros((n_out, n_in), np.float32), backend.zeros((n_out,), np.float32))
        for n_out, n_in, _ in architecture.layers()
    ]
    network = gpunn.Network.from_parameters(architecture, parameters, backend)
    del parameters
    train(network)
    return all_moved(backend.to_host(network.layers[0].weights[-1:]))


def train_torch(samples: Samples, hidden: int, batch: int, device: str) -> bool:
    # Spares PyTorch what its allocator would lose between blocks.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    import torch
    from torch import nn

    def train(hidden: int) -> Any:
        model = nn.Sequential(
            nn.Linear(N_INPUTS, hidden, device=device),
            nn.Sigmoid(),
            nn.Linear(hidden, N_OUTPUTS, device=device),
            nn.Sigmoid(),
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        # One parameter after the other, which takes the least memory.
        optimizer = torch.optim.SGD(model.parameters(), lr=100.0 / hidden, foreach=False)
        for start in range(0, len(samples.inputs), batch):
            inputs, targets = (
                torch.from_numpy(part[start : start + batch]).to(device)
                for part in (samples.inputs, samples.targets)
            )
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return model[0].weight[-1:].detach().cpu().numpy()

    train(WARM_HIDDEN)
    limit_memory(device)
    return all_moved(train(hidden))


def all_moved(weights: Any) -> bool:
    return bool(np.isfinite(weights).all() and (weights != 0).all())


def find_largest(
    trains: Callable[[int], bool], guess: int, seconds_left: Callable[[], float]
) -> tuple[int, int | None]:
    """Return the largest number that was seen to train, and the smallest that was seen not to."""
    low, high, n = 0, None, guess
    while n > 0 and seconds_left() > 0:
        if trains(n):
            low = n
        else:
            high = n
        if low and high is not None:
            if high <= FACTOR * low:
                break
            n = (low + high) // 2
        else:
            n = int(n * 1.05) if low else int(n * 0.96)
    return low, high


def search_largest(row: Largest, plan: Plan, free: int, absent: dict[str, str]) -> dict[str, Any]:
    """Return how wide a hidden layer gpunn and PyTorch train, each try in a process of its own."""
    if plan.device == "cpu":
        free = REHEARSAL_BYTES
    # Bytes for a hidden unit: gpunn has the weights and two arrays of a batch, PyTorch has the
    # weights twice, and one or two arrays.
    weights, array = 4 * (N_INPUTS + 1 + N_OUTPUTS), 4 * row.batch
    guesses = {
        "gpunn": free // (weights + 2 * array),
        "PyTorch": free // (2 * weights + 2 * array),
    }
    result: dict[str, Any] = {
        "label": row.label,
        "least_ratio": row.least_ratio,
        "batch": row.batch,
    }
    for name, guess in guesses.items():
        if name not in absent and name in plan.contestants:
            result[name] = _search(name, guess, row, plan)
    return result


def _search(name: str, guess: int, row: Largest, plan: Plan) -> dict[str, Any]:
    until = min(plan.deadline, time.monotonic() + SECONDS)
    tries: list[tuple[int, str]] = []

    def trains(hidden: int) -> bool:
        arguments = (name, hidden, row.batch, plan.device)
        first, *_ = events_of(try_hidden, arguments, lambda: min(60.0, patience(plan)))
        tries.append((hidden, " ".join(first)))
        return bool(first[0] == "trained")

    low, high = find_largest(trains, guess, lambda: until - time.monotonic())
    return {"trained": low, "failed": high, "tries": tries}
