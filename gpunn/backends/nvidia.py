"""What the operating system and nvidia-smi know of NVIDIA GPUs, without CUDA.

`has_driver` and `hides_gpus` cost microseconds, so that even a run on the CPU may ask; `probe`
looks everywhere, for ``gpunn info``.
"""

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from gpunn.backends.facts import Gpu, System

ROOT = Path("/")
NVIDIA, DISPLAY = "0x10de", "0x03"
WSL_DRIVER = "usr/lib/wsl/lib"
SMI_FIELDS = "driver_version,name,compute_cap,memory.free,memory.total,compute_mode"


def has_driver(root: Path = ROOT) -> bool:
    """Say whether NVIDIA's driver is there; its GPU may still be missing or out of reach."""
    if platform.system() == "Windows":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"))
        return (system / "System32" / "nvcuda.dll").exists()
    return (root / "proc/driver/nvidia/version").exists() or _has_wsl_driver(root)


def _has_wsl_driver(root: Path) -> bool:
    return (root / "dev/dxg").exists() and (root / WSL_DRIVER / "libcuda.so.1").exists()


def hides_gpus(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether ``CUDA_VISIBLE_DEVICES`` hides every GPU.

    CUDA reads it up to the first entry that names no GPU.
    """
    value = environment.get("CUDA_VISIBLE_DEVICES")
    return value is not None and value.split(",")[0].strip() in ("", "-1")


def probe(root: Path = ROOT) -> System:
    """Return what there is of NVIDIA, by looking at files below `root` and asking nvidia-smi."""
    bound = _gpus_on_bus(root)
    text, problem = _ask_smi(root)
    gpus = read_smi(text)
    return System(
        kind=platform.system(),
        wsl="microsoft" in platform.release().lower(),
        container=_in_container(root),
        on_bus=bool(bound),
        bound_driver=next(filter(None, bound), None),
        driver_here=has_driver(root) or bool(gpus),
        driver=_driver_version(root) or text.partition(",")[0].strip() or None,
        passed_in=any((root / name).exists() for name in ("dev/nvidiactl", "dev/dxg")),
        smi_problem=problem,
        gpus=gpus,
    )


def _gpus_on_bus(root: Path) -> list[str | None]:
    """Return, for each NVIDIA GPU on the PCI bus, which driver has it."""
    found: list[str | None] = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if _read(device / "vendor") == NVIDIA and _read(device / "class").startswith(DISPLAY):
            driver = device / "driver"
            found.append(driver.resolve().name if driver.exists() else None)
    return found


def _in_container(root: Path) -> bool:
    marks = ("KUBERNETES_SERVICE_HOST", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
    files = (".dockerenv", "run/.containerenv")
    return any(mark in os.environ for mark in marks) or any((root / f).exists() for f in files)


def _driver_version(root: Path) -> str | None:
    match = re.search(r"\s(\d{3,}\.[\d.]+)\s", _read(root / "proc/driver/nvidia/version"))
    return match[1] if match else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _ask_smi(root: Path) -> tuple[str, str | None]:
    """Return what nvidia-smi lists and, if it fails, what it says of that."""
    # Imported here because `import gpunn` needs neither.
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=str(root / WSL_DRIVER))
    if program is None:
        return "", None
    command = [program, f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return "", " ".join(str(error).split())
    if done.returncode:
        return "", " ".join((done.stdout + done.stderr).split())[:300]
    return done.stdout, None


def read_smi(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs that nvidia-smi lists, one a line, in the order of ``SMI_FIELDS``."""
    gpus = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(SMI_FIELDS.split(",")):
            continue
        known = [None if field.startswith("[") else field for field in fields]
        _, name, capability, free, total, mode = known
        gpus.append(
            Gpu(
                name=name or "NVIDIA GPU",
                compute_capability=capability,
                memory_free=_mebibytes(free),
                memory_total=_mebibytes(total),
                compute_mode=mode,
            )
        )
    return tuple(gpus)


def _mebibytes(text: str | None) -> int | None:
    return int(text) * 2**20 if text and text.isdecimal() else None
