"""The progress bar as a terminal shows it, and what a log has in its place."""

import io
import os
import re
import subprocess
import sys

import pytest

from gpunn import Network
from gpunn.cli.console import Console
from gpunn.cli.progress import Progress
from gpunn.training.callbacks import EpochRecord, History
from gpunn.training.progress_bar import TerminalBar, layout

if os.name == "nt":
    pytest.skip("needs POSIX terminals", allow_module_level=True)
from terminal import Terminal

CTRL_C = b"\x03"
GPUNN = [sys.executable, "-m", "gpunn"]
LONG = ["train", "--device", "cpu", "--hidden", "1500", "--epochs", "999"]
LONG += ["--early-stopping", "999", "--out", "m.safetensors"]
WITH_BAR = re.compile(r" *\d+%.*")
NUMBERS = (
    r"\d\d:\d\d left",
    r"loss [\d.e-]+",
    r"validation accuracy [01]\.\d{4}",
    r"[\d.]+k? samples/s",
)


def bars(lines):
    return [line for line in lines if WITH_BAR.fullmatch(line)]


def has_numbers(lines):
    return any(re.search(r" left\b|\d+% \d", line) for line in bars(lines))


def after_an_epoch(lines):
    return has_numbers(lines) and any(line.startswith("epoch") for line in lines)


# How it is laid out.


@pytest.mark.parametrize("columns", range(1, 130))
def test_a_line_is_never_wider_than_it_may_be(columns):
    numbers = ["00:12 left", "loss 0.0863", "validation accuracy 0.9720", "244k samples/s"]
    text = TerminalBar.format_meter(
        7, 20, 5.0, ncols=columns, bar_format=layout(numbers, columns), ascii=True
    )
    assert len(text) <= columns
    shown = [number in text for number in numbers]
    # The last ones are left out first.
    assert shown == sorted(shown, reverse=True)
    assert (len(text) == columns) or "|" not in text
    assert columns < 4 or text.startswith(" 35%")


def test_a_line_without_a_limit_has_everything():
    assert layout(["a", "b"], None) == "{percentage:3.0f}%|{bar}| a, b"
    assert layout([], None) == "{percentage:3.0f}%|{bar}|"


def opened(monkeypatch, total, initial, seconds):
    """Return a bar of 80 columns that was opened so many seconds ago."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    bar = TerminalBar(total, "samples", initial=initial, leave=False)
    bar.dynamic_ncols = lambda file: (80, 24)
    bar.start_t -= seconds
    return bar


def test_what_was_done_before_counts_neither_for_the_rate_nor_for_the_time_left(monkeypatch):
    bar = opened(monkeypatch, 100_000, 90_000, 50)
    bar.update(5_000)
    assert " 95%" in str(bar)
    assert re.search(r"(00:50|00:51) left, (99\.\d|100) samples/s", str(bar))
    bar.update(5_000)
    assert re.search(r"100%.*took 00:50, (199|200) samples/s", str(bar))
    bar.close()


def test_a_resumed_training_has_a_bar_of_its_own(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("gpunn.training.progress_bar.can_be_shown", lambda: True)
    progress = Progress(Console(as_json=False))
    progress.on_train_begin(None, 10, 100)
    progress.on_step_end(50)
    first = progress.bar
    progress.on_resume(700)
    assert first.disable  # closed
    assert (progress.bar.initial, progress.bar.n, progress.bar.total) == (700, 700, 1000)
    progress.on_train_end(History())


def test_numbers_to_predict_have_a_validation_loss_beside_the_bar(monkeypatch):
    monkeypatch.setattr("gpunn.training.progress_bar.can_be_shown", lambda: False)
    progress = Progress(Console(as_json=False, quiet=True))
    progress.on_train_begin(None, 10, 100)
    progress.on_epoch_end(None, EpochRecord(1, 0.123456, 0.234567, None, 0.1, 1.0))
    assert progress.bar.latest == ["loss 0.1235", "validation loss 0.2346"]
    progress.on_epoch_end(None, EpochRecord(1, 0.123456, None, None, 0.1, 1.0))
    assert progress.bar.latest == ["loss 0.1235"]


# What a terminal shows.


@pytest.mark.parametrize(("columns", "numbers"), [(120, 4), (40, 2), (20, 1)])
def test_a_bar_is_one_line_at_any_width_and_gone_at_the_end(tmp_path, columns, numbers):
    with Terminal([*GPUNN, *LONG], columns, tmp_path) as terminal:
        lines = terminal.wait_for(after_an_epoch)
        (bar,) = bars(lines)
        assert bar is lines[-1]
        assert len(bar) < columns
        assert [bool(re.search(pattern, bar)) for pattern in NUMBERS] == [
            number < numbers for number in range(4)
        ]
        terminal.press(CTRL_C)
        assert terminal.finish() == 130
        assert bars(terminal.lines) == []
    assert Network.load(tmp_path / "m.safetensors", "cpu").n_inputs == 64


def test_a_terminal_that_was_made_narrower_and_wider_has_one_bar(tmp_path):
    with Terminal([*GPUNN, *LONG], 110, tmp_path) as terminal:
        terminal.wait_for(after_an_epoch)
        for columns in (38, 20, 100):
            terminal.resize(columns)
            # Wait until it is drawn anew, which shows in how long the line is.
            lines = terminal.wait_for(lambda lines, columns=columns: _fits(lines, columns))
            assert len(bars(lines)) == 1


def _fits(lines, columns):
    return has_numbers(lines) and {20: 14, 38: 30, 100: 90}[columns] <= len(lines[-1]) < columns


def test_quiet_shows_no_bar(tmp_path):
    short = ["train", "--device", "cpu", "--hidden", "300", "--epochs", "10", "--quiet"]
    with Terminal([*GPUNN, *short], 100, tmp_path) as terminal:
        while terminal.read():
            assert bars(terminal.lines) == []
        assert terminal.finish() == 0
        assert [line.split()[0] for line in terminal.lines] == ["trained", "test", "saved"]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(tmp_path):
    short = "TERM=dumb exec $0 -m gpunn train --device cpu --hidden 300 --epochs 5"
    with Terminal(["bash", "-c", short, sys.executable], 120, tmp_path) as terminal:
        assert terminal.finish() == 0
        assert sum(line.startswith("epoch") for line in terminal.lines) == 5
        assert bars(terminal.lines) == []


def test_tee_has_a_plain_log_and_ctrl_c_loses_nothing(tmp_path):
    line = "trap : INT; $0 -m gpunn $@ | tee log; exit ${PIPESTATUS[0]}"
    with Terminal(["bash", "-c", line, sys.executable, *LONG], 100, tmp_path) as terminal:
        lines = terminal.wait_for(lambda lines: after_an_epoch(lines) and len(lines) > 7)
        assert all(re.match("epoch .* s$", line) for line in lines if "epoch" in line)
        terminal.press(CTRL_C)  # which ends tee, too
        assert terminal.finish() == 130
    log = (tmp_path / "log").read_bytes()
    assert re.search(rb"\nepoch +20/999 ", log)
    assert not re.search(rb"[\r\x1b%]", log)
    assert Network.load(tmp_path / "m.safetensors", "cpu").n_inputs == 64


def test_a_log_has_plain_lines(tmp_path):
    short = ["train", "--device", "cpu", "--hidden", "300", "--epochs", "5"]
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([*GPUNN, *short], stdout=log, stderr=log, cwd=tmp_path, check=True)
    text = (tmp_path / "log").read_bytes()
    assert text.count(b"\nepoch ") == 5
    assert not re.search(rb"[\r\x1b%]", text)


def test_an_estimator_has_a_bar_on_a_terminal_and_lines_in_a_log(tmp_path):
    code = (
        "import numpy as np, warnings; from gpunn import MLPClassifier;"
        "warnings.simplefilter('ignore');"
        "X = np.random.default_rng(0).normal(size=(200, 4));"
        "MLPClassifier((8,), max_iter=50, tol=0, verbose=2, random_state=0).fit(X, X[:, 0] > 0)"
    )
    with Terminal([sys.executable, "-W", "error", "-c", code], 40, tmp_path) as terminal:
        assert terminal.finish() == 0
        (line,) = terminal.lines
        assert re.fullmatch(r"100%\|.+\| took 00:\d\d, loss 0\.\d+", line)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr == ""
    assert done.stdout.count("Iteration ") == 50


# Where nothing can be printed.


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_on_a_full_disk_costs_the_log_and_not_the_training(tmp_path):
    short = ["train", "--device", "cpu", "--hidden", "8", "--epochs", "2", "--out", "m"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*GPUNN, *short], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gpunn: cannot print: No space left on device; the work goes on",
        "gpunn: error: cannot print the result: No space left on device",
    ]
    assert Network.load(tmp_path / "m", "cpu").n_inputs == 64


def test_a_training_whose_lines_nobody_reads_any_more_goes_on(tmp_path):
    line = f"{sys.executable} -m gpunn train --epochs 5 --device cpu --out m | head -n 1"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
    assert Network.load(tmp_path / "m", "cpu").n_inputs == 64


def test_outputs_that_are_closed_are_no_error(tmp_path):
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        line = f"{sys.executable} -m gpunn train --epochs 2 --device cpu --out m {closed}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        (tmp_path / "m").unlink()
