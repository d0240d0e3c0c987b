"""The estimators' samples on their way to the network: dense, sparse, or on the device already.

Dense samples go the way of all others (`gpunn.training.loaders`). Sparse ones stay in CSR format on
the host and are taken a batch at a time, as they are where the device can multiply by them and they
are mostly zeros, and else written out, so that there is never more of them in full than a batch.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Array, Backend, is_on_gpu
from gpunn.backends.sparse_rows import SparseRows
from gpunn.data.matrices import row_blocks
from gpunn.network import Network
from gpunn.training.loaders import Batch, Loader, make_loader

FEW_NUMBERS = 0.1
"""Sparse products pay as long as less than this share of the inputs are not zero."""


def is_sparse(X: object) -> bool:
    """Say whether these samples are one of SciPy's sparse matrices or arrays."""
    return hasattr(X, "indptr")


MANY_ROWS = 2048
"""Rows of a sparse product: each reads all weights once, however few the numbers in the rows."""


class SparseLoader(Loader):
    """Samples in CSR format on the host, whose targets live on the device."""

    def __init__(self, network: Network, inputs: Any, targets: Array, n_rows: int) -> None:
        super().__init__(inputs.shape[0], n_rows)
        self._network = network
        self._inputs = inputs.astype(network.dtype, copy=False)
        self._targets = network.as_matrix(targets)
        self._as_they_are = _stay_sparse(network, inputs)

    def batches(self, order: NDArray[np.int64] | None = None, first: int = 0) -> Iterator[Batch]:
        backend, targets = self._network.backend, self._targets
        device_order = None if order is None else backend.asarray(order)
        gathered = backend.empty((self.n_rows, targets.shape[1]), targets.dtype)
        for rows in row_blocks(self.n_samples, self.n_rows, first):
            if order is None or device_order is None:
                yield Batch(rows, self._batch(self._inputs[rows]), targets[rows])
                continue
            out = gathered[: rows.stop - rows.start]
            backend.take_rows(targets, device_order[rows], out)
            yield Batch(rows, self._batch(self._inputs[order[rows]]), out)

    def _batch(self, rows: Any) -> Any:
        if self._as_they_are:
            return SparseRows(rows)
        return self._network.backend.asarray(rows.toarray())


def _stay_sparse(network: Network, X: Any) -> bool:
    few = bool(X.nnz < FEW_NUMBERS * max(1, X.shape[0] * X.shape[1]))
    return few and network.backend.multiplies_sparse_rows


def rows_at_once(network: Network, X: Any) -> int:
    """Return how many of the samples go forward at a time, so that what they become fits."""
    n_rows = network.rows_at_once
    if is_sparse(X) and _stay_sparse(network, X):
        n_rows = max(n_rows, MANY_ROWS)
    return min(int(X.shape[0]), n_rows)


def place(network: Network, X: Any, targets: NDArray[Any], n_rows: int, reserved: int) -> Loader:
    """Return samples for a network to go through; see `gpunn.training.loaders.make_loader`."""
    if is_sparse(X):
        return SparseLoader(network, X, targets, n_rows)
    inputs, host_targets = network.check_samples(X, targets)
    return make_loader(network, inputs, host_targets, n_rows, reserved)


def take(backend: Backend, X: Any, indices: NDArray[np.int64]) -> Any:
    """Return some rows of samples, where the samples are."""
    if not is_on_gpu(X):
        return X[indices]
    out = backend.empty((len(indices), X.shape[1]), X.dtype)
    backend.take_rows(backend.contiguous(X, X.dtype), backend.asarray(indices), out)
    return out


def predict(network: Network, X: Any) -> NDArray[Any]:
    """Return the network's outputs (n, n_L) for samples of any of the three kinds."""
    if not is_sparse(X):
        return network.predict(X)
    n_rows = rows_at_once(network, X)
    nothing = np.zeros((X.shape[0], 1), network.dtype)
    outputs = network.backend.empty((n_rows, network.n_outputs), network.dtype)
    host = np.empty((X.shape[0], network.n_outputs), network.dtype)
    for rows, inputs, _ in SparseLoader(network, X, nothing, n_rows).batches():
        out = outputs[: inputs.shape[0]]
        network.write_outputs(inputs, out)
        host[rows] = network.backend.to_host(out)
    return host
