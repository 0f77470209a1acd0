"""Read the .mat files of SBD's masks: only GTcls.Segmentation of a MATLAB 5 file.

scipy.io can read such files, but it would be a dependency for this one layout. It also limits
neither the unpacked nor the declared size, and it builds the sparse boundaries next to each mask.
Layout: MathWorks, "MAT-File Format", chapter 1, level 5.
"""

import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# SBD's files have about 10 KB and contain an image of at most 500 x 500 with its boundaries.
_MAX_FILE_BYTES = 4 << 20
_MAX_UNPACKED_BYTES = 32 << 20
_HEADER_BYTES = 128
# Types of data elements, and classes of arrays.
_INT8, _UINT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 2, 5, 6, 14, 15
_STRUCT_CLASS, _UINT8_CLASS = 2, 9


class _Element(NamedTuple):
    type: int
    data: memoryview


class _Array(NamedTuple):
    array_class: int
    shape: tuple[int, ...]
    name: str
    rest: Iterator[_Element]  # the elements after name, shape and class


def read_segmentation(file: pathlib.Path) -> np.ndarray:
    """Read the class ids of one of SBD's files, benchmark_RELEASE/dataset/cls/ID.mat.

    Args:
        file: path of the .mat file.

    Returns:
        uint8 [height, width].

    Raises:
        ValueError: if the file has another layout, is damaged, or is too large for a mask.
    """
    size = file.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"has {size} bytes, one of SBD's masks at most {_MAX_FILE_BYTES}")
    content = file.read_bytes()
    if content[124:128] != b"\x00\x01IM":
        raise ValueError("is no little-endian MATLAB 5 file, as SBD's are")
    try:
        for element in _elements(memoryview(content)[_HEADER_BYTES:]):
            array = _array(_unpacked(element))
            if array.name == "GTcls":
                return _matrix(_field(array, "Segmentation"))
    except (struct.error, zlib.error, StopIteration, UnicodeDecodeError) as error:
        raise ValueError(f"is damaged: {error or 'it ends early'}") from error
    raise ValueError("has no variable GTcls, as SBD's files have")


def _elements(data: memoryview) -> Iterator[_Element]:
    """Split data into elements; short elements are in the second half of their tag."""
    while data:
        first, num_bytes = struct.unpack_from("<II", data)
        if first >> 16:
            kind, num_bytes, start, stop = first & 0xFFFF, first >> 16, 4, 8
            if num_bytes > 4:
                raise ValueError(f"is damaged: a short element of {num_bytes} bytes")
        else:
            kind, start = first, 8
            # Elements begin at multiples of eight bytes, except after a compressed element.
            stop = start + (num_bytes if kind == _COMPRESSED else -(-num_bytes // 8) * 8)
        content = data[start : start + num_bytes]
        if len(content) < num_bytes:
            raise ValueError("is damaged: it ends early")
        yield _Element(kind, content)
        data = data[stop:]


def _unpacked(element: _Element) -> _Element:
    if element.type != _COMPRESSED:
        return element
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(element.data, _MAX_UNPACKED_BYTES)
    if not unpacker.eof:
        raise ValueError(f"is cut short, or unpacks to more than {_MAX_UNPACKED_BYTES} bytes")
    return next(_elements(memoryview(data)))


def _array(element: _Element) -> _Array:
    """Read the header of an array: flags, dimensions, name."""
    parts = _elements(_data(element, _MATRIX))
    flags = struct.unpack_from("<I", _data(next(parts), _UINT32))[0]
    dimensions = _data(next(parts), _INT32)
    shape = struct.unpack(f"<{len(dimensions) // 4}i", dimensions)
    name = bytes(_data(next(parts), _INT8)).decode("ascii")
    return _Array(flags & 0xFF, shape, name, parts)


def _field(array: _Array, name: str) -> _Array:
    """Return a field of a 1 x 1 struct."""
    if array.array_class != _STRUCT_CLASS or array.shape != (1, 1):
        raise ValueError(f"holds {array.name} of another form than SBD's")
    length = struct.unpack("<i", _data(next(array.rest), _INT32))[0]
    joined = bytes(_data(next(array.rest), _INT8))
    if length < 1:
        raise ValueError("is damaged: field names without length")
    names = [
        joined[k : k + length].split(b"\0")[0].decode("ascii")
        for k in range(0, len(joined), length)
    ]
    for field, element in zip(names, array.rest, strict=False):
        if field == name:
            return _array(element)
    raise ValueError(f"has no {array.name}.{name}")


def _matrix(array: _Array) -> np.ndarray:
    if array.array_class != _UINT8_CLASS or len(array.shape) != 2 or min(array.shape) < 1:
        raise ValueError(f"holds a mask of shape {array.shape} that is not uint8, as SBD's are")
    pixels = np.frombuffer(_data(next(array.rest), _UINT8), np.uint8)
    height, width = array.shape
    if pixels.size != height * width:
        raise ValueError(f"is damaged: {pixels.size} pixels for {height} x {width}")
    return pixels.reshape(width, height).T.copy()  # MATLAB stores column by column


def _data(element: _Element, kind: int) -> memoryview:
    if element.type != kind:
        raise ValueError(f"is damaged: element of type {element.type}, expected {kind}")
    return element.data
