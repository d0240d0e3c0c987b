"""The command line: its commands, and errors turned into one line and an exit status.

Exit status: 0 done; 1 the work failed; 2 wrong use or wrong input, with one clear line; 130 ended
by Ctrl-C; 143 ended by SIGTERM.
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import NoReturn

from gpunn import __version__
from gpunn.cli import backquery, draw, evaluate, info, parity, predict, train
from gpunn.cli.console import Console
from gpunn.errors import DivergenceError, GpunnError

_DESCRIPTION = """\
Train multilayer perceptrons on the CPU or on an NVIDIA GPU.

To begin:
  gpunn train                         train on the built-in digits, in seconds
  gpunn train mnist --recipe rashid   the textbook's network on MNIST
  gpunn info                          what this machine offers
"""

_COMMANDS = (
    ("train", train, "train a network and save it"),
    ("evaluate", evaluate, "measure a saved network on labelled samples"),
    ("predict", predict, "say which class each sample is"),
    ("backquery", backquery, "draw what each class looks like to a network"),
    ("draw", draw, "make a page to draw on, in which a network answers"),
    ("parity", parity, "check that two devices compute the same"),
    ("info", info, "say what this machine offers, and what is missing"),
)
"""Each is a module with `add_options`, which describes the command, and `run`, which does it."""


class _Parser(ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="gpunn", description=_DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"gpunn {__version__}")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for name, module, what_it_does in _COMMANDS:
        command = subparsers.add_parser(name, help=what_it_does)
        module.add_options(command)
        command.set_defaults(run=module.run)
    return parser


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
