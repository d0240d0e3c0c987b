"""What a fitted estimator is and does: its network on a device, predictions, and files."""

import os
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Self

from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from gpunn.estimators.data import check_inputs
from gpunn.estimators.engine import Engine
from gpunn.estimators.files import load_estimator, save_estimator
from gpunn.estimators.samples import predict
from gpunn.network import Architecture, Network

HIDDEN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
"""gpunn's names of the hidden layers' activations."""

OUTPUT = {
    "softmax": ("softmax", "log_loss"),
    "logistic": ("sigmoid", "binary_log_loss"),
    "identity": ("identity", "squared_error"),
    "exp": ("exp", "poisson"),
}
"""gpunn's names of the output activations, and of the loss function of each."""


class FittedPerceptron(BaseEstimator):  # type: ignore[misc]
    """The numbers of a fitted estimator, and the network that computes with them."""

    coefs_: list[NDArray[Any]]
    intercepts_: list[NDArray[Any]]
    out_activation_: str
    activation: str
    device: str

    @abstractmethod
    def _decode(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return predictions for outputs."""

    def _own_engine(self) -> Engine:
        # Not made with the estimator, whose constructor only keeps its arguments, and perhaps not
        # in a fit either: coefs_ and what goes with them may have been given from elsewhere.
        if not hasattr(self, "_engine"):
            self._engine = Engine()
        return self._engine

    @property
    def architecture_(self) -> Architecture:
        """What the fitted network is, apart from its numbers."""
        sizes = (*(coefs.shape[0] for coefs in self.coefs_), self.coefs_[-1].shape[1])
        output, loss = OUTPUT[self.out_activation_]
        dtype = self.coefs_[0].dtype.name
        return Architecture(sizes, HIDDEN[self.activation], output, loss, dtype=dtype)

    def _network(self, dtype: str | None = None) -> Network:
        architecture = self.architecture_
        if dtype is not None:
            architecture = replace(architecture, dtype=dtype)
        return self._own_engine().network_to_train(
            architecture, self.coefs_, self.intercepts_, self.device
        )

    # Predicting.

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most likely class, the labels that are more likely than not, or the numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix, CuPy array} of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The predictions, on the host.
        """
        return self._decode(self._outputs(X))

    def _outputs(self, X: Any) -> NDArray[Any]:
        """Return the outputs (n, n_L) for some samples."""
        check_is_fitted(self)
        X = check_inputs(self, X)
        return predict(self._network_to_ask(), X)

    def _network_to_ask(self) -> Network:
        return self._own_engine().network_to_ask(
            self.architecture_, self.coefs_, self.intercepts_, self.device
        )

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a safetensors file, whole or not at all.

        It holds all but what the optimizer remembers, and can be read without running code.

        Parameters
        ----------
        path : path-like
            Where to.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is nothing to write yet.
        gpunn.errors.OutputError
            If it could not be written. What was there before is still there.
        """
        check_is_fitted(self)
        save_estimator(self, self._network_to_ask(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | None = None) -> Self:
        """Read a fitted estimator from a file.

        Parameters
        ----------
        path : path-like
            A file that `save` wrote, on whatever device.
        device : str, optional
            Where to compute from now on; left out, as before.

        Returns
        -------
        estimator
            The estimator as it was saved.

        Raises
        ------
        gpunn.errors.ModelFileError
            If the file is missing, damaged, or holds something else.
        """
        return load_estimator(cls, path, device)  # type: ignore[no-any-return]
