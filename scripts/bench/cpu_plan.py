"""What bench_cpu.py measures, and how thoroughly."""

from collections.abc import Iterator
from dataclasses import dataclass

from made_samples import N_INPUTS, N_OUTPUTS

SECTIONS = ("online", "grid", "adam", "limits", "memory")


@dataclass(frozen=True)
class Cell:
    """One training that is measured: a network 784-hidden-10, a batch size and a rule."""

    section: str
    hidden: int
    batch: int
    optimizer: str = "sgd"

    @property
    def activation(self) -> str:
        """The hidden layer's: with Adam, what the command line and scikit-learn have by default."""
        return "relu" if self.section == "adam" else "sigmoid"

    @property
    def label(self) -> str:
        """What it is called in tables and pictures."""
        network = f"{N_INPUTS}-{self.hidden}-{N_OUTPUTS}"
        if self.section == "online":
            return f"online {network}"
        rule = ", Adam, ReLU" if self.section == "adam" else ""
        return f"{network}, batch {self.batch}{rule}"

    @property
    def flops_per_sample(self) -> int:
        """What the step's matrix products count, as multiplications plus additions.

        For the inputs' side ``Z_1 = X W_1^T`` and the update ``D_1^T X``: two products of
        n_inputs * hidden multiplications a sample. For the outputs' side ``A_1 W_2^T``, ``D_2 W_2``
        and the update ``D_2^T A_1``: three of hidden * n_outputs. Nothing is sent back to the
        inputs. Elementwise work is not counted, as it is no part of the limit compared with.
        """
        return 2 * self.hidden * (2 * N_INPUTS + 3 * N_OUTPUTS)

    @property
    def bytes_streamed_per_sample(self) -> int:
        """What one sample at a time moves if weights come from memory: two reads, one write."""
        return 3 * 4 * self.hidden * (N_INPUTS + N_OUTPUTS)


@dataclass(frozen=True)
class Plan:
    """What is measured, and how thoroughly.

    Attributes
    ----------
    sections : tuple of str
        Parts of the benchmark.
    reps : int
        Runs of each contestant.
    run_seconds : float
        About how long one of gpunn's runs takes.
    most_samples : int
        Samples in a run at most.
    online_hidden, grid_hidden, adam_hidden : tuple of int
        Widths of the hidden layer, by section.
    grid_batches, adam_batches : tuple of int
        Batch sizes of those sections. With Adam, the first is the command line's default and the
        second scikit-learn's, and so is a width of 100.
    sgemm_size, copy_bytes : int
        Rows of a square matrix, and bytes, by which the machine's limits are measured.
    memory_hidden : int
        Width of the hidden layer of the training whose memory is measured.
    compile : bool
        Whether torch.compile is measured too.
    """

    sections: tuple[str, ...]
    reps: int
    run_seconds: float
    most_samples: int
    online_hidden: tuple[int, ...]
    grid_hidden: tuple[int, ...]
    grid_batches: tuple[int, ...]
    adam_hidden: tuple[int, ...]
    adam_batches: tuple[int, ...]
    sgemm_size: int
    copy_bytes: int
    memory_hidden: int
    compile: bool

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of the sections asked for."""
        if "online" in self.sections:
            yield from (Cell("online", hidden, 1) for hidden in self.online_hidden)
        if "grid" in self.sections:
            for hidden in self.grid_hidden:
                yield from (Cell("grid", hidden, batch) for batch in self.grid_batches)
        if "adam" in self.sections:
            for hidden in self.adam_hidden:
                yield from (Cell("adam", hidden, batch, "adam") for batch in self.adam_batches)


FULL = Plan(
    sections=SECTIONS,
    reps=5,
    run_seconds=0.3,
    # As many as MNIST has; more would measure reading X from memory, and nobody trains on so many.
    most_samples=60_000,
    online_hidden=(200, 2000),
    grid_hidden=(30, 200, 2000, 10_000),
    grid_batches=(10, 100, 256),
    adam_hidden=(100, 200, 2000),
    adam_batches=(32, 200),
    sgemm_size=2048,
    copy_bytes=2**28,
    memory_hidden=1_000_000,
    compile=False,
)
QUICK = Plan(
    sections=SECTIONS,
    reps=2,
    run_seconds=0.01,
    most_samples=2000,
    online_hidden=(200,),
    grid_hidden=(30, 200),
    grid_batches=(10,),
    adam_hidden=(200,),
    adam_batches=(32,),
    sgemm_size=256,
    copy_bytes=2**24,
    memory_hidden=10_000,
    compile=False,
)
"""Tiny; its numbers mean nothing."""
