"""What the operating system and nvidia-smi know of NVIDIA GPUs, without CUDA.

`has_driver` and `hides_gpus` cost microseconds, so that even a run on the CPU may ask; `probe`
looks everywhere, for ``gpunn info``.

Which driver CUDA needs is in NVIDIA's *CUDA Compatibility*, "Minor Version Compatibility"; that
CUDA 13 ends support for GPUs before compute capability 7.5, in the release notes of CUDA 12.9 and
13.0.
"""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
NVIDIA, DISPLAY = "0x10de", "0x03"
WSL_DRIVER = "usr/lib/wsl/lib"
SMI_FIELDS = "driver_version,name,compute_cap,memory.free,memory.total,compute_mode"
DRIVER_FOR_CUDA = {12: 525, 13: 580}
FIRST_CAPABILITY_OF_CUDA_13 = 7.5


@dataclass(frozen=True)
class Gpu:
    """A GPU, as far as it answers: what is not known is None. Memory is in bytes."""

    name: str
    device: str | None = None
    compute_capability: str | None = None
    memory_free: int | None = None
    memory_total: int | None = None
    compute_mode: str | None = None
    problem: str | None = None

    @property
    def is_too_old_for_13(self) -> bool:
        """Whether CUDA 13 has ended support for it."""
        capability = self.compute_capability
        return capability is not None and float(capability) < FIRST_CAPABILITY_OF_CUDA_13


@dataclass(frozen=True)
class System:
    """What there is of NVIDIA below CUDA."""

    kind: str
    """As `platform.system` says: Linux, Windows or Darwin."""
    wsl: bool = False
    container: bool = False
    on_bus: bool = False
    """Whether an NVIDIA GPU is on the PCI bus, as far as that can be seen (on Linux)."""
    bound_driver: str | None = None
    """The kernel's driver that has the GPU on the bus."""
    driver_here: bool = False
    driver: str | None = None
    """The driver's version, such as "580.65.06"."""
    passed_in: bool = False
    """Whether the device files are there, without which nothing reaches the driver."""
    smi_problem: str | None = None
    """What nvidia-smi says when it fails; None if it works or is not there."""
    gpus: tuple[Gpu, ...] = ()
    """What nvidia-smi lists, whether CUDA may use it or not."""

    @property
    def has_nvidia(self) -> bool:
        """Whether anything says that there is an NVIDIA GPU."""
        return self.on_bus or self.driver_here or bool(self.gpus)


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
