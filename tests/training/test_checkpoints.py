"""Checkpoints: what comes back, what is refused, and that an interruption changes no bit."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import make_backend

from gpunn import Callback, Checkpoints, EarlyStopping, Network, ThreeLayerNetwork, fit
from gpunn.errors import ModelFileError, OutputError, ParameterError
from gpunn.model_file import read_model, write_model
from gpunn.optimizers import SGD, Momentum, Optimizer, cosine
from gpunn.training.checkpoints import Content, checksum, parse_period, read_checkpoint

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")


class InterruptionError(Exception):
    """What an interruption is in tests without processes."""


class StopAfter(Callback):
    """Raise after so many chunks of samples; keep the notices."""

    def __init__(self, n_chunks=10**9):
        self.n_chunks, self.notices, self.resumed = n_chunks, [], None

    def on_step_end(self, n_samples):
        self.n_chunks -= 1
        if self.n_chunks < 0:
            raise InterruptionError

    def on_notice(self, text):
        assert "\n" not in text
        self.notices.append(text)

    def on_resume(self, n_samples):
        self.resumed = n_samples


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(150, 4))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def make(device="cpu", **options):
    return Network([4, 6, 3], device=device, initializer="standard_normal", **options)


def bits(network):
    return {name: value.tobytes() for name, value in network.parameters().items()}


def without_times(history):
    return [{**vars(record), "seconds": None} for record in history.epochs]


KINDS = {
    "single samples": {"batch_size": 1, "learning_rate": 0.1},
    "small batches": {"batch_size": 4, "learning_rate": 0.1},
    "batches": {"batch_size": 32, "learning_rate": 0.1},
    "in order": {"batch_size": 32, "learning_rate": 0.1, "shuffle": False},
    "momentum": {"batch_size": 32, "learning_rate": 0.05, "optimizer": "momentum"},
    "nesterov": {"batch_size": 32, "learning_rate": 0.05, "optimizer": "nesterov"},
    "adam": {"batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"},
    "schedule": {"batch_size": 1, "learning_rate": cosine(0.1, epochs=4, warmup=0.5)},
    "mersenne": {
        "batch_size": 32,
        "learning_rate": 0.1,
        "seed": lambda: np.random.Generator(np.random.MT19937(5)),
    },
    "philox": {
        "batch_size": 32,
        "learning_rate": 0.1,
        "seed": lambda: np.random.Generator(np.random.Philox(5)),
    },
    "best": {
        "batch_size": 32,
        "learning_rate": 0.5,
        "optimizer": "nesterov",
        "early_stopping": EarlyStopping(2, monitor="accuracy"),
    },
}


def train(kind, device, samples, folder=None, *, resume=False, callback=None, every="1 step"):
    network, options = make(device), {"seed": 7, **KINDS[kind]}
    if callable(options["seed"]):
        options["seed"] = options["seed"]()
    if "early_stopping" in options:
        options["validation_data"] = samples[0][::3], samples[1][::3]
    checkpoints = None if folder is None else Checkpoints(folder, every, resume)
    callbacks = [] if callback is None else [callback]
    history = fit(
        network, *samples, epochs=4, callbacks=callbacks, checkpoints=checkpoints, **options
    )
    return network, history


@pytest.mark.parametrize("kind", KINDS)
def test_interruptions_at_every_place_change_no_bit(backend, samples, tmp_path, kind):
    alone, expected = train(kind, backend, samples)
    n_interruptions, resume = 0, False
    while True:
        try:
            network, history = train(
                kind, backend, samples, tmp_path, resume=resume, callback=StopAfter(1)
            )
        except InterruptionError:
            # Each run gets two chunks further, the second of which is lost.
            n_interruptions, resume = n_interruptions + 1, True
        else:
            break
    assert n_interruptions >= 2
    assert bits(network) == bits(alone)
    assert without_times(history) == without_times(expected)
    assert (history.stopped, history.best_epoch, history.n_samples_trained) == (
        expected.stopped,
        expected.best_epoch,
        expected.n_samples_trained,
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_a_training_that_has_ended_is_not_trained_again(samples, tmp_path):
    alone, expected = train("best", "cpu", samples, tmp_path)
    callback = StopAfter(0)
    again, history = train("best", "cpu", samples, tmp_path, resume=True, callback=callback)
    assert bits(again) == bits(alone)
    assert (history.stopped, history.restored_best) == (expected.stopped, True)
    assert callback.resumed == expected.n_samples_trained


def test_a_training_can_move_to_another_device(samples, tmp_path):
    # 20 steps of sums over at most 32 terms, slopes below 1: see the tests of training.
    with pytest.raises(InterruptionError):
        train("batches", "cpu", samples, tmp_path, callback=StopAfter(7))
    moved, history = train("batches", make_backend("double"), samples, tmp_path, resume=True)
    alone, expected = train("batches", "cpu", samples)
    for name, value in alone.parameters().items():
        np.testing.assert_allclose(moved.parameters()[name], value, rtol=0, atol=2e-4)
    assert history.train_loss == pytest.approx(expected.train_loss, rel=2e-4)


# When, where and how many.


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("5 minutes", (300, "seconds")),
        ("1 second", (1, "seconds")),
        ("1.5 hours", (5400, "seconds")),
        ("50 steps", (50, "steps")),
        (" 1  epoch ", (1, "epochs")),
    ],
)
def test_periods_are_what_they_say(text, period):
    assert parse_period(text) == period


@pytest.mark.parametrize(
    "text",
    ["", "5", "minutes", "0 steps", "1.5 epochs", "-1 epoch", "5 days", "1e9 steps", "٣ steps", 5],
)
def test_other_periods_are_refused(tmp_path, text):
    with pytest.raises(ParameterError, match="every '5 minutes'"):
        Checkpoints(tmp_path, text)


@pytest.mark.parametrize(("every", "n_written"), [("1 step", 20), ("7 steps", 4), ("2 epochs", 3)])
def test_checkpoints_come_as_often_as_they_are_wished(samples, tmp_path, every, n_written):
    # 4 epochs of 5 steps. One at the beginning; the end of an epoch counts for steps as well.
    train("batches", "cpu", samples, tmp_path, every=every)
    numbers = [int(path.stem.rpartition("-")[2]) for path in Checkpoints(tmp_path).paths()]
    assert len(numbers) == 3
    assert numbers[0] >= n_written


def test_a_checkpoint_is_a_model(samples, tmp_path):
    network, _ = train("batches", "cpu", samples, tmp_path)
    newest = Checkpoints(tmp_path).paths()[0]
    assert bits(Network.load(newest, "cpu")) == bits(network)


def test_a_folder_with_checkpoints_is_not_written_over(samples, tmp_path):
    train("batches", "cpu", samples, tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ParameterError, match=r"resume it \(.*\), or choose another folder"):
        train("batches", "cpu", samples, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# Damage and difference.


def interrupted(samples, folder, kind="batches"):
    with pytest.raises(InterruptionError):
        train(kind, "cpu", samples, folder, callback=StopAfter(8))
    return Checkpoints(folder).paths()


@pytest.mark.parametrize("n_damaged", [1, 2])
@pytest.mark.parametrize("how", ["cut", "flipped", "emptied", "a model"])
def test_a_damaged_checkpoint_is_passed_over(samples, tmp_path, n_damaged, how):
    alone, _ = train("batches", "cpu", samples)
    paths = interrupted(samples, tmp_path)
    for path in paths[:n_damaged]:
        whole = path.read_bytes()
        if how == "a model":
            make().save(path)
        elif how == "flipped":
            path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        else:
            path.write_bytes(whole[: len(whole) // 2] if how == "cut" else b"")
    listener = StopAfter()
    network, _ = train("batches", "cpu", samples, tmp_path, resume=True, callback=listener)
    assert bits(network) == bits(alone)
    said = [text for text in listener.notices if "going back to the checkpoint before" in text]
    assert len(said) == n_damaged
    assert str(paths[0]) in said[0]


def test_every_bit_of_a_checkpoint_is_watched(samples, tmp_path):
    path = interrupted(samples, tmp_path)[0]
    whole = path.read_bytes()
    arrays, header, _ = read_checkpoint(path)
    n_header = 8 + int.from_bytes(whole[:8], "little")
    for position in [*range(0, n_header, 3), *range(n_header, len(whole), 11)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try:
            content = read_checkpoint(path)
        except ModelFileError:
            continue
        # Spaces and the like, which say nothing.
        assert content.header == header
        assert all((content.arrays[name] == array).all() for name, array in arrays.items())


def test_without_a_whole_checkpoint_nothing_is_trained(samples, tmp_path):
    for path in interrupted(samples, tmp_path):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="all of its 3 checkpoints are damaged"):
        train("batches", "cpu", samples, tmp_path, resume=True)


OTHERS = {
    "inputs SHA-256": lambda X, y, o: (X + 1, y, o),
    "inputs shape": lambda X, y, o: (X[:-1], y[:-1], o),
    "inputs dtype": lambda X, y, o: (X.astype("f4"), y, o),
    "targets SHA-256": lambda X, y, o: (X, y[::-1], o),
    "epochs 4 there, 5 here": lambda X, y, o: (X, y, o | {"epochs": 5}),
    "batch size 32 there, 31 here": lambda X, y, o: (X, y, o | {"batch_size": 31}),
    "learning rates": lambda X, y, o: (X, y, o | {"learning_rate": 0.2}),
    "optimizer": lambda X, y, o: (X, y, o | {"optimizer": Momentum(0.8)}),
    "random generator": lambda X, y, o: (X, y, o | {"seed": 8}),
    "shuffle True there, False here": lambda X, y, o: (X, y, o | {"shuffle": False}),
    "validation inputs": lambda X, y, o: (X, y, o | {"validation_data": (X, y)}),
    "layer_sizes": lambda X, y, o: (X, y, o | {"network": Network([4, 7, 3], device="cpu")}),
    "hidden_activation": lambda X, y, o: (X, y, o | {"network": make(hidden_activation="relu")}),
    "dtype": lambda X, y, o: (X, y, o | {"network": make(dtype="float64")}),
    "first weights": lambda X, y, o: (X, y, o | {"network": make(seed=3)}),
    "network 'Network' there": lambda X, y, o: (
        X, y, o | {"network": ThreeLayerNetwork(4, 6, 3, 0.1, device="cpu")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("difference", OTHERS)
def test_another_training_is_refused_and_the_difference_named(samples, tmp_path, difference):
    interrupted(samples, tmp_path)
    options = {"network": make(), "epochs": 4, "seed": 7, "learning_rate": 0.1, "batch_size": 32}
    X, y, options = OTHERS[difference](*samples, options)
    network = options.pop("network")
    before = bits(network)
    with pytest.raises(ParameterError) as caught:
        fit(network, X, y, checkpoints=Checkpoints(tmp_path, resume=True), **options)
    assert difference in str(caught.value)
    assert "\n" not in str(caught.value)
    assert bits(network) == before


def test_keys_that_only_a_forger_would_write_leave_the_message_short(samples, tmp_path):
    newest = interrupted(samples, tmp_path)[0]
    arrays, header = read_model(newest)
    del header["sha256"]
    header["checkpoint"]["made_for"] |= {"two\nlines": 1, "x" * 10_000: 1}
    write_model(newest, arrays, {**header, "sha256": checksum(Content(arrays, header))})
    with pytest.raises(ParameterError, match="two lines 1 there") as caught:
        train("batches", "cpu", samples, tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_optimizer_that_hides_its_memory_is_refused(samples, tmp_path):
    class Own(Momentum):
        state = Optimizer.state

    with pytest.raises(ParameterError, match=r"give it a method state\(\)"):
        fit(make(), *samples, epochs=1, learning_rate=0.1, optimizer=Own(),
            checkpoints=Checkpoints(tmp_path))  # fmt: skip


def forge(path, change):
    """Write a checkpoint anew with its state changed and a checksum that fits."""
    arrays, header = read_model(path)
    del header["sha256"]
    change(arrays, header["checkpoint"]["state"])
    write_model(path, arrays, {**header, "sha256": checksum(Content(arrays, header))})


FORGERIES = {
    "epoch -1": lambda a, s: s["progress"].update(epoch=-1),
    "epoch 10**30": lambda a, s: s["progress"].update(epoch=10**30),
    "epoch text": lambda a, s: s["progress"].update(epoch="1"),
    "first too far": lambda a, s: s["progress"].update(first=151),
    "unknown": lambda a, s: s["progress"].update(surprise=1),
    "missing": lambda a, s: s["progress"].pop("first"),
    "steps": lambda a, s: s["progress"].update(n_optimizer_steps=-1),
    "factor": lambda a, s: s["progress"].update(rate_factor=2.0),
    "seconds": lambda a, s: s["progress"].update(seconds=None),
    "no progress": lambda a, s: s.update(progress=[]),
    "generator": lambda a, s: s["progress"].update(generator={}),
    "generator's name": lambda a, s: s["progress"]["generator"].update(bit_generator="MT19937"),
    "generator's pos": lambda a, s: s["progress"]["generator"]["state"].update(pos=10**9),
    "generator's state": lambda a, s: s["progress"]["generator"]["state"].update(state="x"),
    "generator's type": lambda a, s: s["progress"]["generator"].update(has_uint32=[0]),
    "generator's inside": lambda a, s: s["progress"]["generator"].update(state=[]),
    "generator's surprise": lambda a, s: s["progress"]["generator"].update(surprise=1),
    "generator's size": lambda a, s: s["progress"]["generator"]["state"].update(state=2**200),
    "history": lambda a, s: s.update(history=[{}]),
    "history text": lambda a, s: s["history"][0].update(train_loss="0"),
    "history short": lambda a, s: s.update(history=[]),
    "best": lambda a, s: s.update(best=None),
    "best epoch": lambda a, s: s["best"].update(epoch=1, score=0.5),
    "weights": lambda a, s: a.update({"layers.0.weight": np.zeros((6, 5), np.float32)}),
    "losses": lambda a, s: a.pop("row_losses"),
    "losses' type": lambda a, s: a.update(row_losses=np.zeros(32, np.float32)),
    "no state": lambda a, s: s.clear(),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_state_counts_as_damaged(samples, tmp_path, forgery):
    alone, _ = train("batches", "cpu", samples)
    newest = interrupted(samples, tmp_path)[0]
    forge(newest, FORGERIES[forgery])
    listener = StopAfter()
    network, _ = train("batches", "cpu", samples, tmp_path, resume=True, callback=listener)
    assert listener.notices[0].startswith(f"{newest} is damaged: ")
    assert bits(network) == bits(alone)


OTHER_GENERATORS = {
    "a place outside": ("mersenne", lambda g: g["state"].update(pos=10**6)),
    "a place before": ("mersenne", lambda g: g["state"].update(pos=-1)),
    "too few numbers": ("mersenne", lambda g: g["state"]["key"].pop()),
    "a number in numbers": ("mersenne", lambda g: g["state"]["key"].__setitem__(9, [1, 2])),
    "a number too large": ("mersenne", lambda g: g["state"]["key"].__setitem__(9, 2**64)),
    "a place outside a buffer": ("philox", lambda g: g.update(buffer_pos=10**6)),
    "a short buffer": ("philox", lambda g: g.update(buffer=[1])),
}


@pytest.mark.parametrize("forgery", OTHER_GENERATORS)
def test_other_generators_states_are_not_believed_either(samples, tmp_path, forgery):
    kind, change = OTHER_GENERATORS[forgery]
    alone, _ = train(kind, "cpu", samples)
    newest = interrupted(samples, tmp_path, kind)[0]
    forge(newest, lambda arrays, state: change(state["progress"]["generator"]))
    listener = StopAfter()
    network, _ = train(kind, "cpu", samples, tmp_path, resume=True, callback=listener)
    assert listener.notices[0].startswith(f"{newest} is damaged: ")
    assert bits(network) == bits(alone)


# Places that fail.


def test_the_first_checkpoint_must_succeed(samples, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="file"):
        train("batches", "cpu", samples, tmp_path / "file" / "folder")


def test_a_folder_that_vanishes_is_made_again(samples, tmp_path):
    class Remove(StopAfter):
        def on_epoch_end(self, network, record):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    folder = tmp_path / "vanishes"
    alone, _ = train("batches", "cpu", samples)
    network, _ = train("batches", "cpu", samples, folder, callback=Remove())
    assert bits(network) == bits(alone)
    assert bits(Network.load(Checkpoints(folder).paths()[0], "cpu")) == bits(network)


KILLED = """
import os, signal, sys
from gpunn.model_file import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    temporary.with_name(".tmpLibrary").write_bytes(b"of a library's own")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_what_a_killed_process_left_behind_is_removed(samples, tmp_path):
    path = tmp_path / "checkpoint-000007.safetensors"
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (tmp_path / ".checkpoint-of-someone-else.tmp").mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    fit(make(), *samples, epochs=1, learning_rate=0.1, checkpoints=Checkpoints(tmp_path))
    hidden = [each.name for each in tmp_path.iterdir() if each.name.startswith(".")]
    assert hidden == [".checkpoint-of-someone-else.tmp"]


def test_a_place_that_fails_later_is_told_and_the_training_goes_on(samples, tmp_path):
    class Replace(StopAfter):
        def on_epoch_end(self, network, record):
            if record.epoch == 1:
                folder.rename(tmp_path / "elsewhere")
                folder.write_text("in the way")

    folder, listener = tmp_path / "checkpoints", Replace()
    alone, _ = train("batches", "cpu", samples)
    network, _ = train("batches", "cpu", samples, folder, callback=listener)
    assert bits(network) == bits(alone)
    assert "the training continues" in listener.notices[0]
    assert len(Checkpoints(tmp_path / "elsewhere").paths()) == 3


# Divergence.


class Poison(StopAfter):
    """Make the weights NaN once, after so many epochs."""

    def __init__(self, epoch, times=1):
        super().__init__()
        self.epoch, self.times = epoch, times

    def on_epoch_end(self, network, record):
        if record.epoch == self.epoch and self.times:
            self.times -= 1
            network.load_parameters({n: v * np.nan for n, v in network.parameters().items()})


def test_a_diverging_training_stops_and_keeps_the_last_good_checkpoint(samples, tmp_path):
    network, callback = make(), Poison(2)
    history = fit(network, *samples, epochs=5, learning_rate=0.1, callbacks=[callback],
                  checkpoints=Checkpoints(tmp_path, "1 step"))  # fmt: skip
    assert (history.stopped, len(history.epochs)) == ("diverged", 3)
    for path in Checkpoints(tmp_path).paths():
        assert all(np.isfinite(array).all() for array in read_checkpoint(path).arrays.values())


def test_without_checkpoints_the_best_weights_are_restored(samples):
    network = make()
    history = fit(network, *samples, epochs=5, learning_rate=0.1, callbacks=[Poison(2)],
                  validation_data=samples)  # fmt: skip
    assert (history.stopped, history.restored_best) == ("diverged", True)
    assert all(np.isfinite(array).all() for array in network.parameters().values())


def test_halving_goes_back_and_on_with_half_the_step(samples, tmp_path):
    network, callback = make(), Poison(2)
    history = fit(network, *samples, epochs=5, learning_rate=0.1, callbacks=[callback],
                  on_divergence="halve-lr", checkpoints=Checkpoints(tmp_path, "1 epoch"),
                  )  # fmt: skip
    assert history.stopped == "finished"
    assert [record.learning_rate for record in history.epochs] == [0.1, 0.05, 0.05, 0.05, 0.05]
    assert (
        callback.notices[-1] == "the training diverged: continuing with 0.5 times its learning rate"
    )
    assert np.isfinite(history.train_loss).all()


def test_halving_has_an_end(samples, tmp_path):
    history = fit(make(), *samples, epochs=2, learning_rate=0.1, callbacks=[Poison(1, times=99)],
                  on_divergence="halve-lr", checkpoints=Checkpoints(tmp_path, "1 epoch"),
                  )  # fmt: skip
    assert history.stopped == "diverged"


def test_halving_needs_checkpoints(samples):
    with pytest.raises(ParameterError, match="needs checkpoints"):
        fit(make(), *samples, epochs=2, learning_rate=0.1, on_divergence="halve-lr")
    with pytest.raises(ParameterError, match="on_divergence must be one of stop, halve-lr"):
        fit(make(), *samples, epochs=2, learning_rate=0.1, on_divergence="pray")


# Signals, at the command line.

TRAIN = ("train", "--device", "cpu", "--hidden", "8", "--epochs", "200", "--checkpoint", "ck")


def gpunn(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gpunn", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_makes_a_checkpoint_that_goes_on_to_the_same_bits(tmp_path, number, status):
    with gpunn(tmp_path, *TRAIN, "--out", "half.safetensors") as running:
        for line in running.stdout:
            if line.startswith("epoch   2"):
                break
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (status, "")
    assert re.search(r"checkpoint: ck/checkpoint-000002.safetensors", out)
    for arguments in (
        (*TRAIN, "--resume", "--out", "whole.safetensors"),
        (*TRAIN[:-2], "--out", "alone.safetensors"),
    ):
        with gpunn(tmp_path, *arguments, "--json") as running:
            out, err = running.communicate(timeout=100)
        assert running.returncode == 0
        assert json.loads(out)["epochs"] == 200
    whole, alone, half = (
        bits(Network.load(tmp_path / f"{name}.safetensors", "cpu"))
        for name in ("whole", "alone", "half")
    )
    assert whole == alone != half


SLOW_DISK = """
import os, signal, sys, time
from gpunn.cli import main

flush = os.fsync

def wait_after_the_first_signal(descriptor):
    # That one has put back the handlers from before.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        print("flushing", flush=True)
        while True:
            time.sleep(0.01)  # not pause(), which a signal that comes just before it does not end
    flush(descriptor)

os.fsync = wait_after_the_first_signal
sys.exit(main(sys.argv[1:]))
"""


@posix
@pytest.mark.parametrize(
    ("second", "status", "said"),
    [
        (signal.SIGINT, 130, "gpunn: ended by Ctrl-C; the checkpoints in ck are whole\n"),
        (signal.SIGTERM, -signal.SIGTERM, ""),
    ],
)
def test_a_second_signal_leaves_the_checkpoints_whole(tmp_path, second, status, said):
    arguments = (*TRAIN, "--checkpoint-every", "1 step")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_DISK, *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        lines = iter(running.stdout)
        assert any(line.startswith("epoch   2") for line in lines)
        running.send_signal(signal.SIGINT)
        assert any(line == "flushing\n" for line in lines)
        running.send_signal(second)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (status, "", said)
    checkpoints = Checkpoints(tmp_path / "ck")
    paths = checkpoints.paths()
    # One more where it ended after the newest was in its place and before the oldest was removed.
    assert len(paths) in (3, 4)
    for path in paths:
        read_checkpoint(path)
    # What was being written is no checkpoint. Nobody could tidy up after SIGTERM but who resumes.
    unfinished = [path for path in (tmp_path / "ck").iterdir() if path not in paths]
    assert len(unfinished) == (0 if second == signal.SIGINT else 1)
    checkpoints.remove_unfinished()
    assert sorted((tmp_path / "ck").iterdir()) == sorted(paths)


class Scaled(SGD):
    """A rule of a user's own, with a number of its own."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def begin_step(self, learning_rate):
        super().begin_step(self.factor * learning_rate)


def test_a_rule_of_ones_own_with_other_numbers_is_another_training(tmp_path):
    def train(factor, resume):
        network = Network([3, 2], device="cpu")
        checkpoints = Checkpoints(tmp_path, resume=resume)
        X, y = np.eye(3), [0, 1, 0]
        options = {"epochs": 2, "learning_rate": 0.1, "checkpoints": checkpoints}
        fit(network, X, y, optimizer=Scaled(factor), **options)

    train(1.0, resume=False)
    train(1.0, resume=True)
    with pytest.raises(ParameterError, match="made for another training: optimizer"):
        train(0.5, resume=True)
