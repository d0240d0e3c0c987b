"""``gpunn info``: what this machine offers, as text."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from gpunn.cli.console import Console
from gpunn.cli.doctor import examine, meaning_of
from gpunn.cli.options import add_json
from gpunn.cli.rank_facts import examine_ranks, lines_of
from gpunn.host_memory import in_gib


def add_options(parser: ArgumentParser) -> None:
    """Add the options of ``gpunn info``."""
    parser.description = (
        "Say what this machine offers: package versions, processor, GPUs, memory, and what to do "
        "about what is missing. Started by mpiexec or srun, it looks at all ranks, too."
    )
    add_json(parser)


def run(options: Namespace, console: Console) -> int:
    """Say what this machine offers, and what to do about what is missing."""
    found = examine()
    if (ranks := examine_ranks(console.ranks)) is not None:
        found["ranks"] = ranks
        found["problems"] += ranks["problems"]
    console.report(info_text(found), found)
    return 0


def info_text(found: dict[str, Any]) -> str:
    """Return what `gpunn.cli.doctor.examine` found, for a person."""
    lines = [found["platform"], "", "packages"]
    for name, version in found["versions"].items():
        lines.append(f"  {name:<14} {version or 'not installed'}")
    lines += ["", "processor", *_processor(found)]
    lines += ["", "NVIDIA", *_nvidia(found["system"], found["cuda"])]
    if found["environment"]:
        lines += ["", "environment"]
        for name, value in found["environment"].items():
            lines.append(f"  {name}={value} ({meaning_of(name)})")
    if "ranks" in found:
        lines += ["", *lines_of(found["ranks"])]
    auto = found["auto"]
    lines += ["", f"device auto is {auto['description']}: {auto['reason']}"]
    if found["problems"]:
        lines += ["", "to do, in this order; then run gpunn info again"]
        for number, problem in enumerate(found["problems"], 1):
            lines += [f"  {number}. {problem['cause']}", f"     -> {problem['remedy']}"]
    else:
        all_used = found["system"]["driver_here"] or found["cuda"]["gpus"]
        lines += ["", "nothing to do" if all_used else "nothing to do: no NVIDIA GPU was found"]
    return "\n".join(lines)


def _processor(found: dict[str, Any]) -> Iterator[str]:
    cpu = found["cpu"]
    vectors = f", {', '.join(cpu['vectors'])}" if cpu["vectors"] else ""
    yield (
        f"  {cpu['cores']} cores{vectors}, {in_gib(cpu['memory_free'])} of "
        f"{in_gib(cpu['memory_total'])} memory free"
    )
    problem = cpu["loops_problem"]
    yield f"  {'fused loops: used' if problem is None else f'no fused loops: {problem}'}"
    for blas in found["blas"]:
        use = "used for products" if blas["used"] else "not used for products"
        yield (
            f"  {blas['library']} {blas['version']} ({blas['package']}), "
            f"{blas['threads']} threads: {use}"
        )


def _nvidia(system: dict[str, Any], cuda: dict[str, Any]) -> Iterator[str]:
    if system["driver_here"]:
        newest = f", for CUDA up to {_cuda_version(cuda['driver'])}" if cuda["driver"] else ""
        yield f"  driver {system['driver'] or 'of unknown version'}{newest}"
    else:
        yield "  no driver"
    if cuda["runtime"]:
        yield f"  {' '.join(cuda['wheels'])} with CUDA runtime {_cuda_version(cuda['runtime'])}"
    for name, inside in (("container", "a container"), ("wsl", "WSL")):
        if system[name]:
            yield f"  seen from inside {inside}"
    for gpu in cuda["gpus"] or system["gpus"]:
        yield _gpu(gpu)
    if not (cuda["gpus"] or system["gpus"]):
        on_bus = ", though one is on the PCI bus" if system["on_bus"] else ""
        yield f"  no GPU{on_bus}"


def _gpu(gpu: dict[str, Any]) -> str:
    parts = [gpu["name"]]
    if gpu["compute_capability"]:
        parts.append(f"compute capability {gpu['compute_capability']}")
    if gpu["memory_free"] is not None:
        parts.append(f"{in_gib(gpu['memory_free'])} of {in_gib(gpu['memory_total'])} free")
    if gpu["compute_mode"] not in (None, "Default"):
        parts.append(f"compute mode {gpu['compute_mode']}")
    if gpu["problem"]:
        parts.append("cannot be used")
    return f"  {gpu['device'] or 'not usable'}: {', '.join(parts)}"


def _cuda_version(number: int) -> str:
    """Return CUDA's 13020 as 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"
