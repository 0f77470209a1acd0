"""Released files of the starts in Table 1: no work's file loads as another's, and the activations
of the right ones equal plain numpy on the file's own arrays.
"""

import functools

import numpy as np
import pytest

from mm_keras import backbones, weights
from mm_keras.layers import lab
from mm_keras.weights import WeightsError, sources

CHANNELS = [4, 12, 20, 20, 12]  # at width 0.05
WIDTH = 0.05
PLAIN = ("caffe", "pathak_context_encoder", "donahue_bigan", "pathak_video")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def alexnet(rng, inputs, groups=(1, 2, 1, 2, 2)):
    """{layer: [kernel, bias]} of AlexNet's convolutions in Caffe's order."""
    blobs = {}
    for k, (outputs, size) in enumerate(zip(CHANNELS, (11, 5, 3, 3, 3), strict=True)):
        shape = (outputs, inputs // groups[k], size, size)
        kernel = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        blobs[f"conv{k + 1}"] = [kernel.astype("f4"), rng.normal(size=outputs).astype("f4") * 0.3]
        inputs = outputs
    return blobs


def scaled(name, factors, shifts):
    """The layer of 1 x 1 that scales the pixels."""
    return {
        name: [np.array(factors, "f4").reshape(-1, 1, 1, 1), np.array(shifts, "f4").reshape(-1)]
    }


FILES = {
    "zhang_color": lambda rng: scaled("data_l", [0.7], [3.0]) | alexnet(rng, 1),
    "zhang_split_brain": lambda rng: (
        scaled("data_lab", [0.7, 0.5, 0.4], [3.0, 1.0, -2.0]) | alexnet(rng, 3)
    ),
    "plain": lambda rng: alexnet(rng, 3),
    "plain with fc": lambda rng: (
        alexnet(rng, 3) | {"fc6": [np.zeros((5, 432), "f4"), np.zeros(5, "f4")]}
    ),
    "deepcontext": lambda rng: alexnet(rng, 3, groups=(1,) * 5),
}


@pytest.fixture
def path(rng, tmp_path, write_caffemodel):
    """Function(name of `FILES`) -> a written file."""
    return lambda name: write_caffemodel(tmp_path / f"{name}.caffemodel", FILES[name](rng))


@functools.cache
def network(pixels):
    """A backbone that tests share: each overwrites all of it, or nothing."""
    return backbones.build("alexnet", pixels, WIDTH)


def convolve(x, kernel, bias, stride=1, pad=0, groups=1):
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))
    windows = np.split(windows[:, ::stride, ::stride], groups)
    kernels = np.split(np.asarray(kernel, "float64"), groups)
    parts = [np.einsum("ihwyx,oiyx->ohw", *p) for p in zip(windows, kernels, strict=True)]
    return np.concatenate(parts) + np.reshape(bias, (-1, 1, 1))


def pool(x):
    """Max pooling of 3 x 3 and stride 2 that rounds up."""
    _, height, width = x.shape
    x = np.pad(x, ((0, 0), (0, 3), (0, 3)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
    return windows.max(axis=(3, 4))[:, : -(-(height - 3) // 2) + 1, : -(-(width - 3) // 2) + 1]


def run(x, blobs, first_pad, slope=0.0):
    """The network without response normalization, from its pixels to conv5."""
    for name, size, groups in zip(blobs, (11, 5, 3, 3, 3), (1, 2, 1, 2, 2), strict=True):
        first = name == "conv1"
        pad = first_pad if first else size // 2
        x = convolve(x, *blobs[name], stride=4 if first else 1, pad=pad, groups=groups)
        x = np.where(x > 0, x, slope * x)
        if name in ("conv1", "conv2"):
            x = pool(x)
    return x


@pytest.mark.parametrize(
    ("source", "pixels"), [("zhang_color", "lightness"), ("zhang_split_brain", "lab")]
)
def test_zhangs_networks_see_lab_times_the_factors_of_the_file(rng, path, source, pixels):
    backbone = network(pixels)
    report = weights.load(backbone, path(source))
    assert report.source == source and not (report.skipped or report.missing)
    assert report.loaded == [f"conv{k}" for k in range(1, 6)]
    assert f"conv1 rewritten from {pixels} x (0." in str(report)
    blobs = FILES[source](np.random.default_rng(0))
    factors, shifts = blobs.pop(next(iter(blobs)))
    image = rng.integers(0, 256, (71, 71, 3)).astype("uint8")
    channels = np.array(lab.rgb_to_lab(image), "float64").transpose(2, 0, 1)[: len(shifts)]
    # Our zero padding is L = 50, so the file's padded network sees that value times its factor.
    gray = np.array([50.0, 0.0, 0.0])[: len(shifts)]
    padded = np.pad(channels, ((0, 0), (5, 5), (5, 5)))
    padded[:, :5] = padded[:, -5:] = gray[:, None, None]
    padded[:, :, :5] = padded[:, :, -5:] = gray[:, None, None]
    seen = padded * factors.reshape(-1, 1, 1) + shifts.reshape(-1, 1, 1)
    expected = run(seen, blobs, first_pad=0).transpose(1, 2, 0)
    result = np.array(backbone(image[None])["conv5"])[0]
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_bigans_network_has_its_pixels_a_leaky_relu_and_no_response_normalization(rng, path):
    backbone = network("bigan")
    report = weights.load(backbone, path("plain"), "donahue_bigan")
    assert not report.notes and report.loaded == [f"conv{k}" for k in range(1, 6)]
    image = rng.integers(0, 256, (71, 71, 3)).astype("uint8")
    seen = (image[..., ::-1].transpose(2, 0, 1) - 127.5) * 0.0078431
    expected = run(seen, FILES["plain"](np.random.default_rng(0)), 5, slope=0.2)
    result = np.array(backbone(image[None])["conv5"])[0]
    expected = expected.transpose(1, 2, 0)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3 * expected.max())
    assert expected.min() < 0


@pytest.mark.parametrize("pixels", ["bgr", "torch", "lab"])
def test_bigans_weights_are_refused_by_a_network_with_other_activations(path, pixels):
    with pytest.raises(WeightsError, match="pixels='bigan' select"):
        weights.load(network(pixels), path("plain"), "donahue_bigan")


@pytest.mark.parametrize(("source", "rewritten"), [(PLAIN[1], False), ("pathak_video", True)])
def test_plain_files_load_with_the_pixels_of_the_named_source(path, source, rewritten):
    report = weights.load(network("bgr"), path("plain"), source)
    assert report.source == source and bool(report.notes) == rewritten
    assert len(report.identity) == 5


@pytest.mark.parametrize("name", ["plain", "plain with fc"])
def test_plain_files_of_several_works_need_a_name(path, name):
    with pytest.raises(WeightsError, match="could be any of .*Give `source`") as error:
        weights.load(network("bgr"), path(name))
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == list(PLAIN)
    report = weights.load(network("bgr"), path(name), among=("caffe", "keras"))
    assert report.source == "caffe"


@pytest.mark.parametrize("name", ["zhang_color", "zhang_split_brain"])
@pytest.mark.parametrize("pixels", ["bgr", "gray", "lab", "lightness", "jigsaw"])
def test_zhangs_files_load_only_with_their_own_pixels(path, name, pixels):
    backbone = network(pixels)
    before = [np.array(w) for w in backbone.get_weights()]
    if pixels == sources.SOURCES[name].pixels["conv1"][1 if name == "zhang_color" else 3].color:
        assert weights.load(backbone, path(name)).source == name
        return
    with pytest.raises(WeightsError, match="No change of the kernel can replace Lab"):
        weights.load(backbone, path(name))
    for one, other in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["zhang_color", "zhang_split_brain"])
@pytest.mark.parametrize("source", [*PLAIN, "larsson", "noroozi", "mm_release"])
def test_zhangs_files_never_load_under_another_name(path, name, source):
    for pixels in ("bgr", "bigan", "lab", "lightness"):
        with pytest.raises(WeightsError):
            weights.load(network(pixels), path(name), source)
    with pytest.raises(WeightsError, match=f"is of source {name}, expected {source}"):
        weights.load(network("lab"), path(name), among=(source,))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("zhang_color", "conv1 has 3 input channels, expected 1 in a file with data_l"),
        ("zhang_split_brain", "data_lab must hold 3 factors.*Received no such layer"),
    ],
)
def test_files_without_the_scaled_pixels_are_not_zhangs(path, source, message):
    with pytest.raises(WeightsError, match=message):
        weights.load(network("lab"), path("plain"), source)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (scaled("data_lab", [1.0, 1.0], [0.0, 0.0]), "must hold 3 factors"),
        (scaled("data_lab", [1.0, 0.0, 1.0], [0.0] * 3), "multiplies the pixels by zero"),
        (scaled("data_lab", [1.0, np.nan, 1.0], [0.0] * 3), "not finite"),
    ],
)
def test_damaged_scales_are_refused(rng, tmp_path, write_caffemodel, layer, message):
    file = write_caffemodel(tmp_path / "a.caffemodel", layer | alexnet(rng, 3))
    with pytest.raises(WeightsError, match=message):
        weights.load(network("lab"), file)


def test_deepcontexts_network_without_groups_is_refused_by_its_shapes(path):
    for source in PLAIN:
        pixels = "bigan" if source == "donahue_bigan" else "bgr"
        with pytest.raises(WeightsError, match=r"conv2.*shape \(12, 4, 5, 5\) in the file"):
            weights.load(network(pixels), path("deepcontext"), source)
