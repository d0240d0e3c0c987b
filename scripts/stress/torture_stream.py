"""A training on a stream that is longer than any memory."""

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np
import psutil
from torture_trainings import workplace

from gpunn import Callback, Checkpoints, Network, Stream, evaluate, fit

STREAM_SECONDS = 600


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
