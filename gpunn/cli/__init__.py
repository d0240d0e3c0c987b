"""The command line."""

from gpunn.cli.parser import main, make_parser

__all__ = ["main", "make_parser"]
