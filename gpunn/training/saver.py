"""When a training's checkpoints are due, and how it goes back to them."""

from gpunn.errors import OutputError, ParameterError
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.state import CUT_SHORT, SMALLEST_FACTOR, TrainingState


class CheckpointSaver:
    """Makes a training's checkpoints when they are due, and goes back to them.

    Parameters
    ----------
    state : TrainingState
        How far the training has come.
    checkpoints : Checkpoints
        Where they are kept, and how often one is made.
    """

    def __init__(self, state: TrainingState, checkpoints: Checkpoints) -> None:
        self.state, self.checkpoints = state, checkpoints
        self.period = checkpoints.period
        self._notice = state.plan.notice
        self._start_counting()

    def begin(self) -> None:
        """Go on from the newest checkpoint if that is wished, else make the first one."""
        if self.state.plan.network.sharing.ranks.is_first:
            self.checkpoints.remove_unfinished()
        if self.checkpoints.resume and self._go_back():
            return
        if self.checkpoints.resume:
            self._notice(
                f"{self.checkpoints.folder} has no checkpoints: training from the beginning"
            )
        content = self.state.snapshot()
        if content is None:
            raise ParameterError(
                "the network's weights are not finite, so there is nothing to save: begin with "
                "other weights"
            )
        self.checkpoints.write(content)

    def after_steps(self, n_steps: int) -> None:
        """Make a checkpoint if it is time, or if a signal has ended the training."""
        self._counts["steps"] += n_steps
        if self._is_due() or self.state.history.stopped in CUT_SHORT:
            self._keep()

    def after_epoch(self) -> None:
        """Make a checkpoint if it is time, or if the training has ended."""
        state = self.state
        self._counts["epochs"] += 1
        last = state.progress.epoch == state.plan.n_epochs
        ended = state.history.stopped != "finished" or last
        if (self._is_due() or ended) and not self._keep() and ended:
            # The last steps do not show in any epoch's loss, but in the weights.
            state.history.stopped = "diverged"

    def halve_rate(self) -> bool:
        """Go back and halve the step size, if that can be done; say whether it was."""
        factor = self.state.progress.rate_factor / 2
        if factor < SMALLEST_FACTOR or not self._go_back():
            return False
        self.state.progress.rate_factor = factor
        self._notice(f"the training diverged: continuing with {factor:g} times its learning rate")
        self._keep()
        return True

    def _start_counting(self) -> None:
        self._counts = {"steps": 0, "epochs": 0}
        self._since = self.state.pulse.now()

    def _is_due(self) -> bool:
        passed = {"seconds": self.state.pulse.now() - self._since, **self._counts}
        return passed[self.period.unit] >= self.period.number

    def _keep(self) -> bool:
        """Make a checkpoint unless the state is not finite, and say whether it was.

        A full disk does not end a training.
        """
        content = self.state.snapshot()
        if content is not None:
            try:
                path = self.checkpoints.write(content)
            except OutputError as error:
                self._notice(f"no checkpoint: {error}; the training continues")
            else:
                if self.state.history.stopped in CUT_SHORT:
                    self._notice(f"checkpoint: {path}")
        self._start_counting()
        return content is not None

    def _go_back(self) -> bool:
        sharing = self.state.plan.network.sharing
        path = self.checkpoints.restore(self.state.restore, self._notice, sharing)
        if path is None:
            return False
        progress = self.state.progress
        within = f" and {progress.first:,} samples" if progress.first else ""
        self._notice(f"continuing from {path}, after {progress.epoch} epochs{within}")
        for callback in self.state.plan.callbacks:
            callback.on_resume(progress.n_samples_trained)
        return True
