"""A real terminal for tests: a pseudo-terminal, and an emulator that knows what it shows."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

import pyte

ROWS = 40
PATIENCE = 120
"""Seconds to wait for something that must come; a busy machine is no failure."""


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
        self._status = None
        self._pid, self._file = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            size = struct.pack("HHHH", ROWS, columns, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            os.execvpe(command[0], command, {**os.environ, "TERM": "xterm"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._file)

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
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status
