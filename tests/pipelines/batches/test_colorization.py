"""Colors against exact arithmetic, points, and batches as pure functions of (seed, step)."""

import dataclasses
import fractions
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.batches import Order, View, colorization

OPTIONS = {"num_images": 3, "crop": 28, "num_points": 16}
GRAYS = [(0, 0, 0), (255, 255, 255), (77, 77, 77)]


def record(cls, options):
    """Build a settings record from the options that it has."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in options.items() if name in names})


def batches(files, **options):
    records = [record(cls, options) for cls in (colorization.Points, View, Order)]
    return colorization.batches(files, *records)


def exact_color(rgb):
    """(hue, chroma) of 8-bit colors as fractions, by the definition of HSV."""
    r, g, b = (fractions.Fraction(int(c)) for c in rgb)
    chroma = max(r, g, b) - min(r, g, b)
    if not chroma:
        return fractions.Fraction(0), chroma
    if max(r, g, b) == r:
        sector = (g - b) / chroma % 6
    elif max(r, g, b) == g:
        sector = 2 + (b - r) / chroma
    else:
        sector = 4 + (r - g) / chroma
    return sector / 6, chroma / 255


def exact_bins(rgb, num_bins=32):
    return [min(num_bins - 1, int(value * num_bins)) for value in exact_color(rgb)]


def all_bins(pixels, num_bins=32):
    values = colorization.hue_and_chroma(pixels)
    return [colorization.bin_index(value, num_bins).numpy() for value in values]


def write(folder, images):
    files = [str(folder / f"{i}.png") for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Seven noisy images, some larger than the crop, some smaller, one of a single pixel."""
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (20, 50), (50, 20), (28, 28), (60, 41), (33, 90), (15, 9)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    return write(tmp_path_factory.mktemp("noise"), images)


def arrays(files, **options):
    dataset = batches(files, **(OPTIONS | options))
    return list(itertools.islice(dataset.as_numpy_iterator(), 30))


def test_hue_and_chroma_equal_the_golden_values(golden):
    for case in golden("colorization")["pixels"]:
        pixel = np.array(case["rgb"], np.float32) * 255
        hue, chroma = (float(value) for value in colorization.hue_and_chroma(pixel))
        assert hue == pytest.approx(case["hue"], abs=1e-6)
        assert chroma == pytest.approx(case["chroma"], abs=1e-6)
        assert all_bins(pixel) == [case["hue_bin32"], case["chroma_bin32"]]


@pytest.mark.parametrize("num_bins", [32, 8])
def test_bins_equal_exact_arithmetic(num_bins):
    # Every chroma with every hue of the sector between red and yellow, where a bin's edge is met
    # exactly many times, and random colors of the other sectors.
    maximum, middle = np.meshgrid(np.arange(256), np.arange(256))
    sector = np.stack([maximum, middle, np.zeros_like(maximum)], -1)[middle <= maximum]
    rng = np.random.default_rng(0)
    pixels = np.concatenate([sector[::3], rng.integers(0, 256, (4000, 3)), GRAYS]).astype(np.uint8)
    expected = [exact_bins(pixel, num_bins) for pixel in pixels]
    np.testing.assert_array_equal(np.stack(all_bins(pixels, num_bins), -1), expected)


def test_grays_have_no_hue_and_no_chroma():
    hue, chroma = colorization.hue_and_chroma(np.array(GRAYS, np.uint8))
    assert not np.any(hue) and not np.any(chroma)


def test_histograms_equal_the_golden_histograms(golden):
    given = golden("colorization")["window_histogram"]
    # A hue in the middle of each bin, and of full chroma, paints the golden map of bins.
    hue = (np.array(given["bins"]) + 0.5) / 32
    hsv = np.stack([hue, np.ones_like(hue), np.ones_like(hue)], -1)
    image = np.round(tf.image.hsv_to_rgb(hsv.astype(np.float32)) * 255).astype(np.uint8)
    points = np.array([case["yx"] for case in given["cases"]], np.int32)
    targets = colorization.color_targets(image, points, window=given["size"])
    for found, case in zip(targets["hue"], given["cases"], strict=True):
        np.testing.assert_allclose(found, case["hist"], atol=1e-6)
    np.testing.assert_array_equal(targets["chroma"][:, :31], 0)


@pytest.mark.parametrize("size", [(9, 12), (2, 5), (1, 1)])
@pytest.mark.parametrize("window", [1, 3, 7])
def test_histograms_equal_counts_in_plain_python(size, window):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    points = np.array(list(np.ndindex(*size)), np.int32)  # borders and corners included
    found = colorization.color_targets(image, points, window=window)
    for i, (y, x) in enumerate(points):
        reach = window // 2
        near = image[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        counts = np.zeros((2, 32))
        for pixel in near.reshape(-1, 3):
            for row, index in zip(counts, exact_bins(pixel), strict=True):
                row[index] += 1
        expected = counts / counts.sum(1, keepdims=True)
        np.testing.assert_allclose([found["hue"][i], found["chroma"][i]], expected, atol=1e-6)


@pytest.mark.parametrize("targets", ["pixel", "histogram"])
def test_targets_equal_the_colors_at_the_points(files, targets):
    for step in arrays(files, targets=targets, pad_color=(250, 3, 1), num_steps=7):
        at = np.arange(3)[:, None], step["points"][..., 0], step["points"][..., 1]
        colors = step["image"][at]
        expected = np.array([[exact_bins(c) for c in row] for row in colors])
        values = np.array([[float(exact_color(c)[1]) for c in row] for row in colors])
        np.testing.assert_allclose(step["chroma_value"], values, atol=1e-6)
        np.testing.assert_allclose(step["lightness"], colors.mean(-1) / 255, atol=1e-6)
        for k, name in enumerate(("hue", "chroma")):
            if targets == "pixel":
                np.testing.assert_array_equal(step[name], expected[..., k])
            else:
                np.testing.assert_allclose(step[name].sum(-1), 1, atol=1e-5)
                own = np.take_along_axis(step[name], expected[..., k, None], -1)
                assert (own >= 1 / 49 - 1e-6).all()


def test_points_are_inside_the_image_and_away_from_the_border(files):
    border = 4  # 28 // 7
    for step in arrays(files, pad_color=(9, 8, 7), num_steps=14, num_points=64):
        for image, points in zip(step["image"], step["points"], strict=True):
            padded = (image == (9, 8, 7)).all(-1)
            assert not padded[tuple(points.T)].any()
            for axis in (0, 1):
                shown = np.flatnonzero(~padded.all(1 - axis))
                inner = shown[(shown >= border) & (shown < 28 - border)]
                assert np.isin(points[:, axis], inner if len(inner) else shown).all()


def test_points_cover_the_inner_crop(tmp_path):
    files = write(tmp_path, [np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)])
    (step,) = batches(files, num_images=1, crop=56, num_points=20000, num_steps=1)
    points = step["points"][0].numpy()
    assert points.min(0).tolist() == [8, 8] and points.max(0).tolist() == [47, 47]
    np.testing.assert_allclose(points.mean(0), 27.5, atol=0.3)
    wide = {"crop": 224, "num_points": 4000, "enlarge": True, "num_steps": 1}
    (step,) = batches(files, num_images=1, **wide)
    assert step["points"].numpy().min() == 32 and step["points"].numpy().max() == 191


def test_small_images_are_padded_or_enlarged(files):
    small = [files[0], files[6]]
    (step,) = arrays(small, num_images=2, pad_color=(9, 8, 7), num_steps=1)
    shown = sorted((step["image"] != (9, 8, 7)).any(-1).sum((1, 2)))
    assert shown == [1, 15 * 9]
    (step,) = arrays(small, num_images=2, enlarge=True, pad_color=(9, 8, 7), num_steps=1)
    assert not (step["image"] == (9, 8, 7)).all(-1).any()


def test_large_images_are_scaled_down_first(tmp_path):
    ramp = np.tile(np.arange(128, dtype=np.uint8), (96, 1))
    files = write(tmp_path, [np.stack([ramp] * 3, -1)])
    (step,) = arrays(files, shorter_side=48, mirror=False, num_steps=1)
    steps = np.diff(step["image"][:, 0, 1:-1, 0].astype(int), axis=1)
    assert steps.mean() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("targets", ["pixel", "histogram"])
def test_a_resumed_pipeline_continues_the_same_sequence(files, targets):
    options = {"targets": targets, "shorter_side": 24, "seed": 5, "num_steps": 8}
    whole = arrays(files, num_parallel=1, **options)
    assert len(whole) == 8
    for start_step, num_parallel in [(1, 1), (5, 4)]:
        resumed = arrays(files, start_step=start_step, num_parallel=num_parallel, **options)
        for step, other in zip(resumed, whole[start_step:], strict=True):
            assert step.keys() == other.keys()
            for key in step:
                np.testing.assert_array_equal(step[key], other[key])


def test_different_seeds_and_epochs_give_different_points(files):
    first, second = (
        np.concatenate([step["points"] for step in arrays(files, seed=seed, num_steps=7)])
        for seed in (0, 1)
    )
    large = first.reshape(21, -1).std(1) > 3
    assert large.sum() >= 12
    assert (first != second)[large].any((1, 2)).all()
    assert len(np.unique(first[large].reshape(large.sum(), -1), axis=0)) == large.sum()


def test_element_shapes_are_static(files):
    spec = batches(files, **OPTIONS).element_spec
    assert spec["image"] == tf.TensorSpec([3, 28, 28, 3], tf.uint8)
    assert spec["points"] == tf.TensorSpec([3, 16, 2], tf.int32)
    assert spec["hue"] == spec["chroma"] == tf.TensorSpec([3, 16], tf.int32)
    assert spec["chroma_value"] == spec["lightness"] == tf.TensorSpec([3, 16], tf.float32)
    spec = batches(files, targets="histogram", num_bins=8, **OPTIONS).element_spec
    assert spec["hue"] == spec["chroma"] == tf.TensorSpec([3, 16, 8], tf.float32)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"crop": 0}, "crop .* got 0"),
        ({"num_points": 0}, "num_points .* got 0"),
        ({"num_bins": 0}, "num_bins .* got 0"),
        ({"num_images": 0}, "num_images .* got 0"),
        ({"shorter_side": 0}, "shorter_side .* got 0"),
        ({"border": 14}, "border .* got 14"),
        ({"border": -1}, "border .* got -1"),
        ({"window": 4}, "odd.* got 4"),
        ({"targets": "histogramm"}, "Did you mean 'histogram'"),
        ({"pad_color": (1, 2)}, "pad_color"),
        ({"start_step": 7, "num_steps": 6}, "7 to 6"),
    ],
)
def test_wrong_arguments_raise_an_error_with_their_name(files, change, message):
    with pytest.raises(ValueError, match=message):
        batches(files, **(OPTIONS | change))


def test_an_empty_list_of_files_raises_an_error():
    with pytest.raises(ValueError, match="no images"):
        batches([], **OPTIONS)
