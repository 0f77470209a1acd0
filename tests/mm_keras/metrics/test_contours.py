"""Boundary IoU and thin regions against plain loops, with void, borders and degenerate maps."""

import json
import math

import numpy as np
import pytest

from mm_keras.metrics import contours

NAMES = ["ground", "pole", "car"]


def boundary(truth, prediction, num_classes=3, **arguments):
    score = contours.BoundaryIoU(num_classes, **arguments)
    score.update_state(truth, prediction)
    return score.result()


def thin(truth, prediction, num_classes=3, **arguments):
    score = contours.ThinRegions(num_classes, **arguments)
    score.update_state(truth, prediction)
    return score


def share_for(pixels, size):
    """The share of the diagonal that gives this many pixels."""
    return pixels / math.hypot(*size)


def band_oracle(mask, distance):
    """The pixels of a mask that `distance` erosions by 3 x 3 pixels take away, as in the released
    code of Boundary IoU; outside of the image is no mask.
    """
    height, width = len(mask), len(mask[0])
    eroded = [list(row) for row in mask]
    for _ in range(distance):
        eroded = [
            [
                all(
                    0 <= y + j < height and 0 <= x + i < width and eroded[y + j][x + i]
                    for j in (-1, 0, 1)
                    for i in (-1, 0, 1)
                )
                for x in range(width)
            ]
            for y in range(height)
        ]
    return {(y, x) for y in range(height) for x in range(width) if mask[y][x] and not eroded[y][x]}


def boundary_oracle(pairs, distance, num_classes):
    ious = []
    for k in range(num_classes):
        common = union = 0
        for truth, prediction in pairs:
            valid = truth < num_classes
            bands = [
                band_oracle(((ids == k) & valid).tolist(), distance) for ids in (truth, prediction)
            ]
            common += len(bands[0] & bands[1])
            union += len(bands[0] | bands[1])
        ious.append(common / union if union else math.nan)
    return ious


def thin_oracle(truth, width, num_classes):
    """Pixels that no square within their class covers: all squares are tried."""
    height, length = truth.shape
    covered = np.zeros(truth.shape, bool)
    for y in range(height - width + 1):
        for x in range(length - width + 1):
            square = truth[y : y + width, x : x + width]
            if square[0, 0] < num_classes and (square == square[0, 0]).all():
                covered[y : y + width, x : x + width] = True
    return ~covered & (truth < num_classes)


def random_map(rng, size, ids):
    """Blobs of a few pixels, some noise."""
    coarse = rng.choice(ids, (size[0] // 3 + 1, size[1] // 4 + 1))
    labels = coarse.repeat(3, 0).repeat(4, 1)[: size[0], : size[1]]
    noise = rng.random(labels.shape) < 0.05
    return np.where(noise, rng.choice(ids, labels.shape), labels).astype(np.uint8)


@pytest.mark.parametrize("distance", [1, 2, 3, 5, 30])
def test_boundary_iou_equals_repeated_erosion(distance):
    rng = np.random.default_rng(distance)
    size = (13, 17)
    pairs = [
        (random_map(rng, size, [0, 1, 2, 3, 255]), random_map(rng, size, [0, 1, 2, 3]))
        for _ in range(3)
    ]
    score = contours.BoundaryIoU(5, share_for(distance, size) if distance < 20 else 0.999)
    for truth, prediction in pairs:
        score.update_state(truth, prediction.astype(np.int32))
    distance = distance if distance < 20 else round(0.999 * math.hypot(*size))
    np.testing.assert_allclose(score.result(), boundary_oracle(pairs, distance, 5))
    assert np.isnan(score.result()[4])


def test_boundary_iou_equals_a_hand_computed_value():
    # A square of 4 x 4 pixels has a ring of 12. Moved by one column, the rings share three pixels
    # of the upper and three of the lower row, so the IoU is 6 / (12 + 12 - 6).
    truth, prediction = np.zeros((2, 6, 7), np.uint8)
    truth[1:5, 1:5] = prediction[1:5, 2:6] = 1
    assert boundary(truth, prediction, share=share_for(1, truth.shape))[1] == pytest.approx(1 / 3)


def test_the_default_band_is_two_percent_of_the_diagonal():
    # 300 x 400: diagonal 500, d = 10. A square of 100 pixels has its outer ten rings in the band;
    # a prediction that begins nine rings further in has its own ten, and shares ring 9.
    truth, prediction = np.zeros((2, 300, 400), np.uint8)
    truth[50:150, 50:150] = prediction[59:141, 59:141] = 1
    common = 82**2 - 80**2
    union = (100**2 - 80**2) + (82**2 - 62**2) - common
    assert boundary(truth, prediction)[1] == pytest.approx(common / union)


def test_a_correct_prediction_scores_one_for_any_prediction_of_void():
    rng = np.random.default_rng(0)
    truth = random_map(rng, (40, 50), [0, 1, 255])
    for elsewhere in (0, 1, 2, 255):
        prediction = np.where(truth == 255, elsewhere, truth)
        np.testing.assert_array_equal(boundary(truth, prediction)[:2], [1, 1])
        assert np.isnan(boundary(truth, prediction)[2])


def test_boundary_iou_is_symmetric_and_sees_a_small_shift_where_iou_hardly_does():
    truth, prediction = np.zeros((2, 150, 200), np.uint8)
    truth[20:130, 20:130] = prediction[20:130, 24:134] = 1
    found = boundary(truth, prediction)[1]
    assert found == boundary(prediction, truth)[1]
    assert found < 0.6 < 106 / 114  # the IoU


@pytest.mark.parametrize("width", [2, 3, 4, 7, 40])
def test_thin_pixels_equal_trying_all_squares(width):
    rng = np.random.default_rng(width)
    size = (21, 26)
    truth = random_map(rng, size, [0, 0, 1, 2, 255])
    prediction = random_map(rng, size, [0, 1, 2])
    share = share_for(width, size) if width < 30 else 0.999
    is_thin = thin_oracle(truth, width, 3)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (truth[is_thin], prediction[is_thin]), 1)
    found = thin(truth, prediction, share=share).result()
    np.testing.assert_array_equal(found, expected)
    assert found.sum() > 0


def test_thin_scores_equal_hand_computed_values():
    # A pole of 2 pixels and a car of 12 on 300 x 400 pixels (w = 10): only the pole is thin. Its
    # upper half is found. Nothing else is charged, so recall and IoU are 1/2.
    truth = np.zeros((300, 400), np.uint8)
    truth[100:200, 50:52], truth[100:112, 200:212] = 1, 2
    prediction = np.zeros_like(truth)
    prediction[100:150, 50:52] = 1
    prediction[:, 300:] = 1  # a false alarm on wide ground
    summary = thin(truth, prediction).summary(NAMES)
    assert summary == {
        "thin_iou": 0.5,
        "thin_recall": 0.5,
        "thin_share": 200 / 120000,
        "per_class_thin_iou": {"ground": None, "pole": 0.5, "car": None},
    }


def test_filling_a_gap_lowers_the_score_of_the_filling_class():
    # Two thin legs of class 1, a gap of ground between them: all three are thin.
    truth = np.zeros((300, 400), np.uint8)
    truth[100:200, 50:54] = truth[100:200, 58:62] = 1
    prediction = truth.copy()
    prediction[100:200, 54:58] = 1
    summary = thin(truth, prediction).summary(NAMES)
    assert summary["per_class_thin_iou"]["pole"] == pytest.approx(800 / 1200)
    assert summary["per_class_thin_iou"]["ground"] == 0


def test_nothing_thin_is_none():
    plain = np.zeros((300, 400), np.uint8)
    summary = thin(plain, plain).summary(NAMES)
    assert summary["thin_iou"] is None and summary["thin_recall"] is None
    assert summary["thin_share"] == 0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_images_are_all_contour(size):
    ones = np.ones(size, np.uint8)
    np.testing.assert_array_equal(boundary(ones, ones), [np.nan, 1, np.nan])
    np.testing.assert_array_equal(boundary(ones, 0 * ones), [0, 0, np.nan])
    assert thin(ones, ones).result().sum() == (1 if size == (1, 1) else 40 if size[0] == 1 else 0)


def test_all_void_and_empty_images_count_nothing():
    for void in (np.full((5, 6), 255, np.uint8), np.zeros((0, 6), np.uint8)):
        assert np.isnan(boundary(void, void)).all()
        score = thin(void, void)
        assert not score.result().any()
        assert score.summary(NAMES)["thin_share"] is None
    summary = contours.BoundaryIoU(3).summary(NAMES)
    assert summary == {
        "boundary_iou": None,
        "per_class_boundary_iou": dict.fromkeys(NAMES),
    }


@pytest.mark.parametrize("kind", [contours.BoundaryIoU, contours.ThinRegions])
def test_bad_input_raises_an_error_that_names_it(kind):
    with pytest.raises(ValueError, match="num_classes must be 1 to 255. Received 0"):
        kind(0)
    with pytest.raises(ValueError, match="between 0 and 1. Received 1"):
        kind(3, share=1)
    with pytest.raises(ValueError, match=r"one image at a time.*\(2, 3, 4\)"):
        kind(3).update_state(np.zeros((2, 3, 4), int), np.zeros((2, 3, 4), int))
    with pytest.raises(ValueError, match=r"0 to 2.*Received \[7\] at 4 such pixels"):
        kind(3).update_state(np.zeros((2, 2), int), np.full((2, 2), 7))


@pytest.mark.parametrize("score", [contours.BoundaryIoU, contours.ThinRegions])
def test_one_class_is_allowed_and_a_share_of_zero_rejected(score):
    assert score(num_classes=1).result().size == 1
    with pytest.raises(ValueError, match="Received 0"):
        score(num_classes=1, share=0.0)


def test_a_class_with_one_thin_pixel_is_scored():
    truth = np.zeros((9, 9), int)
    truth[4, 4] = 1
    score = thin(truth, truth, share=share_for(2, truth.shape))
    assert score.summary(NAMES)["per_class_thin_iou"]["pole"] == 1.0
