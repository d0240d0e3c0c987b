"""Training a network: arguments checked, samples placed, and then the loop.

Each epoch draws an order of the samples on the host, and each step takes its batch from
`gpunn.training.loaders`, goes forward and back, and updates, all on the device; the training error
is read once an epoch (`gpunn.training.loop`).

Ctrl-C (SIGINT) and SIGTERM end the training after the current step, in good order; a second signal
does at once what it does anywhere else.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.errors import ConcurrencyError, GpunnError, ParameterError
from gpunn.initializers import make_generator
from gpunn.network import Network
from gpunn.network.names import warn_of_missing_names
from gpunn.optimizers import (
    SGD,
    Optimizer,
    Schedule,
    constant,
    default_learning_rate,
    get_optimizer,
)
from gpunn.parallel.alike import array_fingerprint, check_same
from gpunn.parallel.order import in_order
from gpunn.ranges import check_count
from gpunn.training.batches import BatchTrainer
from gpunn.training.callbacks import Callback, EarlyStopping, History, check_callbacks
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.data_parallel import DataTrainer, NetworkOfGradients
from gpunn.training.draws import GeneratorDraws
from gpunn.training.evaluation import Holdout
from gpunn.training.loaders import Given, Loader, check_given, loader_of_given
from gpunn.training.loop import Loop
from gpunn.training.memory import check_memory
from gpunn.training.online import LARGEST_STEP, OnlineTrainer, rows_in_block
from gpunn.training.plan import Plan
from gpunn.training.recorded import recorded
from gpunn.training.steps import StepTrainer, check_dropout
from gpunn.training.stopping import Patience
from gpunn.training.streams import Stream
from gpunn.training.trainer import Trainer
from gpunn.training.weights import ClassWeight, SampleWeights, weights_of

ON_DIVERGENCE = ("stop", "halve-lr")

_IN_USE: set[int] = set()
"""The optimizers that are training a network."""
_LOCK = threading.Lock()


def fit(
    network: Network,
    X: ArrayLike | Stream,
    y: ArrayLike | None = None,
    *,
    epochs: int,
    batch_size: int = 32,
    optimizer: str | Optimizer = "sgd",
    learning_rate: float | Schedule | None = None,
    validation_data: tuple[ArrayLike, ArrayLike] | Stream | None = None,
    early_stopping: EarlyStopping | None = None,
    shuffle: bool = True,
    seed: int | Sequence[int] | np.random.Generator = 0,
    callbacks: Sequence[Callback] = (),
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight = None,
    dropout: float = 0.0,
    checkpoints: Checkpoints | None = None,
    on_divergence: str = "stop",
) -> History:
    """Change a network in place by training it.

    Parameters
    ----------
    network : Network
        The network to train.
    X : array_like, shape (n, n_0), or Stream
        Inputs, scaled, on the host or already on the network's device: an array, a data frame of
        pandas or polars, a PyArrow table, a CPU tensor of PyTorch or lists. The column names of a
        data frame become `Network.feature_names`. If the inputs do not fit on the device,
        each epoch copies them there chunk by chunk, with the same result. So a mapped file
        (`numpy.load` with ``mmap_mode="r"``, or `Scaling.rows` of it) may be larger than the
        memory. A `Stream` gives inputs and targets together, in chunks.
    y : array_like, shape (n,) or (n, n_L), optional
        Class numbers 0 to n_L - 1, or targets. Leave it out if X is a `Stream`.
    epochs : int
        How many times to go through the samples.
    batch_size : int
        Number of samples in a step; 1 trains on one sample at a time. The last batch of an epoch
        may be smaller; each step averages over its own samples.
    optimizer : {"sgd", "momentum", "nesterov", "adam"} or Optimizer
        The rule that turns gradients into steps.
    learning_rate : float or Schedule, optional
        The step size, or a schedule that changes it over time. The default is the usual one of the
        optimizer, `Optimizer.default_learning_rate`: 0.1 for "sgd", 0.01 for "momentum" and
        "nesterov", 0.001 for "adam".
    validation_data : tuple of (X, y) or Stream, optional
        Samples on which loss and accuracy are measured after each epoch. A copy of the best weights
        so far then stays on the device.
    early_stopping : EarlyStopping, optional
        When to end early; the best weights are then restored. Needs `validation_data`.
    shuffle : bool
        Whether each epoch uses a new random order of the samples; every order is equally likely. A
        `Stream` is shuffled block by block, with `Stream.buffer_rows` samples in a block.
    seed : int, sequence of int, or numpy.random.Generator
        Seed of the random orders, or the generator that draws them.
    callbacks : sequence of Callback
        Objects whose methods are called during the training.
    sample_weight : array_like, shape (n,), optional
        The loss of each sample, and so its part of the gradient, is multiplied by its weight. A
        step still divides by the number of its samples, not by the sum of their weights.
    class_weight : dict of int to float or "balanced", optional
        Weight of each class number, multiplied with the weights of its samples. "balanced" gives
        each class the inverse of its frequency, scaled to a mean weight of 1.
    dropout : float
        Probability that a hidden unit is left out of a step, in [0, 1).
    checkpoints : Checkpoints, optional
        Where to save the state of the training, how often, and whether to continue from there. On
        the CPU, a training that continues ends with the same bits as one that was never
        interrupted.
    on_divergence : {"stop", "halve-lr"}
        What to do at the end of an epoch whose loss is NaN or infinite: end, or go back to the
        newest checkpoint and continue with half the step size, at most ten times.

    Returns
    -------
    History
        The results of the training. After a signal, `History.stopped` is "interrupted" or
        "terminated", and the network has the best weights so far if there is validation data, else
        the last ones. If the loss became NaN or infinite, it is "diverged"; without validation
        data, the network is then useless.

    Raises
    ------
    ShapeError
        If the samples do not fit the network.
    DataError
        If they are not finite numbers, or a class number is outside 0 to n_L - 1, or columns have
        other names or another order than `Network.feature_names`.
    ParameterError
        If another argument is not allowed, or there is no `learning_rate` and the optimizer has no
        default; or the checkpoints belong to a training with other data, another network or other
        settings, and the message names the differences.
    ModelFileError
        If there are checkpoints to continue from, but all are damaged.
    OutputError
        If the first checkpoint cannot be written.
    OutOfMemoryError
        If the device has too little memory. Then nothing has been changed.
    ConcurrencyError
        If another thread is training the network, or another training uses the optimizer.

    Warns
    -----
    UserWarning
        If inputs have no names, but the network or the other inputs have.
    """
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    _check_types(early_stopping, validation_data, callbacks, checkpoints)
    _check_options(early_stopping, validation_data, checkpoints, on_divergence)
    check_dropout(network, dropout)
    if not isinstance(optimizer, Optimizer):
        optimizer = get_optimizer(optimizer)
    generator = make_generator(seed)
    schedule = _schedule(learning_rate, optimizer)
    ranks = network.sharing.ranks

    def checked() -> tuple[Given, Given | None, SampleWeights | None]:
        given = check_given(network, X, y, network.feature_names)
        held_out = _held_out(network, validation_data, network.feature_names or given.names)
        return given, held_out, weights_of(given, sample_weight, class_weight, network.dtype)

    given, held_out, weights = ranks.together(checked)
    names = network.feature_names or given.names
    for part in (given, held_out):
        if part is not None:
            warn_of_missing_names(names, part.names)
    batch_size = min(int(batch_size), given.n_samples)
    way = _Way(network, optimizer, given.n_samples, batch_size, weights, float(dropout))
    n_validated = 0 if held_out is None else min(held_out.n_samples, network.rows_at_once)
    rule, n_rows = optimizer, max(way.step_rows, n_validated)
    reserved = way.call_bytes + ranks.together(
        lambda: check_memory(
            network, rule, batch_size=batch_size, n_rows=n_rows, keeps_best=held_out is not None
        )
    )
    loader = loader_of_given(network, given, way.n_rows, reserved)
    holdout = None
    if held_out is not None:
        holdout = Holdout(loader_of_given(network, held_out, n_validated, reserved))
    fingerprint: dict[str, Any] = {}
    if checkpoints is not None or ranks.size > 1:
        fingerprint = _fingerprint(network, generator, given, held_out) | {
            "epochs": int(epochs),
            "batch size": batch_size,
            "optimizer": _optimizer_text(optimizer),
            "learning rates": [schedule(t) for t in np.linspace(0, epochs, 9).tolist()],
            "shuffle": bool(shuffle),
            "early stopping": repr(early_stopping),
            "on divergence": on_divergence,
            **way.fingerprint(),
            **({} if names is None else {"feature names": names}),
        }
        check_same(ranks, "the training", fingerprint)
        check_same(ranks, "the network", _common_fingerprints(network))
    if checkpoints is not None:
        fingerprint["first weights SHA-256"] = weights_fingerprint(network)
    trainer = way.make_trainer(loader, schedule)
    plan = Plan(
        network,
        loader,
        trainer,
        optimizer,
        n_epochs=epochs,
        batch_size=batch_size,
        learning_rate=schedule,
        draws=GeneratorDraws(generator),
        shuffle=shuffle,
        policy=Patience(early_stopping),
        holdout=holdout,
        callbacks=callbacks,
        checkpoints=checkpoints,
        fingerprint=fingerprint,
        halve_rate=on_divergence == "halve-lr",
    )
    with network.training(), _sole_use(optimizer), _named(network, names):
        way.prepare()
        return Loop(plan).run()


@contextmanager
def _sole_use(optimizer: Optimizer) -> Iterator[None]:
    """Keep an optimizer, which remembers the network it is prepared for, to one training."""
    with _LOCK:
        if id(optimizer) in _IN_USE:
            raise ConcurrencyError(
                "this optimizer is in use in another training: give each training one of its own"
            )
        _IN_USE.add(id(optimizer))
    try:
        yield
    finally:
        _IN_USE.remove(id(optimizer))


@contextmanager
def _named(network: Network, names: list[str] | None) -> Iterator[None]:
    """Give a network names in place, which it keeps unless its training is refused."""
    before, network.feature_names = network.feature_names, names
    try:
        yield
    except GpunnError:
        network.feature_names = before
        raise


def _schedule(learning_rate: float | Schedule | None, optimizer: Optimizer) -> Schedule:
    if isinstance(learning_rate, Schedule):
        return learning_rate
    return constant(default_learning_rate(optimizer) if learning_rate is None else learning_rate)


def _check_options(
    early_stopping: EarlyStopping | None,
    validation_data: Any,
    checkpoints: Checkpoints | None,
    on_divergence: str,
) -> None:
    if early_stopping is not None and validation_data is None:
        raise ParameterError("early_stopping needs validation_data")
    if on_divergence not in ON_DIVERGENCE:
        raise ParameterError(
            f"on_divergence must be one of {', '.join(ON_DIVERGENCE)}, got {on_divergence!r}"
        )
    if on_divergence == "halve-lr" and checkpoints is None:
        raise ParameterError("on_divergence 'halve-lr' needs checkpoints to go back to")
    if checkpoints is not None:
        checkpoints.check()


def _check_types(
    early_stopping: Any, validation_data: Any, callbacks: Any, checkpoints: Any
) -> None:
    for name, value, kind in (
        ("early_stopping", early_stopping, EarlyStopping),
        ("checkpoints", checkpoints, Checkpoints),
    ):
        if value is not None and not isinstance(value, kind):
            raise ParameterError(f"{name} must be a gpunn.{kind.__name__}, got {value!r:.60}")
    pair = isinstance(validation_data, tuple | list) and len(validation_data) == 2
    if validation_data is not None and not pair and not isinstance(validation_data, Stream):
        raise ParameterError(
            f"validation_data must be a pair (X, y) or a Stream, got {validation_data!r:.60}"
        )
    check_callbacks(callbacks)


def _held_out(network: Network, validation_data: Any, names: list[str] | None) -> Given | None:
    if validation_data is None:
        return None
    if isinstance(validation_data, Stream):
        return check_given(network, validation_data, None, names)
    X, y = validation_data
    return check_given(network, X, y, names)


class _Way:
    """How the steps of a training are done: one by one, or many at a time in a fused way.

    Weights and dropout need single steps. Blocks are exact for plain gradient descent alone: other
    rules need each step's gradient.

    Attributes
    ----------
    step_rows : int
        Samples that go through the network at a time.
    n_rows : int
        Samples that the loader brings at a time.
    call_bytes : int
        What these take, if they are more than a step's.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        n_samples: int,
        batch_size: int,
        weights: SampleWeights | None,
        dropout_rate: float,
    ) -> None:
        self._network, self._optimizer, self._n_samples = network, optimizer, n_samples
        self._batch_size, self._weights, self._dropout_rate = batch_size, weights, dropout_rate
        # The fused ways know no rounded samples.
        fusible = weights is None and not dropout_rate and network.work_dtype == network.dtype
        self._launches = None
        if fusible and batch_size > 1 and network.sharing.kind == "none":
            self._launches = BatchTrainer.make(network, optimizer, batch_size)
        plain = fusible and type(optimizer) is SGD and optimizer.weight_decay == 0
        # Where steps are recorded, a block of steps would only make larger recordings.
        most = 1 if network.backend.records_steps else LARGEST_STEP
        self._by_samples = network.sharing.kind == "data"
        self._in_blocks = plain and self._launches is None and batch_size <= most
        self._in_blocks = self._in_blocks and not self._by_samples
        self.n_rows = rows_in_block(network, batch_size) if self._in_blocks else batch_size
        self.step_rows, self.call_bytes = self.n_rows, 0
        if self._launches is not None:
            self.n_rows, self.call_bytes = self._launches.rows_in_call, self._launches.call_bytes
        if self._by_samples:
            # The gradients, and those of the other ranks.
            self.call_bytes = 2 * network.n_held * network.dtype.itemsize

    def prepare(self) -> None:
        """Let the optimizer prepare for the network."""
        network: Any = self._network
        if self._by_samples:
            network = NetworkOfGradients(network)
        self._optimizer.prepare(network)

    def make_trainer(self, loader: Loader, schedule: Schedule) -> Trainer:
        """Return what does the steps."""
        if self._launches is not None:
            return self._launches
        if self._in_blocks:
            online = OnlineTrainer(
                self._network, self._batch_size, has_one_rate=schedule.is_constant
            )
            return online if self._network.sharing.is_split else recorded(online, loader)
        if self._by_samples:
            return DataTrainer(
                self._network,
                self._optimizer,
                self._n_samples,
                self._batch_size,
                weights=self._weights,
                dropout_rate=self._dropout_rate,
            )
        steps = StepTrainer(
            self._network,
            self._optimizer,
            self._n_samples,
            self._batch_size,
            weights=self._weights,
            dropout_rate=self._dropout_rate,
        )
        # What is recorded holds no way to other ranks.
        return steps if self._network.sharing.is_split else recorded(steps, loader)

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells it from a training without weights and dropout, in plain values."""
        found: dict[str, Any] = {}
        if self._dropout_rate:
            found["dropout"] = self._dropout_rate
        if self._weights is not None:
            column = self._weights.values[:, np.newaxis]
            found["sample weights"] = array_fingerprint(self._network.backend, column)
        return found


def _fingerprint(
    network: Network,
    generator: np.random.Generator,
    given: Given,
    held_out: Given | None,
) -> dict[str, Any]:
    """Return in plain values what tells networks, random generators and data from others."""
    backend = network.backend
    data = given.fingerprints(backend)
    if held_out is not None:
        data |= held_out.fingerprints(backend, "validation ")
    state = repr(generator.bit_generator.state).encode()
    return {
        "network": type(network).__name__,
        **network.header()["architecture"],
        "precision": backend.precision,
        **data,
        "random generator": hashlib.sha256(state).hexdigest()[:16],
    }


def _common_fingerprints(network: Network) -> dict[str, Any]:
    """Return what tells the parameters that all ranks have from others."""
    if network.sharing.ranks.size == 1:
        return {}
    backend, sharing = network.backend, network.sharing
    return {
        name: array_fingerprint(backend, array.reshape((array.shape[0], -1)))
        for name, array in network.device_parameters().items()
        if sharing.piece(name, array.shape).axis is None
    }


def weights_fingerprint(network: Network) -> str:
    """Return a hash of a network's parameters, the same on any number of ranks that share it."""
    digest, sharing, backend = hashlib.sha256(), network.sharing, network.backend
    for name, array in network.device_parameters().items():
        for part in in_order(sharing, name, array, backend):
            digest.update(part.reshape(-1).view(np.uint8).data)
    return sharing.ranks.same(digest.hexdigest()[:16])


def _optimizer_text(optimizer: Optimizer) -> str:
    """Return what tells an optimizer from others: its kind, and the numbers it was made with."""
    kind = type(optimizer)
    if "__dataclass_fields__" in vars(kind):
        return repr(optimizer)
    # A class over a dataclass has its repr, which says nothing of what the class adds.
    numbers = {
        name: value
        for name, value in sorted(vars(optimizer).items())
        if not name.startswith("_") and isinstance(value, bool | int | float | str)
    }
    numbers.pop("n_steps", None)
    return f"{kind.__name__} {numbers}" if numbers else kind.__name__
