"""Tiles equal plain Python to the pixel; element k is a pure function of (seed, k)."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.batches import Order, jigsaw, permutations, views

SMALL = {"num_images": 3, "shorter_side": 48, "cell": 16, "tile": 12}


def record(cls, options):
    """Build a settings record from the options that it has."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in options.items() if name in names})


def batches(files, permutations, **options):
    records = [record(cls, options) for cls in (jigsaw.Puzzle, Order)]
    return jigsaw.batches(files, permutations, *records)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Seven colorful noisy images of several sizes, one smaller than the grid."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for i, size in enumerate([(20, 31), *rng.integers(40, 90, (6, 2))]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def orders():
    return permutations.permutation_set(20, seed=1)


def arrays(files, orders, num=None, **options):
    dataset = batches(files, permutations=orders, **(SMALL | options))
    return list(itertools.islice(dataset.as_numpy_iterator(), num))


def joined(steps, key):
    return np.concatenate([step[key] for step in steps])


def assembled(tiles, order):
    """The square picture of a puzzle's tiles, put back cell by cell."""
    size = tiles.shape[1]
    picture = np.zeros((3 * size, 3 * size, 3), np.uint8)
    for tile, cell in zip(tiles, order, strict=True):
        y, x = cell // 3 * size, cell % 3 * size
        picture[y : y + size, x : x + size] = tile
    return picture


def cut_by_hand(square, order, offsets, tile):
    """One pixel and channel after the other."""
    cell = len(square) // 3
    tiles = np.zeros((9, tile, tile, 3), np.uint8)
    for slot, y, x, channel in np.ndindex(tiles.shape):
        row, column = divmod(int(order[slot]), 3)
        dy, dx = offsets[slot, channel]
        tiles[slot, y, x, channel] = square[row * cell + dy + y, column * cell + dx + x, channel]
    return tiles


@pytest.mark.parametrize("cell, tile", [(7, 4), (5, 5), (3, 1)])
def test_tiles_equal_those_cut_by_hand(cell, tile):
    rng = np.random.default_rng(cell)
    square = rng.integers(0, 256, (3 * cell, 3 * cell, 3), np.uint8)
    order = rng.permutation(9).astype(np.int32)
    offsets = rng.integers(0, cell - tile + 1, (9, 3, 2)).astype(np.int32)
    tiles = tf.function(jigsaw.cut_tiles)(tf.constant(square), order, offsets, tile)
    np.testing.assert_array_equal(tiles, cut_by_hand(square, order, offsets, tile))


@pytest.mark.parametrize("name", ["paper", "release"])
def test_published_geometries_have_the_golden_offsets(golden, name):
    expected, geometry = golden("jigsaw")["geometries"][name], jigsaw.GEOMETRIES[name]
    assert (geometry.cell, geometry.tile) == (expected["cell"], expected["tile"])
    jitter = geometry.cell - geometry.tile
    offsets = np.concatenate([jigsaw.draw_offsets(jitter, 0, seed) for seed in range(60)])
    assert (offsets == offsets[:, :1]).all()  # one for all channels
    assert offsets.min() == expected["jitter_min"] and offsets.max() == expected["jitter_max"]
    counts = np.bincount(offsets[:, 0].ravel(), minlength=jitter + 1)
    mean = counts.sum() / (jitter + 1)
    assert ((counts - mean) ** 2 / mean).sum() < 3 * jitter  # chi square
    # A puzzle shows the image scaled to 256, of which `crop` pixels.
    image = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 300, 3))
    square = jigsaw.crop(image, 3 * geometry.cell, 256, geometry.placement, seed=2).numpy()
    assert square.shape == (expected["crop"], expected["crop"], 3)
    assert (np.diff(square[:, 0, 0].astype(int)) == 1).all()


def test_channel_jitter_separates_channels_and_keeps_tiles_in_their_cells():
    offsets = np.stack([jigsaw.draw_offsets(6, 2, seed) for seed in range(200)])
    apart = offsets - offsets.min(axis=2, keepdims=True)
    assert apart.max() == 2 and (apart.max(axis=2) > 0).mean() > 0.8
    assert offsets.min() == 0 and offsets.max() == 6
    whole = jigsaw.draw_offsets(2, 2, 0).numpy()
    assert whole.max() <= 2


@pytest.mark.parametrize("shorter_side", [48, None, 50])
def test_without_jitter_the_ordered_tiles_equal_the_crop(files, orders, shorter_side):
    options = {"tile": 16, "gray_share": 0, "placement": "center", "shorter_side": shorter_side}
    steps = arrays(files, orders, num_steps=7, **options)
    crops = [jigsaw.crop(views.read_image(f), 48, shorter_side, "center").numpy() for f in files]
    seen = set()
    for tiles, label in zip(joined(steps, "tiles"), joined(steps, "permutation"), strict=True):
        picture = assembled(tiles, orders[label])
        (found,) = [i for i, square in enumerate(crops) if (picture == square).all()]
        seen.add(found)
    assert seen == set(range(7))


def test_each_tile_comes_from_the_cell_of_its_permutation(tmp_path, orders):
    """Each pixel encodes its position: red is the row, green the column."""
    place = np.stack([*np.mgrid[:48, :48], np.zeros((48, 48), int)], -1).astype(np.uint8)
    Image.fromarray(place).save(tmp_path / "place.png")
    steps = arrays([str(tmp_path / "place.png")], orders, num_steps=20, gray_share=0)
    tiles, labels = joined(steps, "tiles"), joined(steps, "permutation")
    corners = tiles[:, :, 0, 0, :2].astype(int)
    cells = orders[labels].astype(int)
    jitter = corners - 16 * np.stack([cells // 3, cells % 3], -1)
    assert set(np.unique(jitter)) == set(range(5))
    ramp = np.arange(12)
    np.testing.assert_array_equal(tiles[..., 0], tiles[:, :, :1, :1, 0] + ramp[:, None] + 0 * ramp)
    np.testing.assert_array_equal(tiles[..., 1], tiles[:, :, :1, :1, 1] + ramp + 0 * ramp[:, None])


@pytest.mark.parametrize("height, width", [(100, 60), (30, 64), (1, 9)])
def test_images_that_are_too_small_are_enlarged_to_the_grid(height, width):
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    square = jigsaw.crop(image, 48, None, "center")
    assert square.shape == (48, 48, 3)
    factor = max(1, 48 / min(height, width))
    scaled = tf.image.resize(image, [round(height * factor), round(width * factor)]).numpy()
    y, x = (np.array(scaled.shape[:2]) - 48) // 2
    np.testing.assert_allclose(square, scaled[y : y + 48, x : x + 48], atol=0.51)


def test_random_crops_reach_every_position():
    image = np.zeros((48, 52, 3), np.uint8)
    image[..., 0] = np.arange(52)
    lefts = [int(jigsaw.crop(image, 48, None, seed=seed)[0, 0, 0]) for seed in range(100)]
    assert set(lefts) == set(range(5))
    assert int(jigsaw.crop(image, 48, None, "center")[0, 0, 0]) == 2


def test_a_resumed_pipeline_continues_the_same_sequence(files, orders):
    options = {"seed": 5, "channel_jitter": 2, "num_steps": 8}
    whole = arrays(files, orders, num_parallel=1, **options)
    assert len(whole) == 8
    for start_step in (1, 5, 8):
        resumed = arrays(files, orders, start_step=start_step, num_parallel=4, **options)
        assert len(resumed) == 8 - start_step
        for step, other in zip(resumed, whole[start_step:], strict=True):
            np.testing.assert_array_equal(step["tiles"], other["tiles"])
            np.testing.assert_array_equal(step["permutation"], other["permutation"])


def test_different_seeds_and_steps_give_different_puzzles(files, orders):
    first, second = (joined(arrays(files, orders, 6, seed=seed), "tiles") for seed in (0, 1))
    assert (first != second).any(axis=(1, 2, 3, 4)).all()
    # An image comes back in the next epoch as another puzzle.
    assert len(np.unique(first.reshape(len(first), -1), axis=0)) == len(first)


def test_permutations_are_drawn_uniformly(files, orders):
    labels = joined(arrays(files, orders, num_images=50, num_steps=20), "permutation")
    counts = np.bincount(labels, minlength=20)
    assert len(counts) == 20
    assert ((counts - 50) ** 2 / 50).sum() < 44  # chi square, 19 degrees of freedom, p = 0.001


@pytest.mark.parametrize("gray_share, low, high", [(0.0, 0, 0), (0.3, 0.23, 0.37), (1.0, 1, 1)])
@pytest.mark.parametrize("channel_jitter", [0, 1])
def test_gray_share_sets_the_share_of_gray_puzzles(
    files, orders, gray_share, low, high, channel_jitter
):
    options = {"gray_share": gray_share, "channel_jitter": channel_jitter}
    steps = arrays(files, orders, num_images=40, num_steps=10, **options)
    tiles = joined(steps, "tiles")
    is_gray = (tiles == tiles[..., :1]).all(axis=(2, 3, 4))
    assert (is_gray == is_gray[:, :1]).all()  # a whole puzzle or nothing of it
    assert low <= is_gray[:, 0].mean() <= high


def test_gray_is_the_rounded_mean_of_the_channels():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    expected = np.floor(pixels.mean(-1) + 0.5)
    for channel in range(3):
        np.testing.assert_array_equal(jigsaw.gray(pixels)[..., channel], expected)


def test_gray_files_are_read_as_color(tmp_path, orders):
    Image.fromarray(np.arange(48 * 60).reshape(48, 60).astype(np.uint8)).save(tmp_path / "a.jpg")
    (step,) = arrays([str(tmp_path / "a.jpg")], orders, num_steps=1)
    assert step["tiles"].shape == (3, 9, 12, 12, 3)


def test_element_shapes_are_static(files, orders):
    spec = batches(files, permutations=orders, **SMALL).element_spec
    assert spec["tiles"] == tf.TensorSpec([3, 9, 12, 12, 3], tf.uint8)
    assert spec["permutation"] == tf.TensorSpec([3], tf.int32)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tile": 17}, "tile=17.* cell=16"),
        ({"channel_jitter": 5}, "channel_jitter=5"),
        ({"channel_jitter": -1}, "channel_jitter=-1"),
        ({"tile": 0}, "tile must be at least 1"),
        ({"shorter_side": 47}, "48 pixels, got 47"),
        ({"placement": "centre"}, "'centre'.*random.*center"),
        ({"gray_share": 1.5}, "gray_share.* 1.5"),
        ({"permutations": np.zeros((3, 9), int)}, "Row 0 is no permutation"),
        ({"num_images": 0}, "num_images"),
        ({"files": []}, "no images"),
    ],
)
def test_wrong_arguments_raise_an_error_with_their_name(files, orders, change, message):
    with pytest.raises(ValueError, match=message):
        batches(**({"files": files, "permutations": orders} | SMALL | change))
