"""What this machine offers gpunn, and what to do about what is missing.

`examine` only looks: it returns plain values, for a person through ``gpunn info`` or for a bug
report through ``gpunn info --json``.
"""

import os
import platform
from importlib import metadata
from typing import Any

from gpunn.devices import cuda_problem, select_backend

PACKAGES = ("numpy", "scipy", "safetensors", "matplotlib", "scikit-learn")
CUPY_WHEELS = ("cupy-cuda12x", "cupy-cuda13x", "cupy")
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "CUPY_TF32",
    "CUPY_GPU_MEMORY_LIMIT",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GPUNN_DATA_DIR",
    "GPUNN_REQUIRE_GPU",
)


def examine() -> dict[str, Any]:
    """Return what is here.

    Returns
    -------
    dict
        ``versions`` of packages (None where not installed), ``platform``, ``cpu`` (cores, memory
        in bytes), ``blas`` (libraries and threads), ``gpus``, ``auto`` (what device "auto" is and
        why), ``environment`` (variables that change behaviour, where set) and ``problems``, a list
        of lines that each name a cause and a remedy.
    """
    backend, reason = select_backend("auto")
    memory = select_backend("cpu").backend.memory_info()
    return {
        "versions": _versions(),
        "platform": f"Python {platform.python_version()} on {platform.platform()}",
        "cpu": {
            "cores": os.cpu_count(),
            "memory_free": memory.free,
            "memory_total": memory.total,
        },
        "blas": _blas(),
        "gpus": _gpus(),
        "auto": {"device": backend.name, "description": backend.describe(), "reason": reason},
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "problems": _problems(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    wheels = {name: _version(name) for name in CUPY_WHEELS}
    installed = {name: version for name, version in wheels.items() if version is not None}
    return {
        "gpunn": _version("gpunn"),
        **{name: _version(name) for name in PACKAGES},
        **(installed or {"cupy": None}),
    }


def _blas() -> list[dict[str, Any]]:
    import scipy.linalg.blas  # noqa: F401  (loads the BLAS that is used)
    from threadpoolctl import threadpool_info

    return [
        {
            "library": pool["internal_api"],
            "version": pool.get("version"),
            "threads": pool["num_threads"],
            "package": _package_of(pool["filepath"]),
            "used": "scipy" in _package_of(pool["filepath"]),
        }
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def _package_of(library: str) -> str:
    """Return which package's folder a library lies in, such as ``scipy.libs``."""
    return os.path.basename(os.path.dirname(library))


def _gpus() -> list[dict[str, Any]]:
    if cuda_problem() is not None:
        return []
    import cupy

    gpus = []
    for number in range(cupy.cuda.runtime.getDeviceCount()):
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        memory = select_backend(f"cuda:{number}").backend.memory_info()
        gpus.append(
            {
                "device": f"cuda:{number}",
                "name": properties["name"].decode(),
                "compute_capability": f"{properties['major']}.{properties['minor']}",
                "memory_free": memory.free,
                "memory_total": memory.total,
                "driver": cupy.cuda.runtime.driverGetVersion(),
                "runtime": cupy.cuda.runtime.runtimeGetVersion(),
            }
        )
    return gpus


def _problems() -> list[str]:
    problems = []
    gpu = cuda_problem()
    if gpu is not None:
        problems.append(f"no GPU is used: {gpu}")
    wheels = [name for name in CUPY_WHEELS if _version(name) is not None]
    if len(wheels) > 1:
        problems.append(
            f"{' and '.join(wheels)} are installed together and break each other: "
            f"pip uninstall -y {' '.join(wheels)}, then install one of them again"
        )
    if _version("matplotlib") is None:
        problems.append("pictures need matplotlib: pip install 'gpunn[plots]'")
    return problems
