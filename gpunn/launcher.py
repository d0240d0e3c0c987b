"""What a launcher, such as mpiexec or srun, says in the environment of the processes it starts.

Looking costs nothing and needs no MPI: whoever starts one process alone never loads it.
"""

import os

_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
_LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
_LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")


def n_processes() -> int:
    """Return how many processes were started together; 1 without a launcher."""
    return max(1, _first(_SIZES, 1))


def rank() -> int:
    """Return which of them this one is, from 0."""
    return _first(_RANKS, 0) if n_processes() > 1 else 0


def local_rank() -> int:
    """Return which of those on this machine this one is, from 0."""
    return _first(_LOCAL_RANKS, 0) if n_processes() > 1 else 0


def n_local() -> int:
    """Return how many of them are on this machine; 1 if the launcher does not say."""
    if n_processes() == 1:
        return 1
    # SLURM says 4(x2),3: four tasks on each of two machines, three on another.
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0].partition(",")[0]
    return max(1, _first(_LOCAL_SIZES, int(tasks) if tasks.isdecimal() else 1))


def _first(names: tuple[str, ...], default: int) -> int:
    """Return the first of some variables that is a whole number."""
    for name in names:
        value = os.environ.get(name, "")
        if value.isdecimal():
            return int(value)
    return default
