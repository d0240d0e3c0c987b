"""Training a network: arguments checked, samples placed, and then the loop.

Each epoch draws an order of the samples on the host, and each step takes its batch from
`gpunn.training.loaders`, goes forward and back, and updates, all on the device; the training error
is read once an epoch (`gpunn.training.loop`).

Ctrl-C (SIGINT) and SIGTERM end the training after the current step, in good order; a second signal
does at once what it does anywhere else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backends.base import Backend
from gpunn.errors import ParameterError
from gpunn.initializers import make_generator
from gpunn.network import Network
from gpunn.optimizers import SGD, Optimizer, Schedule, constant, get_optimizer
from gpunn.training.batches import BatchTrainer
from gpunn.training.callbacks import Callback, EarlyStopping, History, check_count
from gpunn.training.checkpoints import Checkpoints, fingerprint
from gpunn.training.loaders import Given, check_given, loader_of_given
from gpunn.training.loop import Loop, Plan
from gpunn.training.memory import check_memory
from gpunn.training.online import LARGEST_STEP, OnlineTrainer, rows_in_block
from gpunn.training.streams import Stream

ON_DIVERGENCE = ("stop", "halve-lr")


def fit(
    network: Network,
    X: ArrayLike | Stream,
    y: ArrayLike | None = None,
    *,
    epochs: int,
    batch_size: int = 32,
    optimizer: str | Optimizer = "sgd",
    learning_rate: float | Schedule,
    validation_data: tuple[ArrayLike, ArrayLike] | Stream | None = None,
    early_stopping: EarlyStopping | None = None,
    shuffle: bool = True,
    seed: int | Sequence[int] | np.random.Generator = 0,
    callbacks: Sequence[Callback] = (),
    checkpoints: Checkpoints | None = None,
    on_divergence: str = "stop",
) -> History:
    """Change a network in place by training it.

    Parameters
    ----------
    network : Network
        The network to train.
    X : array_like, shape (n, n_0), or Stream
        Inputs, scaled, on the host or already on the network's device. If they do not fit there,
        they are brought there piece by piece in each epoch, with the same result; so a mapped file
        (`numpy.load` with ``mmap_mode="r"``, `Scaling.rows` of it) may be larger than the memory.
        Or samples that come in chunks, inputs and targets together.
    y : array_like, shape (n,) or (n, n_L), optional
        Class numbers 0 to n_L - 1 or targets; to be left out with a stream.
    epochs : int
        How many times to go through the samples.
    batch_size : int
        Samples in a step; 1 learns from one sample at a time. The last batch of an epoch may be
        smaller; steps always average over the samples they have.
    optimizer : {"sgd", "momentum", "nesterov", "adam"} or Optimizer
        The rule that turns gradients into steps.
    learning_rate : float or Schedule
        The step size, or how it goes over time.
    validation_data : tuple of (X, y) or Stream, optional
        Samples to measure loss and accuracy on after each epoch. The best weights so far are then
        kept in a copy on the device.
    early_stopping : EarlyStopping, optional
        Whether to end early and restore the best weights; needs `validation_data`.
    shuffle : bool
        Whether each epoch goes through the samples in a new order, in which each is as likely to
        be anywhere. A stream is shuffled block by block, of `Stream.buffer_rows` samples each.
    seed : int, sequence of int, or numpy.random.Generator
        Where the orders come from.
    callbacks : sequence of Callback
        Who is told how it goes.
    checkpoints : Checkpoints, optional
        Where to keep the training's state, how often, and whether to go on from there. On the CPU
        a training that goes on ends with the same bits as one that was never interrupted.
    on_divergence : {"stop", "halve-lr"}
        What to do at the end of an epoch whose error is NaN or infinite: end, or go back to the
        newest checkpoint and go on with half the step size, ten times at most.

    Returns
    -------
    History
        What happened. After a signal, `History.stopped` is "interrupted" or "terminated", and the
        network has the best weights so far if there is validation data, else the last ones. It is
        "diverged" if the error is no longer a number; without validation data the network is then
        of no use.

    Raises
    ------
    ShapeError
        If the samples do not fit the network.
    DataError
        If they are not finite, or a class is not one of the network's.
    ParameterError
        If another argument is not one of those allowed, or the checkpoints are of a training with
        other data, another network or other settings; the message names the differences.
    ModelFileError
        If there are checkpoints to go on from, but none is whole.
    OutputError
        If the first checkpoint cannot be written.
    OutOfMemoryError
        If the device has too little memory for it. Nothing has been changed then.
    ConcurrencyError
        If another thread is training the network.
    """
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    if early_stopping is not None and validation_data is None:
        raise ParameterError("early_stopping needs validation_data to watch")
    if on_divergence not in ON_DIVERGENCE:
        raise ParameterError(
            f"on_divergence must be one of {', '.join(ON_DIVERGENCE)}, got {on_divergence!r}"
        )
    if on_divergence == "halve-lr" and checkpoints is None:
        raise ParameterError("on_divergence 'halve-lr' needs checkpoints to go back to")
    if checkpoints is not None:
        checkpoints.check()
    if not isinstance(optimizer, Optimizer):
        optimizer = get_optimizer(optimizer)
    generator = make_generator(seed)
    schedule = learning_rate if isinstance(learning_rate, Schedule) else constant(learning_rate)
    given, held_out = check_given(network, X, y), None
    if isinstance(validation_data, Stream):
        held_out = check_given(network, validation_data, None)
    elif validation_data is not None:
        held_out = check_given(network, *validation_data)
    batch_size = min(int(batch_size), given.n_samples)
    launches = None if batch_size == 1 else BatchTrainer.make(network, optimizer, batch_size)
    # Blocks are exact for plain gradient descent alone: other rules need each step's gradient.
    plain = isinstance(optimizer, SGD) and optimizer.weight_decay == 0
    in_blocks = launches is None and plain and batch_size <= LARGEST_STEP
    n_rows = rows_in_block(batch_size) if in_blocks else batch_size
    n_validated = 0 if held_out is None else min(held_out.n_samples, network.rows_at_once)
    reserved = check_memory(
        network,
        optimizer,
        batch_size=batch_size,
        n_rows=max(n_rows, n_validated),
        keeps_best=held_out is not None,
    )
    if launches is not None:
        n_rows = launches.rows_in_call
        reserved += launches.call_bytes
    samples = loader_of_given(network, given, n_rows, reserved)
    validation = None
    if held_out is not None:
        validation = loader_of_given(network, held_out, n_validated, reserved)
    trainer = OnlineTrainer(network, batch_size) if in_blocks else launches
    made_for = {}
    if checkpoints is not None:
        made_for = _fingerprints(network, generator, given, held_out) | {
            "epochs": int(epochs),
            "batch size": batch_size,
            "optimizer": repr(optimizer) if is_dataclass(optimizer) else type(optimizer).__name__,
            "learning rates": [schedule(t) for t in np.linspace(0, epochs, 9).tolist()],
            "shuffle": bool(shuffle),
            "early stopping": repr(early_stopping),
            "on divergence": on_divergence,
        }
    loop = Loop(
        Plan(
            network=network,
            samples=samples,
            trainer=trainer,
            n_epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            schedule=schedule,
            shuffle=shuffle,
            generator=generator,
            validation=validation,
            early_stopping=early_stopping,
            callbacks=callbacks,
            checkpoints=checkpoints,
            made_for=made_for,
            halve_rate=on_divergence == "halve-lr",
        )
    )
    with network.training():
        return loop.run()


def _fingerprints(
    network: Network,
    generator: np.random.Generator,
    given: Given,
    held_out: Given | None,
) -> dict[str, Any]:
    """Return in plain values what tells networks, random generators and data from others."""
    backend = network.backend
    data = _data_fingerprints(backend, given, "")
    if held_out is not None:
        data |= _data_fingerprints(backend, held_out, "validation ")
    first = hashlib.sha256()
    for array in network.device_parameters().values():
        first.update(np.ascontiguousarray(backend.to_host(array)).reshape(-1).view(np.uint8).data)
    state = repr(generator.bit_generator.state).encode()
    return {
        "network": type(network).__name__,
        **network.header()["architecture"],
        "precision": backend.precision,
        **data,
        "first weights SHA-256": first.hexdigest()[:16],
        "random generator": hashlib.sha256(state).hexdigest()[:16],
    }


def _data_fingerprints(backend: Backend, given: Given, prefix: str) -> dict[str, Any]:
    if given.stream is None:
        return {
            f"{prefix}inputs": fingerprint(backend, given.inputs),
            f"{prefix}targets": fingerprint(backend, given.targets),
        }
    return {
        f"{prefix}samples": given.n_samples,
        f"{prefix}stream": given.stream.fingerprint,
        f"{prefix}buffer rows": given.stream.stream.buffer_rows,
    }
