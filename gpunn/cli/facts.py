"""All that a diagnosis is made from: plain values, from whatever looked."""

from dataclasses import dataclass, field

from gpunn.backends.nvidia import DRIVER_FOR_CUDA, Gpu, System


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
    loops_problem: str | None = None
    """Why the CPU has no fused loops; None if it has."""

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
