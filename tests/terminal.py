"""A real terminal for tests: a pseudo-terminal, and an emulator that knows what it shows."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pyte

ROWS = 40
PATIENCE = 120
"""Seconds to wait for something that must come; a busy machine is no failure."""


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the one that Ctrl-C is typed at, which a new process must do for itself."""


class Terminal:
    """A command in a terminal of some width; ended at the latest when the block is left.

    Parameters
    ----------
    command : list of str
        What runs in it.
    columns : int
        How wide it is.
    folder : path-like
        Where the command runs.
    """

    def __init__(self, command, columns, folder):
        self.screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._file, far_end = pty.openpty()
        self.resize(columns)
        self._process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            stdin=far_end, stdout=far_end, stderr=far_end, cwd=folder, start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(far_end)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._file)
        self._process.kill()
        self._process.wait()

    @property
    def lines(self):
        """What the screen shows, without the empty lines."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def read(self, seconds=0.1):
        """Show what the command writes next; return False when it has ended."""
        if not select.select([self._file], [], [], seconds)[0]:
            return True
        try:
            written = os.read(self._file, 1 << 16)
        except OSError:  # Linux says so that nobody has the terminal open any more
            written = b""
        self._stream.feed(written)
        return bool(written)

    def wait_for(self, is_shown):
        """Read until the screen shows something, and return its lines."""
        end = time.monotonic() + PATIENCE
        while not is_shown(self.lines):
            assert self.read(), f"the command ended with {self.lines}"
            assert time.monotonic() < end, f"still {self.lines}"
        return self.lines

    def resize(self, columns):
        """Make it wider or narrower; what is there is cut off, as in xterm."""
        self.screen.resize(ROWS, columns)
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))

    def press(self, key):
        """Press a key."""
        os.write(self._file, key)

    def finish(self):
        """Read to the end, and return the exit status."""
        end = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < end, f"still {self.lines}"
        return self._process.wait()
