"""The network: its layers, the way back, and one step of training.

One row per sample. The way forward is in `gpunn.network.forward`. Going back,
``D_l = (D_{l+1} W_{l+1}) * f_l'(Z_l)``, from ``D_L = dE/dA_L * f_L'(Z_L)``; the
gradients are ``dE/dW_l = D_l^T A_{l-1}`` and ``dE/db_l`` = the column sums of ``D_l``.

Everything is computed through a `Backend`, so that the same lines run on the CPU and on a GPU.

Sources: T. Rashid, *Make Your Own Neural Network* (2016); M. A. Nielsen, *Neural Networks and Deep
Learning* (2015), chapter 2.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpunn.activations import IDENTITY
from gpunn.backends.base import Array, Backend, Number, get_dtype
from gpunn.backends.fused import ThinTop
from gpunn.backends.select import get_backend
from gpunn.initializers import make_generator
from gpunn.network.architecture import Architecture, whole_numbers
from gpunn.network.backquery import Method, check_method, field_of, wanted_outputs
from gpunn.network.climb import climb
from gpunn.network.forward import ForwardNetwork
from gpunn.network.inverse import inverse
from gpunn.network.layers import Dropout, FusedUpdate, Layer, Step, Update, add_gradient
from gpunn.network.state import drawn
from gpunn.parallel.alike import check_alike, check_same_arrays
from gpunn.parallel.sharing import share


class Network(ForwardNetwork):
    """A multilayer perceptron with any number of hidden layers.

    Several threads may use a network at once (`predict`, `gpunn.evaluate`, `loss_and_gradients`),
    but only one at a time may train it.

    Parameters
    ----------
    layer_sizes : sequence of int
        Number of units in each layer, from the inputs to the outputs, such as ``[784, 200, 10]``.
    hidden_activation, output_activation : str
        Names in `gpunn.activations.ACTIVATIONS`.
    loss : str
        A name in `gpunn.losses.LOSSES`; some require a certain output activation.
    biases : bool
        Whether units have biases.
    hidden_errors : {"gradient", "textbook"}
        What layers send back in training: the gradient, or the errors as in `ThreeLayerNetwork`.
    initializer : str
        How the first weights are drawn; see `gpunn.initializers.draw_weights`.
    dtype : {"float32", "float64"}
        Number type of the weights and of all computations.
    device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
        Where to compute; "auto" takes the first usable GPU, else the CPU.
    seed : int, sequence of int, or numpy.random.Generator
        Seed of the first weights, or the generator that draws them. The same seed gives the same
        bits on every device, and on any number of ranks.
    parallel : {"auto", "hidden", "data", "none"}
        How the ranks that mpiexec or srun has started share the network. "hidden": each has some of
        the units of the one hidden layer. "data": all have the whole, and each learns from its
        share of a batch. "none": each process for itself. "auto" is "hidden" with one hidden layer,
        else "data". Without a launcher it makes no difference. All ranks must do the same.

    Attributes
    ----------
    architecture : Architecture
        Sizes, activations, loss and dtype: everything but the weights.
    layers : list of Layer
        Weights and biases, on the device, from the first hidden layer to the outputs.
    backend : Backend
        The device.
    sharing : gpunn.parallel.sharing.Sharing
        What of the network this process has, if several ranks share it.
    scaling : Scaling
        How raw inputs and labels became the inputs and targets of the training. It is saved in the
        model file, but `predict` does not apply it: its inputs must already be scaled.
    output_scaling : Scaling or None
        How outputs become the numbers that were to be predicted, in a regression on scaled targets.
        It is saved too, and `predict` does not apply it either.
    preparation : gpunn.data.Preparation or None
        How the columns of a table became raw inputs, if they came from one; saved too.
    class_labels : list of int or str, or None
        The label of each output, if known.
    feature_names : list of str or None
        The name of each input, if known: `gpunn.fit` takes them from a data frame. They are saved
        in the model file, and compared with the columns of every data frame that comes.
    training_record : dict
        Facts about the training, in plain values; saved in the model file.

    Raises
    ------
    ParameterError
        If an argument is not one of those allowed.
    DeviceError
        If the device cannot be used.
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        hidden_activation: str = "sigmoid",
        output_activation: str = "sigmoid",
        loss: str = "squared_error",
        biases: bool = True,
        hidden_errors: str = "gradient",
        initializer: str = "normal",
        dtype: DTypeLike = "float32",
        device: str | Backend = "auto",
        seed: int | Sequence[int] | np.random.Generator = 0,
        parallel: str = "auto",
    ) -> None:
        architecture = Architecture(
            whole_numbers(layer_sizes),
            hidden_activation,
            output_activation,
            loss,
            biases,
            get_dtype(dtype).name,
            hidden_errors,
        )
        generator = make_generator(seed)
        tied = architecture.ties_hidden_units
        sharing = share(parallel, architecture.layer_sizes, tied=tied)
        backend = get_backend(device)
        check_alike(sharing, backend, architecture.to_dict(), initializer, generator)
        weights = drawn(architecture, backend, sharing, initializer, generator)
        self._set_up(architecture, backend, sharing, weights)

    # The way back.

    def step(
        self,
        inputs: Array,
        targets: Array,
        update: Update,
        row_losses: Array,
        outputs: Array | None = None,
        row_weights: Array | None = None,
        dropout: Dropout | None = None,
        scale: Number = 1.0,
        fused: FusedUpdate | None = None,
    ) -> None:
        """Change the network in place by one step of training; nothing crosses to the host.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            Inputs, on the device.
        targets : Array, shape (n, n_L)
            Targets, on the device.
        update : callable
            What to do with each layer's gradient, called from the outputs down. A layer's weights
            are no longer needed when it is called, so that it may change them.
        row_losses : Array, shape (n,), float64
            The loss of each sample is added to it, computed from the weights before the update.
        outputs : Array, shape (n, n_L), optional
            Gets the outputs before the update.
        row_weights : Array, shape (n,), optional
            What the loss of each sample is multiplied by.
        dropout : Dropout, optional
            Which hidden units are left out.
        scale : Number, optional
            What the delta of the outputs is multiplied by, and with it all deltas and gradients.
        fused : FusedUpdate, optional
            How parameters learn where the device does that by itself; `update` is then called for
            the others alone.

        Raises
        ------
        ConcurrencyError
            If another thread is training the network.
        """
        textbook = self.architecture.hidden_errors == "textbook"
        with self.training():
            self._step(
                inputs,
                Step(
                    targets,
                    update,
                    row_losses,
                    outputs,
                    row_weights,
                    dropout,
                    scale,
                    fused,
                    textbook,
                ),
            )

    def _step(self, inputs: Array, step: Step) -> None:
        delta = self._deltas(inputs.shape[0])[0]
        inputs = self._rounded_inputs(inputs)
        first = self.learn_from(self._multiply(inputs, 0), delta, step)
        step.update(0, first, delta, inputs)

    def learn_from(self, z: Array, delta: Array, step: Step) -> Layer:
        """Change all layers above the first in place by one step, given the first one's sums.

        Parameters
        ----------
        z : Array, shape (n, n_1)
            ``Z_1`` without biases; becomes A_1 in place.
        delta : Array, shape (n, n_1)
            Gets ``D_1``, from which the first layer's gradient is made.
        step : Step
            What else is asked.

        Returns
        -------
        Layer
            The first layer, without its biases if those have learnt already.
        """
        backend, dropout, n_rows = self.backend, step.dropout, z.shape[0]
        if dropout is not None:
            self.architecture.check_dropout()
            if self.sharing.is_split:
                dropout = dropout._replace(
                    first_unit=self.sharing.units.start, n_elsewhere=self.sharing.n_elsewhere
                )
                step = step._replace(dropout=dropout)
        activations = [z, *self._activations(n_rows)[1:]]
        deltas = [delta, *self._deltas(n_rows)[1:]]
        layers = list(self.layers)
        z_last = self._forward_to_last(z, step)
        shared = self.sharing.is_split
        top = None if shared else self._passes.top(backend, layers, self.loss, n_rows, step)
        if top is not None:
            self._go_through(top, z_last, deltas[-2], step)
            # What is left to learn from that are the weights of the layer below.
            layers[-2:] = [layers[-2]._replace(biases=None)]
            errors = deltas[-2]
        else:
            z_top = self._sum_outputs(z_last, step)
            errors = self._top_delta(z_top, deltas[-1], step)
        for index in range(len(layers) - 1, 0, -1):
            a, below = activations[index - 1], deltas[index - 1]
            backend.gemm(errors, self._factors.last(index, layers[index].weights), below)
            # The gradient sends back D_l, in which the slope is already. The textbook sends back
            # e_l as it is, which becomes D_l only now.
            if step.textbook:
                backend.activation_backward(errors, activations[index], layers[index].activation)
            step.update(index, layers[index], errors, a)
            if not step.textbook:
                layers[index - 1] = self._apply_slope(index - 1, below, a, step)
            errors = below
        if step.textbook:
            backend.activation_backward(errors, activations[0], layers[0].activation)
        return layers[0]

    def _apply_slope(self, index: int, delta: Array, a: Array, step: Step) -> Layer:
        """Change a hidden layer's dE/dA to D in place; return what is left of it to learn."""
        layer, dropout = self.layers[index], step.dropout
        passes = self._passes.hidden(self.backend, layer, index, delta.shape[0], step)
        if passes is not None and step.fused is not None:
            passes.go_back(delta, a, None if dropout is None else dropout.keys[index])
            passes.update(step.fused.numbers, step.fused.memories(index)[1])
            return layer._replace(biases=None)
        if dropout is not None:
            dropout.go_back(self.backend, delta, a, index)
        self.backend.activation_backward(delta, a, layer.activation)
        return layer

    def _go_through(self, top: ThinTop, z: Array, delta: Array, step: Step) -> None:
        """Change z to A and `delta` to D of the last hidden layer in place, and all above it."""
        fused, last = step.fused, len(self.layers) - 1
        assert fused is not None
        key = None if step.dropout is None else step.dropout.keys[last - 1]
        top.go_forward(z, step.targets, step.row_losses, step.row_weights, step.scale, key)
        top.go_back(z, delta, key)
        top.update(fused.numbers, *fused.memories(last), fused.memories(last - 1)[1])

    def _top_delta(self, z: Array, spare: Array, step: Step) -> Array:
        """Return D_L for Z_L without biases; by the textbook's rule ``e_L = o - t``, and z gets o.

        Losses are added in place. `spare` is overwritten; of a network with a single layer it is
        where the result must be.
        """
        backend, layer = self.backend, self.layers[-1]
        if step.outputs is not None:
            self._write_outputs(z, step.outputs)
        rest = (self.loss, step.row_losses, step.row_weights, step.scale)
        if step.textbook:
            backend.activate(z, layer.biases, layer.activation)
            backend.copy_into(z, spare)
            backend.loss_backward(spare, None, step.targets, IDENTITY, *rest)
            return spare
        backend.loss_backward(z, layer.biases, step.targets, layer.activation, *rest)
        if len(self.layers) > 1 and z.dtype == spare.dtype:
            return z
        backend.copy_into(z, spare)
        return spare

    def loss_and_gradients(
        self, X: ArrayLike, T: ArrayLike
    ) -> tuple[float, dict[str, NDArray[Any]]]:
        """Return the mean loss over some samples and its gradients.

        Parameters
        ----------
        X : array_like, shape (n, n_0)
            Inputs.
        T : array_like, shape (n, n_L)
            Targets.

        Returns
        -------
        loss : float
            The loss E averaged over the samples.
        gradients : dict of str to ndarray
            dE/dW and dE/db of that average, on the host, named and shaped as `parameters`.

        Raises
        ------
        ShapeError
            If inputs and targets do not fit the network or each other.
        DataError
            If they are not numbers, or columns have other names or another order than
            `feature_names`.
        """
        self.check_names(X)
        inputs, targets = self.as_samples(X, T)
        backend, alpha = self.backend, 1 / inputs.shape[0]
        gradients = {
            name: backend.empty(array.shape, self.dtype)
            for name, array in self.device_parameters().items()
        }

        def keep(index: int, layer: Layer, delta: Array, below: Array) -> None:
            weights = gradients[f"layers.{index}.weight"]
            biases = gradients.get(f"layers.{index}.bias")
            add_gradient(
                backend, delta, below, weights, biases, alpha=alpha, beta=0.0, beta_biases=0.0
            )

        loss = self._mean_loss(inputs, targets, keep)
        return loss, self.whole(gradients)

    def loss_and_input_gradients(self, X: ArrayLike, T: ArrayLike) -> tuple[float, NDArray[Any]]:
        """Return the mean loss over some samples, and how each sample's loss changes with inputs.

        ``dE/dX = D_1 W_1``.

        Parameters
        ----------
        X : array_like, shape (n, n_0)
            Inputs.
        T : array_like, shape (n, n_L)
            Targets.

        Returns
        -------
        loss : float
            The loss E averaged over the samples.
        gradients : ndarray, shape (n, n_0)
            In each row the gradient of that sample's own loss, on the host.

        Raises
        ------
        ShapeError, DataError
            As `loss_and_gradients` does.
        """
        self.check_names(X)
        inputs, targets = self.as_samples(X, T)
        backend = self.backend
        gradients = backend.empty(inputs.shape, self.dtype)

        def keep(index: int, layer: Layer, delta: Array, below: Array) -> None:
            if index == 0:
                backend.gemm(delta, self._factors.last(0, layer.weights), gradients)
                self._add_up(gradients)

        loss = self._mean_loss(inputs, targets, keep)
        return loss, backend.to_host(gradients)

    def _mean_loss(self, inputs: Array, targets: Array, keep: Update) -> float:
        """Return the mean loss of samples, and hand each layer's gradient to `keep`.

        It is the true gradient, whatever rule the network learns by.
        """
        samples = {"inputs": inputs, "targets": targets}
        check_same_arrays(self.sharing, self.backend, "what is learnt from", **samples)
        n_samples = inputs.shape[0]
        row_losses = self.backend.zeros((n_samples,), np.float64)
        self._step(inputs, Step(targets, keep, row_losses))
        return float(self.backend.to_host(row_losses).sum() / n_samples)

    def backquery(
        self,
        targets: ArrayLike,
        *,
        method: Method = "inverse",
        input_range: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
        image_shape: tuple[int, int] | None = None,
    ) -> NDArray[Any]:
        """Run the network backwards: return inputs that would give these outputs.

        Parameters
        ----------
        targets : array_like, shape (n, n_L) or (n_L,)
            Outputs; for the inverse strictly inside the range of the output activation.
        method : {"inverse", "gradient"}
            "inverse" undoes layer by layer, as the textbook does; see
            `gpunn.network.inverse.inverse`. "gradient" climbs from an empty picture, which every
            network allows; see `gpunn.network.climb`.
        input_range : (float, float), or two arrays, each of shape (n_0,)
            For "gradient": the lowest and the highest value of all inputs, or of each.
        image_shape : (int, int), optional
            For "gradient": rows and columns, if the inputs are the pixels of a picture; it is then
            kept smooth.

        Returns
        -------
        ndarray, shape (n, n_0) or (n_0,)
            Inputs on the host: in [0.01, 0.99] by "inverse", in `input_range` by "gradient".

        Raises
        ------
        ShapeError
            If the targets do not have n_L columns.
        DataError
            If they are not numbers, or the output activation can never reach them.
        ParameterError
            If another argument is not one of those allowed.
        """
        check_method(method)
        field = field_of(self.n_inputs, input_range, image_shape)
        wanted = wanted_outputs(self, targets)
        if method == "inverse":
            found = inverse(self, wanted)
        else:
            found = climb(self.loss_and_input_gradients, wanted, field)
        return found[0] if np.ndim(targets) == 1 else found
