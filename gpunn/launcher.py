"""What a launcher, such as mpiexec or srun, says in the environment of the processes it starts.

Looking costs nothing and needs no MPI: whoever starts one process alone never loads it.
"""

import os

_OPEN_MPI = (
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
)
_PMI = ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID")
_SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "", "SLURM_LOCALID")


def n_processes() -> int:
    """Return how many processes were started together; 1 without a launcher."""
    return max(1, _first(_names()[:1], 1))


def rank() -> int:
    """Return which of them this one is, from 0."""
    if is_uncounted():
        return _first(("PMIX_RANK",), 0)
    return _first(_names()[1:2], 0) if n_processes() > 1 else 0


def local_rank() -> int:
    """Return which of those on this machine this one is, from 0."""
    return _first((_names()[3], "SLURM_LOCALID"), 0) if n_processes() > 1 else 0


def n_local() -> int:
    """Return how many of them are on this machine; 1 if the launcher does not say."""
    if n_processes() == 1:
        return 1
    # SLURM says 4(x2),3: four tasks on each of two machines, three on another.
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0].partition(",")[0]
    return max(1, _first(_names()[2:3], int(tasks) if tasks.isdecimal() else 1))


def is_uncounted() -> bool:
    """Whether a launcher has started this process that does not say how many it has started.

    PRRTE's prterun is one: its processes find the others by PMIx alone.
    """
    if "PMIX_RANK" not in os.environ or _first(_OPEN_MPI[:1], 0):
        return False
    return "PRTE_LAUNCHED" in os.environ or not _first((_PMI[0], _SLURM[0]), 0)


def is_in_slurm() -> bool:
    """Whether this process belongs to a job of SLURM."""
    return "SLURM_JOB_ID" in os.environ


def _names() -> tuple[str, ...]:
    """Return the variables in which the launcher of this process speaks.

    One that was itself started by another inherits what that one has said, such as the PMI_SIZE of
    1 of an `srun --mpi=pmi2` with a shell in it. So the one that has started most counts: who
    believes that it is alone by mistake trains alone, beside others that do the same.
    """
    speaking = [names for names in (_OPEN_MPI, _PMI) if _first(names[:1], 0)]
    return max(speaking, key=lambda names: _first(names[:1], 0), default=_SLURM)


def _first(names: tuple[str, ...], default: int) -> int:
    """Return the first of some variables that is a whole number."""
    for name in names:
        value = os.environ.get(name, "")
        if value.isdecimal():
            return int(value)
    return default
