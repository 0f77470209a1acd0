"""Values and colors of masks, against lookups pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets import faults, masks

NAMES = ("sky", "road", "tree")
TABLE = (((1, 2, 3), 0), ((200, 0, 0), 1), ((0, 200, 0), 2), ((0, 0, 0), 255))


def read(tmp_path, pixels, rule, ending="png", **options):
    file = tmp_path / f"mask.{ending}"
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, **options)
    return masks.read(file, rule)


@pytest.mark.parametrize(
    ("void_value", "expected"),
    [
        (255, {0: 0, 1: 1, 2: 2, 255: 255}),
        (0, {0: 255, 1: 0, 2: 1, 3: 2, 255: 255}),
        (1, {0: 0, 1: 255, 2: 1, 3: 2, 255: 255}),
        (3, {0: 0, 1: 1, 2: 2, 3: 255, 255: 255}),
        (200, {0: 0, 1: 1, 2: 2, 200: 255, 255: 255}),
    ],
)
def test_class_values_skip_the_void_value(tmp_path, void_value, expected):
    rule = masks.consecutive(NAMES, void_value)
    assert {v: k for v, k in enumerate(rule.table) if rule.allows(v)} == expected
    values = np.array([[*expected, 77]], np.uint8)
    mask = read(tmp_path, values, rule)
    assert mask.ids.tolist() == [[*expected.values(), 255]]
    assert mask.wrong == {77} and mask.values == {*expected, 77}


def test_wrong_void_values_raise_an_error():
    with pytest.raises(
        datasets.DatasetError, match=r"^void_value must be in 0\.\.255. Received 256"
    ):
        masks.consecutive(NAMES, 256)
    many = tuple(map(str, range(255)))
    assert masks.consecutive(many).table == (*range(255), 255)
    with pytest.raises(datasets.DatasetError, match="255 classes are too many.* void = 0.* 254"):
        masks.consecutive(many, 0)


def test_16_bits_do_not_wrap_around(tmp_path):
    pixels = np.array([[0, 1, 256, 257, 65535]], np.uint16)
    mask = read(tmp_path, pixels, masks.consecutive(NAMES))
    assert mask.ids.tolist() == [[0, 1, 255, 255, 255]]
    assert mask.wrong == {256, 257, 65535}
    fine = read(tmp_path, np.array([[2, 255]], np.uint16), masks.consecutive(NAMES))
    assert fine.ids.tolist() == [[2, 255]] and fine.ids.dtype == np.uint8 and not fine.wrong


def test_negative_values_of_a_tiff_are_wrong_values(tmp_path):
    mask = read(tmp_path, np.array([[-1, 2]], np.int32), masks.consecutive(NAMES), "tif")
    assert mask.wrong == {-1} and mask.ids.tolist() == [[255, 2]]


def test_decoded_colors_equal_a_lookup_table(tmp_path):
    rng = np.random.default_rng(0)
    colors = np.array([color for color, _ in TABLE] + [(9, 9, 8), (201, 0, 0)], np.uint8)
    labels = np.array([label for _, label in TABLE] + [255, 255])
    chosen = rng.integers(0, 6, (40, 50))
    mask = read(tmp_path, colors[chosen], masks.consecutive(NAMES, colors=TABLE))
    np.testing.assert_array_equal(mask.ids, labels[chosen])
    assert mask.unknown == {(9, 9, 8): (chosen == 4).sum(), (201, 0, 0): (chosen == 5).sum()}
    assert not mask.wrong and not mask.values


def test_unknown_colors_are_listed_with_the_closest_known_color():
    rule = masks.consecutive(NAMES, colors=TABLE)
    kind = rule.color_fault({(201, 0, 0): 5, (1, 1, 1): 700})
    assert "(1, 1, 1) in 700 pixels, closest is 'void' (0, 0, 0); (201, 0, 0) in 5 pixels, " in (
        kind.problem
    )
    assert "closest is 'road' (200, 0, 0)" in kind.problem
    assert "colors.txt" in kind.fix and "smooth edges" not in kind.fix
    many = rule.color_fault({(k, 9, 0): 1 for k in range(50)})
    assert "and 45 more" in many.problem and "smooth edges" in many.fix
    assert "saved as colors" in rule.color_fault({(2, 2, 2): 4, (1, 1, 1): 4}).fix


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_ignored_and_half_transparency_is_refused(tmp_path, mode):
    rule = masks.consecutive(NAMES, colors=TABLE)
    gray = Image.fromarray(np.array([[0, 2]], np.uint8))
    color = Image.fromarray(np.array([[(1, 2, 3), (0, 200, 0)]], np.uint8))
    image = (gray if mode == "LA" else color).convert(mode)
    assert read(tmp_path, image, rule).ids.tolist() == [[0, 2]]
    image.putpixel((0, 0), (*image.getpixel((0, 0))[:-1], 254))
    with pytest.raises(faults.WrongKindError) as caught:
        read(tmp_path, image, rule)
    assert caught.value.kind is masks.TRANSPARENT and "50.0% of the pixels" in caught.value.detail


@pytest.mark.parametrize(
    "names, table, expected",
    [
        (("background", "road", "tree"), (), 0),
        (("road", "tree", "bg"), (), 2),
        (NAMES, (), 255),
        (NAMES, (((0, 0, 0), 1), ((9, 9, 9), 0), ((0, 200, 0), 2)), 1),
        (NAMES, (((5, 0, 0), 1), ((0, 200, 0), 2)), 255),
    ],
)
def test_transparent_pixels_are_black_or_background_or_void(tmp_path, names, table, expected):
    rule = masks.consecutive(names, colors=table)
    color = (0, 200, 0) if table else (2, 2, 2)
    pixels = np.array([[(*color, 255), (77, 1, 3, 0), (*color, 255)]], np.uint8)
    mask = read(tmp_path, pixels, rule)
    assert mask.ids.tolist() == [[2, expected, 2]] and not mask.unknown and not mask.wrong


def test_a_mask_that_is_transparent_everywhere_has_one_class(tmp_path):
    rule = masks.consecutive(("background", "road"))
    assert (read(tmp_path, np.zeros((3, 4, 4), np.uint8), rule).ids == 0).all()


def test_smooth_edges_of_at_most_one_percent_are_snapped(tmp_path):
    rule = masks.consecutive(("background", "road"))
    pixels = np.full((10, 20, 4), (1, 1, 1, 255), np.uint8)
    pixels[0, :2, 3] = 127, 128
    assert read(tmp_path, pixels, rule).ids[0, :3].tolist() == [0, 1, 1]


def test_class_ids_in_three_equal_channels_are_read(tmp_path):
    pixels = np.array([[0, 2, 255, 7]], np.uint8)
    rgb = np.repeat(pixels[..., None], 3, -1)
    mask = read(tmp_path, rgb, masks.consecutive(NAMES))
    assert mask.ids.tolist() == [[0, 2, 255, 255]] and mask.wrong == {7}
    rgb[0, 0, 1] = 1
    with pytest.raises(faults.WrongKindError) as caught:
        read(tmp_path, rgb, masks.consecutive(NAMES))
    assert caught.value.kind is masks.COLORED


def test_formats_without_class_ids_are_refused(tmp_path):
    for image, ending, kind in (
        (Image.new("F", (3, 3)), "tif", masks.NO_VALUES),
        (Image.new("CMYK", (3, 3)), "tif", masks.NO_VALUES),
        (Image.new("L", (3, 3)), "jpg", masks.LOSSY),
    ):
        with pytest.raises(faults.WrongKindError) as caught:
            read(tmp_path, image, masks.consecutive(NAMES), ending)
        assert caught.value.kind is kind


def test_palettes_of_two_bits_are_read(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 9, 8, 7, 200, 0, 0, 4, 4, 4])
    image.putdata([2, 0, 1])
    mask = read(tmp_path, image, masks.consecutive(NAMES), bits=2)
    assert mask.ids.tolist() == [[2, 0, 1]]
    assert mask.palette == {0: (0, 0, 0), 1: (9, 8, 7), 2: (200, 0, 0)}


@pytest.mark.parametrize(
    ("num_classes", "values", "advice"),
    [
        (19, {7, 19, 33}, "labelIds"),
        (19, {24000, 26001, 3}, "instanceIds"),
        (21, {0, 256, 512}, "divide by 256"),
        (21, {0, 38, 128}, "gray values of VOC's colors"),  # Pillow's weights
        (21, {0, 27, 91, 255}, "gray values of VOC's colors"),  # libpng's
        (3, {1, 2, 3}, "If 0 means void and ids start at 1: use void_value=0"),
        (3, {0, 3}, "If 3 means void: use void_value=3. If 0 means void"),
        (3, {0, 254}, "If 254 means void: use void_value=254."),
        (3, set(range(0, 200, 5)), "interpolation"),
        (3, {0, 7, 9}, "Correct the masks or the list of classes."),
        (19, {0, 19}, "labelIds"),
        (19, {0, 34}, "Correct the masks"),
        (18, {0, 18, 33}, "Correct the masks"),
        (19, {0, 500, 24000}, "Correct the masks"),
        (19, {0, 34000}, "Correct the masks"),
        (21, {0, 256, 257}, "Correct the masks"),
        (21, {0, 38}, "Correct the masks"),  # a single gray value may be chance
        (3, set(range(23)), "Correct the masks"),
        (3, set(range(24)), "interpolation"),
        (30, set(range(55)), "Correct the masks"),
    ],
)
def test_wrong_values_get_matching_advice(num_classes, values, advice):
    rule = masks.consecutive(tuple(map(str, range(num_classes))), takes_void_value=True)
    kind = rule.value_fault(values)
    assert advice in kind.fix, kind
    assert f"0 to {num_classes - 1} and 255 (void) are allowed" in kind.problem


@pytest.mark.parametrize(
    ("values", "listed"), [({0, 7}, ", 7 seen where"), ({0, 7, 9}, ", 7 to 9 seen where")]
)
def test_wrong_values_are_listed_as_a_range(values, listed):
    assert listed in masks.consecutive(NAMES).value_fault(values).problem


def test_a_rule_without_void_value_gives_no_advice_on_it():
    assert "void_value" not in masks.consecutive(NAMES).value_fault({0, 254}).fix
    assert "void_value" not in masks.MaskRule(NAMES, masks.consecutive(NAMES).table)._advice(
        {0, 254}, [254]
    )


@pytest.mark.parametrize(("num_unknown", "more"), [(5, ""), (6, "and 1 more")])
def test_at_most_five_unknown_colors_are_listed(num_unknown, more):
    rule = masks.consecutive(NAMES, colors=TABLE)
    problem = rule.color_fault({(k, 9, 0): 1 for k in range(num_unknown)}).problem
    assert problem.count("closest is") == 5 and ("more" in problem) == bool(more)
    assert more in problem


def test_smooth_edges_are_suspected_above_four_unknown_colors_per_known_color():
    rule = masks.consecutive(NAMES, colors=TABLE)
    for num_unknown, is_suspected in ((16, False), (17, True)):
        fix = rule.color_fault({(k, 9, 0): 1 for k in range(num_unknown)}).fix
        assert ("smooth edges" in fix) == is_suspected


@pytest.mark.parametrize("unknown", [[(255, 255, 255)], [(1, 1, 1), (9, 8, 7)], [(7, 7, 7)]])
def test_colors_that_cannot_be_class_ids_get_advice_on_the_table(unknown):
    rule = masks.consecutive(NAMES, colors=TABLE)
    assert "Add them to colors.txt" in rule.color_fault(dict.fromkeys(unknown, 3)).fix
