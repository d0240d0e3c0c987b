"""A training that ends as if its process had been killed, without one."""

import gpunn


class Killed(Exception):  # noqa: N818
    """Stands for a process that ends at once."""


class Kill(gpunn.Callback):
    """Ends a training after some steps."""

    def __init__(self, n_steps):
        self.left = n_steps

    def on_step_end(self, n_samples):
        self.left -= 1
        if not self.left:
            raise Killed
