"""Completion by the shell of what is typed: scripts made by shtab, the extra `completion`."""

from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator

from gpunn.errors import MissingPackageError

SHELLS = ("bash", "zsh", "fish", "tcsh")
"""Those of shtab that are tested."""


def completion_script(parser: ArgumentParser, shell: str) -> str:
    """Return a shell's script, which knows all commands and options, and asks nobody any more.

    Raises
    ------
    MissingPackageError
        If shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise MissingPackageError(
            "completion needs shtab, which is not installed: pip install 'gpunn[completion]'"
        ) from error
    for action in _actions(parser):
        metavar = str(action.metavar)
        if metavar.startswith(("FILE", "MODEL", "DATA")):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """Yield the arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
