"""What ``gpunn info`` says of the ranks that mpiexec or srun has started."""

import os
import platform
from collections import Counter
from importlib import metadata
from typing import Any

import numpy as np

from gpunn import __version__
from gpunn.backends.select import select_backend
from gpunn.cli.diagnosis import Problem
from gpunn.parallel.ranks import Ranks


def examine_ranks(ranks: Ranks) -> dict[str, Any] | None:
    """Return what ranks there are and what is wrong with them; None for a process by itself.

    Returns
    -------
    dict or None
        ``size``, ``library`` (the MPI), ``mpi4py``, ``nccl`` (its version, or None), ``ranks``
        (host, process, device, threads and versions of each) and ``problems``.
    """
    if ranks.size == 1:
        return None
    backend = select_backend("auto").backend
    on_gpu = backend.name != "cpu"
    mine = {
        "host": platform.node(),
        "process": os.getpid(),
        "device": backend.name,
        "gpu": _bus_id(backend) if on_gpu else None,
        "cores": os.cpu_count() or 1,
        "nccl": _nccl_version() if on_gpu else None,
        "versions": {"gpunn": __version__, "NumPy": np.__version__},
    }
    found = ranks.gather(mine)
    return {
        "size": ranks.size,
        "library": ranks.library,
        "mpi4py": metadata.version("mpi4py"),
        "nccl": found[0]["nccl"],
        "ranks": found,
        "problems": [problem._asdict() for problem in problems_of(found)],
    }


def _bus_id(backend: Any) -> str:
    import cupy

    return str(cupy.cuda.Device(backend.device_id).pci_bus_id)


def _nccl_version() -> int | None:
    from gpunn.backends.cupy_ranks import nccl_version

    return nccl_version()


def problems_of(found: list[dict[str, Any]]) -> list[Problem]:
    """Return what is wrong with ranks, from what each has found, with what mends it."""
    problems = []
    for what in ("gpunn", "NumPy"):
        versions = sorted({each["versions"][what] for each in found})
        if len(versions) > 1:
            problems.append(
                Problem(
                    f"the ranks have different versions of {what}: {', '.join(versions)}",
                    "install the same version on all machines",
                )
            )
    kinds = {each["device"].partition(":")[0] for each in found}
    if len(kinds) > 1:
        problems.append(
            Problem(
                "some ranks have a GPU and others have none",
                "start one rank for each GPU, or give all of them --device cpu",
            )
        )
    gpus = Counter((each["host"], each["gpu"]) for each in found if each["gpu"])
    for (host, gpu), n_ranks in gpus.items():
        if n_ranks > 1:
            problems.append(
                Problem(
                    f"{n_ranks} ranks on {host} have the same GPU ({gpu})",
                    "start one rank for each GPU",
                )
            )
    if gpus and not all(each["nccl"] for each in found):
        problems.append(
            Problem(
                "CuPy finds no NCCL on some ranks, so all sums go through the memory of the CPU",
                "pip install nvidia-nccl-cu13 (beside cupy-cuda12x nvidia-nccl-cu12)",
            )
        )
    cores = {each["host"]: each["cores"] for each in found if each["device"] == "cpu"}
    on_cpu = Counter(each["host"] for each in found if each["device"] == "cpu")
    for host, n_ranks in on_cpu.items():
        if n_ranks > cores[host]:
            problems.append(
                Problem(
                    f"{n_ranks} ranks share the {cores[host]} cores of {host}, and take turns",
                    f"start at most {cores[host]} ranks there",
                )
            )
    return problems


def lines_of(found: dict[str, Any]) -> list[str]:
    """Return what `examine_ranks` found, for a person."""
    nccl = f", NCCL {found['nccl']}" if found["nccl"] else ""
    lines = [
        f"{found['size']} ranks by {found['library']} (mpi4py {found['mpi4py']}{nccl})",
    ]
    for rank, each in enumerate(found["ranks"]):
        lines.append(f"  {rank}: {each['device']} of {each['host']}, process {each['process']}")
    return lines
