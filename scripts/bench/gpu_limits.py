"""What a GPU itself can do: the matrix products of a step by themselves, and copying memory."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gpu_plan import Plan
from gpu_task import Task
from gpu_timing import FEWEST_STEPS, Clock, calibrate
from made_samples import N_INPUTS, N_OUTPUTS

import gpunn


class Product(NamedTuple):
    """A matrix product of a step; `factor` is what it adds to its output, 0 if it replaces it."""

    name: str
    a: tuple[int, int]
    b: tuple[int, int]
    transpose_a: bool
    transpose_b: bool
    factor: float

    @property
    def out(self) -> tuple[int, int]:
        """The output's shape."""
        # A transposed factor gives its other side: False and True are the indices 0 and 1.
        return self.a[self.transpose_a], self.b[not self.transpose_b]

    @property
    def flops(self) -> int:
        """Multiplications plus additions."""
        return 2 * self.out[0] * self.out[1] * self.a[not self.transpose_a]


def products_of(task: Task) -> list[Product]:
    """Return the five products of a step with one hidden layer; the inputs get nothing back."""
    (h,), n, inputs, outputs = task.hidden, task.batch, N_INPUTS, N_OUTPUTS
    return [
        Product("Z_1 = X W_1^T", (n, inputs), (h, inputs), False, True, 0.0),
        Product("Z_2 = A_1 W_2^T", (n, h), (outputs, h), False, True, 0.0),
        Product("D_2 W_2", (n, outputs), (outputs, h), False, False, 0.0),
        Product("W_2 += D_2^T A_1", (n, outputs), (n, h), True, False, 1e-6),
        Product("W_1 += D_1^T X", (n, h), (n, inputs), True, False, 1e-6),
    ]


def measure_products(
    task: Task, plan: Plan, clock: Clock, *, with_torch: bool
) -> dict[str, dict[str, float]]:
    """Return each product's flops and its seconds as gpunn and as PyTorch call cuBLAS for it."""
    found = {}
    for product in products_of(task):
        callers = {"gpunn": gpunn_product(product, task.precision, plan.device)}
        if with_torch:
            callers["PyTorch"] = torch_product(product, task.precision, plan.device)
        found[product.name] = {"flops": float(product.flops)}
        for name, call in callers.items():

            def repeat(n: int, call: Callable[[], Any] = call) -> None:
                for _ in range(n):
                    call()

            n = calibrate(clock, repeat, FEWEST_STEPS, 10_000, plan.run_seconds / 5)
            times = [clock.seconds(repeat, n) / n for _ in range(plan.reps)]
            found[product.name][name] = statistics.median(times)
    return found


def gpunn_product(product: Product, precision: str, device: str) -> Callable[[], Any]:
    backend = gpunn.get_backend(device, precision)
    generator = np.random.default_rng(1)
    # A backend may keep samples, activations and deltas in another dtype than weights.
    kept_in = backend.work_dtype(np.float32)
    factors = [backend.empty(shape, kept_in) for shape in (product.a, product.b)]
    for factor in factors:
        backend.copy_into(backend.asarray(generator.random(factor.shape, np.float32)), factor)
    out = backend.zeros(product.out, np.float32 if product.factor else kept_in)
    return lambda: backend.gemm(
        *factors,
        out,
        transpose_a=product.transpose_a,
        transpose_b=product.transpose_b,
        alpha=product.factor or 1.0,
        beta=float(product.factor != 0),
    )


def torch_product(product: Product, precision: str, device: str) -> Callable[[], Any]:
    """Return the same through PyTorch, which set its precision when its contestant was made."""
    import torch

    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(shape, device=device).to(kind) for shape in (product.a, product.b))
    a, b = (a.T if product.transpose_a else a), (b.T if product.transpose_b else b)
    out = torch.zeros(product.out, device=device, dtype=kind)
    if product.factor:
        return lambda: out.addmm_(a, b, alpha=product.factor)
    return lambda: torch.mm(a, b, out=out)


def copy_rate(plan: Plan, clock: Clock) -> float:
    """Return bytes read plus bytes written a second when the device copies within its memory."""
    backend = gpunn.get_backend(plan.device)
    source = backend.zeros((plan.copy_bytes // 4,), np.float32)
    target = backend.zeros((plan.copy_bytes // 4,), np.float32)

    def copy(n: int) -> None:
        for _ in range(n):
            backend.copy_into(source, target)

    n = calibrate(clock, copy, FEWEST_STEPS, 10_000, plan.run_seconds / 5)
    times = [clock.seconds(copy, n) / n for _ in range(plan.reps)]
    return 2 * plan.copy_bytes / statistics.median(times)
