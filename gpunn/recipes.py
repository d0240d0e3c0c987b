"""Whole training set-ups by name: those of the textbooks, and one that is good to start with.

A recipe says everything: scaling, layers, error, first weights, optimizer, step size, batch size,
epochs. On the command line any of it can be overruled.

Sources: T. Rashid, *Make Your Own Neural Network* (2016); M. A. Nielsen, *Neural Networks and Deep
Learning* (2015), chapter 1; G. Sanderson (3Blue1Brown), *Neural networks*, chapters 1 to 4 (2017),
which gives the layers and the cost, but no step size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpunn.backends.base import Backend
from gpunn.errors import ParameterError
from gpunn.losses import LOSSES
from gpunn.network import Network
from gpunn.textbook import ThreeLayerNetwork


@dataclass(frozen=True)
class Recipe:
    """A training set-up.

    Attributes
    ----------
    hidden : tuple of int
        Units in each hidden layer.
    activation : str
        The hidden layers' activation, a name in `gpunn.activations.ACTIVATIONS`.
    loss : str
        A name in `gpunn.losses.LOSSES`. One that needs an output activation brings it; with all
        others the outputs are sigmoids.
    initializer : str or None
        How weights are drawn; None for what suits the activation.
    optimizer : str
        A name in `gpunn.optimizers.OPTIMIZERS`.
    learning_rate : float
        The step size.
    batch_size, epochs : int
        Samples in a step, and times through the training data.
    biases : bool
        Whether neurons have biases.
    shuffle : bool
        Whether each epoch takes the samples in a new order.
    input_low, input_high : float
        What the lowest and the highest possible raw input become.
    standardizes : bool
        Whether inputs of unknown range get mean 0 and variance 1 instead.
    target_low, target_high : float
        The targets of the wrong classes and of the right one.
    n_train : int or None
        Train on the first so many samples alone; None for all.
    best_test_epoch : bool
        Whether the source measures on the test samples after each epoch and reports the best one.
    textbook_rule : bool
        Whether errors go back as in `ThreeLayerNetwork`.
    published_accuracy : float or None
        The test accuracy on MNIST that its source reports for it.
    predicts_numbers : bool
        Whether it is for a regression: outputs are linear, and no classes.
    """

    hidden: tuple[int, ...] = (100,)
    activation: str = "relu"
    loss: str = "cross_entropy"
    initializer: str | None = None
    optimizer: str = "adam"
    learning_rate: float = 0.001
    batch_size: int = 32
    epochs: int = 20
    biases: bool = True
    shuffle: bool = True
    input_low: float = 0.0
    input_high: float = 1.0
    standardizes: bool = False
    target_low: float = 0.0
    target_high: float = 1.0
    n_train: int | None = None
    best_test_epoch: bool = False
    textbook_rule: bool = False
    published_accuracy: float | None = None
    predicts_numbers: bool = False

    @property
    def output_activation(self) -> str:
        """The outputs' activation, which follows from the loss function."""
        if self.predicts_numbers:
            return "identity"
        loss = LOSSES.get(self.loss)
        return (loss.required_activation if loss else None) or "sigmoid"

    def make_network(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        dtype: str = "float32",
        device: str | Backend = "auto",
        seed: int | Sequence[int] = 0,
        parallel: str = "auto",
    ) -> Network:
        """Return a new network for so many inputs, and classes or numbers to predict.

        Raises
        ------
        ParameterError
            If the recipe's parts do not go together.
        DeviceError
            If the device cannot be used.
        """
        initializer = self.initializer or ("he_normal" if self.activation == "relu" else "normal")
        if self.textbook_rule:
            if len(self.hidden) != 1 or (self.activation, self.loss) != (
                "sigmoid",
                "squared_error",
            ):
                raise ParameterError(
                    "the recipe 'rashid' has one sigmoid hidden layer and squared_error: change "
                    "only its size, with one --hidden, or leave out the recipe"
                )
            return ThreeLayerNetwork(
                n_inputs,
                self.hidden[0],
                n_outputs,
                self.learning_rate,
                initializer=initializer,
                dtype=dtype,
                device=device,
                seed=seed,
                parallel=parallel,
            )
        return Network(
            [n_inputs, *self.hidden, n_outputs],
            hidden_activation=self.activation,
            output_activation=self.output_activation,
            loss=self.loss,
            biases=self.biases,
            initializer=initializer,
            dtype=dtype,
            device=device,
            seed=seed,
            parallel=parallel,
        )


STANDARD = Recipe(standardizes=True)
"""What is used without a recipe: it learns most classification tasks quickly and well."""

REGRESSION = replace(STANDARD, loss="squared_error", predicts_numbers=True)
"""The same for numbers to predict."""

RECIPES = {
    "rashid": Recipe(
        hidden=(200,),
        activation="sigmoid",
        loss="squared_error",
        initializer="normal",
        optimizer="sgd",
        learning_rate=0.1,
        batch_size=1,
        epochs=5,
        biases=False,
        shuffle=False,
        input_low=0.01,
        target_low=0.01,
        target_high=0.99,
        textbook_rule=True,
        published_accuracy=0.9747,
    ),
    "nielsen": Recipe(
        hidden=(30,),
        activation="sigmoid",
        loss="squared_error",
        initializer="standard_normal",
        optimizer="sgd",
        learning_rate=3.0,
        batch_size=10,
        epochs=30,
        n_train=50_000,
        best_test_epoch=True,
        published_accuracy=0.9542,
    ),
    "3blue1brown": Recipe(
        hidden=(16, 16),
        activation="sigmoid",
        loss="sum_of_squares",
        initializer="normal",
        optimizer="sgd",
        learning_rate=1.0,
        batch_size=10,
        epochs=20,
    ),
}
