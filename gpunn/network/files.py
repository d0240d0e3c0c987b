"""A network's model file: what it says of the network, and the network that is made of it.

`gpunn.model_file` knows the format; here it gets its meaning.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.base import Backend
from gpunn.backends.select import get_backend
from gpunn.data.scaling import Scaling
from gpunn.data.tables.preparation import Preparation
from gpunn.errors import GpunnError, ModelFileError, one_line
from gpunn.model_file import read_model, write_model
from gpunn.network.architecture import Architecture, whole_numbers
from gpunn.network.state import NetworkState, uploaded
from gpunn.parallel.alike import check_same
from gpunn.parallel.part_files import PartReader, write_parts
from gpunn.parallel.ranks import ALONE, Ranks
from gpunn.parallel.sharing import Sharing, share
from gpunn.parallel.world import ranks_here


class StoredNetwork(NetworkState):
    """What a network needs to be saved and loaded."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file, whole or not at all.

        Parameters
        ----------
        path : path-like
            Where to; a file that is there is replaced once the new one is complete. If ranks share
            the network, all must call it with the same path, and see the same file system.

        Raises
        ------
        OutputError
            If it could not be written. What was there before is still there.
        ParameterError
            If ranks have other paths.
        """
        if self.sharing.kind == "none":
            write_model(path, self.parameters(), self.header())
            return
        check_same(self.sharing.ranks, "the file to save", {"path": os.fspath(path)})
        arrays = self.device_parameters().items()
        # A part may fill half of the host's memory, so what is there is not copied.
        host = {
            name: array if isinstance(array, np.ndarray) else self.backend.to_host(array)
            for name, array in arrays
        }
        write_parts(path, host, self.header(), self.sharing)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | Backend = "auto",
        *,
        parallel: str = "auto",
    ) -> Self:
        """Read a network from a file, onto any device.

        Parameters
        ----------
        path : path-like
            A file that `save` wrote, on whatever device.
        device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
            Where to compute with it.
        parallel : {"auto", "hidden", "data", "none"}
            How several ranks share it, on however many it was saved; see `gpunn.Network`.

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
        ParameterError
            If the file is not the same on all ranks, or `parallel`.
        """
        ranks = ALONE if parallel == "none" else ranks_here()
        network, fingerprint = ranks.together(lambda: cls._load(path, device, parallel, ranks))
        facts = {"content": fingerprint, "parallel": network.sharing.kind}
        check_same(ranks, "the model file", facts)
        return network

    @classmethod
    def _load(
        cls, path: str | os.PathLike[str], device: str | Backend, parallel: str, ranks: Ranks
    ) -> tuple[Self, str]:
        reader, fingerprint = None, ""
        if ranks.size > 1:
            reader = PartReader(path)
            header, fingerprint = reader.header, reader.fingerprint()
        else:
            parameters, header = read_model(path)
        backend = get_backend(device)
        with _blaming(path):
            made = _architecture(header)
        sharing = share(parallel, made.layer_sizes, tied=made.ties_hidden_units)
        if reader is not None:
            parameters = reader.read(sharing)
        network = cls.__new__(cls)
        with _blaming(path):
            network._restore(parameters, header, backend, sharing)
        return network, fingerprint

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
        sharing = share("none", _architecture(header).layer_sizes)
        network._restore(parameters, header, backend, sharing)
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
        self,
        parameters: dict[str, NDArray[Any]],
        header: dict[str, Any],
        backend: Backend,
        sharing: Sharing,
    ) -> None:
        architecture = _architecture(header)
        host = []
        for index, (n_in, n_out) in enumerate(pairwise(sharing.local_sizes)):
            host.append(
                (
                    _expect(parameters, f"layers.{index}.weight", (n_out, n_in), architecture),
                    _expect(parameters, f"layers.{index}.bias", (n_out,), architecture)
                    if architecture.biases
                    else None,
                )
            )
        self._set_up(architecture, backend, sharing, uploaded(backend, host))
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


@contextmanager
def _blaming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of which file it is that its content makes no network."""
    try:
        yield
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except (GpunnError, TypeError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"{path}: its description does not make a network: {one_line(error)}"
        ) from error


def _architecture(header: dict[str, Any]) -> Architecture:
    fields = dict(header["architecture"])
    return Architecture(whole_numbers(fields.pop("layer_sizes")), **fields)


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
