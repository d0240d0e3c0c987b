"""What this machine offers gpunn, and what to do about what is missing.

`examine` only looks. What it finds is plain values, for a person through ``gpunn info`` or for a
bug report through ``gpunn info --json``; `gpunn.cli.diagnosis` draws the conclusions.
"""

import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np

from gpunn.backends.numba_library import SWITCH, loops_problem
from gpunn.backends.nvidia import Gpu, probe
from gpunn.backends.select import count_gpus, cuda_problem, gpu_problem, has_cupy, select_backend
from gpunn.cli.diagnosis import diagnose
from gpunn.cli.facts import Cuda, Facts

PACKAGES = ("numpy", "scipy", "safetensors", "matplotlib", "scikit-learn", "numba", "mpi4py")
CUPY_WHEELS = ("cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy")
LIBRARIES = {"cuBLAS": "cublas", "NVRTC": "nvrtc"}
VECTORS = {"X86_V3": "AVX2", "X86_V4": "AVX512"}
"""NumPy's names since 2.4, and those that everyone knows."""

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "which GPUs CUDA may see, numbered anew from 0; empty or -1: none",
    "CUDA_DEVICE_ORDER": "how CUDA numbers the GPUs; by default the fastest is 0",
    "CUDA_PATH": "a CUDA toolkit for CuPy to use",
    "CUPY_TF32": "TF32 for other users of CuPy; gpunn sets each product's precision itself",
    "CUPY_GPU_MEMORY_LIMIT": "how much of a GPU's memory CuPy may take",
    "CUPY_CACHE_DIR": "where CuPy keeps compiled kernels",
    "NVIDIA_TF32_OVERRIDE": "0 forbids TF32 in NVIDIA's libraries, whatever a program chooses",
    "CUBLAS_WORKSPACE_CONFIG": "how much memory cuBLAS may use besides the matrices",
    "OMP_NUM_THREADS": "threads of the CPU for products, if OPENBLAS_NUM_THREADS is not set",
    "OPENBLAS_NUM_THREADS": "threads of the CPU for products",
    SWITCH: "0 leaves the CPU's loops to NumPy, though Numba is installed",
    "GPUNN_DATA_DIR": "where mnist/ and fashion-mnist/ are looked for",
    "GPUNN_RANK_SECONDS": "how long a rank waits for the others before all end; 600 by default",
    "GPUNN_REQUIRE_GPU": "1 makes gpunn's tests fail, not skip, if there is no GPU",
}
"""What each variable that changes gpunn's behaviour does."""

CUBLAS = "changes how cuBLAS computes, for example by emulating float32 or float64"


def examine() -> dict[str, Any]:
    """Return what is here.

    Returns
    -------
    dict
        ``versions`` of packages (None where not installed), ``platform``, ``cpu`` (cores, vector
        instructions, why there are no fused loops, memory in bytes), ``blas`` (libraries and
        threads), ``system`` (what there is of NVIDIA below CUDA), ``cuda`` (what CuPy has, and the
        GPUs it sees), ``auto`` (what device "auto" is and why), ``environment`` (variables that
        change behaviour, where set) and ``problems``, a list of causes and remedies in the order to
        go by.
    """
    cpu = select_backend("cpu").backend  # first: it says how many threads
    memory = cpu.memory_info()
    versions, blas = _versions(), _blas(getattr(cpu, "blas_path", None))
    facts = _facts(versions, blas)
    backend, reason, _ = select_backend("auto")
    return {
        "versions": versions,
        "platform": f"Python {platform.python_version()} on {platform.platform()}",
        "cpu": {
            "cores": facts.cores,
            "vectors": _vectors(),
            "loops_problem": facts.loops_problem,
            "memory_free": memory.free,
            "memory_total": memory.total,
        },
        "blas": blas,
        "system": asdict(facts.system),
        "cuda": asdict(facts.cuda),
        "auto": {"device": backend.name, "description": backend.describe(), "reason": reason},
        "environment": facts.environment,
        "problems": [problem._asdict() for problem in diagnose(facts)],
    }


def _facts(versions: dict[str, str | None], blas: list[dict[str, Any]]) -> Facts:
    return Facts(
        system=probe(),
        cuda=_cuda(),
        environment=_environment(),
        cores=os.cpu_count() or 1,
        blas_threads=next((library["threads"] for library in blas if library["used"]), None),
        matplotlib=versions["matplotlib"] is not None,
        loops_problem=loops_problem(),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _wheels() -> tuple[str, ...]:
    return tuple(name for name in CUPY_WHEELS if _version(name) is not None)


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in ("gpunn", *PACKAGES, *(_wheels() or ("cupy",)))}


def _environment() -> dict[str, str]:
    return {name: value for name, value in sorted(os.environ.items()) if meaning_of(name)}


def meaning_of(name: str) -> str | None:
    """Return what an environment variable does to gpunn, if it does anything."""
    return ENVIRONMENT.get(name) or (CUBLAS if name.startswith("CUBLAS_") else None)


def _vectors() -> list[str]:
    """Return the vector instructions beyond the basic ones that NumPy has found and uses."""
    config: Any = np.show_config(mode="dicts")
    found = config.get("SIMD Extensions", {}).get("found", [])
    return [VECTORS.get(name, name) for name in found]


def _blas(used: str | None) -> list[dict[str, Any]]:
    import scipy.linalg.blas  # noqa: F401  (loads its BLAS)
    from threadpoolctl import threadpool_info

    return [
        {
            "library": pool["internal_api"],
            "version": pool.get("version"),
            "threads": pool["num_threads"],
            "package": _package_of(pool["filepath"]),
            "used": pool["filepath"] == used,
        }
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def _package_of(library: str) -> str:
    """Return which package's folder a library lies in, such as ``scipy.libs``."""
    return os.path.basename(os.path.dirname(library))


def _cuda() -> Cuda:
    problem = cuda_problem()
    if not has_cupy():
        return Cuda(wheels=_wheels(), problem=problem)
    return Cuda(
        # Built from source, CuPy may have no distribution of a name known here.
        wheels=_wheels() or ("cupy",),
        problem=problem,
        driver=_cuda_version("driverGetVersion"),
        runtime=_cuda_version("runtimeGetVersion"),
        missing=_missing_libraries(),
        gpus=_gpus(),
    )


def _cuda_version(function: str) -> int | None:
    try:
        import cupy

        return int(getattr(cupy.cuda.runtime, function)())
    except Exception:
        # Why CuPy does not answer is in `cuda_problem`.
        return None


def _missing_libraries() -> tuple[str, ...]:
    """Return what of CUDA CuPy would not find, which needs no GPU to be seen."""
    try:
        from cuda import pathfinder
    except ImportError:
        return ()
    missing = [
        name
        for name, library in LIBRARIES.items()
        if not _is_found(pathfinder.load_nvidia_dynamic_lib, library)
    ]
    if not _is_found(pathfinder.find_nvidia_header_directory, "cudart"):
        missing.append("the CUDA headers")
    return tuple(missing)


def _is_found(find: Callable[[str], Any], name: str) -> bool:
    try:
        return find(name) is not None
    except Exception:
        # Each kind of absence is an error of its own.
        return False


def _gpus() -> tuple[Gpu, ...]:
    try:
        return tuple(_gpu(number) for number in range(count_gpus()))
    except Exception:
        return ()


def _gpu(number: int) -> Gpu:
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(number)
    problem = gpu_problem(number)
    memory = None if problem else select_backend(f"cuda:{number}").backend.memory_info()
    return Gpu(
        name=properties["name"].decode(),
        device=f"cuda:{number}",
        compute_capability=f"{properties['major']}.{properties['minor']}",
        memory_free=memory.free if memory else None,
        memory_total=memory.total if memory else properties.get("totalGlobalMem"),
        problem=problem,
    )
