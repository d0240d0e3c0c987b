"""Small trainings for torture.py, in processes of their own, and what each must end with."""

import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gpunn import Callback, Checkpoints, Network, fit

# One of each way through training: exact samples, small steps in blocks, and two optimizers.
KINDS = (
    {"batch_size": 1, "learning_rate": 0.1},
    {"batch_size": 8, "learning_rate": 0.1},
    {"batch_size": 50, "learning_rate": 0.1, "optimizer": "nesterov"},
    {"batch_size": 50, "learning_rate": 0.01, "optimizer": "adam"},
)


def make_network() -> Network:
    return Network([20, 60, 3], device="cpu", seed=2)


def train(kind: int, folder: Path | None, callbacks: tuple[Callback, ...] = ()) -> Network:
    """Train a small network, resuming where that can be done."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 20)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    network = make_network()
    checkpoints = None if folder is None else Checkpoints(folder, "1 step", resume=True)
    fit(network, X, y, epochs=4, checkpoints=checkpoints, validation_data=(X[:100], y[:100]),
        callbacks=callbacks, **KINDS[kind])  # fmt: skip
    return network


def start(task: Callable[..., object], *arguments: object) -> int:
    """Run a task in a process of its own, whose exit status is 0 if it ends well."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        task(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(child: int) -> int:
    """Return how a process ended: its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def bits(network: Network) -> bytes:
    return b"".join(value.tobytes() for value in network.parameters().values())


def train_and_save(kind: int, folder: Path | None, out: Path) -> None:
    train(kind, folder).save(out)


@contextmanager
def workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gpunn-torture-"))
    try:
        yield folder
    finally:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def reference(folder: Path) -> dict[int, tuple[bytes, float]]:
    """Return each kind's final weights, and how long its training takes with checkpoints."""
    done = {}
    for kind in range(len(KINDS)):
        child = start(train_and_save, kind, None, folder / "alone")
        assert wait(child) == 0
        began = time.monotonic()
        assert wait(start(train, kind, folder / f"timed-{kind}")) == 0
        duration = time.monotonic() - began
        done[kind] = bits(Network.load(folder / "alone", "cpu")), duration
    return done
