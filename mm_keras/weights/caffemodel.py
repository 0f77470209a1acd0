"""Read Caffe's weight files without Caffe: `.caffemodel`, of V1 or V2 layers, and `.h5`.

A `.caffemodel` is a protobuf message NetParameter. The reader uses five of its messages, with the
field numbers of caffe.proto (BVLC/caffe, src/caffe/proto/caffe.proto). It reads them directly from
the mapped file, so neither protobuf nor a copy is needed:

    NetParameter       2 layers (V1), 100 layer (V2)
    V1LayerParameter   1 layer (V0), 4 name, 6 blobs
    LayerParameter     1 name, 7 blobs
    BlobProto          1..4 num, channels, height, width, 5 data, 7 shape, 8 double_data
    BlobShape          1 dim

The schema limits the nesting. Lengths are checked against the file's length.
"""

import contextlib
import math
import mmap
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mm_keras.weights.files import (
    MAX_ARRAYS,
    MAX_AXES,
    MAX_NAME,
    Archive,
    Stored,
    WeightsError,
    length_of,
    open_hdf5,
    reading,
)

MAX_FIELDS = 100_000  # per file; a snapshot of VGG-16 has about a thousand
MAX_BLOBS = 64  # per layer
MAX_DIM = 2**31 - 1

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

LAYERS = {2: (4, 6), 100: (1, 7)}
"""{field of NetParameter: (field of a layer's name, field of its blobs)}."""


def read(path) -> dict[str, list[np.ndarray]]:
    """Read all blobs of a `.caffemodel` or Caffe's `.h5`.

    Returns:
        {layer: [float32 arrays]} of the layers that have blobs, in Caffe's layouts, in the order of
        the file (`.h5`: of the names). Arrays of a `.caffemodel` are read-only views into the file.

    Raises:
        WeightsError: if the file is broken, is no file of Caffe, or exceeds a limit. The message
            names file and layer.
    """
    opened = open_caffemodel if pathlib.Path(path).suffix == ".caffemodel" else open_hdf5
    with opened(path) as archive:
        if archive.kind != "blobs":
            raise WeightsError(f"{path}: not a file of Caffe.")
        return {name: _arrays(path, name, parts) for name, parts in archive.layers.items()}


def _arrays(path, layer, parts):
    numbers = [str(k) for k in range(len(parts))]
    if set(parts) != set(numbers):
        raise WeightsError(f"{path}: blobs of layer {layer!r} are {sorted(parts)}, not 0, 1, ...")
    with reading(path, f"layer {layer!r}"):
        return [np.asarray(parts[k].read(), dtype="float32") for k in numbers]


@contextlib.contextmanager
def open_caffemodel(path) -> Iterator[Archive]:
    """Open the blobs of a `.caffemodel` as an `Archive`. The values stay in the mapped file."""
    length = length_of(path)
    with reading(path):
        with pathlib.Path(path).open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        layers = _layers(_Wire(path, content), length)
    yield Archive("blobs", layers)


class _Field(NamedTuple):
    """A field of a message: its number, wire type, and the bytes of its value.

    A run of `count` fixed-size values, each after its own key, is one field. `stride` is the
    distance between its values.
    """

    number: int
    wire: int
    start: int
    end: int
    count: int = 1
    stride: int = 0


class _CutOffError(WeightsError):
    """Error for a field that reaches beyond its message."""

    def __init__(self, message, number, start):
        super().__init__(message)
        self.number, self.start = number, start


class _Wire:
    """Read the fields of a mapped protobuf file, by their place in it."""

    def __init__(self, path, content):
        self.path, self.content, self.num_fields = path, content, 0

    def varint(self, place: int, end: int) -> tuple[int, int]:
        """Return the varint at `place`, and the place after it."""
        value = 0
        for k, byte in enumerate(self.content[place : min(place + 10, end)]):
            value |= (byte & 127) << (7 * k)
            if byte < 128:
                return value, place + k + 1
        raise WeightsError(f"{self.path}: byte {place}: a number has no end.")

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        """Yield the fields of the message in bytes start..end."""
        place = start
        while place < end:
            self.num_fields += 1
            if self.num_fields > MAX_FIELDS:
                raise WeightsError(f"{self.path}: more than {MAX_FIELDS} fields.")
            field = self._field(place, end)
            if field.end > end:
                raise _CutOffError(
                    f"{self.path}: byte {place}: field {field.number} is to have "
                    f"{field.end - field.start} bytes, of which {end - field.start} are there.",
                    field.number,
                    field.start,
                )
            yield field
            place = field.end

    def _field(self, place, end):
        key, start = self.varint(place, end)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            return _Field(number, wire, start, self.varint(start, end)[1])
        if wire == BYTES:
            length, start = self.varint(start, end)
            return _Field(number, wire, start, start + length)
        if wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            stride = start - place + size
            count = self._run(place, end, stride) if start == place + 1 else 1
            return _Field(number, wire, start, start + size + (count - 1) * stride, count, stride)
        raise WeightsError(f"{self.path}: byte {place}: wire type {wire} is none of protobuf's.")

    def _run(self, place, end, stride):
        """Count consecutive values with the key at `place`, reading at most twice the run."""
        keys = np.frombuffer(self.content, np.uint8)[place : end - stride + 1 : stride]
        count, chunk = 1, 64
        while count < len(keys):
            is_same = keys[count : count + chunk] == keys[0]
            if not is_same.all():
                return count + int(is_same.argmin())
            count, chunk = count + len(is_same), 2 * chunk
        return count

    def text(self, field: _Field) -> str:
        if field.wire != BYTES or field.end - field.start > MAX_NAME:
            raise WeightsError(f"{self.path}: byte {field.start}: not a name.")
        return self.content[field.start : field.end].decode("utf-8", errors="replace")


def _layers(wire, length):
    """Return {layer: {"0": Stored, ...}} of the layers with blobs."""
    layers = {}
    try:
        for field in wire.fields(0, length):
            if field.number not in LAYERS or field.wire != BYTES:
                continue
            name, blobs = _layer(wire, field)
            if blobs and name in layers:
                raise WeightsError(f"{wire.path}: two layers with blobs are called {name!r}.")
            if blobs:
                layers[name] = blobs
            if len(layers) > MAX_ARRAYS:
                raise WeightsError(f"{wire.path}: more than {MAX_ARRAYS} layers.")
    except _CutOffError as error:
        raise WeightsError(f"{error}{_cut_layer(wire, error, length)}") from error
    if not layers:
        raise WeightsError(f"{wire.path}: no layer with weights in it; is this a .caffemodel?")
    return layers


def _cut_layer(wire, error, length):
    """Return a sentence that names the layer in which a file was cut, if it has its name."""
    if error.number not in LAYERS:
        return " Is this a .caffemodel?"
    name_field, _ = LAYERS[error.number]
    with contextlib.suppress(WeightsError):
        for field in wire.fields(error.start, length):
            if field.number == name_field:
                return f" The file was cut in layer {wire.text(field)!r}."
    return " The file was cut in a layer."


def _layer(wire, layer):
    """Return the name of a layer and its blobs, {"0": Stored, ...}."""
    name_field, blobs_field = LAYERS[layer.number]
    name, blobs = "", []
    try:
        for field in wire.fields(layer.start, layer.end):
            if layer.number == 2 and field.number == 1 and field.wire == BYTES:
                raise WeightsError(
                    f"{wire.path}: has layers in Caffe's V0 format of 2013, which is not read. "
                    "Caffe's upgrade_net_proto_binary makes a V2 file of it."
                )
            if field.number == name_field:
                name = wire.text(field)
            elif field.number == blobs_field and field.wire == BYTES:
                blobs.append(field)
    except _CutOffError as error:
        raise WeightsError(f"{error} It is in layer {name!r}.") from error
    if len(blobs) > MAX_BLOBS:
        raise WeightsError(f"{wire.path}: layer {name!r} has {len(blobs)} blobs.")
    return name, {str(k): _blob(wire, blob, f"{name}/{k}") for k, blob in enumerate(blobs)}


def _blob(wire, blob, name):
    """Return a blob as `Stored`. `name` is <layer>/<number>."""
    where = f"{wire.path}: {name}"
    legacy, dims, data = {}, None, None
    try:
        for field in wire.fields(blob.start, blob.end):
            if field.number in (1, 2, 3, 4) and field.wire == VARINT:
                legacy[field.number] = wire.varint(field.start, field.end)[0]
            elif field.number == 7 and field.wire == BYTES:
                dims = _dims(wire, field, where)
            elif field.number in (5, 8):
                if data is not None:
                    raise WeightsError(f"{where}: its values come in several pieces.")
                data = field
    except _CutOffError as error:
        raise WeightsError(f"{where}: {error}") from error
    if dims is None:
        # Files older than BlobShape always have four axes. A missing one is 0 in protobuf.
        dims = [legacy.get(k, 0) for k in (1, 2, 3, 4)] if legacy else []
    return _values(wire, data, tuple(dims), name)


def _dims(wire, shape, where):
    """Return the axes in a BlobShape, packed or not."""
    dims = []
    for field in wire.fields(shape.start, shape.end):
        if field.number != 1 or field.wire not in (BYTES, VARINT):
            continue
        place = field.start
        while place < field.end and len(dims) <= MAX_AXES:
            dim, place = wire.varint(place, field.end)
            dims.append(dim)
    if len(dims) > MAX_AXES or any(dim > MAX_DIM for dim in dims):
        raise WeightsError(f"{where}: shape {dims} has too many or too long axes.")
    return dims


def _values(wire, field, shape, name):
    """Return the float or double values in `field`. Check their number against `shape`."""
    where = f"{wire.path}: {name}"
    if field is None:
        raise WeightsError(f"{where}: has no values; its shape is {shape}.")
    dtype = np.dtype("<f4" if field.number == 5 else "<f8")
    is_packed = field.wire == BYTES
    if not is_packed and field.wire != (FIXED32 if field.number == 5 else FIXED64):
        raise WeightsError(f"{where}: its values have wire type {field.wire}.")
    num_bytes = field.end - field.start
    count = num_bytes / dtype.itemsize if is_packed else field.count
    if count != math.prod(shape):
        raise WeightsError(f"{where}: shape {shape} but {count:g} values.")
    strides = (dtype.itemsize if is_packed else field.stride,)
    content = wire.content

    def read():
        flat = np.ndarray((int(count),), dtype, content, field.start, strides)
        return flat.reshape(shape)

    return Stored(name, shape, dtype.name, read)
