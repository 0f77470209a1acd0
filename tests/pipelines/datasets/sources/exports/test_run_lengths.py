"""Run lengths of COCO, CVAT and Label Studio against hand-made masks."""

import numpy as np
import pytest

from pipelines.datasets.sources.exports import run_lengths

MASK = np.array(
    [[ch == "#" for ch in row] for row in ("#......", "..####.", "..#.##.", "..####.", ".......")]
)
# pycocotools 2.0.11 and label-studio-sdk 2.1.2, of MASK
COMPRESSED = "01:2HNO012004"
RUNS = [0, 1, 10, 3, 2, 1, 1, 1, 2, 3, 2, 3, 6]
BRUSH = [0, 0, 0, 140, 57, 27, 252, 127, 248, 124, 2, 255, 253, 176, 8]
BRUSH += [255, 227, 0, 159, 254, 216, 5, 255, 252, 62, 0]


@pytest.mark.parametrize("counts", [RUNS, COMPRESSED, COMPRESSED.encode()])
def test_coco_runs_go_down_the_columns(counts):
    np.testing.assert_array_equal(run_lengths.coco(counts, MASK.shape), MASK)


def test_coco_text_equals_pycocotools_on_random_masks():
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    for _ in range(50):
        size = rng.integers(1, 40, 2)
        pixels = rng.random(size) < rng.random()
        counts = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"]
        np.testing.assert_array_equal(run_lengths.coco(counts, tuple(size)), pixels)


@pytest.mark.parametrize(
    "counts",
    [[5, 5], [-1, 36], [10**18, 1], "", "\x00", "P", "é", None, [[1, 2]], ["a"], {}, [1e300]],
)
def test_damaged_coco_runs_raise_a_value_error(counts):
    with pytest.raises(ValueError):
        run_lengths.coco(counts, MASK.shape)


def test_cvat_runs_go_along_the_rows():
    np.testing.assert_array_equal(
        run_lengths.cvat("0, 1, 7, 4, 2, 1, 1, 2, 2, 4", (4, 6)).astype(int),
        [[1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1]],
    )


@pytest.mark.parametrize("text", ["", "1,2", "x", "-1,25"])
def test_damaged_cvat_runs_raise_a_value_error(text):
    with pytest.raises(ValueError):
        run_lengths.cvat(text, (4, 6))


def test_brush_regions_are_where_alpha_is_above_0():
    np.testing.assert_array_equal(run_lengths.label_studio(BRUSH, MASK.shape), MASK)


@pytest.mark.parametrize("code", [[], BRUSH[:10], BRUSH[:-1], [300] * 30, ["a"], None, [0] * 30])
def test_damaged_brush_regions_raise_a_value_error(code):
    with pytest.raises(ValueError):
        run_lengths.label_studio(code, MASK.shape)


def test_masks_beyond_the_limit_of_pixels_are_not_allocated():
    with pytest.raises(ValueError, match="the limit is"):
        run_lengths.coco([10**12], (10**6, 10**6))
