"""Readers of weight files: named arrays, listed and checked before any array is read.

A reader yields an `Archive`: {layer: {part: Stored}}. `Stored` has a shape and reads its values on
demand. Every problem of a file raises a `WeightsError` that names the file.

Files may come from untrusted sources. The readers do not unpickle, follow links or open other
files. They check each declared size before they allocate memory: it must fit into the file's
length, times the largest compression ratio of deflate.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import stat
import zipfile
from collections.abc import Callable, Iterator

import h5py
import numpy as np

MAX_ARRAYS = 10_000
MAX_AXES = 32  # limit of Caffe (caffe/include/caffe/blob.hpp) and of HDF5
MAX_DEPTH = 16  # of groups in HDF5; a segmenter's layers lie at depth 5
MAX_NAME = 1024  # characters
MAX_HEADER = 16 << 20  # bytes of JSON in a .safetensors file
MAX_INFLATION = 1032  # deflate's largest ratio (zlib technical details, "maximum compression")
FLOATS = ("float16", "float32", "float64")


class WeightsError(ValueError):
    """Error for a weight file that cannot be read or does not fit the network."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a file.

    Attributes:
        name: its name in the file.
        shape: its shape.
        dtype: the name of its dtype.
        read: function() that returns its values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Archive:
    """The arrays of a file.

    Attributes:
        kind: "blobs" (Caffe: parts of a layer are "0", "1", ...), "tensors" (torch: "weight",
            "bias", ...) or "variables" (Keras: "0", "1", ... in the order of `layer.weights`).
        layers: {layer: {part: Stored}}.
    """

    kind: str
    layers: dict[str, dict[str, Stored]]


@contextlib.contextmanager
def reading(path, part: str = ""):
    """Convert any error of a parser to a `WeightsError` that names the file, and the part."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # parsers of other libraries raise almost anything
        place = f"{part}: " if part else ""
        reason = str(error) or type(error).__name__
        raise WeightsError(f"{path}: {place}cannot be read: {reason}") from error


def length_of(path) -> int:
    """Return the length of a regular, non-empty file in bytes.

    Raises:
        WeightsError: if there is no file, it is a directory, a pipe or a device, or it is empty.
    """
    with reading(path):
        status = pathlib.Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError(f"{path}: not a regular file.")
    if status.st_size == 0:
        raise WeightsError(f"{path}: the file is empty.")
    return status.st_size


@contextlib.contextmanager
def open_hdf5(path) -> Iterator[Archive]:
    """Open Caffe's .h5 (/data/<layer>/<k>) or Keras' .weights.h5 (.../vars/<k>).

    The reader rejects soft and external links, external storage, virtual data sets, dtypes other
    than numbers, filters other than gzip, shuffle, checksum and LZF, and sizes that the file cannot
    contain.
    """
    length = length_of(path)
    with reading(path):
        file = h5py.File(path, "r")
    with file:
        with reading(path):
            datasets = dict(_datasets(path, file, length, {h5py.h5o.get_info(file.id).addr}))
            if any(place.startswith("data/") for place in datasets):
                archive = Archive("blobs", _blobs(path, datasets))
            else:
                archive = Archive("variables", _variables(path, datasets))
        yield archive


def _datasets(path, group, length, seen, depth=0):
    """Yield (place, dataset) of everything below `group`, without following links.

    `seen` is the set of visited addresses.
    """
    for name in group:
        place = f"{group.name.rstrip('/')}/{name}"
        if depth > MAX_DEPTH or len(name) > MAX_NAME:
            raise WeightsError(
                f"{path}: {place[:MAX_NAME]}: lies too deep, or has too long a name."
            )
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(
                f"{path}: {place} is a {type(link).__name__}; only arrays in the file itself are "
                "read. Copy the array into the file."
            )
        item = group.get(name)
        address = h5py.h5o.get_info(item.id).addr
        if address in seen or len(seen) >= MAX_ARRAYS:
            raise WeightsError(
                f"{path}: {place} has a second name in the file, or is one too many."
            )
        seen.add(address)
        if isinstance(item, h5py.Group):
            yield from _datasets(path, item, length, seen, depth + 1)
        else:
            _check_dataset(path, place, item, length)
            yield place.strip("/"), item


_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
}


def _check_dataset(path, place, item, length):
    """Check layout, storage and filters first: the shape of a virtual data set may open files."""
    problem = None
    if not isinstance(item, h5py.Dataset):
        problem = f"is a {type(item).__name__}, neither group nor array"
    elif (layout := item.id.get_create_plist()).get_layout() == h5py.h5d.VIRTUAL:
        problem = "is a virtual data set, whose values lie in other files"
    elif layout.get_external_count():
        problem = "keeps its values in another file"
    elif {layout.get_filter(k)[0] for k in range(layout.get_nfilters())} - _FILTERS:
        problem = "is compressed otherwise than by gzip or LZF"
    elif item.dtype.kind not in "fiu":
        problem = f"has dtype {item.dtype}, expected numbers"
    elif item.shape is None or len(item.shape) > MAX_AXES:
        problem = "has no shape, or too many axes"
    else:
        problem = _size_problem(item, layout.get_nfilters() > 0, length)
    if problem:
        raise WeightsError(f"{path}: {place} {problem}.")


def _size_problem(dataset, is_filtered, length):
    promised, held = (
        math.prod(dataset.shape) * dataset.dtype.itemsize,
        dataset.id.get_storage_size(),
    )
    if held > length or promised > held * (MAX_INFLATION if is_filtered else 1):
        return (
            f"promises {promised} bytes, shape {dataset.shape}, but the file holds {held} of them"
        )
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if chunk > max(promised, 1 << 20):
        return f"has chunks of {chunk} bytes, more than the whole array of {promised}"
    return None


def _stored(place, dataset):
    return Stored(place, dataset.shape, dataset.dtype.name, lambda: dataset[()])


def _blobs(path, datasets):
    """Read Caffe's layout (Net::ToHDF5 in caffe/src/caffe/net.cpp; gradients lie in /diff)."""
    layers = {}
    for place, dataset in datasets.items():
        root, _, name = place.partition("/")
        layer, _, part = name.rpartition("/")
        if root == "diff":
            continue
        if root != "data" or not layer or not part.isdecimal():
            raise WeightsError(f"{path}: {place} is not of the form /data/<layer>/<number>.")
        layers.setdefault(layer, {})[part] = _stored(name, dataset)
    return layers


def _variables(path, datasets):
    """Read Keras' layout: .../<anything>/vars/<k>, the layer's name as an attribute of vars."""
    places, layers = {}, {}
    for place, dataset in datasets.items():
        parents, _, part = place.rpartition("vars/")
        if place.startswith("optimizer/"):
            continue
        if not part.isdecimal():
            raise WeightsError(f"{path}: {place} is stored neither as Caffe nor as Keras does it.")
        name = dataset.parent.attrs.get("name")
        if not isinstance(name, str) or len(name) > MAX_NAME:
            raise WeightsError(f"{path}: {place}: its group does not name the layer.")
        if places.setdefault(name, parents) != parents:
            raise WeightsError(
                f"{path}: two layers are called {name!r}, in {places[name]} and {parents}."
            )
        layers.setdefault(name, {})[part] = _stored(place, dataset)
    return layers


@contextlib.contextmanager
def open_npz(path) -> Iterator[Archive]:
    """Open numpy's .npz, arrays named <layer>.<part> or <layer>/<part>, without unpickling."""
    length_of(path)
    with reading(path):
        file = zipfile.ZipFile(path)
    with file:
        with reading(path):
            members = file.infolist()
            if len({member.filename for member in members}) != len(members):
                raise WeightsError(f"{path}: two arrays have one name.")
            arrays = {m.filename.removesuffix(".npy"): _npy(path, file, m) for m in members}
        yield grouped(path, arrays)


def _npy(path, file, member):
    """Return one array of a .npz. Check its header against the sizes of its member."""
    name = member.filename
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(f"{path}: {name} is compressed otherwise than by deflate.")
    if member.file_size > MAX_INFLATION * member.compress_size:
        raise WeightsError(f"{path}: {name} promises more bytes than it can hold.")
    with reading(path, name), file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, _, dtype = readers[version](stream)
        held = member.file_size - stream.tell()
    if dtype.kind not in "fiub":
        raise WeightsError(f"{path}: {name} has dtype {dtype}, expected numbers.")
    if held != math.prod(shape) * dtype.itemsize:
        raise WeightsError(f"{path}: {name} has shape {shape} of {dtype} but {held} bytes.")

    def read():
        with file.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return Stored(name.removesuffix(".npy"), shape, dtype.name, read)


_SAFETENSORS_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}


@contextlib.contextmanager
def open_safetensors(path) -> Iterator[Archive]:
    """Open .safetensors. The `safetensors` package maps the file and checks its arrays."""
    import safetensors

    length = length_of(path)
    with reading(path), pathlib.Path(path).open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if header > min(length - 8, MAX_HEADER):
        raise WeightsError(f"{path}: its header of {header} bytes exceeds the file or the limit.")
    with contextlib.ExitStack() as stack:
        with reading(path):
            file = stack.enter_context(safetensors.safe_open(os.fspath(path), framework="numpy"))
            arrays = {name: _tensor(file, name) for name in file.keys()}  # noqa: SIM118
        yield grouped(path, arrays)


def _tensor(file, name):
    view = file.get_slice(name)
    dtype = view.get_dtype()
    return Stored(
        name,
        tuple(view.get_shape()),
        _SAFETENSORS_DTYPES.get(dtype, dtype),
        lambda: file.get_tensor(name),
    )


@contextlib.contextmanager
def open_torch(path) -> Iterator[Archive]:
    """Open a state dict in torch's .pth or .pt, by torch with weights_only=True.

    A dict with a state dict under the key "state_dict" works too.

    Raises:
        WeightsError: if torch is not installed, or the file contains anything but tensors.
    """
    length_of(path)
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: reading torch's files needs torch: pip install 'mm-keras[torch]'. Without "
            "it, save the weights as .safetensors or .npz elsewhere."
        ) from error
    with reading(path):
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _check_torch_zip(path)
        # Files before torch 1.6, such as torchvision's vgg16-397923af.pth, are no zip files.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
            state = state["state_dict"]
        if not isinstance(state, dict):
            raise WeightsError(f"{path}: holds a {type(state).__name__}, expected a state dict.")
        arrays = {str(name): _torch_tensor(path, name, state[name]) for name in state}
    yield grouped(path, arrays)


def _check_torch_zip(path):
    with zipfile.ZipFile(path) as file:
        if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
            raise WeightsError(f"{path}: has compressed members, which torch does not write.")


def _torch_tensor(path, name, tensor):
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        raise WeightsError(f"{path}: {name} is a {type(tensor).__name__}, expected a dense tensor.")
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Stored(str(name), tuple(tensor.shape), dtype, lambda: tensor.detach().numpy())


def grouped(path, arrays: dict[str, Stored]) -> Archive:
    """Group {"<layer>.<part>" or "<layer>/<part>": Stored} by layer.

    If all parts are numbers, they are Caffe's blobs.

    Raises:
        WeightsError: if there are too many arrays, or a name is too long.
    """
    if len(arrays) > MAX_ARRAYS:
        raise WeightsError(f"{path}: holds {len(arrays)} arrays, more than {MAX_ARRAYS}.")
    layers = {}
    for name, stored in arrays.items():
        if len(name) > MAX_NAME or len(stored.shape) > MAX_AXES:
            raise WeightsError(f"{path}: {name[:MAX_NAME]}: too long a name, or too many axes.")
        layer, _, part = name.rpartition("/" if "/" in name else ".")
        layers.setdefault(layer or part, {})[part] = stored
    is_blobs = all(part.isdecimal() for parts in layers.values() for part in parts)
    return Archive("blobs" if is_blobs else "tensors", layers)
