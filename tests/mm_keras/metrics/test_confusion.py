import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras import metrics

# The released evaluation (test_pascal.py, fast_hist) on 6 x 7 pixels with 4 classes, 255 = void.
TRUTH = np.array(
    [
        [255, 2, 1, 1, 2, 2, 0],
        [1, 0, 0, 1, 2, 1, 0],
        [2, 0, 1, 0, 1, 1, 1],
        [1, 0, 255, 255, 255, 1, 1],
        [1, 2, 0, 2, 1, 2, 2],
        [1, 1, 2, 1, 1, 2, 1],
    ],
    np.uint8,
)
PREDICTION = np.array(
    [
        [2, 0, 0, 2, 1, 2, 0],
        [0, 0, 2, 0, 1, 0, 0],
        [0, 2, 0, 2, 1, 0, 0],
        [2, 1, 1, 0, 0, 0, 1],
        [2, 2, 0, 0, 0, 0, 1],
        [0, 0, 0, 2, 0, 1, 1],
    ],
    np.uint8,
)
MATRIX = np.array([[4, 1, 3, 0], [12, 3, 4, 0], [5, 4, 2, 0], [0, 0, 0, 0]])


def count(y_true, y_pred, num_classes):
    matrix = metrics.ConfusionMatrix(num_classes)
    matrix.update_state(y_true, y_pred)
    return matrix.result()


def test_scores_equal_the_released_evaluation():
    matrix = count(TRUTH, PREDICTION, 4)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, MATRIX)
    np.testing.assert_allclose(
        metrics.per_class_iou(matrix), [0.16, 0.125, 0.1111111111, np.nan], atol=1e-9
    )
    assert metrics.mean_iou(matrix) == pytest.approx(0.132037037)
    assert metrics.pixel_accuracy(matrix) == pytest.approx(0.2368421053)
    assert metrics.mean_accuracy(matrix) == pytest.approx(0.2799043062)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_counts_equal_a_plain_loop(dtype):
    rng = np.random.default_rng(0)
    # 21 classes: truth * 21 + prediction would overflow uint8.
    truth = rng.choice([*range(21), 200, 255], (3, 17, 11)).astype(dtype)
    prediction = rng.integers(0, 21, truth.shape).astype(dtype)
    expected = np.zeros((21, 21), int)
    for row, column in zip(truth.flat, prediction.flat, strict=True):
        if row < 21:
            expected[row, column] += 1
    np.testing.assert_array_equal(count(truth, prediction, 21), expected)


def test_streaming_adds_counts_and_reset_clears_them():
    matrix = metrics.ConfusionMatrix(4)
    for row_true, row_pred in zip(TRUTH, PREDICTION, strict=True):
        matrix.update_state(row_true, tf.constant(row_pred))
    np.testing.assert_array_equal(matrix.result(), MATRIX)
    matrix.result()[:] = 0  # a copy
    assert matrix.result().sum() == MATRIX.sum()
    matrix.reset_state()
    assert not matrix.result().any()


def test_counts_stay_exact_beyond_float32():
    # 2**20 pixels added 17 times pass 2**24; the last single pixel would be lost in float32.
    matrix = metrics.ConfusionMatrix(2)
    ones = np.ones(2**20, np.uint8)
    for _ in range(17):
        matrix.update_state(ones, ones)
    matrix.update_state([1], [1])
    assert matrix.result()[1, 1] == 17 * 2**20 + 1


def test_all_void_and_empty_maps_count_nothing():
    assert not count(np.full((2, 2), 255), np.full((2, 2), 255), 3).any()
    assert not count(np.zeros((0, 5), int), np.zeros((0, 5), int), 3).any()
    assert not count([-1, -1], [0, 7], 3).any()


def test_a_prediction_outside_the_classes_is_rejected_at_labelled_pixels():
    matrix = metrics.ConfusionMatrix(3)
    matrix.update_state([255, 0], [255, 0])
    with pytest.raises(ValueError, match=r"0 to 2.*Received \[7, 255\] at 3 such pixels"):
        matrix.update_state([0, 1, 2, 2, 255], [0, 7, 255, 7, 9])
    assert matrix.result().sum() == 1


def test_bad_input_raises_an_error_that_names_it():
    matrix = metrics.ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"same shape.*\(4,\) and \(2, 2\)"):
        matrix.update_state(np.zeros(4, int), np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="y_pred must hold integer.*float32"):
        matrix.update_state(np.zeros(4, int), np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="at least 1. Received 0"):
        metrics.ConfusionMatrix(0)
    with pytest.raises(ValueError, match=r"square.*\(2, 3\)"):
        metrics.per_class_iou(np.zeros((2, 3), int))


def test_absent_classes_are_nan_and_wrongly_predicted_ones_zero():
    # class 0: 2 of 3 right; class 1: never true, predicted once; class 2: neither.
    matrix = np.array([[2, 1, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(metrics.per_class_iou(matrix), [2 / 3, 0, np.nan])
    assert metrics.mean_iou(matrix) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.mean_accuracy(matrix) == pytest.approx(2 / 3)
    assert metrics.pixel_accuracy(matrix) == pytest.approx(2 / 3)


def test_nothing_counted_is_nan_without_warnings(recwarn):
    empty = np.zeros((3, 3), np.int64)
    for score in (metrics.mean_iou, metrics.pixel_accuracy, metrics.mean_accuracy):
        assert math.isnan(score(empty))
    assert not recwarn.list


def test_summary_is_json_with_null_for_undefined():
    result = metrics.summary(MATRIX, ["sky", "road", "car", "tree"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["confusion_matrix"] == MATRIX.tolist()
    assert result["miou"] == pytest.approx(0.132037037)
    assert result["per_class_iou"]["tree"] is None
    assert result["per_class_iou"]["road"] == pytest.approx(0.125)
    empty = metrics.summary(np.zeros((1, 1), np.int64), ["sky"])
    assert [empty[key] for key in ("miou", "pixel_accuracy", "mean_accuracy")] == [None] * 3


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b", "c"]])
def test_summary_needs_one_name_per_class(names):
    with pytest.raises(ValueError, match="4 different class names"):
        metrics.summary(MATRIX, names)


def rank_oracle(x):
    values = np.linalg.svd(np.asarray(x, np.float64), compute_uv=False) ** 2
    return values.sum() ** 2 / (values**2).sum()


def effective_rank(x):
    """Eagerly and in a graph with an unknown number of rows; both must agree."""
    eager = float(metrics.effective_rank(x))
    spec = tf.TensorSpec([None, np.shape(x)[1]], tf.float32)
    in_graph = float(tf.function(metrics.effective_rank, [spec])(np.asarray(x, np.float32)))
    assert eager == pytest.approx(in_graph, rel=1e-4, nan_ok=True)
    return eager


def collapsed_share(x, **arguments):
    eager = float(metrics.collapsed_share(x, **arguments))
    compiled = tf.function(metrics.collapsed_share, [tf.TensorSpec([None, np.shape(x)[1]])])
    if not arguments:
        assert eager == pytest.approx(float(compiled(np.asarray(x, np.float32))), nan_ok=True)
    return eager


def unit_rows(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")


@pytest.mark.parametrize("shape", [(1, 5), (7, 3), (40, 512), (144, 2048)])
def test_effective_rank_equals_the_definition(shape):
    x = unit_rows(np.random.default_rng(1).normal(size=shape))
    assert effective_rank(x) == pytest.approx(rank_oracle(x), rel=2e-3)


@pytest.mark.parametrize("entries", [1, 7, 70, 10**6])
def test_effective_rank_is_the_same_in_bands(monkeypatch, entries):
    """One row at a time, bands that do not divide the rows, all at once."""
    x = np.random.default_rng(3).standard_normal((23, 5))
    monkeypatch.setattr("mm_keras.metrics.embeddings._ENTRIES_PER_BAND", entries)
    assert effective_rank(x) == pytest.approx(rank_oracle(x), rel=1e-4)


def test_effective_rank_of_known_matrices():
    assert effective_rank(np.eye(6, dtype="float32")) == pytest.approx(6, rel=1e-5)
    # Eigenvalues 9 and 1: (9 + 1)^2 / (81 + 1).
    assert effective_rank(np.diag([3.0, 1.0, 0.0])) == pytest.approx(100 / 82, rel=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1e-25, 1e25])
def test_collapse_to_a_point_is_rank_one_at_any_scale(factor):
    point = np.random.default_rng(2).normal(size=(1, 8192))
    x = np.repeat(point * factor, 160, axis=0).astype("float32")
    assert effective_rank(x) == pytest.approx(1, abs=1e-3)
    assert collapsed_share(np.repeat(unit_rows(point), 160, axis=0)) == 1


def test_statistics_of_healthy_and_collapsed_embeddings_differ():
    x = unit_rows(np.random.default_rng(3).normal(size=(144, 2048)))
    assert effective_rank(x) > 100
    assert collapsed_share(x) == 0


@pytest.mark.parametrize("num_dimensions", [8, 8192])
def test_collapsed_share_counts_dead_dimensions(num_dimensions):
    x = np.random.default_rng(4).normal(size=(40, num_dimensions))
    x[:, : num_dimensions // 4] = 0.7  # the same for every patch
    x[:, num_dimensions // 4 : num_dimensions // 2] = 0  # never fires
    for length in (1e-4, 1, 1e4):  # the figure does not depend on the length of the vectors
        assert collapsed_share((length / np.sqrt(num_dimensions) * x).astype("float32")) == 0.5


def test_a_unit_that_fires_once_is_alive():
    x = np.zeros((400, 4), "float32")
    x[:, 0] = 1
    x[7, 1] = 1
    assert collapsed_share(x) == 0.75
    assert collapsed_share(x, threshold=0.2) == 1


def test_degenerate_embeddings_give_numbers():
    assert effective_rank(np.zeros((5, 4), "float32")) == 1
    assert collapsed_share(np.zeros((5, 4), "float32")) == 1
    assert effective_rank([[0.6, 0.8]]) == pytest.approx(1)
    assert collapsed_share([[0.6, 0.8]]) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_give_nan_and_do_not_raise(bad):
    x = np.ones((3, 4), "float32")
    x[1, 2] = bad
    assert math.isnan(effective_rank(x))
    assert math.isnan(collapsed_share(x))


def test_half_precision_embeddings_are_measured_in_float32():
    x = unit_rows(np.random.default_rng(5).normal(size=(20, 64)))
    rank = metrics.effective_rank(keras.ops.cast(x, "float16"))
    assert keras.backend.standardize_dtype(rank.dtype) == "float32"
    assert float(rank) == pytest.approx(rank_oracle(x), rel=1e-2)


@pytest.mark.slow
def test_statistics_run_on_jax_without_tensorflow():
    code = """
import sys
sys.modules["tensorflow"] = None
import jax, numpy as np
from mm_keras import metrics
x = np.random.default_rng(1).normal(size=(7, 3)).astype("float32")
print(float(jax.jit(metrics.effective_rank)(x)), float(jax.jit(metrics.collapsed_share)(x)))
matrix = metrics.ConfusionMatrix(2)
matrix.update_state(jax.numpy.array([0, 1, 1, 255]), np.array([0, 1, 0, 9]))
assert matrix.result().tolist() == [[1, 0], [1, 1]]
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    x = np.random.default_rng(1).normal(size=(7, 3)).astype("float32")
    assert [float(v) for v in done.stdout.split()] == pytest.approx([rank_oracle(x), 0], rel=1e-3)
