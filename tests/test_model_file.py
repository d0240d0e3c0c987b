"""Model files: what comes back, what a damaged file does, and what a failed save leaves behind."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import make_backend
from safetensors.numpy import load_file, save_file

from gpunn import Network, Scaling, ThreeLayerNetwork
from gpunn.errors import ModelFileError, OutputError
from gpunn.model_file import check_writable, replacing

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")


def fails(kind, function, *arguments):
    """Return the message of the error that must come, and must be one line."""
    with pytest.raises(kind) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load(path):
    return Network.load(path, "cpu")


def assert_same(one, other):
    assert one.architecture == other.architecture
    assert one.parameters().keys() == other.parameters().keys()
    for name, value in one.parameters().items():
        assert value.dtype == one.dtype
        np.testing.assert_array_equal(other.parameters()[name], value)


@pytest.fixture
def network():
    network = Network([5, 4, 3], device="cpu", initializer="standard_normal", seed=1)
    network.scaling = Scaling.to_range(0, 255, 0.01, 1)
    network.class_labels, network.training_record = [2, 3, 5], {"data": "primes", "seed": 7}
    return network


@pytest.fixture
def path(tmp_path, network):
    path = tmp_path / "model.safetensors"
    network.save(path)
    return path


# What comes back.


@pytest.mark.parametrize("biases", [True, False])
def test_a_network_comes_back_as_it_was(backend, dtype, tmp_path, biases):
    network = Network(
        [4, 3, 6, 2],
        hidden_activation="relu",
        output_activation="softmax",
        loss="cross_entropy",
        initializer="standard_normal",
        biases=biases,
        dtype=dtype,
        device=backend,
    )
    network.scaling = Scaling.per_feature(np.array([[0, 1, 2, 3.0], [5, 7, 9, 0.1]]), target_low=-1)
    network.class_labels = [-4, 70_000]
    network.training_record = {"history": [{"epoch": 1, "loss": 0.1}], "device": "cpu", "x": None}
    network.save(tmp_path / "m.safetensors")
    for device in (backend, make_backend("cpu"), make_backend("double")):
        loaded = Network.load(tmp_path / "m.safetensors", device)
        assert_same(network, loaded)
        assert loaded.backend is device
        assert loaded.scaling == network.scaling
        assert loaded.class_labels == network.class_labels
        assert loaded.training_record == network.training_record


def test_the_classic_network_keeps_its_learning_rate(backend, tmp_path):
    network = ThreeLayerNetwork(4, 3, 2, 0.3, device=backend)
    network.save(str(tmp_path / "classic"))
    loaded = ThreeLayerNetwork.load(tmp_path / "classic", backend)
    assert_same(network, loaded)
    assert loaded.learning_rate == 0.3
    assert type(load(tmp_path / "classic")) is Network


def test_the_classic_network_refuses_files_of_others(path):
    assert "Network.load" in fails(ModelFileError, ThreeLayerNetwork.load, path, "cpu")


def test_parameters_are_plain_safetensors(path, network):
    tensors = load_file(path)
    assert tensors.keys() == network.parameters().keys()
    np.testing.assert_array_equal(tensors["layers.1.bias"], network.parameters()["layers.1.bias"])


# Damaged and foreign files.


def refused_or_intact(path, network):
    try:
        loaded = load(path)
    except ModelFileError:
        assert str(path) in fails(ModelFileError, load, path)
        return False
    assert_same(network, loaded)
    assert loaded.predict(np.ones(5)).shape == (3,)
    return True


def test_a_file_cut_short_is_refused(path, network):
    whole = path.read_bytes()
    for k in range(50):
        path.write_bytes(whole[: len(whole) * k // 50])
        assert not refused_or_intact(path, network)
    path.write_bytes(whole + b"more")
    assert not refused_or_intact(path, network)


def test_a_damaged_description_is_refused_or_harmless(path, network):
    whole = path.read_bytes()
    n_header = 8 + int.from_bytes(whole[:8], "little")
    for position in range(n_header):
        for flip in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            refused_or_intact(path, network)


def test_a_huge_description_is_neither_written_nor_read(path, network):
    network.training_record = {"lists": [[]] * 3_000_000}
    assert "room for" in fails(OutputError, network.save, path)
    header = b'{"__metadata__":{"gpunn-1":"' + b"[" * 2**24 + b'"}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "does not begin as a safetensors file does" in fails(ModelFileError, load, path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, b"\xff" * 100, b"PK\x03\x04 a zip", pickle.dumps({"weights": [1.0]})],
    ids=["empty", "zeros", "ones", "zip", "pickle"],
)
def test_files_of_another_kind_are_refused(path, network, content):
    path.write_bytes(content)
    assert not refused_or_intact(path, network)


def test_a_pickle_is_never_opened(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path.write_bytes(pickle.dumps(Trap()))
    fails(ModelFileError, load, path)
    assert not (tmp_path / "sprung").exists()


def test_safetensors_of_others_are_refused(path):
    save_file({"layers.0.weight": np.zeros((2, 2))}, path)
    assert "not a gpunn model" in fails(ModelFileError, load, path)
    save_file({"layers.0.weight": np.zeros((2, 2))}, path, {"two\nlines": "", "x" * 10**6: ""})
    assert len(fails(ModelFileError, load, path)) < 1000


@pytest.mark.parametrize("where", ["nowhere", "."])
def test_what_is_no_file_is_no_model(tmp_path, where):
    assert "no model file" in fails(ModelFileError, load, tmp_path / where)


def rewrite(path, *, tensors=None, **header):
    """Write the file anew with parts of its description or its tensors replaced."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + size])["__metadata__"]
    described = json.loads(metadata["gpunn-1"])
    for name, value in header.items():
        if isinstance(value, dict) and isinstance(described.get(name), dict):
            value = described[name] | value
        described[name] = value
    described = {name: value for name, value in described.items() if value != "absent"}
    arrays = load_file(path) | (tensors or {})
    arrays = {name: value for name, value in arrays.items() if value is not None}
    save_file(arrays, path, {**metadata, "gpunn-1": json.dumps(described)})


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": {"layers.0.weight": np.zeros((5, 4), np.float32)}},
        {"tensors": {"layers.0.weight": np.zeros((4, 5), np.float64)}},
        {"tensors": {"layers.1.bias": np.zeros((3,), np.int32)}},
        {"tensors": {"layers.1.bias": None}},
        {"architecture": "absent"},
        {"architecture": [5, 4, 3]},
        {"architecture": {"layer_sizes": [10**12, 4, 3]}},
        {"architecture": {"layer_sizes": [5, 10**12, 3]}},
        {"architecture": {"layer_sizes": [5] * 100_000}},
        {"architecture": {"layer_sizes": [10**400, 4, 3]}},
        {"architecture": {"layer_sizes": [float("nan"), 4, 3]}},
        {"architecture": {"layer_sizes": [5.0, 4, 3]}},
        {"architecture": {"layer_sizes": None}},
        {"architecture": {"layer_sizes": "543"}},
        {"architecture": {"dtype": "float16"}},
        {"architecture": {"dtype": "object"}},
        {"architecture": {"dtype": None}},
        {"architecture": {"dtype": ["float32"]}},
        {"architecture": {"dtype": "(,loat32"}},
        {"architecture": {"dtype": "x" * 10_000}},
        {"architecture": {"biases": 1}},
        {"architecture": {"hidden_activation": "swish"}},
        {"architecture": {"hidden_activation": []}},
        {"architecture": {"loss": "cross_entropy"}},
        {"architecture": {"surprise": 1}},
        {"scaling": "absent"},
        {"scaling": {"scale": float("nan")}},
        {"scaling": {"scale": [1.0, 2.0]}},
        {"class_labels": "absent"},
        {"class_labels": [1, 2]},
        {"class_labels": [1, 2, 3.5]},
        {"class_labels": [1, 2, None]},
        {"output_scaling": {"scale": float("nan")}},
        {"output_scaling": {"scale": [1.0] * 9, "shift": 0.0, "target_low": 0, "target_high": 1}},
        {"output_scaling": []},
        {"preparation": []},
        {"preparation": {"columns": [], "targets": [], "n_columns": 5, "missing": None}},
        {"class_labels": [1, 2, 10**30]},
        {"training": "absent"},
        {"training": 5},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_description_that_makes_no_sense_is_refused(path, changes):
    rewrite(path, **changes)
    assert str(path) in fails(ModelFileError, load, path)


@pytest.mark.parametrize("rate", [0, -1, "fast", float("nan"), 10**400, None])
def test_a_learning_rate_that_makes_no_sense_is_refused(tmp_path, rate):
    path = tmp_path / "classic"
    ThreeLayerNetwork(4, 3, 2, 0.3, device="cpu").save(path)
    rewrite(path, learning_rate=rate)
    fails(ModelFileError, ThreeLayerNetwork.load, path, "cpu")


# Saves that fail leave what was there.


def assert_untouched(path, network):
    assert [child.name for child in path.parent.iterdir()] == [path.name]
    assert_same(network, load(path))


@pytest.mark.parametrize("where", ["no/such/folder/model", "."])
def test_places_that_cannot_be_written_are_named(tmp_path, network, where):
    assert str(tmp_path / where) in fails(OutputError, network.save, tmp_path / where)
    assert not list(tmp_path.iterdir())


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_keeps_the_old_file(path, network):
    path.parent.chmod(0o500)
    try:
        fails(OutputError, Network([5, 3], device="cpu").save, path)
    finally:
        path.parent.chmod(0o700)
    assert_untouched(path, network)


@pytest.mark.parametrize("where", [".", "/"])
def test_a_folder_is_no_place_for_a_model(path, network, where):
    before = sorted(path.parent.parent.iterdir())
    assert "cannot write" in fails(OutputError, network.save, path.parent / where)
    assert sorted(path.parent.parent.iterdir()) == before
    assert_untouched(path, network)


def test_a_name_that_no_file_can_have_is_refused_in_one_line(path, network):
    for name in ("x" * 256, "\U0001f9e0" * 64, "with\0zero"):
        assert "cannot write" in fails(OutputError, network.save, path.with_name(name))
    assert_untouched(path, network)


@posix
@pytest.mark.parametrize("name", ["x" * 255, "\U0001f9e0" * 63], ids=["letters", "brains"])
def test_the_longest_names_can_be_written(tmp_path, network, name):
    network.save(tmp_path / name)
    network.save(tmp_path / name)
    assert_untouched(tmp_path / name, network)


@posix
@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_stays_and_what_it_names_is_replaced(tmp_path, network, there):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "model", tmp_path / "link"
    link.symlink_to("elsewhere/model")
    if there:
        target.write_bytes(b"old")
    network.save(link)
    assert os.readlink(link) == "elsewhere/model"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "link"]
    assert_untouched(target, network)


@posix
def test_a_pipe_is_written_to_and_stays(path, network):
    pipe = path.parent / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        check_writable(pipe)
        network.save(pipe)
        assert reader.stdout.read() == path.read_bytes()
    assert pipe.is_fifo()
    assert sorted(path.parent.iterdir()) == [path, pipe]


def test_a_folder_that_vanishes_meanwhile_is_an_error(tmp_path):
    folder = tmp_path / "vanishes"
    folder.mkdir()

    def write():
        with replacing(folder / "model") as temporary:
            temporary.write_bytes(b"new")
            shutil.rmtree(folder)

    with pytest.raises(FileNotFoundError):
        write()
    assert not list(tmp_path.iterdir())


def test_what_a_library_writes_beside_its_file_is_removed(path, network):
    def write(fails):
        with replacing(path) as temporary:
            temporary.with_name(".tmpLibrary").write_bytes(b"of a library's own")
            temporary.write_bytes(path.read_bytes())
            if fails:
                raise KeyboardInterrupt

    write(fails=False)
    with pytest.raises(KeyboardInterrupt):
        write(fails=True)
    assert_untouched(path, network)


FULL_DISK = """
import resource, sys
from gpunn import Network
from gpunn.errors import OutputError
network = Network([100, 200, 10], device="cpu")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    network.save(sys.argv[1])
except OutputError as error:
    print(error)
"""


@posix
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(path, network):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert len(done.stdout.splitlines()) == 1
    assert_untouched(path, network)


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_says_who_may_read_a_model(path, network, umask):
    before = os.umask(umask)
    try:
        network.save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


KILLED = """
import os, signal, sys, time
import numpy as np
from gpunn import Network
path, networks = sys.argv[1], [Network([784, 500, 10], device="cpu", seed=s) for s in (0, 1)]
known = [n.parameters()["layers.0.weight"].tobytes() for n in networks]
networks[0].save(path)
seen = []
for kill in range(20):
    child = os.fork()
    if child == 0:
        while True:
            networks[1].save(path)
            networks[0].save(path)
    time.sleep(0.02 + 0.0017 * kill)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen.append(known.index(Network.load(path, "cpu").parameters()["layers.0.weight"].tobytes()))
print(*seen)
"""


@posix
def test_a_killed_save_leaves_the_old_file_or_the_new_one(path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.split()) == 20
