"""Weights of all known sources: activations after the import against plain numpy on the file's own
arrays, and everything that may not fit.
"""

import dataclasses
import functools

import h5py
import keras
import numpy as np
import pytest

import mm_keras
from mm_keras import backbones, weights
from mm_keras.backbones import PIXELS
from mm_keras.weights import WeightsError

VGG16 = [f"conv{k}_{i}" for k, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
ALEXNET = [f"conv{k}" for k in range(1, 6)]
VGG16_CHANNELS = [2] * 2 + [4] * 2 + [8] * 3 + [15] * 6  # at width 0.03
ALEXNET_CHANNELS = [4, 12, 20, 20, 12]  # at width 0.05
ONE_COLUMN_CHANNELS = [4, 10, 20, 12, 12]
NUM_CLASSES = 3


@functools.cache
def network(name, pixels, width):
    """A backbone that tests share: each overwrites all of it, or nothing."""
    return backbones.build(name, pixels, width)


# Networks in plain numpy, float64, channels first, on arrays as Caffe and torch store them.


def pixels_of(image, pixels):
    """RGB [H, W, 3] as the network of a file wants it, [C, H, W]."""
    image = image.astype("float64")
    if pixels.color == "bgr":
        image = image[..., ::-1]
    image = image * np.array(pixels.scale) - np.array(pixels.mean)
    if pixels.color == "gray":
        image = 0.33333 * image.sum(axis=-1, keepdims=True)
    return image.transpose(2, 0, 1)


def convolve(x, kernel, bias, stride=1, pad=0, groups=1):
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))
    windows = np.split(windows[:, ::stride, ::stride], groups)
    kernels = np.split(np.asarray(kernel, "float64"), groups)
    parts = [np.einsum("ihwyx,oiyx->ohw", *p) for p in zip(windows, kernels, strict=True)]
    return np.concatenate(parts) + np.reshape(bias, (-1, 1, 1))


def normalize(x, blobs):
    """Caffe's "BatchNorm" (mean, variance, factor) or "BN" (slope, bias, mean, variance)."""
    blobs = [np.reshape(blob, (-1, 1, 1)).astype("float64") for blob in blobs]
    if len(blobs) == 3:
        blobs = [1, 0, blobs[0] / blobs[2], blobs[1] / blobs[2]]
    slope, bias, mean, variance = blobs
    return slope * (x - mean) / np.sqrt(variance + 1e-5) + bias


def pool(x, size, stride, pad=0, rounding=np.ceil):
    _, height, width = x.shape
    rows, columns = (int(rounding((n + 2 * pad - size) / stride)) + 1 for n in (height, width))
    x = np.pad(x, ((0, 0), (pad, size), (pad, size)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return windows[:, ::stride, ::stride].max(axis=(3, 4))[:, :rows, :columns]


def normalize_response(x):
    squares = np.pad(x**2, ((2, 2), (0, 0), (0, 0)))
    total = sum(squares[k : k + len(x)] for k in range(5))
    return x / (1 + 1e-4 / 5 * total) ** 0.75


def block(x, blobs, name, **how):
    x = convolve(x, *blobs[name], **how)
    if f"batch_{name}" in blobs:
        x = normalize(x, blobs[f"batch_{name}"])
    return np.maximum(x, 0)


def run_vgg16(x, blobs):
    maps = {"input": x}
    for name in VGG16:
        x = maps[name] = block(x, blobs, name, pad=1)
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            x = maps[f"pool{name[4]}"] = pool(x, 2, 2)
    return maps


def run_alexnet(x, blobs, variant="colorize"):
    maps = {"input": x}
    one_column = variant == "one_column"
    for name, size, groups in zip(ALEXNET, (11, 5, 3, 3, 3), (1, 2, 1, 2, 2), strict=True):
        first = name == "conv1"
        pad = (2 if one_column else 5) if first else size // 2
        how = {"stride": 4 if first else 1, "pad": pad, "groups": 1 if one_column else groups}
        x = maps[name] = block(x, blobs, name, **how)
        if name in ("conv1", "conv2", "conv5"):
            norm = normalize_response if name != "conv5" and not one_column else np.array
            if variant == "jigsaw":
                x = norm(pool(x, 3, 2, pad=1))
            else:
                x = pool(norm(x), 3, 2, rounding=np.floor if one_column else np.ceil)
    return {**maps, "pool5": x}


# Weights of such networks, at random, in the layouts of the sources.


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def convolutions(rng, names, channels, inputs, sizes, groups=None):
    """{layer: [kernel, bias]} with responses of order 1 to inputs of order 1."""
    blobs = {}
    for k, (name, outputs, size) in enumerate(zip(names, channels, sizes, strict=True)):
        shape = (outputs, inputs // (groups[k] if groups else 1), size, size)
        kernel = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        blobs[name] = [kernel.astype("f4"), rng.normal(size=outputs, scale=0.3).astype("f4")]
        inputs = outputs
    return blobs


def vgg16(rng, inputs):
    return convolutions(rng, VGG16, VGG16_CHANNELS, inputs, [3] * 13)


def alexnet(rng, inputs, channels=ALEXNET_CHANNELS, groups=(1, 2, 1, 2, 2)):
    return convolutions(rng, ALEXNET, channels, inputs, (11, 5, 3, 3, 3), groups)


def with_norms(rng, blobs, num_blobs):
    """Adds a batch norm behind each layer, Caffe's "BatchNorm" (3 blobs) or "BN" (4)."""
    normed = {}
    for name, (kernel, bias) in blobs.items():
        size = len(bias)
        mean, variance = rng.normal(size=size, scale=0.3), rng.uniform(0.5, 2, size=size)
        if num_blobs == 3:
            factor = 999.98
            norm = [mean * factor, variance * factor, np.array([factor])]
        else:
            slope, shift = rng.uniform(0.5, 1.5, size), rng.normal(size=size, scale=0.3)
            norm = [blob[None] for blob in (slope, shift, mean, variance)]
        normed[name] = [kernel, bias]
        normed[f"batch_{name}"] = [np.asarray(blob, "f4") for blob in norm]
    return normed


def dense(rng, outputs, inputs):
    kernel = rng.normal(size=(outputs, inputs), scale=np.sqrt(2 / inputs)).astype("f4")
    return [kernel, rng.normal(size=outputs, scale=0.3).astype("f4")]


def torch_names(blobs, places, classifier=None):
    """Caffe's blobs under torchvision's names."""
    names, renamed = list(dict.fromkeys(n.removeprefix("batch_") for n in blobs)), {}
    for name, place in zip(names, places, strict=True):
        for part, array in zip(("weight", "bias"), blobs[name], strict=True):
            renamed[f"{place}.{part}"] = array
        if f"batch_{name}" in blobs:
            parts = ("weight", "bias", "running_mean", "running_var")
            layer, _, index = place.rpartition(".")
            for part, array in zip(parts, blobs[f"batch_{name}"], strict=True):
                renamed[f"{layer}.{int(index) + 1}.{part}"] = array[0]
            renamed[f"{layer}.{int(index) + 1}.num_batches_tracked"] = np.array(7)
    return renamed


def features(*places):
    return [f"features.{k}" for k in places]


VGG16_PLACES = features(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG16_BN_PLACES = features(0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
ALEXNET_PLACES = features(0, 3, 6, 8, 10)


@pytest.fixture
def write(tmp_path, write_caffemodel, write_caffe_hdf5):
    """Function(suffix, arrays) -> path of a file in that format."""

    def npz(path, arrays):
        np.savez_compressed(path, **arrays)
        return path

    def safetensors(path, arrays):
        numpy = pytest.importorskip("safetensors.numpy")
        numpy.save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
        return path

    def pth(path, arrays):
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
        return path

    def legacy_pth(path, arrays):
        torch = pytest.importorskip("torch")
        state = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
        return path

    writers = {
        "v1.caffemodel": lambda *args: write_caffemodel(*args, version=1, legacy=True),
        "v2.caffemodel": write_caffemodel,
        "caffemodel.h5": write_caffe_hdf5,
        "npz": npz,
        "safetensors": safetensors,
        "pth": pth,
        "pt": legacy_pth,
    }
    return lambda suffix, arrays: writers[suffix](tmp_path / f"weights.{suffix}", arrays)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (45, 52, 3)).astype("uint8")


def assert_maps_agree(backbone, image, maps):
    """All outputs of a backbone against {name: [C, h, w]}."""
    outputs = backbone(image[None])
    assert {name: output.shape[3] for name, output in outputs.items()} == {
        name: len(maps[name]) for name in outputs
    }
    for name, output in outputs.items():
        expected = maps[name].transpose(1, 2, 0)
        assert expected.std() > 0
        np.testing.assert_allclose(
            output[0], expected, rtol=1e-3, atol=3e-4 * np.abs(expected).max(), err_msg=name
        )


def prefixed(blobs, suffix):
    """Noroozi's names."""
    return {f"{name}{suffix}": arrays for name, arrays in blobs.items()}


VGG16_CASES = {
    "larsson, BatchNorm": ("larsson", "gray", "caffemodel.h5", 3),
    "release, gray BN": ("mm_release", "gray", "v2.caffemodel", 4),
    "release, color BN": ("mm_release", "bgr", "v2.caffemodel", 4),
    "VGG of its authors": ("caffe", "bgr", "v1.caffemodel", None),
}


@pytest.mark.parametrize("case", VGG16_CASES)
def test_activations_of_caffes_vgg16_equal_numpy(rng, write, image, case):
    source, pixels, suffix, num_blobs = VGG16_CASES[case]
    blobs = vgg16(rng, 1 if pixels == "gray" else 3)
    if num_blobs:
        blobs = with_norms(rng, blobs, num_blobs)
    backbone = network("vgg16", pixels, 0.03)
    report = weights.load(backbone, write(suffix, blobs))
    assert report.source == source and not (report.skipped or report.notes)
    assert set(report.loaded) == set(blobs)
    assert report.identity == ([] if num_blobs else [f"batch_{name}" for name in VGG16])
    assert_maps_agree(backbone, image, run_vgg16(pixels_of(image, PIXELS[pixels]), blobs))


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth", "pt"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_activations_of_torchvisions_vgg16_equal_numpy(rng, write, image, batch_norm, suffix):
    blobs = vgg16(rng, 3)
    places = VGG16_PLACES
    if batch_norm:
        blobs, places = with_norms(rng, blobs, 4), VGG16_BN_PLACES
    arrays = torch_names(blobs, places)
    arrays |= {"classifier.6.weight": np.ones((2, 2), "f4"), "classifier.6.bias": np.ones(2, "f4")}
    backbone = network("vgg16", "torch", 0.03)
    report = weights.load(backbone, write(suffix, arrays))
    assert report.source == "torchvision_vgg16" + "_bn" * batch_norm
    assert report.skipped == ["classifier.6"] and not report.notes
    assert_maps_agree(backbone, image, run_vgg16(pixels_of(image, PIXELS["torch"]), blobs))


ALEXNET_CASES = {
    "larsson, BatchNorm and fc": ("larsson", "gray", "caffemodel.h5", 3),
    "release, graph_iter of colorize": ("mm_release", "gray", "v2.caffemodel", 3),
    "release, graph_iter of random": ("mm_release", "bgr", "v2.caffemodel", 3),
    "release, graph_iter of jigsaw": ("mm_release", "jigsaw", "v2.caffemodel", 3),
    "noroozi": ("noroozi", "jigsaw", "v1.caffemodel", None),
    "CaffeNet": ("caffe", "bgr", "v1.caffemodel", None),
}


@pytest.mark.parametrize("case", ALEXNET_CASES)
def test_activations_of_caffes_alexnet_equal_numpy(rng, write, image, case):
    source, pixels, suffix, num_blobs = ALEXNET_CASES[case]
    blobs = alexnet(rng, 1 if pixels == "gray" else 3)
    file_blobs = blobs = with_norms(rng, blobs, num_blobs) if num_blobs else blobs
    if source == "larsson":
        more = {"fc6": dense(rng, 5, 12 * 36), "fc7": dense(rng, 4, 5)}
        file_blobs = file_blobs | with_norms(rng, more, 3)
    elif source == "noroozi":
        copies = [prefixed(file_blobs, f"_s{k}") for k in range(1, 10)]
        file_blobs = {name: arrays for copy in copies for name, arrays in copy.items()}
        file_blobs |= {f"fc6_s{k}": dense(rng, 5, 6) for k in range(1, 10)}
        file_blobs |= {"fc7": dense(rng, 5, 6), "fc8": dense(rng, 5, 6)}
    elif pixels == "jigsaw":
        file_blobs = {n + "_s1" * n.startswith("conv"): a for n, a in file_blobs.items()}
    backbone = network("alexnet", pixels, 0.05)
    named = source if source == "caffe" else None  # plain files of several works look alike
    report = weights.load(backbone, write(suffix, file_blobs), named)
    assert report.source == source and not report.notes
    assert len(report.skipped) == {"larsson": 4, "noroozi": 51}.get(source, 0)
    assert len(report.identity) == (0 if num_blobs else 5)
    variant = "jigsaw" if pixels == "jigsaw" else "colorize"
    assert_maps_agree(
        backbone, image, run_alexnet(pixels_of(image, PIXELS[pixels]), blobs, variant)
    )


def test_activations_of_torchvisions_alexnet_equal_numpy(rng, write):
    image = rng.integers(0, 256, (70, 83, 3)).astype("uint8")
    blobs = alexnet(rng, 3, ONE_COLUMN_CHANNELS, groups=(1,) * 5)
    backbone = network("alexnet_one_column", "torch", 0.05)
    report = weights.load(backbone, write("npz", torch_names(blobs, ALEXNET_PLACES)))
    assert report.source == "torchvision_alexnet"
    maps = run_alexnet(pixels_of(image, PIXELS["torch"]), blobs, "one_column")
    assert_maps_agree(backbone, image, maps)


# The first layer, from the pixels of the file to the pixels of the network.

SAME_SCALE = dataclasses.replace(PIXELS["gray"], color="bgr")  # of Larsson's color weights


@pytest.mark.parametrize("given", ["bgr", "jigsaw", "torch", "gray"])
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("caffe", PIXELS["bgr"]),
        ("larsson", SAME_SCALE),
        ("mm_release", PIXELS["gray"]),
        ("torchvision_vgg16", PIXELS["torch"]),
    ],
)
def test_pixels_are_rewritten(rng, write, image, source, expected, given):
    blobs = vgg16(rng, 1 if expected.color == "gray" else 3)
    torch = source == "torchvision_vgg16"
    path = (
        write("npz", torch_names(blobs, VGG16_PLACES)) if torch else write("v2.caffemodel", blobs)
    )
    backbone = network("vgg16", given, 0.03)
    spread = expected.color == "gray" and given != "gray"
    report = weights.load(backbone, path, source, gray_to_color=spread)
    assert bool(report.notes) == (expected != PIXELS[given])
    if given == "gray" and expected.color != "gray":
        image = np.repeat(image[..., :1], 3, axis=-1)  # all that such a network can be asked
    expected = convolve(pixels_of(image, expected), *blobs["conv1_1"], pad=1)
    # Around the image lie zeros, another color for other pixels.
    inner = np.maximum(expected, 0).transpose(1, 2, 0)[1:-1, 1:-1]
    result = np.asarray(backbone(image[None])["conv1_1"])[0, 1:-1, 1:-1]
    # The gray of the released networks sums thirds of 0.33333.
    np.testing.assert_allclose(result, inner, rtol=1e-3, atol=1e-4 * inner.max())


def test_a_change_of_order_is_a_flip_bit_for_bit(rng, write, monkeypatch):
    monkeypatch.setitem(PIXELS, "rgb", dataclasses.replace(PIXELS["bgr"], color="rgb", mean=0.0))
    blobs = vgg16(rng, 3)
    backbone = network("vgg16", "rgb", 0.03)
    weights.load(backbone, write("v2.caffemodel", blobs))
    kernel = backbone.get_layer("conv1_1").kernel.numpy()
    np.testing.assert_array_equal(kernel[:, :, ::-1], blobs["conv1_1"][0].transpose(2, 3, 1, 0))


def test_gray_pixels_of_another_mean_move_the_bias(rng, write, image):
    given = dataclasses.replace(PIXELS["gray"], scale=1.0, mean=100.0)
    backbone = backbones.vgg16.vgg16(given, width=0.03)
    blobs = vgg16(rng, 1)
    report = weights.load(backbone, write("v2.caffemodel", blobs))
    assert "conv1_1 rewritten from gray to gray x 1.0 - 100.0 pixels" in str(report)
    expected = convolve(pixels_of(image, PIXELS["gray"]), *blobs["conv1_1"], pad=1)
    inner = np.maximum(expected, 0).transpose(1, 2, 0)[1:-1, 1:-1]
    result = np.asarray(backbone(image[None])["conv1_1"])[0, 1:-1, 1:-1]
    np.testing.assert_allclose(result, inner, rtol=1e-3, atol=1e-4 * inner.max())


def test_color_weights_are_summed_for_gray(rng, write):
    blobs = with_norms(rng, vgg16(rng, 3), 3)
    backbone = network("vgg16", "gray", 0.03)
    report = weights.load(backbone, write("caffemodel.h5", blobs))
    assert "gray pixels" in str(report)
    kernel = backbone.get_layer("conv1_1").kernel.numpy()[:, :, 0]
    total = blobs["conv1_1"][0].sum(axis=1).transpose(1, 2, 0)
    np.testing.assert_allclose(kernel * 0.99999, total, rtol=1e-5, atol=1e-6)


def test_gray_weights_in_color_need_an_argument(rng, write):
    backbone = network("vgg16", "bgr", 0.03)
    path = write("v2.caffemodel", vgg16(rng, 1))
    with pytest.raises(WeightsError, match=r"conv1_1/0 has shape \(2, 1, 3, 3\).*gray_to_color"):
        weights.load(backbone, path)


# Segmenters.


def larsson_vgg16(rng, flat):
    blobs = with_norms(rng, vgg16(rng, 1), 3)
    more = {"fc6": dense(rng, 123, 15 * 49), "fc7": dense(rng, 123, 123)}
    if not flat:
        more["fc6"][0] = more["fc6"][0].reshape(123, 15, 7, 7)
        more["fc7"][0] = more["fc7"][0].reshape(123, 123, 1, 1)
    return blobs | with_norms(rng, more, 3)


NEW_LAYERS = ("conv_add?", "hypercolumn", "score")


@pytest.mark.parametrize("flat", [True, False])
def test_batch_norm_of_fc6_and_fc7_is_folded(rng, write, image, flat):
    blobs = larsson_vgg16(rng, flat)
    backbone = network("vgg16", "gray", 0.03)
    segmenter = mm_keras.HypercolumnSegmenter(backbone, NUM_CLASSES)
    report = weights.load(segmenter, write("caffemodel.h5", blobs), allow=NEW_LAYERS)
    assert report.folded == ["fc6", "fc7"] and not report.skipped
    assert report.missing == ["conv_add1", "conv_add2", "hypercolumn", "score"]
    x = run_vgg16(pixels_of(image, PIXELS["gray"]), blobs)["pool5"]
    for name, size in (("fc6", 7), ("fc7", 1)):
        kernel, bias = blobs[name]
        kernel = kernel.reshape(len(kernel), -1, size, size)
        x = block(x, blobs | {name: [kernel, bias]}, name, pad=size // 2)
        result = segmenter.feature_maps(image[None])[name][0]
        np.testing.assert_allclose(result, x.transpose(1, 2, 0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pixels", ["gray", "bgr"])
def test_the_released_hypercolumn_segmenter_is_loaded(rng, write, image, pixels):
    inputs = 1 if pixels == "gray" else 3
    blobs = with_norms(rng, vgg16(rng, inputs), 4)
    units = [("fc6", 123, 7), ("fc7", 123, 1), ("conv_add1", 31, 3), ("conv_add2", 31, 3)]
    names, channels, sizes = zip(*units, strict=True)
    blobs |= convolutions(rng, names, channels, 15, sizes)
    total = inputs + sum(VGG16_CHANNELS) + sum(channels)
    blobs |= {"ip_column": dense(rng, 31, total), "score_column": dense(rng, NUM_CLASSES, 31)}
    backbone = network("vgg16", pixels, 0.03)
    segmenter = mm_keras.HypercolumnSegmenter(backbone, NUM_CLASSES)
    report = weights.load(segmenter, write("v2.caffemodel", blobs))
    assert report.source == "mm_release" and len(report.loaded) == 32 and not report.skipped

    maps = run_vgg16(pixels_of(image, PIXELS[pixels]), blobs)
    x = maps["pool5"]
    for name, _, size in units:
        x = maps[name] = block(x, blobs, name, pad=size // 2)
        if name.startswith("conv_add"):
            x = maps[f"pool_add{name[-1]}"] = pool(x, 2, 2)
    strides = {name: 2 ** (int(name[4]) - 1) for name in VGG16}
    strides = {"input": 1} | strides | {"fc6": 32, "fc7": 32, "pool_add1": 64, "pool_add2": 128}
    logits = segmenter(image[None])[0]
    for y, x in ((0, 0), (10, 22), (22, 4)):
        column = [sample(maps[name], 2 * y / s, 2 * x / s) for name, s in strides.items()]
        kernel, bias = blobs["ip_column"]
        hidden = np.maximum(kernel @ np.concatenate(column) + bias, 0)
        expected = blobs["score_column"][0] @ hidden + blobs["score_column"][1]
        np.testing.assert_allclose(logits[y, x], expected, rtol=2e-3, atol=2e-3)


def sample(features, y, x):
    """Bilinear sample of [C, h, w], clamped as in the release's sparse extractor."""
    y, x = (min(c, max(n - 1.0001, 0)) for c, n in zip((y, x), features.shape[1:], strict=True))
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, features.shape[1] - 1), min(x0 + 1, features.shape[2] - 1)
    y, x = y - y0, x - x0
    top = features[:, y0, x0] * (1 - x) + features[:, y0, x1] * x
    return top * (1 - y) + (features[:, y1, x0] * (1 - x) + features[:, y1, x1] * x) * y


@pytest.mark.parametrize("source", ["mm_release", "larsson"])
def test_the_released_fcn_segmenter_is_loaded(rng, write, image, source):
    blobs = with_norms(rng, alexnet(rng, 1), 3)
    more = {"fc6": dense(rng, 205, 12 * 36), "fc7": dense(rng, 205, 205)}
    blobs |= with_norms(rng, more, 3)
    kernels = {"fc6": blobs["fc6"][0].reshape(205, 12, 6, 6)}
    kernels["fc7"] = blobs["fc7"][0].reshape(205, 205, 1, 1)
    kernel, bias = dense(rng, NUM_CLASSES, 205)
    score = [kernel[..., None, None], bias]
    file_blobs = blobs
    if source == "mm_release":
        file_blobs = blobs | {"fc8-voc": score}
        file_blobs |= {name: [kernels[name], blobs[name][1]] for name in kernels}
    segmenter = mm_keras.FcnSegmenter(network("alexnet", "gray", 0.05), NUM_CLASSES)
    report = weights.load(segmenter, write("caffemodel.h5", file_blobs), allow="score")
    assert report.source == source
    assert report.missing == (["score"] if source == "larsson" else [])
    x = run_alexnet(pixels_of(image, PIXELS["gray"]), blobs)["pool5"]
    for name, pad in (("fc6", 3), ("fc7", 0)):
        x = block(x, blobs | {name: [kernels[name], blobs[name][1]]}, name, pad=pad)
    result = segmenter.context(segmenter.backbone(image[None])["pool5"])["fc7"]
    np.testing.assert_allclose(result[0], x.transpose(1, 2, 0), rtol=2e-3, atol=2e-3)
    if source == "mm_release":
        expected = convolve(x, *score)  # its corner cells lie on the image's corner pixels
        corners = np.asarray(segmenter(image[None]))[0, [0, 0, -1, -1], [0, -1, 0, -1]]
        np.testing.assert_allclose(
            corners, expected[:, [0, 0, -1, -1], [0, -1, 0, -1]].T, rtol=2e-3, atol=2e-3
        )


# Keras' own files.


@pytest.mark.parametrize("compiled", [True, False])
def test_files_of_this_library_are_loaded(tmp_path, compiled):
    def build(seed):
        keras.utils.set_random_seed(seed)
        model = mm_keras.HypercolumnSegmenter(backbones.build("testing"), NUM_CLASSES, stddev=0.1)
        for variable in model.weights:
            variable.assign(keras.random.uniform(variable.shape))
        return model

    written, other = build(0), build(1)
    if compiled:
        written.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.1))
        written.optimizer.build(written.trainable_variables)
    path = tmp_path / "a.weights.h5"
    written.save_weights(path)
    report = weights.load(other, path)
    assert report.source == "keras" and len(report.loaded) == 12
    for ours, theirs in zip(other.weights, written.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    backbone = backbones.build("testing")
    weights.load(backbone, path, allow=("fc?", *NEW_LAYERS))
    np.testing.assert_array_equal(
        backbone.get_layer("conv2_1").kernel, written.backbone.get_layer("conv2_1").kernel
    )


def test_a_missing_batch_norm_in_our_own_file_is_no_identity(tmp_path):
    backbone = backbones.build("testing")
    path = tmp_path / "a.weights.h5"
    backbone.save_weights(path)
    with h5py.File(path, "a") as file:
        for name in list(file["layers"]):
            if name.startswith("batch_normalization"):
                del file["layers"][name]
    with pytest.raises(WeightsError, match="batch_conv1_1 is missing"):
        weights.load(backbone, path)


# Arrays that do not fit.


@pytest.fixture(scope="module")
def backbone():
    return network("vgg16", "gray", 0.03)


def values_of(model):
    return [variable.numpy() for variable in model.weights]


def without(blobs, *names):
    return {name: arrays for name, arrays in blobs.items() if name not in names}


def spoiled(blobs, layer, k, value):
    """The blobs with array k of a layer replaced."""
    arrays = list(blobs[layer])
    arrays[k] = value
    return blobs | {layer: arrays}


NAN = np.full((4, 4, 3, 3), np.nan, "f4")
FAULTS = {
    "missing layer": (lambda b: without(b, "conv3_2"), "conv3_2 is missing"),
    "missing batch norm": (lambda b: without(b, "batch_conv3_2"), "batch_conv3_2 is missing"),
    "missing bias": (lambda b: b | {"conv2_2": b["conv2_2"][:1]}, "conv2_2/bias is missing"),
    "extra layer": (lambda b: b | {"conv6": b["conv5_1"]}, "conv6 is in the file"),
    "extra blob": (lambda b: b | {"conv2_2": b["conv2_2"] * 3}, "conv2_2/3 is in the file"),
    "transposed kernel": (
        lambda b: spoiled(b, "conv2_1", 0, b["conv2_1"][0].transpose(2, 3, 1, 0)),
        r"conv2_1/0 has shape \(3, 3, 2, 4\) in the file, expected \(4, 2, 3, 3\)",
    ),
    "not a number": (lambda b: spoiled(b, "conv2_2", 0, NAN), "conv2_2/0 has values that are not"),
    "no statistics": (
        lambda b: spoiled(b, "batch_conv4_1", 2, np.zeros(1)),
        "layer batch_conv4_1: the factor",
    ),
    "negative variance": (
        lambda b: spoiled(b, "batch_conv4_1", 1, -b["batch_conv4_1"][1]),
        "layer batch_conv4_1: it has a variance of -",
    ),
    "another width": (
        lambda b: (
            vgg16(np.random.default_rng(0), 1)
            | b
            | {"conv5_3": [np.ones((16, 15, 3, 3)), np.ones(16)]}
        ),
        r"\(16, 15, 3, 3\).*\(15, 15, 3, 3\)",
    ),
}


@pytest.mark.parametrize("suffix", ["caffemodel.h5", "v2.caffemodel"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_and_change_nothing(rng, write, backbone, fault, suffix):
    spoil, message = FAULTS[fault]
    path = write(suffix, spoil(with_norms(rng, vgg16(rng, 1), 3)))
    before = values_of(backbone)
    with pytest.raises(WeightsError, match=rf"(?s)weights\.{suffix}.*{message}"):
        weights.load(backbone, path)
    for old, new in zip(before, values_of(backbone), strict=True):
        np.testing.assert_array_equal(old, new)


def test_faults_may_be_allowed_by_name(rng, write, backbone):
    blobs = without(with_norms(rng, vgg16(rng, 1), 3), "conv3_2")
    blobs = spoiled(blobs, "conv5_3", 0, np.ones((16, 15, 3, 3))) | {"extra": [np.ones(3)]}
    path = write("v2.caffemodel", blobs)
    kept = values_of(backbone.get_layer("conv5_3")) + values_of(backbone.get_layer("conv3_2"))
    report = weights.load(backbone, path, allow=("conv5_*", "conv3_2", "ext*"))
    assert report.missing == ["conv3_2"] and report.unexpected == ["extra"]
    assert report.mismatched["conv5_3"].shape == (16, 15, 3, 3)
    assert report.mismatched["conv5_3"].expected[0] == (15, 15, 3, 3)
    now = values_of(backbone.get_layer("conv5_3")) + values_of(backbone.get_layer("conv3_2"))
    for old, new in zip(kept, now, strict=True):
        np.testing.assert_array_equal(old, new)
    text = str(report)
    assert text.count("\n") == 0 and "loaded 24 layers" in text and "(16, 15, 3, 3)" in text


def test_a_report_is_short(rng, write, backbone):
    report = weights.load(backbone, write("v1.caffemodel", vgg16(rng, 1)))
    assert str(report) == (
        "weights.v1.caffemodel (caffe): loaded 13 layers (conv1_1, conv1_2, ... conv5_3); batch "
        "norms set to identity 13 layers (batch_conv1_1, batch_conv1_2, ... batch_conv5_3)."
    )


def test_identity_is_the_identity_up_to_epsilon(rng, write, image):
    backbone = network("alexnet", "bgr", 0.05)
    weights.load(backbone, write("v1.caffemodel", alexnet(rng, 3)), "caffe")
    norm = backbone.get_layer("batch_conv3")
    x = rng.normal(size=(1, 2, 2, 20)).astype("f4")
    np.testing.assert_allclose(norm(x), x / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert norm.factor.numpy() == 1 and (norm.accumulated_variance.numpy() == 1).all()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"stage1": [np.ones(3)]}, "no known source.*stage1.*larsson.*torchvision_alexnet"),
        (
            {
                "conv1_1": [np.ones(3)] * 2,
                "batch_conv1_1": [np.ones(3)] * 3,
                "h_fc1": [np.ones(1)],
                "batch_conv2": [np.ones(1)] * 4,
            },
            "any of larsson, mm_release",
        ),
    ],
)
def test_ambiguous_sources_need_an_argument(write, backbone, layers, message):
    with pytest.raises(WeightsError, match=rf"(?s){message}"):
        weights.load(backbone, write("v2.caffemodel", layers))


@pytest.mark.parametrize(
    ("source", "message"),
    [("vgg", "unknown source 'vgg'; known: larsson"), ("torchvision_vgg16", "holds blobs")],
)
def test_a_source_must_be_known_and_of_the_kind(rng, write, backbone, source, message):
    path = write("v2.caffemodel", vgg16(rng, 1))
    with pytest.raises(WeightsError, match=message):
        weights.load(backbone, path, source)


def test_unknown_suffixes_are_rejected(tmp_path, backbone):
    with pytest.raises(WeightsError, match=r"weights\.pkl: unknown kind.*\.safetensors"):
        weights.load(backbone, tmp_path / "weights.pkl")


def test_a_missing_torch_names_the_extra(tmp_path, backbone, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = tmp_path / "a.pth"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match=r"a\.pth.*mm-keras\[torch\]"):
        weights.load(backbone, path)


class _Attack:
    def __reduce__(self):
        return print, ("a pickle was run",)


def test_pickles_are_not_run(write, backbone, capsys, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"features.0.weight": _Attack()}, tmp_path / "a.pth")
    np.savez(tmp_path / "a.npz", **{"features.0.weight": np.array(_Attack(), object)})
    for suffix, message in (("pth", "cannot be read"), ("npz", "dtype object")):
        with pytest.raises(WeightsError, match=rf"a\.{suffix}.*{message}"):
            weights.load(backbone, tmp_path / f"a.{suffix}")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "caffemodel.h5", "v2.caffemodel"])
def test_damaged_files_raise_an_error_or_load_correctly(rng, write, backbone, suffix):
    blobs = vgg16(rng, 1)
    if suffix in ("npz", "safetensors"):
        blobs = {f"{name}/{k}": a for name, both in blobs.items() for k, a in enumerate(both)}
    path = write(suffix, blobs)
    whole, num_errors = path.read_bytes(), 0
    for case in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(min(len(whole), 2000), size=rng.integers(1, 8)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(whole))] if case % 4 == 0 else damaged)
        try:
            weights.load(backbone, path, "caffe")
        except WeightsError as error:
            assert path.name in str(error)
            num_errors += 1
    assert num_errors > 25


def test_integer_weights_are_rejected(rng, write, backbone):
    arrays = torch_names(vgg16(rng, 3), VGG16_PLACES)
    arrays["features.5.bias"] = np.ones(4, "int64")
    with pytest.raises(WeightsError, match=r"features\.5\.bias has dtype int64"):
        weights.load(network("vgg16", "torch", 0.03), write("npz", arrays))


def test_values_too_large_for_float32_are_rejected(rng, write, backbone):
    blobs = spoiled(vgg16(rng, 1), "conv1_1", 1, np.full(2, 1e300))
    arrays = {f"{name}/{k}": a for name, both in blobs.items() for k, a in enumerate(both)}
    with pytest.raises(WeightsError, match="conv1_1/1 has values that are not finite in float32"):
        weights.load(backbone, write("npz", arrays))
