"""Writers of weight files, for formats of which no file is at hand."""

import numpy as np
import pytest


def _varint(value):
    digits = bytearray()
    while True:
        value, digit = value >> 7, value & 127
        digits.append(digit | (128 if value else 0))
        if not value:
            return bytes(digits)


def _field(number, payload):
    """A length-delimited field of protobuf."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _values(array, packed, double):
    number, dtype, wire = (8, "<f8", 1) if double else (5, "<f4", 5)
    flat = np.ascontiguousarray(array, dtype).reshape(-1)
    if packed:
        return _field(number, flat.tobytes())
    return b"".join(_varint(number << 3 | wire) + value.tobytes() for value in flat)


def _shape(shape, legacy):
    if not legacy:
        return _field(7, _field(1, b"".join(_varint(length) for length in shape)))
    padded = (1,) * (4 - len(shape)) + tuple(shape)
    return b"".join(_varint(k << 3) + _varint(n) for k, n in enumerate(padded, start=1))


def caffemodel_bytes(layers, version=2, packed=True, double=False, legacy=False):
    """{layer: [arrays]} as NetParameter, version 0, 1 or 2 of its layers.

    legacy: whether shapes are num, channels, height and width, as before BlobShape.
    """
    number, name_field, blobs_field = {0: (2, 1, 50), 1: (2, 4, 6), 2: (100, 1, 7)}[version]
    content = _field(1, b"a network")
    for name, blobs in layers.items():
        layer = _field(name_field, name.encode())
        for blob in blobs:
            blob = np.asarray(blob)
            body = _shape(blob.shape, legacy) + _values(blob, packed, double)
            layer += _field(blobs_field, body)
        content += _field(number, _field(1, layer) if version == 0 else layer)
    return content


@pytest.fixture(scope="session")
def write_caffemodel():
    """Function(path, {layer: [arrays]}, **how) -> path; see `caffemodel_bytes`."""

    def write(path, layers, **how):
        path.write_bytes(caffemodel_bytes(layers, **how))
        return path

    return write


@pytest.fixture(scope="session")
def write_caffe_hdf5():
    """Function(path, {layer: [arrays]}) -> path, in the layout of Caffe's Net::ToHDF5."""
    import h5py

    def write(path, layers):
        with h5py.File(path, "w") as file:
            for name, blobs in layers.items():
                for k, blob in enumerate(blobs):
                    file[f"data/{name}/{k}"] = np.asarray(blob, "float32")
        return path

    return write
