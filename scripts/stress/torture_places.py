"""Trainings whose folder fails them: the disk is full, the folder is gone, the right is gone."""

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torture_trainings import KINDS, bits, make_network, reference, start, train, wait, workplace

from gpunn import Callback, Checkpoints, GpunnError, Network
from gpunn.errors import OutputError
from gpunn.training.checkpoints import read_checkpoint

TORTURE = Path(__file__).with_name("torture.py")
MOUNT = ("mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "gpunn")
HOW: dict[str, str] = {}
"""How a test was done, where this machine has a say in it."""

Harm = Callable[[Path, random.Random], None]
"""What is done to the folder of a training."""


def fail_while_writing(
    n_runs: int, rng: random.Random, harm: Harm, *, within: bool, on_disk: bool = False
) -> Iterator[str]:
    """Harm the folder during trainings; yield what went wrong.

    The old model, in another folder, must stay, the training must end as if nothing had been, and
    the checkpoints that are left must be whole. `within` is whether the harm is done by the process
    itself, after some steps; then the old model cannot be written over at the end, either. With
    `on_disk`, both folders are on a small file system of their own.
    """
    n_failed = 0
    with workplace() as place:
        place.chmod(0o777)
        expected = reference(place)
        disk = place / "disk"
        disk.mkdir(mode=0o777)
        for run in range(n_runs):
            kind = run % len(KINDS)
            weights, duration = expected[kind]
            if on_disk:
                subprocess.run([*MOUNT, disk], check=True)
            folder, old, log = disk / f"run-{run}", disk / f"old-{run}/model", place / "log"
            log.unlink(missing_ok=True)
            log.touch()
            log.chmod(0o666)
            for path in (disk, folder, old.parent):
                path.mkdir(exist_ok=True)
                path.chmod(0o777)
            make_network().save(old)
            before = old.read_bytes()
            listener = _Listener(log, harm if within else None, folder, rng)
            child = start(train_in_harm, kind, folder, old if within else None, listener, weights)
            if not within:
                wait_for_a_checkpoint(folder, child)
                time.sleep(rng.uniform(0, 0.7 * duration))
                harm(folder, rng)
            status = wait(child)
            n_failed += len(log.read_bytes())
            for problem in what_is_lost(status, folder, old, before):
                yield f"run {run}: {problem}"
            if on_disk:
                subprocess.run(["umount", disk], check=True)
    print(f"    {n_failed} checkpoints could not be written", flush=True)


def what_is_lost(status: int, folder: Path, old: Path, before: bytes) -> Iterator[str]:
    """Yield what went wrong in a training and with the files that were there before it."""
    if status:
        yield f"the training ended with {status}"
    if old.read_bytes() != before:
        yield "the old model was lost"
    if os.listdir(old.parent) != [old.name]:
        yield "something unfinished was left beside the old model"
    if folder.is_dir():
        folder.chmod(0o700)  # it may have been forbidden to read
    for path in Checkpoints(folder).paths():
        try:
            read_checkpoint(path)
        except GpunnError as error:
            yield str(error)


def wait_for_a_checkpoint(folder: Path, child: int) -> None:
    """Wait until a training has begun, or has failed to."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not Checkpoints(folder).paths() and os.waitid(os.P_PID, child, ended) is None:
        time.sleep(0.001)


def train_in_harm(
    kind: int, folder: Path, old: Path | None, listener: Callback, weights: bytes
) -> None:
    """Train in a place that fails; the result must be the same, and the old model must stay."""
    # All modules are loaded first: those of an environment of root's own could not be, afterwards.
    import safetensors.numpy  # noqa: F401

    train(kind, None)
    if os.geteuid() == 0 and old is None:
        os.setuid(65534)  # root notices no lost right
    network = train(kind, folder, (listener,))
    assert bits(network) == weights
    if old is not None:
        try:
            Network([20, 2000, 3], device="cpu").save(old)
        except OutputError:
            return
        raise AssertionError("the model could be saved")


class _Listener(Callback):
    """Count the checkpoints that fail, a byte each, and do harm after some steps."""

    def __init__(self, log: Path, harm: Harm | None, folder: Path, rng: random.Random) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND)
        self.harm, self.folder, self.rng = harm, folder, random.Random(rng.random())
        self.n_steps = rng.randrange(1, 30)

    def on_step_end(self, n_samples: int) -> None:
        self.n_steps -= 1
        if self.n_steps == 0 and self.harm is not None:
            self.harm(self.folder, self.rng)

    def on_notice(self, text: str) -> None:
        if text.startswith("no checkpoint"):
            os.write(self.log, b"x")


def full(n_runs: int, rng: random.Random) -> Iterator[str]:
    """Fill a small file system, in a mount namespace of its own; else limit the size of files."""
    with workplace() as place:
        for namespace in (("--mount",), ("--mount", "--user", "--map-root-user")):
            apart = ("unshare", *namespace)
            if shutil.which("unshare") and _succeeds(*apart, *MOUNT, str(place)):
                break
        else:
            HOW["full"] = "by a limit on the size of files"
            yield from fail_while_writing(n_runs, rng, limit_files, within=True)
            return
    HOW["full"] = "on a tmpfs of 1 MiB"
    command = [*apart, sys.executable, str(TORTURE), "full", "--apart", str(n_runs)]
    done = subprocess.run(
        [*command, "--seed", str(rng.randrange(2**32))], stdout=subprocess.PIPE, text=True
    )
    for line in done.stdout.splitlines():
        if line.startswith("WRONG: "):
            yield line.removeprefix("WRONG: ")
        else:
            print(line, flush=True)
    if done.returncode:
        yield f"the process apart ended with {done.returncode}"


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def full_apart(n_runs: int, rng: random.Random) -> Iterator[str]:
    yield from fail_while_writing(n_runs, rng, fill, within=True, on_disk=True)


def fill(folder: Path, rng: random.Random) -> None:
    """Leave so little of a file system that no checkpoint, or only some, can be written."""
    # A checkpoint has 14 to 32 KB, in pages of 4 KiB.
    with (folder.parent / "filler").open("wb") as file:
        left = os.statvfs(folder)
        n_pages = rng.randrange(8)
        os.posix_fallocate(file.fileno(), 0, (left.f_bavail - n_pages) * left.f_frsize)


def limit_files(folder: Path, rng: random.Random) -> None:
    size = rng.randrange(100, 5_000)  # a model has 5,900 bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def removed(n_runs: int, rng: random.Random) -> Iterator[str]:
    def remove(folder: Path, rng: random.Random) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return fail_while_writing(n_runs, rng, remove, within=False)


def forbidden(n_runs: int, rng: random.Random) -> Iterator[str]:
    def forbid(folder: Path, rng: random.Random) -> None:
        folder.chmod(0o500)
        if os.geteuid() == 0:
            os.chown(folder, 0, 0)

    return fail_while_writing(n_runs, rng, forbid, within=False)
