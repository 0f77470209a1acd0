"""Shapes against hand-counted pixels, and the order in which they are painted."""

import numpy as np
import pytest

from pipelines.datasets.sources.exports import shapes

SIZE = (10, 12)


def covered(shape, size=SIZE):
    patch = shape.patch(size)
    full = np.zeros(size, bool)
    height, width = patch.covered.shape
    full[patch.y : patch.y + height, patch.x : patch.x + width] = patch.covered
    return full


def square(low, high):
    return ((low, low), (high, low), (high, high), (low, high))


# Numbers of pixels by pycocotools 2.0.11 and by Pillow's polygon with outline.
@pytest.mark.parametrize(
    ("ring", "inside", "outlined"),
    [
        (square(2, 6), 16, 25),
        (square(2.5, 6.5), 16, 25),
        (((1, 1), (9, 3), (4, 8)), 22, 33),
        (((1, 4.2), (9, 4.2), (9, 4.8), (1, 4.8)), 8, 9),
        (square(-3, 5), 25, 36),
        (((1, 1), (9, 9), (9, 1), (1, 9)), 32, 49),
    ],
)
def test_polygons_follow_pixel_centers_and_labelme_adds_the_outline(ring, inside, outlined):
    assert covered(shapes.Polygon((ring,))).sum() == inside
    assert covered(shapes.Outlined(ring)).sum() == outlined


def test_rings_are_united_and_holes_are_cut_out():
    both = shapes.Polygon((square(1, 4), square(3, 6)))
    assert covered(both).sum() == 9 + 9 - 1
    assert covered(shapes.Polygon((square(1, 7),), (square(3, 5),))).sum() == 36 - 4


def test_shapes_outside_of_the_image_are_empty():
    far = square(100, 200)
    for shape in (
        shapes.Polygon((far,)),
        shapes.Outlined(far),
        shapes.OutlinedBox(far[:3:2]),
        shapes.Ellipse((100, 100), (5, 5)),
        shapes.Bitmap(50, 50, np.ones([3, 3], bool)),
        shapes.Bitmap(-50, -50, np.ones([3, 3], bool)),
    ):
        assert not covered(shape).any()


def test_far_vertices_cost_no_memory():
    assert covered(shapes.Polygon((square(-1e12, 1e12),))).all()
    ring = tuple((1e9 * (k % 2), float(k)) for k in range(200_000))
    with pytest.raises(ValueError, match="no outline of an object"):
        shapes.Polygon((ring,)).patch((5000, 5000))


def test_a_turned_rectangle_turns_clockwise_about_its_center_or_a_point():
    upright = covered(shapes.rectangle(2, 4, 10, 6))
    turned = covered(shapes.rectangle(5, 1, 7, 9, 90))
    np.testing.assert_array_equal(turned, upright)
    about = covered(shapes.rectangle(4, 0, 8, 2, 90, about=(4, 0)), (10, 12))
    assert about[:4, 2:4].all() and about.sum() == 8


def test_bitmaps_are_cut_at_the_edges():
    found = covered(shapes.Bitmap(-1, 10, np.ones([3, 4], bool)))
    assert found[:2, 10:].all() and found.sum() == 4


def test_later_shapes_or_smaller_ones_are_on_top_and_contested_pixels_are_counted():
    small, large = shapes.Polygon((square(2, 4),)), shapes.Polygon((square(0, 8),))
    ordered = shapes.paint([(1, small), (2, large)], SIZE, 0, small_on_top=False)
    assert (ordered.labels == 1).sum() == 0
    by_size = shapes.paint([(1, small), (2, large)], SIZE, 0, small_on_top=True)
    assert (by_size.labels == 1).sum() == 4
    assert by_size.num_contested == ordered.num_contested == 4
    assert by_size.num_unlabelled == 120 - 64
    same = shapes.paint([(1, small), (1, large)], SIZE, 255, small_on_top=False)
    assert same.num_contested == 0 and (same.labels == 255).sum() == 56


@pytest.mark.parametrize(
    "flat", [[], [0, 0, 1, 1], [0, 0, 1, 1, 2], "text", [0, 0, 1, 1, 2, float("nan")], [None] * 6]
)
def test_lists_that_are_no_outline_give_no_points(flat):
    assert shapes.points(flat) == ()
