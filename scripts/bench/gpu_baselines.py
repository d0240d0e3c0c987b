"""Who takes part in bench_gpu.py, and whether they can.

All of them start from the same weights, take the same batches in the same order, and descend the
same mean squared error of sigmoid outputs. Samples and weights are on the device beforehand, and
each keeps its loss there and adds it up. A contestant is made once for a task and then trains on
the first so many batches, again and again, going on from the weights it has.
"""

import os
from importlib.util import find_spec

from gpu_gpunn import Gpunn
from gpu_jax import Jax
from gpu_task import Contestant
from gpu_torch import CompiledTorch, Torch

INSTALL = "pip install '.[bench-gpu]'"

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
