"""What a machine has for computing on an NVIDIA GPU: plain values, from whatever looked.

Which driver CUDA needs is in NVIDIA's *CUDA Compatibility*, "Minor Version Compatibility"; that
CUDA 13 ends support for GPUs before compute capability 7.5, in the release notes of CUDA 12.9 and
13.0.
"""

from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Cuda:
    """What CuPy has and sees."""

    wheels: tuple[str, ...] = ()
    problem: str | None = None
    """Why no GPU can be used, with the original error; None if one can."""
    driver: int | None = None
    """The newest CUDA that the driver is for, such as 13000; 0 without a driver."""
    runtime: int | None = None
    missing: tuple[str, ...] = ()
    """Which of cuBLAS, NVRTC and the CUDA headers are not found."""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that a diagnosis is made from."""

    system: System
    cuda: Cuda
    environment: dict[str, str] = field(default_factory=dict)
    cores: int = 1
    blas_threads: int | None = None
    matplotlib: bool = True

    @property
    def extra(self) -> str:
        """The extra of gpunn that fits the driver and the GPUs."""
        if self.cuda_version == 13 and not any(gpu.is_too_old_for_13 for gpu in self.gpus):
            return "cuda13"
        # Newer drivers run it too, so it is also right where nothing is known.
        return "cuda12"

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, twice where both CUDA and nvidia-smi know them."""
        return self.cuda.gpus + self.system.gpus

    @property
    def cuda_version(self) -> int | None:
        """The newest CUDA that the driver is for; 0 if it is too old for any that can be used."""
        if self.cuda.driver:
            return self.cuda.driver // 1000
        if self.system.driver is None:
            return None
        branch = int(self.system.driver.partition(".")[0])
        return max((cuda for cuda, least in DRIVER_FOR_CUDA.items() if branch >= least), default=0)
