"""Do to trainings and files what years do to them, and count what is lost.

    python scripts/stress/torture.py             in full: a quarter of an hour
    python scripts/stress/torture.py --quick     in short, as the test suite does
    python scripts/stress/torture.py kill files  some of it

Prints a table: what was done, how many times, what went wrong, which must be nothing. Exit status 1
if something did. Needs a POSIX system and, for `examples`, hypothesis.

kill      `kill -9` at a random moment, also while a checkpoint is written; then resume
full      the disk is full: a small one, or else files grow no further than some random size
removed   the folder of checkpoints is removed while a training writes there
forbidden the right to write there is taken away
files     mutated model, checkpoint, IDX, npz, npy, CSV and Parquet files
examples  hypothesis: shapes, dtypes, layouts, strides, empty and single-row inputs
together  eight trainings at once, in threads and in processes
stream    200 million rows that are made as they are learnt from, or ten minutes of them
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
from hostile_files import SECONDS, Judge, Kind, damaged, kinds_of_files, mutate, scratch

from gpunn import (
    Callback,
    Checkpoints,
    GpunnError,
    Network,
    Scaling,
    Stream,
    check_gradients,
    evaluate,
    fit,
)
from gpunn.errors import OutputError
from gpunn.training.checkpoints import read_checkpoint

# How often, in full and in short.
COUNTS = {
    "kill": (200, 4),
    "full": (20, 2),
    "removed": (20, 2),
    "forbidden": (20, 2),
    "files": (100_000, 1_500),
    "examples": (10_000, 150),
    "together": (50, 1),
    "stream": (200_000_000, 3_000_000),
}
KINDS = (
    {"batch_size": 1, "learning_rate": 0.1},
    {"batch_size": 8, "learning_rate": 0.1},
    {"batch_size": 50, "learning_rate": 0.1, "optimizer": "nesterov"},
    {"batch_size": 50, "learning_rate": 0.01, "optimizer": "adam"},
)
STREAM_SECONDS = 600

# How a test was done, where this machine has a say in it.
HOW: dict[str, str] = {}


# Trainings, in processes of their own.


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


def kill(n_runs: int, rng: random.Random) -> Iterator[str]:
    """Kill trainings until one gets through; yield what went wrong."""
    n_kills = n_writing = 0
    with workplace() as place:
        expected = reference(place)
        for run in range(n_runs):
            kind, folder, out = run % len(KINDS), place / f"run-{run}", place / f"out-{run}"
            weights, duration = expected[kind]
            for attempt in range(6):
                child = start(train_and_save, kind, folder, out)
                if attempt < 5:
                    time.sleep(rng.uniform(0, duration if attempt else 0.9 * duration))
                    os.kill(child, signal.SIGKILL)
                status = wait(child)
                if status == 0:
                    break
                if status != -signal.SIGKILL:
                    yield f"run {run}: a resumed training ended with {status}"
                    break
                n_kills += 1
                n_writing += any(folder.glob(".*.tmp"))
                for path in Checkpoints(folder).paths():
                    read_checkpoint(path)
            if status == 0 and bits(Network.load(out, "cpu")) != weights:
                yield f"run {run}: other weights"
            if any(folder.glob(".*")):
                yield f"run {run}: something unfinished was left behind"
            shutil.rmtree(folder, ignore_errors=True)
    print(f"    {n_kills} kills, {n_writing} of them while a checkpoint was written", flush=True)


# Places that fail.


Harm = Callable[[Path, random.Random], None]


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
            if status:
                yield f"run {run}: the training ended with {status}"
            if old.read_bytes() != before:
                yield f"run {run}: the old model was lost"
            if os.listdir(old.parent) != [old.name]:
                yield f"run {run}: something unfinished was left beside the old model"
            if folder.is_dir():
                folder.chmod(0o700)
            for path in Checkpoints(folder).paths():
                try:
                    read_checkpoint(path)
                except GpunnError as error:
                    yield f"run {run}: {error}"
            if on_disk:
                subprocess.run(["umount", disk], check=True)
    print(f"    {n_failed} checkpoints could not be written", flush=True)


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


MOUNT = ("mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "gpunn")


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
    command = [*apart, sys.executable, __file__, "full", "--apart", str(n_runs)]
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


# Mutated files.


def files(n_files: int, rng: random.Random) -> Iterator[str]:
    """Read mutated files; yield whatever is no GpunnError, takes too long or too much."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        kinds = kinds_of_files(Path(folder))
        others = [good for kind in kinds.values() for good in kind.good]
        per_child = 500
        for name, kind in kinds.items():
            n_each = -(-n_files // len(kinds))
            n_left, n_refused, began = n_each, 0, time.monotonic()
            while n_left > 0:
                n, seed = min(per_child, n_left), rng.randrange(2**32)
                place = Path(folder, "mutant")
                place.mkdir()
                log = Path(folder, "log")
                log.write_text("")
                child = start(read_mutants, kind, place / kind.name, n, seed, others, log)
                status = wait(child)
                found = log.read_text().splitlines()
                n_refused += sum(int(line[1:]) for line in found if line.startswith("="))
                yield from (f"{name}: {line}" for line in found if not line.startswith("="))
                if status:
                    keep = Path(tempfile.gettempdir(), f"gpunn-torture-{seed}-{kind.name}")
                    if (place / kind.name).exists():
                        shutil.copy(place / kind.name, keep)
                    yield f"{name}: the reading process ended with {status}; see {keep}"
                shutil.rmtree(place)
                n_left -= n
            print(
                f"    {name}: {n_each} mutants, {n_refused} of {n_each * len(kind.reads)} readings "
                f"refused, {time.monotonic() - began:.0f} s",
                flush=True,
            )


def read_mutants(
    kind: Kind, path: Path, n_mutants: int, seed: int, others: list[bytes], log: Path
) -> None:
    """Read mutants in this process, and write to the log what should not have been."""
    rng, n_refused, judge = random.Random(seed), 0, Judge(kind)
    for number in range(n_mutants):
        for stale in path.parent.iterdir():
            stale.unlink()
        mutant = damaged(
            kind, rng.choice(kind.good), lambda data: mutate(data, rng.choice(others), rng), rng
        )
        path.write_bytes(mutant)
        signal.alarm(SECONDS)
        outcome = judge(path)
        signal.alarm(0)
        n_refused += outcome.n_refused
        if outcome.problem is not None:
            keep = Path(tempfile.gettempdir(), f"gpunn-torture-{seed}-{number}-{path.name}")
            keep.write_bytes(mutant)
            with log.open("a") as lines:
                lines.write(f"{' '.join(outcome.problem.split())}; see {keep}\n")
            if "of memory" in outcome.problem:
                return
    with log.open("a") as lines:
        lines.write(f"={n_refused}\n")


# Examples.


def examples(n_examples: int, rng: random.Random) -> Iterator[str]:
    """Call public functions with arrays of all shapes; yield wrong results and unclear errors."""
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp

    dtypes = st.sampled_from(
        ["f4", "f8", ">f4", "f2", "i1", "u1", "i8", ">i2", "?", "c8", "O", "U3"]
    )
    kinds = st.sampled_from(["C", "F", "strided", "reversed", "read-only", "list"])

    @st.composite
    def arrays(draw):
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
        if draw(st.booleans()):
            shape = (draw(st.integers(0, 6)), 4)
        dtype, kind = np.dtype(draw(dtypes)), draw(kinds)
        values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 2, shape)
        array = values.astype(dtype)
        if kind == "F":
            array = np.asfortranarray(array)
        elif kind == "strided" and array.ndim:
            array = np.repeat(array, 2, axis=-1)[..., ::2]
        elif kind == "reversed" and array.ndim:
            array = np.ascontiguousarray(array[::-1])[::-1]
        elif kind == "read-only":
            array.flags.writeable = False
        return array.tolist() if kind == "list" else array

    network = Network([4, 5, 2], device="cpu", dtype="float64")
    problems: list[str] = []

    def oracle(X: np.ndarray) -> np.ndarray:
        a = X.astype(np.float64)
        for index in range(2):
            p = network.parameters()
            a = 1 / (1 + np.exp(-(a @ p[f"layers.{index}.weight"].T + p[f"layers.{index}.bias"])))
        return a

    @seed(rng.randrange(2**32))
    @settings(max_examples=n_examples, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(arrays(), arrays())
    def check(X, y):
        given_X = np.asarray(X)
        numbers = given_X.dtype.kind in "biuf"
        fits = given_X.ndim in (1, 2) and given_X.shape[-1] == 4
        calls = {
            "predict": lambda: network.predict(X),
            "evaluate": lambda: evaluate(network, X, y),
            "fit": lambda: fit(
                Network([4, 5, 2], device="cpu"), X, y, epochs=1, batch_size=2, learning_rate=0.1
            ),
            "loss_and_gradients": lambda: network.loss_and_gradients(X, y),
            "backquery": lambda: network.backquery(y),
            "check_gradients": lambda: check_gradients(network, X, y),
            "per_feature": lambda: Scaling.per_feature(X).apply(X, "float32"),
            "to_range": lambda: Scaling.to_range(0, 2).apply(X, "float64"),
            "load_parameters": lambda: network.load_parameters(network.parameters() | {"x": X}),
        }
        for name, call in calls.items():
            try:
                result = call()
            except GpunnError as error:
                if "\n" in str(error) or (name == "predict" and numbers and fits):
                    raise AssertionError(f"{name}: {error}") from error
            else:
                if name == "predict":
                    assert fits, f"predict took {given_X.shape}"
                    # 4 and 5 products of numbers of at most about 2, and two exponentials.
                    np.testing.assert_allclose(result, oracle(given_X), rtol=0, atol=1e-14)

    try:
        check()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        problems.append(" ".join(f"{error!r}".split())[:600])
        problems.append(" | ".join(getattr(error, "__notes__", []))[:600].replace("\n", " "))
    yield from problems


# Together.


def together(n_runs: int, rng: random.Random) -> Iterator[str]:
    """Train eight networks at once; yield whatever differs from one alone."""
    with workplace() as place:
        expected = reference(place)

        def in_threads() -> None:
            networks: dict[int, Network] = {}
            threads = [
                threading.Thread(
                    target=lambda n=n: networks.update({n: train(n % 4, place / f"thread-{n}")})
                )
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(networks) == 8
            assert all(bits(networks[n]) == expected[n % 4][0] for n in range(8))

        for run in range(n_runs):
            if wait(start(in_threads)):
                yield f"run {run}: threads differ"
            outs = [place / f"out-{n}" for n in range(8)]
            children = [
                start(train_and_save, n % 4, place / f"process-{n}", outs[n]) for n in range(8)
            ]
            for n, (child, out) in enumerate(zip(children, outs, strict=True)):
                if wait(child) or bits(Network.load(out, "cpu")) != expected[n % 4][0]:
                    yield f"run {run}: process {n} differs or failed"
            for n in range(8):
                shutil.rmtree(place / f"thread-{n}", ignore_errors=True)
                shutil.rmtree(place / f"process-{n}", ignore_errors=True)


# A stream longer than any memory.


class Made:
    """Rows that are made when they are asked for, the same each time."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, self.n_rows, 50_000):
            n = min(50_000, self.n_rows - start)
            X = np.random.default_rng(start).standard_normal((n, 4), np.float32)
            yield X, (X[:, 0] > 0).astype(np.uint8)


class _Watch(Callback):
    """Measure the resident memory 20 times a second at most, and end after ten minutes."""

    def __init__(self, n_rows: int) -> None:
        self.process = psutil.Process()
        self.n_warm_up, self.n_done, self.sizes = n_rows // 20, 0, []
        self.began = self.measured = time.monotonic()

    def on_step_end(self, n_samples: int) -> None:
        self.n_done += n_samples
        now = time.monotonic()
        if self.n_done >= self.n_warm_up and now - self.measured > 0.05:
            self.measured = now
            self.sizes.append(self.process.memory_info().rss)
        if now - self.began > STREAM_SECONDS:
            raise TimeoutError


def watch_stream(n_rows: int, sender: Connection) -> None:
    network, watch = Network([4, 8, 2], device="cpu", seed=1), _Watch(n_rows)
    with workplace() as place, suppress(TimeoutError):
        fit(network, Stream(Made(n_rows), n_rows), epochs=1, batch_size=1000, learning_rate=0.1,
            callbacks=[watch], checkpoints=Checkpoints(place / "run", "10 seconds"))  # fmt: skip
    X, y = next(iter(Made(1000)))
    sender.send((watch.n_done, watch.sizes, evaluate(network, X, y).accuracy))


def stream(n_rows: int, rng: random.Random) -> Iterator[str]:
    """Train on a long stream, in a process of its own; yield what is wrong with its memory."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    child = spawn.Process(target=watch_stream, args=(n_rows, sender))
    child.start()
    sender.close()
    try:
        n_done, sizes, accuracy = receiver.recv()
    except EOFError:
        yield "the training failed"
        return
    finally:
        child.join()
    first, largest = sizes[0] / 2**20, max(sizes) / 2**20
    print(
        f"    {n_done:,} rows; after a twentieth {first:.1f} MiB were resident, then at most "
        f"{largest:.1f} MiB ({len(sizes):,} times measured); accuracy {accuracy:.3f}",
        flush=True,
    )
    if largest > 1.05 * first:
        yield f"memory grew by {100 * (largest / first - 1):.1f} %"
    if accuracy < 0.9:
        yield "nothing was learnt"


TESTS = {
    "kill": kill,
    "full": full,
    "removed": removed,
    "forbidden": forbidden,
    "files": files,
    "examples": examples,
    "together": together,
    "stream": stream,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", choices=[*TESTS, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", type=int, help=argparse.SUPPRESS)  # by `full`, to itself
    options = parser.parse_args()
    if options.apart:
        for problem in full_apart(options.apart, random.Random(options.seed)):
            print(f"WRONG: {problem}", flush=True)
        return 0
    rows, total = [], 0
    for name in options.tests or TESTS:
        count = COUNTS[name][options.quick]
        print(f"{name}: {count}", flush=True)
        began, problems = time.monotonic(), []
        for problem in TESTS[name](count, random.Random(f"{options.seed} {name}")):
            problems.append(problem)
            print(f"    WRONG: {problem}", flush=True)
        rows.append((name, count, len(problems), time.monotonic() - began))
        total += len(problems)
    print(f"\n{'test':<12}{'runs':>9}{'wrong':>7}{'seconds':>9}")
    for name, count, n_problems, seconds in rows:
        how = f"  {HOW[name]}" if name in HOW else ""
        print(f"{name:<12}{count:>9,}{n_problems:>7}{seconds:>9.0f}{how}")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
