import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from mm_keras import visualize

NAMES = ["sky", "road", "a class with a very long name"]
COLORS = [[128, 128, 128], [200, 0, 0], [0, 0, 90]]


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(0).integers(0, 256, (7, 100, 100, 3), np.uint8)


def find(picture, part):
    """All (row, column) at which `part` stands in `picture`, by comparing everything."""
    height, width = part.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(picture, part.shape)[:, :, 0]
    corner = np.argwhere((picture[..., :3] == part[0, 0]).all(-1))
    fits = [
        (y, x)
        for y, x in corner
        if y + height <= len(picture)
        and x + width <= picture.shape[1]
        and (windows[y, x] == part).all()
    ]
    return [(int(y), int(x)) for y, x in fits]


def has_margin(picture):
    """Whether a white margin runs around the picture, so that nothing was cut off."""
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return picture.dtype == np.uint8 and all((edge == 255).all() for edge in edges)


def is_hatch(area):
    return {tuple(c) for c in area.reshape(-1, 3)} == {(0, 0, 0), (128, 128, 128)}


def test_color_map_paints_classes_and_hatches_the_rest():
    labels = np.full((12, 16), 255, np.uint8)
    labels[:4], labels[4:8] = 1, 2
    picture = visualize.color_map(labels, COLORS)
    assert picture.dtype == np.uint8 and picture.shape == (12, 16, 3)
    assert (picture[:4] == COLORS[1]).all() and (picture[4:8] == COLORS[2]).all()
    assert is_hatch(picture[8:])
    assert is_hatch(visualize.color_map(np.full((8, 8), -1), COLORS))


def test_color_map_of_an_empty_map_is_empty():
    assert visualize.color_map(np.zeros((0, 4), int), COLORS).shape == (0, 4, 3)


@pytest.mark.parametrize(
    "labels, colors, message",
    [
        (np.zeros((2, 2)), COLORS, "integer map.*float64"),
        (np.zeros(4, int), COLORS, r"integer map.*\(4,\)"),
        (np.zeros((2, 2), int), [1, 2, 3], r"num_classes, 3.*\(3,\)"),
        (np.zeros((2, 2), int), [[0, 0, 256]], "0 to 256"),
    ],
)
def test_color_map_rejects_bad_input(labels, colors, message):
    with pytest.raises(ValueError, match=message):
        visualize.color_map(labels, colors)


def test_patch_gallery_shows_each_patch_in_its_frame(patches):
    labels = [0, 1, 2, 1, 0, 2, 255]
    picture = visualize.patch_gallery(patches, labels, NAMES, COLORS, columns=3)
    assert has_margin(picture)
    places = [find(picture, patch) for patch in patches]
    assert all(len(place) == 1 for place in places)
    rows, columns = np.array([place[0] for place in places]).T
    assert len(set(rows)) == 3 and len(set(columns)) == 3
    assert list(rows) == sorted(rows)
    for label, y, x in zip(labels, rows, columns, strict=True):
        color = COLORS[label] if label < 3 else [128, 128, 128]
        assert (picture[y - 1, x : x + 100] == color).all()
        assert (picture[y : y + 100, x - 1] == color).all()


def test_captions_differ_by_name_and_long_names_stay_in_their_tile(patches):
    def caption(name):
        picture = visualize.patch_gallery(patches[:1], [0], [name], [[0, 0, 90]])
        (y, x), *_ = find(picture, patches[0])
        return picture[y + 101 :, x - 3 : x + 103]

    road, long = caption("road"), caption(NAMES[2])
    assert road.shape == long.shape
    assert (road != caption("sky")).any()
    inked = (long[:18] == 255).all(axis=-1)
    assert inked.any()
    assert not inked[:, :2].any() and not inked[:, -2:].any()


def test_small_patches_are_enlarged_by_whole_pixels():
    patch = np.random.default_rng(1).integers(0, 256, (1, 20, 20, 3), np.uint8)
    picture = visualize.patch_gallery(patch, [0], NAMES, COLORS)
    assert find(picture, np.kron(patch[0], np.ones((5, 5, 1), np.uint8)))


def test_triplet_gallery_puts_one_triplet_in_a_row(patches):
    labels = [0, 0, 1, 1, 2, 2, 2]
    anchor, positive, negative = [0, 1, 2], [1, 0, 3], [4, 5, 6]
    picture = visualize.triplet_gallery(
        patches, labels, (anchor, positive, negative, [True, False, True]), NAMES, COLORS
    )
    assert has_margin(picture)
    found = [find(picture, patch) for patch in patches]
    # Patches 0 and 1 stand in two rows; triplet 1 is not valid: last, and without patch 5.
    assert [len(place) for place in found] == [2, 2, 1, 1, 1, 0, 1]
    (y0, x0), (y1, x1), (y2, x2) = found[0][0], found[1][0], found[4][0]
    assert y0 == y1 == y2 and x0 < x1 < x2
    (y0, x0), (y1, x1), (y2, x2) = found[2][0], found[3][0], found[6][0]
    assert y0 == y1 == y2 and x0 < x1 < x2
    (y1, x1), (y0, x0) = found[1][1], found[0][1]
    assert y1 == y0 > y2 and x1 < x0
    assert is_hatch(picture[y1 : y1 + 100, x2 : x2 + 100])


@pytest.mark.parametrize("num_valid", [0, 1, 3, 7])
def test_triplet_gallery_shows_at_most_num_rows(patches, num_valid):
    nodes, valid = np.arange(7), np.arange(7) < num_valid

    def height(num_rows):
        return len(
            visualize.triplet_gallery(
                patches, nodes % 3, (nodes, nodes, nodes, valid), NAMES, COLORS, num_rows
            )
        )

    assert height(8) == height(7) > height(2) > height(1)


def test_triplets_are_spread_over_the_batch(patches):
    nodes = np.arange(7)
    picture = visualize.triplet_gallery(
        patches, nodes % 3, (nodes, nodes, nodes, nodes >= 0), NAMES, COLORS, num_rows=3
    )
    assert [i for i in nodes if find(picture, patches[i])] == [0, 3, 6]


def test_crop_gallery_puts_each_label_map_under_its_crop():
    images = np.zeros((3, 8, 8, 3), np.uint8) + 100
    labels = np.stack([np.full((8, 8), k, np.uint8) for k in (0, 1, 0)])
    colors = [[255, 0, 0], [0, 0, 250]]
    picture = visualize.crop_gallery(images, labels, colors, ["a", "b"], columns=2, panel_size=16)
    first, second = picture[6:50, 6:22], picture[6:50, 28:44]
    assert (first[:16] == 100).all() and (second[:16] == 100).all()
    assert (first[22:38] == [255, 0, 0]).all() and (second[22:38] == [0, 0, 250]).all()
    with pytest.raises(ValueError, match="3 and 2"):
        visualize.crop_gallery(images, labels[:2], colors, ["a", "b"])


def test_segmentation_gallery_of_different_sizes():
    rng = np.random.default_rng(2)
    sizes = [(40, 60), (60, 30), (60, 60)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    truths = [np.full(size, 255, np.uint8) for size in sizes]
    predictions = [np.full(size, 1) for size in sizes]
    picture = visualize.segmentation_gallery(images, truths, predictions, COLORS, NAMES, 60)
    assert has_margin(picture)
    for image, (height, width) in zip(images, sizes, strict=True):
        ((y, x),) = find(picture, image)  # the longer side is 60 already: not resampled
        assert (x - 6) == (60 - width) // 2  # in the middle of its column
        assert is_hatch(picture[y : y + height, x + 66 : x + 66 + width])
        assert (picture[y : y + height, x + 132 : x + 132 + width] == COLORS[1]).all()
    assert picture.shape[1] == 3 * 60 + 4 * 6
    legend = picture[y + 66 :]
    for color in COLORS:
        assert find(legend, np.full((20, 20, 3), color, np.uint8))


def test_segmentation_gallery_scales_to_the_panel_and_never_mixes_class_ids():
    rng = np.random.default_rng(3)
    truth = rng.choice([0, 2], (90, 120)).astype(np.uint8)
    image = np.full((90, 120, 3), 255, np.uint8)
    for panel_size in (33, 400):
        picture = visualize.segmentation_gallery(
            [image], [truth], [truth], COLORS, NAMES, panel_size
        )
        assert picture.shape[1] == 3 * panel_size + 4 * 6
        rows = picture[26 + 6 : 26 + 6 + round(panel_size * 0.75), panel_size + 12 : -6]
        seen = {tuple(int(v) for v in c) for c in rows.reshape(-1, 3)}
        assert seen == {tuple(COLORS[0]), tuple(COLORS[2]), (255, 255, 255)}


@pytest.mark.parametrize("gallery", [visualize.holes_gallery, visualize.samples_gallery])
def test_a_gallery_of_three_columns_shows_them_row_by_row(gallery):
    rng = np.random.default_rng(4)
    rows = [[rng.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(3)] for _ in range(2)]
    picture = gallery(*zip(*rows, strict=True), panel_size=60)
    assert has_margin(picture) and picture.shape[1] == 3 * 60 + 4 * 6
    for row in rows:
        ((y, x),) = find(picture, row[0])
        assert [find(picture, other) for other in row[1:]] == [[(y, x + 66)], [(y, x + 132)]]


@pytest.mark.parametrize("numbers", [(0, 0, 0), (1, 2, 1)])
def test_a_holes_gallery_needs_equally_many_images(numbers):
    image = np.zeros((4, 4, 3), "uint8")
    with pytest.raises(ValueError, match="equally many images"):
        visualize.holes_gallery(*([image] * number for number in numbers))


def test_colorization_gallery_shows_original_gray_and_colorized():
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in [(40, 60), (60, 30)]]
    colorized = [255 - image for image in images]
    picture = visualize.colorization_gallery(images, colorized, panel_size=60)
    assert has_margin(picture) and picture.shape[1] == 3 * 60 + 4 * 6
    for image, other in zip(images, colorized, strict=True):
        ((y, x),) = find(picture, image)  # the longer side is 60 already: not resampled
        assert find(picture, other) == [(y, x + 132)]
        height, width = image.shape[:2]
        gray = picture[y : y + height, x + 66 : x + 66 + width]
        assert (gray == gray[..., :1]).all()
        assert np.abs(gray[..., 0] - image.mean(-1)).max() <= 0.5


def _cells(picture, num_classes, side):
    """The cells of a confusion picture by (row, column), without their white edge."""
    whole = picture[:-6, :-6][-num_classes * side :, -num_classes * side :]
    return {
        (i, j): whole[i * side + 1 : (i + 1) * side, j * side + 1 : (j + 1) * side]
        for i in range(num_classes)
        for j in range(num_classes)
    }


def test_confusion_picture_shades_shares_of_the_truth():
    # Row 0: all right. Row 1: half and half, and too few for a percent. Row 2: no truth.
    matrix = [[7, 0, 0], [500, 499, 1], [0, 0, 0]]
    picture = visualize.confusion_picture(matrix, NAMES)
    assert has_margin(picture)
    cells = _cells(picture, 3, 40)
    assert (cells[0, 0][0] == [8, 48, 107]).all()
    assert (cells[0, 1] == 255).all()  # white, and no number for nothing
    for column in (0, 1):
        np.testing.assert_allclose(cells[1, column][0, 0], [132, 152, 181], atol=1)
        assert len(np.unique(cells[1, column].reshape(-1, 3), axis=0)) > 1  # the percents
    assert len(np.unique(cells[1, 2].reshape(-1, 3), axis=0)) == 1
    assert all(is_hatch(cells[2, column]) for column in range(3))


def test_confusion_picture_of_many_classes_leaves_the_numbers_out():
    picture = visualize.confusion_picture(np.eye(41, dtype=int), [f"class {k}" for k in range(41)])
    cells = _cells(picture, 41, 20)
    assert (cells[17, 17] == [8, 48, 107]).all() and (cells[17, 18] == 255).all()


def test_confusion_picture_rejects_bad_input():
    with pytest.raises(ValueError, match=r"shape \(2, 2\) and 3 names"):
        visualize.confusion_picture(np.eye(2), NAMES)
    with pytest.raises(ValueError, match="at least one"):
        visualize.confusion_picture(np.zeros((0, 0)), [])


def test_segmentation_gallery_compares_networks_and_captions_rows():
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (60, 60, 3), np.uint8) for _ in range(2)]
    truths = [np.full((60, 60), 0), np.full((60, 60), 1)]
    others = {"first": [truths[1], truths[0]], "second": [np.full((60, 60), 2), truths[1]]}
    bare = visualize.segmentation_gallery(images, truths, others, COLORS, NAMES, 60)
    picture = visualize.segmentation_gallery(
        images, truths, others, COLORS, NAMES, 60, captions=["one", "two"]
    )
    assert picture.shape[1] == bare.shape[1] == 4 * 60 + 5 * 6
    assert len(picture) == len(bare) + 2 * (20 + 6)
    for row, image in enumerate(images):
        ((y, x),) = find(picture, image)
        for column, maps in enumerate([truths, *others.values()], start=1):
            place = picture[y : y + 60, x + 66 * column : x + 66 * column + 60]
            assert (place == COLORS[maps[row][0, 0]]).all()
        caption = picture[y + 66 : y + 86]
        assert (caption == 255).mean() > 0.9 and (caption < 128).any()


def test_bad_input_raises_an_error_that_names_it(patches):
    with pytest.raises(ValueError, match="uint8 .*RGB.*float64"):
        visualize.patch_gallery(patches / 255, [0] * 7, NAMES, COLORS)
    with pytest.raises(ValueError, match=r"one label per patch. Received 7.*\(6,\)"):
        visualize.patch_gallery(patches, [0] * 6, NAMES, COLORS)
    with pytest.raises(ValueError, match="at least one patch"):
        visualize.patch_gallery(patches[:0], [], NAMES, COLORS)
    with pytest.raises(ValueError, match="2 names and 3 colors"):
        visualize.patch_gallery(patches, [0] * 7, NAMES[:2], COLORS)
    image, labels = patches[0], np.zeros((100, 100), int)
    with pytest.raises(ValueError, match="Received 1, 0 and 1"):
        visualize.segmentation_gallery([image], [], [labels], COLORS, NAMES)
    with pytest.raises(ValueError, match="Received 1, 1 and 0"):
        visualize.segmentation_gallery([image], [labels], {"a": [labels], "b": []}, COLORS, NAMES)
    with pytest.raises(ValueError, match=r"one size.*\(100, 100\), \(100, 99\)"):
        visualize.segmentation_gallery([image], [labels[:, 1:]], [labels], COLORS, NAMES)
    with pytest.raises(ValueError, match="Received 1 and 0"):
        visualize.colorization_gallery([image], [])
    with pytest.raises(ValueError, match=r"one size.*\(100, 100\) and \(99, 100\)"):
        visualize.colorization_gallery([image], [image[1:]])


def test_galleries_of_real_images_are_drawn():
    folder = pathlib.Path(os.environ.get("MM_TEST_DATA", "")) / "camvid"
    if "MM_TEST_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("MM_TEST_DATA names no folder with camvid")
    (table,) = folder.glob("colo*rs.txt")  # the shared data has the British spelling
    rows = [line.split() for line in table.read_text().splitlines()]
    names, colors = [row[0] for row in rows], [[int(v) for v in row[1:]] for row in rows]
    files = sorted((folder / "images" / "val").iterdir())[:2]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    masks = [np.asarray(Image.open(folder / "masks" / "val" / f"{f.stem}.png")) for f in files]
    picture = visualize.segmentation_gallery(images, masks, masks, colors, names)
    assert has_margin(picture) and picture.shape[1] == 3 * 320 + 4 * 6


def test_jigsaw_gallery_puts_tiles_where_the_permutations_say():
    rng = np.random.default_rng(4)
    tiles = rng.integers(0, 256, (3, 9, 30, 30, 3), np.uint8)
    truths = rng.permuted(np.tile(np.arange(9), (3, 1)), axis=1)
    predictions = truths.copy()
    predictions[1] = predictions[1][::-1]
    picture = visualize.jigsaw_gallery(tiles, truths, predictions)
    assert has_margin(picture)
    frames = []
    for puzzle, truth, prediction in zip(tiles, truths, predictions, strict=True):
        corners = []
        for slot, tile in enumerate(puzzle):
            places = sorted(find(picture, tile), key=lambda place: place[1])
            assert len(places) == 3  # shuffled, predicted, solution, from left to right
            cells = (slot, prediction[slot], truth[slot])
            corners.append(
                [
                    (y - 36 * (c // 3), x - 36 * (c % 3))
                    for (y, x), c in zip(places, cells, strict=True)
                ]
            )
        # All tiles of a picture lie on one grid.
        assert all(corner == corners[0] for corner in corners)
        (_, (y, x), _) = corners[0]
        frames.append(tuple(int(v) for v in picture[y - 2, x - 2]))
    assert frames == [(0, 150, 0), (200, 0, 0), (0, 150, 0)]


def test_jigsaw_gallery_shows_at_most_num_rows():
    tiles = np.zeros((5, 9, 8, 8, 3), np.uint8)
    orders = np.tile(np.arange(9), (5, 1))
    heights = [len(visualize.jigsaw_gallery(tiles, orders, orders, n)) for n in (1, 2, 5, 9)]
    assert heights[0] < heights[1] < heights[2] == heights[3]


@pytest.mark.parametrize(
    "tiles, truths, predictions, message",
    [
        (np.zeros((0, 9, 8, 8, 3), np.uint8), [], [], "at least one puzzle"),
        (np.zeros((1, 8, 8, 8, 3), np.uint8), [range(9)], [range(9)], r"9, T, T.*\(1, 8"),
        (np.zeros((1, 9, 8, 8, 3)), [range(9)], [range(9)], "uint8 .*RGB.*float64"),
        (np.zeros((1, 9, 8, 8, 3), np.uint8), [range(1, 10)], [range(9)], "truths must be"),
        (np.zeros((1, 9, 8, 8, 3), np.uint8), [range(9)], [range(8)], "predictions must be"),
    ],
)
def test_jigsaw_gallery_rejects_bad_input(tiles, truths, predictions, message):
    with pytest.raises(ValueError, match=message):
        visualize.jigsaw_gallery(tiles, truths, predictions)
