"""A network's model file: what it says of the network, and the network that is made of it.

`gpunn.model_file` knows the format; here it gets its meaning.
"""

import os
from typing import Any, Self

from numpy.typing import NDArray

from gpunn.backends.base import Backend
from gpunn.backends.select import get_backend
from gpunn.data.scaling import Scaling
from gpunn.data.tables.preparation import Preparation
from gpunn.errors import GpunnError, ModelFileError, one_line
from gpunn.model_file import read_model, write_model
from gpunn.network.architecture import Architecture, whole_numbers
from gpunn.network.state import NetworkState, uploaded


class StoredNetwork(NetworkState):
    """What a network needs to be saved and loaded."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file, whole or not at all.

        Parameters
        ----------
        path : path-like
            Where to; a file that is there is replaced once the new one is complete.

        Raises
        ------
        OutputError
            If it could not be written. What was there before is still there.
        """
        write_model(path, self.parameters(), self.header())

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | Backend = "auto") -> Self:
        """Read a network from a file, onto any device.

        Parameters
        ----------
        path : path-like
            A file that `save` wrote, on whatever device.
        device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
            Where to compute with it.

        Returns
        -------
        Network
            The network as it was saved.

        Raises
        ------
        ModelFileError
            If the file is missing, damaged, or holds something else.
        DeviceError
            If the device cannot be used.
        """
        parameters, header = read_model(path)
        backend = get_backend(device)
        try:
            return cls.from_file_contents(parameters, header, backend)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error
        except (GpunnError, TypeError, KeyError, ValueError) as error:
            raise ModelFileError(
                f"{path}: its description does not make a network: {one_line(error)}"
            ) from error

    @classmethod
    def from_file_contents(
        cls, parameters: dict[str, NDArray[Any]], header: dict[str, Any], device: str | Backend
    ) -> Self:
        """Return the network of what `gpunn.model_file.read_model` returned.

        Raises
        ------
        ModelFileError, TypeError, KeyError, ValueError
            If it makes no network.
        DeviceError
            If the device cannot be used.
        """
        backend = get_backend(device)
        network = cls.__new__(cls)
        network._restore(parameters, header, backend)
        return network

    def header(self) -> dict[str, Any]:
        """Return what a file says of the network beside its parameters, in plain values."""
        header: dict[str, Any] = {
            "architecture": self.architecture.to_dict(),
            "scaling": self.scaling.to_dict(),
            "class_labels": self.class_labels,
            "training": self.training_record,
        }
        if self.feature_names is not None:
            header["feature_names"] = self.feature_names
        if self.output_scaling is not None:
            header["output_scaling"] = self.output_scaling.to_dict()
        if self.preparation is not None:
            header["preparation"] = self.preparation.to_dict()
        return header

    def _restore(
        self, parameters: dict[str, NDArray[Any]], header: dict[str, Any], backend: Backend
    ) -> None:
        fields = dict(header["architecture"])
        architecture = Architecture(whole_numbers(fields.pop("layer_sizes")), **fields)
        host = []
        for index, (n_out, n_in, _) in enumerate(architecture.layers()):
            host.append(
                (
                    _expect(parameters, f"layers.{index}.weight", (n_out, n_in), architecture),
                    _expect(parameters, f"layers.{index}.bias", (n_out,), architecture)
                    if architecture.biases
                    else None,
                )
            )
        self._set_up(architecture, backend, uploaded(backend, host))
        self.scaling = Scaling.from_dict(header["scaling"])
        if self.scaling.n_features not in (None, self.n_inputs):
            raise ModelFileError(
                f"damaged: scales {self.scaling.n_features} features, but takes {self.n_inputs}"
            )
        self.output_scaling = _output_scaling(header.get("output_scaling"), self.n_outputs)
        self.preparation = _preparation(header.get("preparation"), self.n_inputs)
        self.class_labels = _class_labels(header["class_labels"], self.n_outputs)
        self.feature_names = header.get("feature_names")
        self.training_record = dict(header["training"])


def _expect(
    parameters: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...], what: Architecture
) -> NDArray[Any]:
    array = parameters.get(name)
    if array is None or array.shape != shape or array.dtype != what.dtype:
        found = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise ModelFileError(f"damaged: expected {name} as {what.dtype} {shape}, found {found}")
    return array


def _output_scaling(values: Any, n_outputs: int) -> Scaling | None:
    if values is None:
        return None
    scaling = Scaling.from_dict(values)
    if scaling.n_features not in (None, n_outputs):
        raise ModelFileError(f"damaged: scales {scaling.n_features} outputs, but has {n_outputs}")
    return scaling


def _preparation(values: Any, n_inputs: int) -> Preparation | None:
    if values is None:
        return None
    preparation = Preparation.from_dict(values)
    if preparation.n_features != n_inputs:
        raise ModelFileError(
            f"damaged: makes {preparation.n_features} inputs of a table, but takes {n_inputs}"
        )
    return preparation


def _class_labels(labels: Any, n_outputs: int) -> list[int | str] | None:
    if labels is None:
        return None
    if (
        not isinstance(labels, list)
        or len(labels) != n_outputs
        or not all(
            isinstance(label, str) or (type(label) is int and -(2**63) <= label < 2**63)
            for label in labels
        )
    ):
        raise ModelFileError(f"damaged: expected {n_outputs} class labels, found {labels!r:.80}")
    return labels
