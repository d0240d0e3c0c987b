"""What machine a run of bench_gpu.py was made on, and with which versions."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from gpu_baselines import one_line
from machine_facts import cpu_model, version_of

import gpunn
from gpunn.cli.doctor import examine

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "scipy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "jax")


def describe(device: str) -> dict[str, Any]:
    """Return what machine and which versions this is; it opens the GPU."""
    backend = gpunn.get_backend(device)
    return {
        "name": gpu_name() if device == "cuda" else "CPU",
        "device": backend.describe(),
        "doctor": doctor(),
        "nvidia_smi": nvidia_smi(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_free": backend.memory_info().free,
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "gpunn": gpunn.__version__,
            **{package: version_of(package) for package in PACKAGES},
        },
    }


def doctor() -> dict[str, Any]:
    """Return what gpunn finds here; that it fails must not keep anything from being measured."""
    try:
        return examine()
    except Exception as error:
        return {"failed": one_line(error)}


def gpu_name() -> str:
    """Return what CUDA calls the first GPU."""
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())


def nvidia_smi() -> str | None:
    """Return name, driver, clocks, temperature and power as the driver's tool gives them."""
    fields = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,temperature.gpu,power.draw"
    return output_of(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"])


def commit() -> str | None:
    """Return the commit that is checked out, with a mark if something differs from it."""
    return output_of(["git", "describe", "--always", "--dirty"])


def output_of(command: list[str]) -> str | None:
    """Return what a short command prints, or None if it cannot."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True, cwd=ROOT
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def in_words(machine: dict[str, Any], commit: str | None) -> str:
    """Return GPU, driver, CUDA, the versions of all libraries, and the commit in one sentence."""
    versions, doctor = machine["versions"], machine["doctor"]
    cuda = doctor.get("cuda") or {}
    names = {
        "CuPy": versions["cupy-cuda13x"] or versions["cupy-cuda12x"],
        "NumPy": versions["numpy"],
        "Python": versions["python"],
        "PyTorch": versions["torch"],
        "JAX": versions["jax"],
    }
    facts = [
        machine["name"],
        f"driver {(doctor.get('system') or {}).get('driver')}",
        f"CUDA {cuda_version(cuda.get('runtime'))} (the driver's: "
        f"{cuda_version(cuda.get('driver'))})",
        *(f"{name} {version or 'not here'}" for name, version in names.items()),
    ]
    return f"{', '.join(facts)}, at commit {commit}"


def cuda_version(number: int | None) -> str:
    """Return CUDA's number of a version as people write it."""
    return "not here" if number is None else f"{number // 1000}.{number % 1000 // 10}"
