"""`MLPClassifier`: scikit-learn's estimator of that name, on any device.

Parameters, attributes and methods are scikit-learn's, and the same data and `random_state` give the
same loss curves. New are the device, dropout, weights for classes, validation data that are given,
callbacks, checkpoints, and `partial_fit` for several labels at once.
"""

import re
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    type_of_target,
    unique_labels,
)

from gpunn.errors import ModelFileError
from gpunn.estimators.base import MultilayerPerceptron, has_partial_fit, keep_parameters
from gpunn.model_file import LARGEST_HEADER


class MLPClassifier(ClassifierMixin, MultilayerPerceptron):  # type: ignore[misc]
    """A multilayer perceptron for classification, which minimizes the log-loss.

    For two classes or several labels at once the outputs are sigmoids, for more classes a softmax.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Number of units in each hidden layer.
    activation : {"identity", "logistic", "tanh", "relu"}, default="relu"
        The hidden layers' activation.
    solver : {"lbfgs", "sgd", "adam"}, default="adam"
        How the weights are found: L-BFGS on all samples at once, or stochastic gradient descent
        or Adam on mini-batches.
    alpha : float, default=0.0001
        Strength of the penalty: ``alpha / 2 ||W||^2`` over the number of samples in a step.
    batch_size : int or "auto", default="auto"
        Samples in a step; "auto" is 200, or all if there are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        How the step size of "sgd" changes: not at all; ``learning_rate_init / t^power_t`` after
        t samples; or divided by 5 each time the training would otherwise end.
    learning_rate_init : float, default=0.001
        The step size at the beginning.
    power_t : float, default=0.5
        The exponent of "invscaling".
    max_iter : int, default=200
        Maximum number of epochs, or of iterations of L-BFGS.
    shuffle : bool, default=True
        Whether each epoch goes through the samples in a new order.
    random_state : int, RandomState instance or None, default=None
        Source of the random numbers for weights, orders and held-out samples.
    tol : float, default=1e-4
        How large a change must be to count as an improvement.
    verbose : bool or int, default=False
        1 prints a line for each epoch; 2 or more shows a progress bar on a terminal or in a
        notebook, and lines elsewhere.
    warm_start : bool, default=False
        Whether `fit` begins with the weights of the last fit.
    momentum : float, default=0.9
        How much of its last step "sgd" keeps, in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether "sgd" uses Nesterov's momentum.
    early_stopping : bool, default=False
        Whether some samples are held out, the training ends when their score no longer improves,
        and the best weights are restored.
    validation_fraction : float, default=0.1
        The share of samples to hold out.
    beta_1, beta_2 : float, default=0.9 and 0.999
        How slowly Adam's two means forget, in [0, 1).
    epsilon : float, default=1e-8
        Keeps Adam's division finite.
    n_iter_no_change : int, default=10
        The training ends after more than this many epochs in a row without an improvement.
    max_fun : int, default=15000
        Maximum number of times that L-BFGS computes the loss.
    device : {"cpu", "cuda", "cuda:N", "auto"}, default="cpu"
        Where to compute; "auto" takes the first usable GPU, else the CPU.
    dropout : float, default=0.0
        Probability that a hidden unit is left out of a step of "sgd" or "adam", in [0, 1).
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, multiplied with the weights of its samples; "balanced" gives each
        class the inverse of its frequency.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, in the order of the outputs.
    coefs_ : list of ndarray of shape (n_in, n_out)
        The weights into each layer.
    intercepts_ : list of ndarray of shape (n_out,)
        The biases of each layer.
    loss_ : float
        The last loss.
    loss_curve_ : list of float
        The loss of each epoch.
    best_loss_ : float or None
        The lowest loss; None with `early_stopping`.
    validation_scores_, validation_loss_curve_ : list of float, or None
        Accuracy and loss on the validation data (held out, or your own) after each epoch.
    best_validation_score_ : float or None
        The best of these scores.
    n_iter_ : int
        Number of epochs, or of iterations, of the last fit.
    t_ : int
        Number of samples used for steps.
    n_layers_, n_outputs_, n_features_in_ : int
        Number of layers (with the inputs), of outputs and of inputs.
    feature_names_in_ : ndarray of str
        The names of the inputs, if they have names.
    out_activation_ : {"logistic", "softmax"}
        The outputs' activation.

    Examples
    --------
    >>> from gpunn import MLPClassifier
    >>> X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0]
    >>> model = MLPClassifier((8,), solver="lbfgs", random_state=1).fit(X, y)
    >>> model.predict(X)
    array([0, 1, 1, 0])
    """

    loss = "log_loss"
    """What is minimized; the name is scikit-learn's."""

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **MultilayerPerceptron._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str = "cpu",
        dropout: float = 0.0,
        class_weight: Any = None,
    ) -> None:
        keep_parameters(self, locals())

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on some samples, beginning with the current weights.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like of shape (n_classes,), optional
            All classes that any call will have. The first call needs them, except for several
            labels at once, because `y` shows their number.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `fit` does; or if the classes are missing, or differ from those before.
        """
        several = type_of_target(y) == "multilabel-indicator"
        if several and classes is None and not hasattr(self, "classes_"):
            classes = np.arange(np.shape(y)[1])
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer().fit(y if several else classes)
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return each class's or label's probability.

        Parameters
        ----------
        X : {array-like, sparse matrix, CuPy array} of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The probabilities, in the order of `classes_`.
        """
        outputs = self._outputs(X)
        return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Return the logarithm of `predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix, CuPy array} of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The logarithms; -inf where a probability is 0.
        """
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            np.log(probabilities, out=probabilities)
        return probabilities

    def _learn_targets(self, y: NDArray[Any], *, incremental: bool) -> None:
        if incremental or (self.warm_start and hasattr(self, "classes_")):
            self._check_known(y)
            if self.warm_start and set(unique_labels(y)) != set(self.classes_):
                raise ValueError(
                    "warm_start needs the same classes as before: expected "
                    f"{self.classes_}, got {unique_labels(y)}"
                )
            return
        self._label_binarizer = LabelBinarizer().fit(y)
        self.classes_: NDArray[Any] = self._label_binarizer.classes_

    def _check_known(self, y: NDArray[Any]) -> None:
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has classes that are not in classes_: expected {self.classes_}, got {unknown}"
            )

    def _encode(self, y: NDArray[Any]) -> NDArray[Any]:
        return self._label_binarizer.transform(y).astype(bool)  # type: ignore[no-any-return]

    def _decode(self, outputs: NDArray[Any]) -> NDArray[Any]:
        outputs = outputs.ravel() if self.n_outputs_ == 1 else outputs
        return self._label_binarizer.inverse_transform(outputs)  # type: ignore[no-any-return]

    def _strata(self, targets: NDArray[Any]) -> NDArray[Any] | None:
        return targets if targets.shape[1] == 1 else None

    def _output_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _score(
        self, y: NDArray[Any], predicted: NDArray[Any], weights: NDArray[Any] | None
    ) -> float:
        return float(accuracy_score(y, predicted, sample_weight=weights))

    def _describe_targets(self) -> dict[str, Any]:
        return {
            "classes": self.classes_.tolist(),
            "dtype": self.classes_.dtype.str,
            "several": self._label_binarizer.y_type_.startswith("multilabel"),
        }

    def _restore_targets(self, description: dict[str, Any]) -> None:
        name, values = description["dtype"], description["classes"]
        if (
            not re.fullmatch(r"[<>|=][biufU]\d{1,9}|\|O", name)
            or not isinstance(values, list)
            or any(isinstance(value, list | dict) for value in values)
        ):
            raise ModelFileError(f"classes of type {name!r:.80}: {values!r:.80}")
        dtype = np.dtype(name)
        if dtype.itemsize * len(values) > 4 * LARGEST_HEADER:
            raise ModelFileError(f"{len(values)} classes of {dtype.itemsize} bytes each")
        classes = np.array(values, dtype)
        # What the binarizer needs to see to know them: both values of each label, or each class.
        several = bool(description["several"])
        seen = np.eye(2, dtype=int)[:, [0] * len(classes)] if several else classes
        self._label_binarizer = LabelBinarizer().fit(seen)
        self.classes_ = self._label_binarizer.classes_
        n_classes = len(self.classes_)
        if self.n_outputs_ != (n_classes if several or n_classes > 2 else 1):
            raise ModelFileError(f"{len(classes)} classes for {self.n_outputs_} outputs")

    def _full_weights(
        self, y: NDArray[Any], sample_weight: NDArray[Any] | None, *, incremental: bool
    ) -> NDArray[Any] | None:
        if self.class_weight is None:
            return sample_weight
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not for partial_fit, which cannot know how often each "
                "class comes: give a dict, or sample_weight"
            )
        weights = compute_sample_weight(self.class_weight, y)
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(
                f"class_weight must be finite and at least 0, got {self.class_weight!r:.80}"
            )
        return weights if sample_weight is None else weights * sample_weight  # type: ignore[no-any-return]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
