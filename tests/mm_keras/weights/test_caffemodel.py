"""Caffe's weight files: real ones, and written ones of every form that there was."""

import json

import numpy as np
import pytest

from mm_keras.weights import caffemodel
from mm_keras.weights.files import WeightsError

REAL = ("mtcnn_det1_v2", "mtcnn_det2_v2", "lenet_v1", "cifar10_quick_v1")


@pytest.fixture(params=REAL)
def real_model(request, real_data):
    path = real_data / "caffemodels" / f"{request.param}.caffemodel"
    if not path.exists():
        pytest.skip("the folder with real data has no caffemodels")
    return path


def test_real_files_have_their_known_layers(real_model):
    expected = json.loads(real_model.with_suffix(".expected.json").read_text())["layers"]
    blobs = caffemodel.read(real_model)
    assert list(blobs) == [layer["name"] for layer in expected]
    for layer in expected:
        for array, known in zip(blobs[layer["name"]], layer["blobs"], strict=True):
            assert array.dtype == "float32" and list(array.shape) == known["shape"]
            assert array.reshape(-1)[:4].tolist() == known["first"]
            np.testing.assert_allclose(array.sum(dtype="float64"), known["sum"], rtol=1e-9)
            np.testing.assert_allclose(
                np.abs(array).mean(dtype="float64"), known["mean_abs"], rtol=1e-9
            )


def test_real_files_equal_opencvs_reading(real_model):
    cv2 = pytest.importorskip("cv2")
    network = cv2.dnn.readNetFromCaffe(str(real_model.with_suffix(".prototxt")), str(real_model))
    blobs, compared = caffemodel.read(real_model), 0
    for name in set(network.getLayerNames()) & set(blobs):
        for theirs, ours in zip(network.getLayer(name).blobs, blobs[name], strict=False):
            np.testing.assert_array_equal(ours.reshape(-1), np.asarray(theirs).reshape(-1))
            compared += 1
    assert compared >= 8


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    shapes = {"conv1": [(4, 3, 2, 5), (4,)], "fc/7": [(6, 200), (6,)], "norm": [(1,)]}
    return {name: [rng.normal(size=s).astype("f4") for s in all] for name, all in shapes.items()}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_all_forms_are_read(tmp_path, write_caffemodel, layers, version, legacy, double, packed):
    path = write_caffemodel(
        tmp_path / "a.caffemodel",
        layers,
        version=version,
        legacy=legacy,
        double=double,
        packed=packed,
    )
    blobs = caffemodel.read(path)
    assert list(blobs) == list(layers)
    for name, arrays in layers.items():
        for ours, array in zip(blobs[name], arrays, strict=True):
            shape = (1,) * (4 - array.ndim) * legacy + array.shape
            assert ours.shape == shape and ours.dtype == "float32"
            np.testing.assert_array_equal(ours.reshape(-1), array.reshape(-1))


def test_hdf5_gives_the_same_arrays(tmp_path, write_caffe_hdf5, layers):
    blobs = caffemodel.read(write_caffe_hdf5(tmp_path / "a.caffemodel.h5", layers))
    assert blobs.keys() == layers.keys()
    for name in layers:
        for ours, array in zip(blobs[name], layers[name], strict=True):
            np.testing.assert_array_equal(ours, array)


def test_arrays_are_views_of_the_file(tmp_path, write_caffemodel, layers):
    (array, *_) = caffemodel.read(write_caffemodel(tmp_path / "a.caffemodel", layers))["conv1"]
    assert not array.flags.owndata and not array.flags.writeable


def test_the_v0_format_is_named_and_rejected(tmp_path, write_caffemodel, layers):
    path = write_caffemodel(tmp_path / "old.caffemodel", layers, version=0)
    with pytest.raises(WeightsError, match="old.caffemodel.*V0.*upgrade_net_proto_binary"):
        caffemodel.read(path)


def _layer(blob, name=b"conv1"):
    """A V2 layer with one blob, as bytes of a NetParameter; all lengths below 128."""
    body = b"\x0a" + bytes([len(name)]) + name + b"\x3a" + bytes([len(blob)]) + blob
    return b"\xa2\x06" + bytes([len(body)]) + body


BOMB = b"\x3a\x08\x0a\x06" + b"\xff\xff\xff\xff\x07\x01" + b"\x2a\x04abcd"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x0a\x03abc", "no layer with weights"),
        (b"\xff" * 40, "a number has no end"),
        (b"\x0b\x01", "wire type 3"),
        (_layer(BOMB), r"conv1/0: shape \(2147483647, 1\) but 1 values"),
        (_layer(b"\x3a\x07\x0a\x05\xff\xff\xff\xff\x0f"), "conv1/0.*too long axes"),
        (_layer(b"\x3a\x23\x0a\x21" + b"\x01" * 33), "conv1/0.*too many"),
        (_layer(b"\x3a\x03\x0a\x01\x02"), "conv1/0: has no values"),
        (_layer(b"\x2a\x04abcd\x2a\x04abcd"), "conv1/0.*several pieces"),
        (_layer(b"\x28\x01"), "conv1/0.*wire type 0"),
        (_layer(b"\x2a\x7f"), "conv1/0.*field 5 is to have 127 bytes"),
        (_layer(b"\x2a\x04abcd") * 2, "two layers with blobs are called 'conv1'"),
        (_layer(b"\x2a\x04abcd")[:-2], "cut in layer 'conv1'"),
        (b"\xa2\x06\x7f\x0a\x05con", "field 100 is to have 127 bytes, of which 5"),
        (b"\x08\x01" * 100_001, "more than 100000 fields"),
    ],
)
def test_broken_files_name_the_place(tmp_path, content, message):
    path = tmp_path / "broken.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"(?s)broken\.caffemodel.*{message}"):
        caffemodel.read(path)


def test_paths_that_are_no_files_are_rejected(tmp_path):
    for path in (tmp_path, tmp_path / "missing.caffemodel"):
        with pytest.raises(WeightsError, match=path.name):
            caffemodel.read(path)


def _length(value):
    """A varint of three bytes."""
    return bytes([value & 127 | 128, value >> 7 & 127 | 128, value >> 14])


def test_interleaved_values_take_no_longer_than_the_file(tmp_path):
    # One float, then another field, and so on: each run of values ends at once.
    path = tmp_path / "a.caffemodel"
    blob = b"\x2dabcd\x08\x01" * 30_000
    layer = b"\x0a\x01a" + b"\x3a" + _length(len(blob)) + blob
    path.write_bytes(b"\xa2\x06" + _length(len(layer)) + layer)
    with pytest.raises(WeightsError, match="a/0: its values come in several pieces"):
        caffemodel.read(path)


@pytest.mark.parametrize("how", [{}, {"version": 1, "legacy": True, "packed": False}])
def test_damaged_files_raise_an_error_or_load_correctly(tmp_path, write_caffemodel, layers, how):
    path = write_caffemodel(tmp_path / "a.caffemodel", layers, **how)
    whole, rng, num_errors = path.read_bytes(), np.random.default_rng(0), 0
    structure = np.flatnonzero(np.frombuffer(whole, "uint8") < 128)[:200]
    for case in range(1000):
        damaged = bytearray(whole)
        if case % 4 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        for place in rng.choice(structure, size=rng.integers(1, 8)):
            if place < len(damaged):
                damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            caffemodel.read(path)
        except WeightsError as error:
            assert "a.caffemodel" in str(error)
            num_errors += 1
    assert 300 < num_errors < 1000
