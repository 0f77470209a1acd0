"""Position embeddings on any grid, against values of torch and the rule of DINOv3."""

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.backbones import positions

GRIDS = ["16x16", "37x37", "50x20"]


def _table(height, width, channels=3):
    """A table of values without symmetry, as the script that wrote the golden values makes it."""
    count = np.arange(height * width * channels, dtype="float64")
    return np.sin(count * 1.7).reshape(height, width, channels).astype("float32")


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_tables_are_resized_as_by_torch(golden, grid, antialias):
    height, width = map(int, grid.split("x"))
    expected = golden("transformers")["bicubic_37x37"][f"{grid}, antialias {antialias}"]
    table = _table(37, 37)
    resized = np.array(positions.resized_table(table, (height, width), antialias))
    np.testing.assert_allclose(resized[::7, ::5].reshape(-1), expected, atol=1e-5)
    graph = tf.function(lambda size: positions.resized_table(table, tf.unstack(size), antialias))
    np.testing.assert_allclose(graph(tf.constant([height, width])), resized, atol=1e-6)


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (2, 1)])
def test_degenerate_grids_have_finite_embeddings(grid):
    for table in (_table(1, 1), _table(1, 4), _table(5, 5)):
        for antialias in (False, True):
            resized = np.array(positions.resized_table(table, grid, antialias))
            assert resized.shape == (*grid, 3) and np.all(np.isfinite(resized))


def test_a_constant_table_stays_constant():
    for antialias in (False, True):
        resized = positions.resized_table(np.full((5, 7, 2), 3.0, "float32"), (11, 3), antialias)
        np.testing.assert_allclose(resized, np.full((11, 3, 2), 3.0), rtol=1e-6)


def test_rotations_follow_the_coordinates_of_the_patches():
    cosine, sine = map(np.array, positions.rotations((2, 3), 8, base=100.0))
    assert cosine.shape == sine.shape == (6, 8)
    # Patch 5 is row 1, column 2: its middle lies at 3/4 of the height and 5/6 of the width.
    angles = 2 * np.pi * np.array([0.5, 0.5 / 10, 2 / 3, 2 / 30])
    np.testing.assert_allclose(cosine[5], np.cos([*angles, *angles]), atol=1e-6)
    np.testing.assert_allclose(sine[5], np.sin([*angles, *angles]), atol=1e-6)
