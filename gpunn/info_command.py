"""``gpunn info``: what this machine offers, as text."""

from argparse import Namespace
from typing import Any

from gpunn.backend import in_gib
from gpunn.console import Console
from gpunn.doctor import examine


def info(options: Namespace, console: Console) -> int:
    """Say what this machine offers, and what to do about what is missing."""
    found = examine()
    console.report(_info_text(found), found)
    return 0


def _info_text(found: dict[str, Any]) -> str:
    lines = [found["platform"], "", "packages"]
    for name, version in found["versions"].items():
        lines.append(f"  {name:<14} {version or 'not installed'}")
    cpu = found["cpu"]
    lines += [
        "",
        "processor",
        f"  {cpu['cores']} cores, {in_gib(cpu['memory_free'])} of "
        f"{in_gib(cpu['memory_total'])} memory free",
    ]
    for blas in found["blas"]:
        use = "used for all products" if blas["used"] else "not used by gpunn"
        lines.append(
            f"  {blas['library']} {blas['version']} ({blas['package']}), "
            f"{blas['threads']} threads: {use}"
        )
    lines += ["", "graphics processors"]
    for gpu in found["gpus"]:
        lines.append(
            f"  {gpu['device']}: {gpu['name']}, compute capability {gpu['compute_capability']}, "
            f"{in_gib(gpu['memory_free'])} of {in_gib(gpu['memory_total'])} free, "
            f"driver for CUDA {gpu['driver']}, runtime {gpu['runtime']}"
        )
    if not found["gpus"]:
        lines.append("  none that can be used")
    auto = found["auto"]
    lines += ["", f"device auto is {auto['description']}: {auto['reason']}"]
    if found["environment"]:
        lines += ["", "environment"]
        lines += [f"  {name}={value}" for name, value in found["environment"].items()]
    if found["problems"]:
        lines += ["", "to do"]
        lines += [f"  {problem}" for problem in found["problems"]]
    return "\n".join(lines)
