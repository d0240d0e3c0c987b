"""Eight trainings at once, in threads and in processes, which must not disturb each other."""

import random
import shutil
import threading
from collections.abc import Iterator

from torture_trainings import bits, reference, start, train, train_and_save, wait, workplace

from gpunn import Network


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
