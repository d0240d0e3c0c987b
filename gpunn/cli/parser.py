"""The command line: its commands, and errors turned into one line and an exit status.

Exit status: 0 done; 1 the work failed; 2 wrong use or wrong input, with one clear line; 130 ended
by Ctrl-C; 143 ended by SIGTERM.
"""

import shlex
import shutil
import sys
import textwrap
from argparse import (
    SUPPRESS,
    Action,
    ArgumentParser,
    HelpFormatter,
    Namespace,
    _ArgumentGroup,
)
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from gpunn import __version__
from gpunn.cli import backquery, draw, evaluate, info, parity, predict, report, train
from gpunn.cli.completion import SHELLS, completion_script
from gpunn.cli.console import Console
from gpunn.cli.together import check_command, end, silent_unless_first
from gpunn.errors import DivergenceError, GpunnError
from gpunn.parallel.ranks import ALONE
from gpunn.parallel.world import ranks_here

_DESCRIPTION = """\
Train multilayer perceptrons on the CPU or on an NVIDIA GPU.

To begin, type gpunn train: it learns the built-in digits, in seconds.
"""

WIDEST = 100
"""Columns of a help text, at most; lines that are longer are hard to read."""


class Command(NamedTuple):
    """A command of the command line.

    Attributes
    ----------
    name : str
        What is typed after ``gpunn``.
    module : module
        Has `add_options`, which describes the command, and `run`, which does it.
    what_it_does : str
        One line for the list of commands.
    example : str
        What to type, for the help texts.
    """

    name: str
    module: ModuleType
    what_it_does: str
    example: str


_COMMANDS = (
    Command(
        "train",
        train,
        "train a network and save it",
        "gpunn train digits --early-stopping",
    ),
    Command(
        "evaluate",
        evaluate,
        "measure a saved network on labelled samples",
        "gpunn evaluate digits.safetensors digits",
    ),
    Command(
        "predict",
        predict,
        "say which class each sample is, or predict its numbers",
        "gpunn predict digits.safetensors digits --out digits.csv",
    ),
    Command(
        "backquery",
        backquery,
        "draw what each class looks like to a network",
        "gpunn backquery digits.safetensors --out classes.png",
    ),
    Command(
        "draw",
        draw,
        "make a page to draw on, in which the network answers",
        "gpunn draw digits.safetensors --out draw.html",
    ),
    Command(
        "report",
        report,
        "write a page about a network: how it learnt, what it gets wrong",
        "gpunn report digits.safetensors digits --out report.html",
    ),
    Command(
        "parity",
        parity,
        "check that two devices compute the same",
        "gpunn parity --against float64",
    ),
    Command(
        "info",
        info,
        "say what this machine offers, and what is missing",
        "gpunn info",
    ),
)


class _Help(HelpFormatter):
    """Help as wide as the terminal, but not wider than can be read; examples stay lines."""

    def __init__(self, prog: str, **options: Any) -> None:
        width = min(shutil.get_terminal_size().columns, WIDEST) - 2
        super().__init__(prog, **{"width": width, **options})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = (
            line if line.startswith(" ") else textwrap.fill(line, width)
            for line in text.splitlines()
        )
        return "\n".join(lines)


class _Parser(ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _PrintCompletion(Action):
    """Prints what makes a shell complete commands; loads what that needs only then."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: Any = None
    ) -> NoReturn:
        try:
            print(completion_script(parser, values))
        except GpunnError as error:
            parser.exit(2, f"gpunn: error: {error}\n")
        parser.exit()


def make_parser() -> ArgumentParser:
    """Return the parser of the whole command line."""
    examples = "\n".join(f"  {command.example}" for command in _COMMANDS)
    parser = _Parser(
        prog="gpunn",
        usage="gpunn COMMAND [OPTION ...]",
        description=_DESCRIPTION,
        epilog=f"examples:\n{examples}\n\ngpunn COMMAND --help describes a command.",
        formatter_class=_Help,
        add_help=False,
    )
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser, prog="gpunn"
    )
    for command in _COMMANDS:
        _add_command(subparsers, command)
    _add_options(parser)
    return parser


def _add_command(subparsers: Any, command: Command) -> None:
    parser = subparsers.add_parser(
        command.name,
        help=command.what_it_does,
        epilog=f"example:\n  {command.example}",
        formatter_class=_Help,
        add_help=False,
    )
    _add_help(parser)
    command.module.add_options(parser)
    parser.usage = _usage(parser)
    parser.set_defaults(run=command.module.run, refuse=parser.error, name=command.name)


def _add_options(parser: ArgumentParser) -> None:
    # A group of its own stands below the commands.
    group = parser.add_argument_group("options")
    _add_help(group)
    group.add_argument(
        "--version",
        action="version",
        version=f"gpunn {__version__}",
        help="show the version and exit",
    )
    group.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        default=SUPPRESS,
        help="print a script that lets the Tab key complete commands, options and files, for "
        f"{', '.join(SHELLS[:-1])} or {SHELLS[-1]}",
    )


def _add_help(parser: ArgumentParser | _ArgumentGroup) -> None:
    parser.add_argument("-h", "--help", action="help", help="show this help and exit")


def _usage(parser: ArgumentParser) -> str:
    """Return how a command is typed, without the options that may be left out."""
    words = []
    for action in parser._actions:
        if action.option_strings:
            words += [f"{action.option_strings[0]} {action.metavar}"] * action.required
        else:
            words.append(f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar))
    return f"%(prog)s {' '.join([*words, '[OPTION ...]'])}"


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
    arguments = sys.argv[1:] if arguments is None else arguments
    with silent_unless_first():
        options = _parse(arguments)
        if options is None:
            return 2
    ranks = ALONE
    try:
        ranks = ranks_here()
        check_command(options.name, ranks)
        console = Console(as_json=options.json, quiet=getattr(options, "quiet", False), ranks=ranks)
        status: int = options.run(options, console)
    except GpunnError as error:
        status = 1 if isinstance(error, MemoryError | DivergenceError) else 2
        return end(ranks, f"gpunn: error: {error}", status)
    except MemoryError:
        return end(ranks, "gpunn: error: out of memory; try a smaller --hidden or --batch-size", 1)
    except KeyboardInterrupt:
        folder = getattr(options, "checkpoint", None)
        kept = "nothing was saved" if folder is None else f"the checkpoints in {folder} are whole"
        return end(ranks, f"gpunn: ended by Ctrl-C; {kept}", 130)
    except BrokenPipeError:
        return 1  # whoever read the result, such as `head`, has had enough
    return status


def _parse(arguments: Sequence[str]) -> Namespace | None:
    """Return what was asked for; None if nothing was, which has been answered with the help."""
    parser = make_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return None
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    options.typed = shlex.join(["gpunn", *arguments])
    return options
