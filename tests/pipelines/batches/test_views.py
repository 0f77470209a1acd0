"""Joint geometry: an image and its label map always get the same transformation."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import datasets
from pipelines.batches import View, views

VOID = datasets.VOID


def regions(height, width):
    """A label map without symmetry, all labelled: four unequal rectangles."""
    label = np.zeros((height, width), np.uint8)
    label[: height // 3, : width // 4] = 1
    label[: height // 3, width // 4 :] = 2
    label[height // 3 :, : width // 2] = 3
    return label


def paint(label):
    """An image that shows the label map: label * (20, 30, 40)."""
    return label[..., None] * np.array([20, 30, 40], np.uint8)


def see(image, label, view, num_seeds):
    """Return the canvases of image and label for many seeds, and the origins and mirrors."""

    def one(seed):
        placement, labels = views.draw_view(label, view, seed)
        part, offset = views.view_image(image, placement)
        after = view.crop - offset - tf.shape(part)[:2]
        part = views.pad(part, offset, after, view.pad_color)
        return part, views.label_canvas(labels, placement), placement.origin, placement.mirror

    seeds = tf.random.split([1, 2], num_seeds)
    samples = tf.data.Dataset.from_tensor_slices(seeds).map(one)
    return [x.numpy() for x in samples.batch(num_seeds).get_single_element()]


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (12, 40), (9, 7)])
def test_image_and_label_stay_aligned(size):
    label = regions(*size)
    images, labels, origins, mirrors = see(paint(label), label, View(20, pad_color=(1, 2, 3)), 60)
    expected = np.where(labels[..., None] == VOID, [1, 2, 3], paint(labels))
    np.testing.assert_array_equal(images, expected)
    assert 15 < mirrors.sum() < 45
    for axis, length in enumerate(size):
        assert origins[:, axis].min() >= min(length - 20, 0)
        assert origins[:, axis].max() <= max(length - 20, 0)


@pytest.mark.parametrize("size", [(60, 100), (100, 61), (47, 40)])
def test_image_and_label_stay_aligned_when_scaled(size):
    label = regions(*size)
    images, labels, _, _ = see(paint(label), label, View(24, 31), 60)
    # Antialiasing mixes colors near the borders of regions: compare inside, where all labels
    # within two pixels are equal.
    near = np.stack([np.roll(labels, (y, x), (1, 2)) for y in range(-2, 3) for x in range(-2, 3)])
    inside = (near == labels).all(0) & (labels != VOID)
    inside[:, [0, 1, -2, -1]] = inside[:, :, [0, 1, -2, -1]] = False
    assert inside.mean() > 0.2
    np.testing.assert_array_equal(images[inside], paint(labels)[inside])


@pytest.mark.parametrize("mirror", [False, True])
def test_a_scaled_part_equals_the_same_part_of_the_whole_scaled_image(mirror):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (45, 67, 3), np.uint8)
    label = rng.integers(0, 5, (45, 67), np.uint8)
    images, labels, origins, mirrors = see(image, label, View(16, 20, mirror=mirror), 12)
    # 67 * 20 / 45 = 29.8
    whole = tf.image.resize(image, (20, 30), antialias=True).numpy()
    nearest = tf.image.resize(label[..., None], (20, 30), method="nearest").numpy()[..., 0]
    for part, part_label, (y, x), flipped in zip(images, labels, origins, mirrors, strict=True):
        step = -1 if flipped else 1
        window = np.s_[y : y + 16, x : x + 16]
        assert abs(part - whole[:, ::step][window]).max() <= 0.5 + 1e-3
        np.testing.assert_array_equal(part_label, nearest[:, ::step][window])
    assert mirrors.any() == mirror


def test_images_are_not_enlarged_by_default():
    label = regions(20, 30)
    _, labels, _, _ = see(paint(label), label, View(30, 25, mirror=False), 4)
    assert ((labels != VOID).sum((1, 2)) == 600).all()


def test_small_images_are_enlarged_with_their_labels_on_request():
    label = regions(20, 30)
    images, labels, _, _ = see(paint(label), label, View(40, enlarge=True), 4)
    assert (labels != VOID).all()
    near = np.stack([np.roll(labels, (y, x), (1, 2)) for y in (-2, 0, 2) for x in (-2, 0, 2)])
    inside = (near == labels).all(0)
    inside[:, [0, 1, -2, -1]] = inside[:, :, [0, 1, -2, -1]] = False
    assert inside.mean() > 0.5
    np.testing.assert_array_equal(images[inside], paint(labels)[inside])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"crop": 0}, "crop .* got 0"),
        ({"shorter_side": 0}, "shorter_side .* got 0"),
        ({"rare_share": 1.5}, "rare_share"),
        ({"pad_color": ()}, "pad_color"),
        ({"pad_color": (0, 0, 256)}, "pad_color"),
        ({"pad_color": (0, -1, 0)}, "pad_color"),
        ({"pad_color": (0, 0.5, 0)}, "pad_color"),
    ],
)
def test_wrong_settings_raise_an_error_with_their_name(change, message):
    with pytest.raises(ValueError, match=message):
        View(**({"crop": 8} | change))


def test_settings_at_their_bounds_are_accepted():
    assert View(1, shorter_side=1, pad_color=(0, 255, 7)).may_scale
    assert View(1, enlarge=True).may_scale and not View(1).may_scale


def test_seeds_above_31_bits_are_split_into_two_numbers():
    for seed, expected in [
        (7, [7, 0]),
        (2**31, [0, 1]),
        (2**40 + 7, [7, 512]),
        (2**62 + 1, [1, 0]),
    ]:
        assert views.as_seed(seed).numpy().tolist() == expected
    assert views.as_seed([3, 4]).numpy().tolist() == [3, 4]


def test_offsets_are_uniform_and_include_both_ends():
    # Rows: longer than the canvas by 3, so 4 offsets; columns: shorter by 4, so 5 places.
    label = np.zeros((11, 4), np.uint8)
    _, _, origins, _ = see(paint(label), label, View(8, mirror=False), 2000)
    for axis, values in enumerate([range(4), range(-4, 1)]):
        counts = np.array([(origins[:, axis] == value).sum() for value in values])
        assert counts.sum() == 2000
        mean = 2000 / len(values)
        assert (abs(counts - mean) < 5 * np.sqrt(mean)).all()


def test_the_canvas_is_uniform_among_those_with_a_labelled_pixel():
    label = np.full((40, 30), VOID, np.uint8)
    label[39, 10] = 3
    _, labels, origins, mirrors = see(paint(label), label, View(5), 2000)
    assert ((labels == 3).sum((1, 2)) == 1).all()
    assert (origins[:, 0] == 35).all()  # the only legal row for a pixel of the last row
    column = np.where(mirrors, 30 - 1 - 10, 10) - origins[:, 1]
    counts = np.bincount(column, minlength=5)
    assert len(counts) == 5 and (abs(counts - 400) < 5 * np.sqrt(400)).all()


def test_rare_classes_are_shown_in_their_share_of_the_canvases():
    label = np.zeros((60, 60), np.uint8)
    label[3:5, 50:52] = 4
    shown = []
    for share in (0.0, 1.0):
        images, labels, _, _ = see(paint(label), label, View(10, rare_share=share), 400)
        expected = np.where(labels[..., None] == VOID, [0, 0, 0], paint(labels))
        np.testing.assert_array_equal(images, expected)
        shown.append((labels == 4).any((1, 2)).mean())
    # Two classes: half of the canvases must show class 4.
    assert shown[0] < 0.1 and 0.42 < shown[1] < 0.62


def test_a_rare_class_that_scaling_loses_is_kept():
    label = np.zeros((40, 40), np.uint8)
    label[1, 9] = 2  # every fourth pixel is kept, at 2, 6 and 10
    _, labels, _, _ = see(paint(label), label, View(4, 10, rare_share=1.0), 60)
    assert 0.25 < (labels == 2).any((1, 2)).mean() < 0.75


def test_a_labelled_pixel_that_scaling_loses_is_kept():
    label = np.full((8, 12), VOID, np.uint8)
    label[1, 9] = 2  # every fourth pixel is kept, at 2, 6 and 10
    _, labels, origins, mirrors = see(paint(label), label, View(2, 2), 20)
    assert ((labels == 2).sum((1, 2)) == 1).all() and ((labels == VOID).sum((1, 2)) == 3).all()
    rows, columns = np.nonzero((labels == 2).any(0))
    column = np.array([np.nonzero((one == 2).any(0))[0][0] for one in labels]) + origins[:, 1]
    assert (column == np.where(mirrors, 0, 2)).all() and set(rows) == {0}


def test_a_label_map_without_labels_raises_an_error_with_its_file_name():
    label = np.full((8, 8), VOID, np.uint8)
    draw = tf.function(lambda: views.draw_view(label, View(8, 2), name="folder/mask.png"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="folder/mask.png"):
        draw()


def test_pad_surrounds_the_image_with_the_color():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    got = views.pad(pixels, tf.constant([1, 0]), tf.constant([0, 2]), (255, 0, 9)).numpy()
    assert got.shape == (4, 6, 3)
    np.testing.assert_array_equal(got[1:, :4], pixels)
    outside = np.ones((4, 6), bool)
    outside[1:, :4] = False
    assert (got[outside] == [255, 0, 9]).all()


def test_padding_an_empty_image_returns_only_the_color():
    got = views.pad(np.zeros((0, 4, 1), np.uint8), tf.constant([2, 0]), tf.constant([1, 0]), (8,))
    np.testing.assert_array_equal(got, np.full((3, 4, 1), 8))


def test_round_to_uint8_rounds_halves_up():
    values = tf.constant([0.0, 0.49, 0.5, 1.5, 254.6, 255.0])
    assert views.round_to_uint8(values).numpy().tolist() == [0, 0, 1, 2, 255, 255]


def test_uniform_draws_each_element_from_its_own_range():
    lowest, highest = tf.constant([[0], [-3], [5]]), tf.constant([[0], [-1], [9]])
    drawn = views.uniform(lowest + tf.zeros([1, 3000], tf.int32), highest, [1, 2]).numpy()
    assert [sorted(set(row)) for row in drawn] == [[0], [-3, -2, -1], [5, 6, 7, 8, 9]]
    assert abs((drawn[1] == -1).sum() - 1000) < 5 * np.sqrt(1000)


def encode(pixels, path, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    path.write_bytes(buffer.getvalue())
    return str(path)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_read_decodes_both_files(tmp_path, image_format):
    label = np.array([[0, 1, 255], [20, 18, 7]], np.uint8)
    image = encode(np.full((2, 3, 3), 90, np.uint8), tmp_path / "image", format=image_format)
    mask = encode(label, tmp_path / "mask.png", format="PNG")
    pixels, got = views.read(image, mask)
    np.testing.assert_array_equal(got, label)
    assert pixels.dtype == tf.uint8 and pixels.shape == [2, 3, 3]
    assert abs(pixels.numpy().astype(int) - 90).max() <= 1


def test_read_returns_gray_images_as_three_equal_channels(tmp_path):
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    path = encode(gray, tmp_path / "gray.png", format="PNG")
    image, _ = views.read(path, path)
    np.testing.assert_array_equal(image, np.stack([gray] * 3, -1))


def test_reading_a_pair_of_different_sizes_raises_an_error_with_both_names(tmp_path):
    image = encode(np.zeros((2, 3, 3), np.uint8), tmp_path / "a.png", format="PNG")
    mask = encode(np.zeros((2, 4), np.uint8), tmp_path / "b.png", format="PNG")
    dataset = tf.data.Dataset.from_tensors((image, mask)).map(views.read)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a\.png[\s\S]*b\.png"):
        list(dataset)


def test_reading_a_missing_file_raises_an_error_with_its_name(tmp_path):
    image = encode(np.zeros((2, 3, 3), np.uint8), tmp_path / "a.png", format="PNG")
    dataset = tf.data.Dataset.from_tensors((image, str(tmp_path / "b.png"))).map(views.read)
    with pytest.raises(tf.errors.NotFoundError, match=r"b\.png"):
        list(dataset)
