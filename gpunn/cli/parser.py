"""The command line: options, help texts, and errors turned into one line and an exit status.

Exit status: 0 done; 1 the work failed; 2 wrong use or wrong input, with one clear line; 130 ended
by Ctrl-C; 143 ended by SIGTERM.
"""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import NoReturn

from gpunn import __version__
from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import PRECISIONS
from gpunn.cli.console import Console
from gpunn.cli.info import info
from gpunn.cli.model_commands import backquery, evaluate_model, predict
from gpunn.cli.parity import parity
from gpunn.cli.train import train
from gpunn.errors import DivergenceError, GpunnError
from gpunn.losses import LOSSES
from gpunn.optimizers import OPTIMIZERS
from gpunn.recipes import RECIPES
from gpunn.training.fitting import ON_DIVERGENCE

_DATA = (
    "digits (8 x 8 pictures that come with gpunn), mnist, fashion-mnist, or a path: "
    "CSV or Parquet with the label first, .npz, X.npy,y.npy, or a folder of IDX files"
)

_DESCRIPTION = """\
Train multilayer perceptrons on the CPU or on an NVIDIA GPU.

To begin:
  gpunn train                      train on the built-in digits, in seconds
  gpunn train mnist --recipe rashid     the textbook's network on MNIST
  gpunn info                       what this machine offers
"""


class _Parser(ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _whole(low: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise ArgumentTypeError(f"expected a whole number of at least {low}, got {text!r}")
        return value

    return convert


def _number(
    low: float, high: float = float("inf"), *, open_low: bool = False
) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (low < value if open_low else low <= value) or not value < high:
            bound = f"above {low:g}" if open_low else f"of at least {low:g}"
            until = "" if high == float("inf") else f" and below {high:g}"
            raise ArgumentTypeError(f"expected a number {bound}{until}, got {text!r}")
        return value

    return convert


def make_parser() -> ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="gpunn", description=_DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"gpunn {__version__}")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    _add_train(subparsers.add_parser("train", help="train a network and save it"))
    _add_evaluate(
        subparsers.add_parser("evaluate", help="measure a saved network on labelled samples")
    )
    _add_predict(subparsers.add_parser("predict", help="say which class each sample is"))
    _add_backquery(
        subparsers.add_parser("backquery", help="draw what each class looks like to a network")
    )
    _add_parity(subparsers.add_parser("parity", help="check that two devices compute the same"))
    _add_info(subparsers.add_parser("info", help="what this machine offers, and what is missing"))
    return parser


def _add_train(parser: ArgumentParser) -> None:
    parser.description = (
        "Train a network, measure it on samples it has not seen, and save it. Without options: "
        "on the built-in digits, with settings that suit most classification tasks."
    )
    parser.set_defaults(run=train)
    parser.add_argument(
        "data", metavar="DATA", nargs="?", default="digits", help=f"{_DATA} (default: digits)"
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--recipe",
        choices=RECIPES,
        help="a whole set-up by name, from a textbook; other options overrule parts of it",
    )
    network.add_argument(
        "--hidden",
        metavar="N",
        type=_whole(1),
        action="append",
        help="units in a hidden layer; repeat it for more layers (default: 100)",
    )
    network.add_argument(
        "--activation",
        choices=[name for name in ACTIVATIONS if name != "softmax"],
        help="the hidden layers' activation (default: relu)",
    )
    network.add_argument(
        "--loss", choices=LOSSES, help="the error function (default: cross_entropy)"
    )
    network.add_argument(
        "--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)"
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs",
        metavar="N",
        type=_whole(1),
        help="times to go through the training samples (default: 20)",
    )
    training.add_argument(
        "--batch-size",
        metavar="N",
        type=_whole(1),
        help="samples to learn from in one step (default: 32)",
    )
    training.add_argument(
        "--lr",
        metavar="RATE",
        type=_number(0, open_low=True),
        help="the learning rate, how far a step goes (default: 0.001 for adam, 0.1 for sgd)",
    )
    training.add_argument(
        "--optimizer", choices=OPTIMIZERS, help="how gradients become steps (default: adam)"
    )
    training.add_argument(
        "--momentum",
        metavar="M",
        type=_number(0, 1),
        help="how much of the last step is kept, with sgd, momentum or nesterov (default: 0.9)",
    )
    training.add_argument(
        "--weight-decay",
        metavar="D",
        type=_number(0),
        default=0.0,
        help="pulls weights towards zero (default: 0)",
    )
    training.add_argument(
        "--schedule",
        choices=["constant", "step", "exponential", "inverse-scaling", "cosine"],
        default="constant",
        help="how the learning rate falls: step, to a tenth twice; exponential, to a hundredth in "
        "all; inverse-scaling, with the root of the epochs; cosine, to zero (default: constant)",
    )
    training.add_argument(
        "--warmup",
        metavar="EPOCHS",
        type=_number(0),
        default=0.0,
        help="let the learning rate rise from zero over so many epochs, which may be a fraction",
    )
    training.add_argument(
        "--val-fraction",
        metavar="F",
        type=_number(0, 1),
        help="keep this part of the training samples back to validate on after each epoch",
    )
    training.add_argument(
        "--early-stopping",
        metavar="PATIENCE",
        type=_whole(1),
        nargs="?",
        const=10,
        help="end when the validation loss has not improved for so many epochs (10 if no number "
        "is given), and keep the best weights; a tenth is kept back unless --val-fraction says",
    )
    training.add_argument(
        "--seed",
        metavar="N",
        type=_whole(0),
        default=0,
        help="the same number gives the same training again (default: 0)",
    )
    training.add_argument(
        "--on-divergence",
        choices=ON_DIVERGENCE,
        default="stop",
        help="when an epoch's error is no finite number: stop, with status 1; or halve-lr, go "
        "back to the newest checkpoint and on with half the learning rate (default: stop)",
    )
    _add_checkpoint(parser)
    _add_data_dir(parser)
    _add_device(parser)
    _add_precision(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="where to save the model (default: DATA.safetensors)"
    )
    parser.add_argument("--quiet", action="store_true", help="print the result alone")
    _add_json(parser)


def _add_checkpoint(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("checkpoints")
    group.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep the state of the training in this folder, from time to time and at a signal",
    )
    group.add_argument(
        "--checkpoint-every",
        metavar="PERIOD",
        help="how often: '5 minutes' (seconds, hours), '50 steps' or '1 epoch' (default: "
        "5 minutes)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in DIR, from the beginning if there is none; data "
        "and options must be the same",
    )


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.description = (
        "Measure a saved network: accuracy, a table by class, and which classes it confuses. If "
        "the data have a test part, that is what is used."
    )
    parser.set_defaults(run=evaluate_model)
    _add_model(parser)
    parser.add_argument("data", metavar="DATA", help=_DATA)
    _add_data_dir(parser)
    _add_device(parser)
    _add_json(parser)


def _add_predict(parser: ArgumentParser) -> None:
    parser.description = (
        "Say which class each sample is. Labels in the data are not looked at, and a CSV, Parquet "
        "or .npy file may have none."
    )
    parser.set_defaults(run=predict)
    _add_model(parser)
    parser.add_argument("data", metavar="DATA", help=f"{_DATA}, or X.npy alone")
    parser.add_argument(
        "--out", metavar="FILE.csv", help="write predictions and outputs there, not to the screen"
    )
    _add_data_dir(parser)
    _add_device(parser)
    _add_json(parser)


def _add_backquery(parser: ArgumentParser) -> None:
    parser.description = (
        "Run a saved network backwards, from each class to the picture that would be it, and draw "
        "the pictures. Needs matplotlib: pip install 'gpunn[plots]'."
    )
    parser.set_defaults(run=backquery)
    _add_model(parser)
    parser.add_argument("--out", metavar="FILE.png", required=True, help="the picture to write")
    _add_device(parser)
    _add_json(parser)


def _add_parity(parser: ArgumentParser) -> None:
    parser.description = (
        "Train the same networks from the same seed on two devices and compare them, step by step "
        "at first, then epoch by epoch, each number with the tolerance that its arithmetic "
        "justifies. Without restrictions: every activation, every error, in batches and one sample "
        "at a time. Exit status: 0 within tolerance, 1 not, 2 when there is no second device."
    )
    parser.set_defaults(run=parity)
    parser.add_argument(
        "data", metavar="DATA", nargs="?", default="digits", help=f"{_DATA} (default: digits)"
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="the device to test: cuda, cuda:N or cpu (default: cuda; with --against float64, cpu)",
    )
    parser.add_argument(
        "--against",
        metavar="DEVICE",
        default="cpu",
        help="what to compare it with: cpu, cuda:N, or float64, the CPU in float64, which needs no "
        "GPU (default: cpu)",
    )
    parser.add_argument(
        "--activation", choices=ACTIVATIONS, help="only networks with this in the hidden layer"
    )
    parser.add_argument("--loss", choices=LOSSES, help="only networks with this error function")
    parser.add_argument(
        "--mode", choices=["batch", "online"], help="only in batches, or only sample by sample"
    )
    _add_precision(parser)
    _add_data_dir(parser)
    parser.add_argument("--out", metavar="FILE.png", help="draw the divergence over time there")
    _add_json(parser)


def _add_info(parser: ArgumentParser) -> None:
    parser.description = (
        "Say what this machine offers: package versions, processor, GPUs, memory, and what to do "
        "about what is missing."
    )
    parser.set_defaults(run=info)
    _add_json(parser)


def _add_model(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a file that gpunn train saved")


def _add_data_dir(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder that holds mnist/ and fashion-mnist/ (default: $GPUNN_DATA_DIR, else they "
        "are downloaded once)",
    )


def _add_device(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default="auto",
        help="cpu, cuda, cuda:N, or auto: a usable GPU, else the CPU (default: auto)",
    )


def _add_precision(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="what a GPU's tensor cores may round the factors of float32 products to: tf32 keeps "
        "11 significant bits, bf16 8; both are faster than fp32 and less exact (default: fp32)",
    )


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as one line of JSON, and all else to standard error",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the program's name; by default, what the shell gave.

    Returns
    -------
    int
        The exit status.
    """
    options = make_parser().parse_args(arguments)
    console = Console(as_json=options.json, quiet=getattr(options, "quiet", False))
    try:
        status: int = options.run(options, console)
    except GpunnError as error:
        print(f"gpunn: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, MemoryError | DivergenceError) else 2
    except MemoryError:
        print(
            "gpunn: error: out of memory; try a smaller --hidden or --batch-size", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        folder = getattr(options, "checkpoint", None)
        kept = "nothing was saved" if folder is None else f"the checkpoints in {folder} are whole"
        print(f"gpunn: ended by Ctrl-C; {kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
