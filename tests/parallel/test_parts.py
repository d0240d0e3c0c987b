"""The parts of a network, without MPI: drawn, dropped, laid out in files, and damaged files."""

import itertools
import json
import struct

import numpy as np
import pytest

from gpunn import Network, launcher
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.errors import DeviceError, ModelFileError, ParameterError
from gpunn.initializers import BLOCK_UNITS, INITIALIZERS
from gpunn.network.architecture import Architecture
from gpunn.network.state import drawn
from gpunn.parallel import pulse
from gpunn.parallel.part_files import PartReader
from gpunn.parallel.ranks import Ranks
from gpunn.parallel.sharing import Sharing, share
from gpunn.parallel.world import ranks_here


class Pretended(Ranks):
    """One of several ranks, which the others do not answer."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def parts(n_ranks, layer_sizes):
    return [Sharing(Pretended(rank, n_ranks), "hidden", layer_sizes) for rank in range(n_ranks)]


def weights(sharing, backend, initializer, seed=5):
    """Return W_1, b_1, W_2, b_2 of a rank."""
    architecture = Architecture(sharing.layer_sizes, dtype="float64")
    generator = np.random.default_rng(seed)
    layers = drawn(architecture, backend, sharing, initializer, generator)
    return [backend.to_host(array) for layer in layers for array in layer]


def joined(of_ranks):
    first, biases, second, top = zip(*of_ranks, strict=True)
    return [np.concatenate(first), np.concatenate(biases), np.concatenate(second, axis=1), top[0]]


@pytest.mark.parametrize("n_units", [37, BLOCK_UNITS, BLOCK_UNITS + 1, 3 * BLOCK_UNITS + 5])
@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_ranks_draw_what_one_process_draws(n_units, initializer):
    backend, sizes = NumpyBackend(), (3, n_units, 2)
    network = Network(sizes, dtype="float64", device=backend, initializer=initializer, seed=5)
    for n_ranks in (1, 2, 3, 7):
        found = [weights(part, backend, initializer) for part in parts(n_ranks, sizes)]
        for mine, expected in zip(joined(found), network.parameters().values(), strict=True):
            np.testing.assert_array_equal(mine, expected)


def test_blocks_of_units_differ(backend):
    first, biases, second, _ = weights(parts(1, (3, 2 * BLOCK_UNITS, 2))[0], backend, "he_normal")
    assert not np.intersect1d(first[:BLOCK_UNITS], first[BLOCK_UNITS:]).size
    assert not np.intersect1d(second[:, :BLOCK_UNITS], second[:, BLOCK_UNITS:]).size
    assert biases.shape == (2 * BLOCK_UNITS,)


def test_a_rank_draws_no_blocks_of_others(monkeypatch):
    from gpunn.network import state

    asked = []
    usual = state.block_generators

    def noting(generator, n_units):
        of_block = usual(generator, n_units)
        return lambda number: asked.append(number) or of_block(number)

    monkeypatch.setattr(state, "block_generators", noting)
    weights(parts(100, (3, 100 * BLOCK_UNITS, 2))[42], NumpyBackend(), "normal")
    assert asked == [42, None]


def test_dropout_of_a_part_is_that_of_the_whole(backend, dtype):
    whole = np.ones((7, 23), dtype)
    options = {"dropout_rate": 0.4, "scale": 2.0, "key": 12345}

    def dropped(array, **place):
        on_device = backend.asarray(array.copy())
        backend.dropout(on_device, **options, **place)
        return backend.to_host(on_device)

    expected = dropped(whole)
    assert 0 < np.count_nonzero(expected) < whole.size
    for start, stop in itertools.pairwise([0, 5, 6, 17, 23]):
        part = dropped(whole[:, start:stop], first=start, skipped=23 - (stop - start))
        np.testing.assert_array_equal(part, expected[:, start:stop])
    np.testing.assert_array_equal(dropped(whole[3:], first=3 * 23), expected[3:])


def test_ranks_read_their_parts_of_a_file(tmp_path):
    network = Network([5, 11, 3], device="cpu", initializer="standard_normal")
    network.save(tmp_path / "m")
    for n_ranks in (1, 2, 4, 11):
        read = [PartReader(tmp_path / "m").read(part) for part in parts(n_ranks, (5, 11, 3))]
        found = joined([list(one.values()) for one in map(_in_order, read)])
        for mine, expected in zip(found, network.parameters().values(), strict=True):
            np.testing.assert_array_equal(mine, expected)


def _in_order(arrays):
    return {
        f"layers.{index}.{kind}": arrays[f"layers.{index}.{kind}"]
        for index in (0, 1)
        for kind in ("weight", "bias")
    }


def _rewritten(path, change):
    """Write a file anew with its header changed."""
    content = path.read_bytes()
    n = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + n])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + n :])


DAMAGES = {
    "a hole": lambda h: h["layers.0.bias"].update(data_offsets=[0, 4]),
    "an overlap": lambda h: h["layers.0.bias"].update(data_offsets=[4, 48]),
    "beyond the end": lambda h: h["layers.0.bias"].update(data_offsets=[2**50, 2**50 + 44]),
    "a negative place": lambda h: h["layers.0.bias"].update(data_offsets=[-44, 0]),
    "a huge shape": lambda h: h["layers.0.weight"].update(shape=[2**61, 2**61]),
    "a broken shape": lambda h: h["layers.0.weight"].update(shape=[5.0, 11]),
    "no shape": lambda h: h["layers.0.weight"].pop("shape"),
    "another type": lambda h: h["layers.0.weight"].update(dtype="I8"),
    "a type that is a list": lambda h: h["layers.0.weight"].update(dtype=["F32"]),
    "no description": lambda h: h.pop("__metadata__"),
    "a description of another kind": lambda h: h.update(__metadata__=[1]),
    "no entry": lambda h: h.update({"layers.0.weight": 3}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line(tmp_path, damage):
    path = tmp_path / "m"
    Network([5, 11, 3], device="cpu").save(path)
    _rewritten(path, DAMAGES[damage])
    with pytest.raises(ModelFileError) as caught:
        PartReader(path).read(parts(2, (5, 11, 3))[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_bytes", [0, 7, 8, 100, -1])
def test_a_file_cut_short_is_one_line(tmp_path, n_bytes):
    path = tmp_path / "m"
    Network([5, 11, 3], device="cpu").save(path)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ModelFileError):
        PartReader(path)


def test_another_width_than_the_description_says_is_refused(tmp_path):
    Network([5, 11, 3], device="cpu").save(tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"expected .* of 12 hidden units"):
        PartReader(tmp_path / "m").read(parts(2, (5, 12, 3))[0])


class OfOneClock(Pretended):
    """A rank that hears the first one's clock."""

    def __init__(self, rank, clock):
        super().__init__(rank, 3)
        self.clock, self.n_met = clock, 0

    def agree(self, number, clock):
        self.n_met += 1
        return number, self.clock[0]


def test_ranks_whose_clocks_differ_meet_after_the_same_steps(monkeypatch):
    """One that met the others a step later would wait in one exchange while they are in another."""
    clock, shift = [100.0], [0.0]
    monkeypatch.setattr(pulse.time, "perf_counter", lambda: clock[0] + shift[0])
    ranks, pulses = [OfOneClock(rank, clock) for rank in range(3)], []
    for number, rank in enumerate(ranks):
        shift[0] = -37.5 * number  # another machine's clock began at another time
        pulses.append(pulse.Pulse(rank))
    for step in range(400):
        clock[0] += 0.013 if step < 200 else 0.2
        for number, one in enumerate(pulses):
            shift[0] = -37.5 * number
            one.beat(None)
        assert len({rank.n_met for rank in ranks}) == 1
        assert len({one.now() for one in pulses}) == 1
    assert 200 / 40 < ranks[0].n_met < 400


# What a launcher says.

MPICH = {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip
SLURM = {
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip
SLURM_PMI2 = {**SLURM, "SLURM_JOB_ID": "7", "PMI_SIZE": "4", "PMI_RANK": "3"}
SHELL = {
    **SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1", "PMI_SIZE": "1", "PMI_RANK": "0",
}  # fmt: skip
"""What a shell has from `srun --mpi=pmi2 -n 1 --pty`, and hands on to an mpiexec."""
PRTE = {"PMIX_RANK": "1", "PRTE_LAUNCHED": "1"}


@pytest.fixture
def alone(monkeypatch):
    for names in (MPICH, OPEN_MPI, SLURM_PMI2, PRTE):
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return monkeypatch


SAID = {
    "MPICH": MPICH,
    "Open MPI": OPEN_MPI | PRTE,
    "SLURM": SLURM,
    "SLURM with PMI-2": SLURM_PMI2,
    "SLURM with PMIx": SLURM | {"PMIX_RANK": "3"},
    "MPICH in a shell of SLURM": SHELL | MPICH,
    "Open MPI in a shell of SLURM": SHELL | OPEN_MPI,
    "MPICH in one process of Open MPI": dict.fromkeys(OPEN_MPI, "1") | MPICH,
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_launchers_are_understood(alone, said):
    for name, value in said.items():
        alone.setenv(name, value)
    found = launcher.n_processes(), launcher.rank(), launcher.n_local(), launcher.local_rank()
    assert found == (4, 3, 2, 1)
    assert not launcher.is_uncounted()


@pytest.mark.parametrize("outer", [{}, SHELL], ids=["by itself", "in a shell of SLURM"])
def test_a_launcher_that_does_not_say_how_many_is_refused(alone, outer):
    """Else each of its processes would believe that it is alone, and train all by itself."""
    for name, value in {**outer, **PRTE}.items():
        alone.setenv(name, value)
    assert launcher.rank() == 1
    with pytest.raises(DeviceError, match="does not say how many"):
        ranks_here()


@pytest.mark.parametrize(
    ("said", "mpi", "remedy"),
    [
        (MPICH, "Open MPI", "use the mpiexec of this Open MPI"),
        (SLURM_PMI2, "Open MPI", "use srun --mpi=pmix if "),
        (SLURM_PMI2, "MPICH", "use srun --mpi=pmi2 if "),
    ],
)
def test_how_to_start_what_an_mpi_sees_is_said(alone, said, mpi, remedy):
    from gpunn.parallel import world

    for name, value in said.items():
        alone.setenv(name, value)
    assert world._remedy(mpi).startswith(remedy)


def test_without_a_launcher_a_process_is_alone(alone):
    assert ranks_here().size == 1
    alone.setenv("PMI_SIZE", "not a number")
    assert (launcher.n_processes(), launcher.rank(), launcher.n_local()) == (1, 0, 1)
    # Within a job of SLURM, but not started by srun.
    alone.setenv("SLURM_PROCID", "2")
    assert launcher.rank() == 0
    assert share("hidden", (2, 3, 1)).kind == "none"


def test_mpi4py_that_is_missing_is_named(alone):
    from gpunn.errors import MissingPackageError
    from gpunn.parallel import world

    alone.setenv("PMI_SIZE", "2")
    alone.setattr(world, "find_spec", lambda name: None)
    world._begin.cache_clear()
    with pytest.raises(MissingPackageError, match=r"pip install 'gpunn\[mpi\]'"):
        ranks_here()


@pytest.mark.parametrize(
    ("parallel", "sizes", "message"),
    [
        ("both", (2, 3, 1), "must be one of"),
        ("hidden", (2, 3, 3, 1), "use 'data'"),
        ("hidden", (2, 1), "use 'data'"),
    ],
)
def test_what_cannot_be_shared_is_refused(parallel, sizes, message):
    with pytest.raises(ParameterError, match=message):
        Network(sizes, parallel=parallel, device="cpu")


def test_units_that_are_tied_together_are_not_shared():
    with pytest.raises(ParameterError, match="softmax"):
        Network([2, 3, 1], hidden_activation="softmax", parallel="hidden", device="cpu")


def test_fewer_units_than_ranks_are_refused(monkeypatch):
    from gpunn.parallel import sharing

    monkeypatch.setattr(sharing, "ranks_here", lambda: Pretended(0, 4))
    with pytest.raises(ParameterError, match="3 hidden units cannot be shared between 4 ranks"):
        share("auto", (2, 3, 1))
    assert share("auto", (2, 3, 1), tied=True).kind == "data"
    assert share("auto", (2, 3, 3, 1)).kind == "data"
    assert share("auto", (2, 5, 1)).kind == "hidden"
