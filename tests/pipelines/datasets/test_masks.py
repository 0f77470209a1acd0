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
def test_values_skip_void(tmp_path, void_value, expected):
    rule = masks.consecutive(NAMES, void_value)
    assert {v: k for v, k in enumerate(rule.table) if rule.allows(v)} == expected
    values = np.array([[*expected, 77]], np.uint8)
    mask = read(tmp_path, values, rule)
    assert mask.ids.tolist() == [[*expected.values(), 255]]
    assert mask.wrong == {77} and mask.values == {*expected, 77}


def test_bad_void_values():
    with pytest.raises(datasets.DatasetError, match=r"in 0\.\.255. Received 256"):
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


def test_negative_values_of_a_tiff(tmp_path):
    mask = read(tmp_path, np.array([[-1, 2]], np.int32), masks.consecutive(NAMES), "tif")
    assert mask.wrong == {-1} and mask.ids.tolist() == [[255, 2]]


def test_colors_equal_a_lookup(tmp_path):
    rng = np.random.default_rng(0)
    colors = np.array([color for color, _ in TABLE] + [(9, 9, 8), (201, 0, 0)], np.uint8)
    labels = np.array([label for _, label in TABLE] + [255, 255])
    chosen = rng.integers(0, 6, (40, 50))
    mask = read(tmp_path, colors[chosen], masks.consecutive(NAMES, colors=TABLE))
    np.testing.assert_array_equal(mask.ids, labels[chosen])
    assert mask.unknown == {(9, 9, 8): (chosen == 4).sum(), (201, 0, 0): (chosen == 5).sum()}
    assert not mask.wrong and not mask.values


def test_unknown_colors_are_named_with_the_closest():
    rule = masks.consecutive(NAMES, colors=TABLE)
    kind = rule.color_fault({(201, 0, 0): 5, (1, 1, 1): 700})
    assert "(1, 1, 1) in 700 pixels, closest is 'void' (0, 0, 0); (201, 0, 0) in 5 pixels, " in (
        kind.what
    )
    assert "closest is 'road' (200, 0, 0)" in kind.what
    assert "colors.txt" in kind.mend and "smooth edges" not in kind.mend
    many = rule.color_fault({(k, 9, 0): 1 for k in range(50)})
    assert "and 45 more" in many.what and "smooth edges" in many.mend
    assert "saved as colors" in rule.color_fault({(2, 2, 2): 4, (1, 1, 1): 4}).mend


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha(tmp_path, mode):
    rule = masks.consecutive(NAMES, colors=TABLE)
    gray = Image.fromarray(np.array([[0, 2]], np.uint8))
    color = Image.fromarray(np.array([[(1, 2, 3), (0, 200, 0)]], np.uint8))
    image = (gray if mode == "LA" else color).convert(mode)
    assert read(tmp_path, image, rule).ids.tolist() == [[0, 2]]
    image.putpixel((0, 0), (*image.getpixel((0, 0))[:-1], 254))
    with pytest.raises(faults.WrongKindError) as caught:
        read(tmp_path, image, rule)
    assert caught.value.kind is masks.TRANSPARENT


def test_ids_in_three_equal_channels(tmp_path):
    pixels = np.array([[0, 2, 255, 7]], np.uint8)
    rgb = np.repeat(pixels[..., None], 3, -1)
    mask = read(tmp_path, rgb, masks.consecutive(NAMES))
    assert mask.ids.tolist() == [[0, 2, 255, 255]] and mask.wrong == {7}
    rgb[0, 0, 1] = 1
    with pytest.raises(faults.WrongKindError) as caught:
        read(tmp_path, rgb, masks.consecutive(NAMES))
    assert caught.value.kind is masks.COLORED


def test_other_formats_are_refused(tmp_path):
    for image, ending, kind in (
        (Image.new("F", (3, 3)), "tif", masks.NO_VALUES),
        (Image.new("CMYK", (3, 3)), "tif", masks.NO_VALUES),
        (Image.new("L", (3, 3)), "jpg", masks.LOSSY),
    ):
        with pytest.raises(faults.WrongKindError) as caught:
            read(tmp_path, image, masks.consecutive(NAMES), ending)
        assert caught.value.kind is kind


def test_palettes_of_few_bits(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 9, 8, 7, 200, 0, 0, 4, 4, 4])
    image.putdata([2, 0, 1])
    mask = read(tmp_path, image, masks.consecutive(NAMES), bits=2)
    assert mask.ids.tolist() == [[2, 0, 1]]
    assert mask.palette == {0: (0, 0, 0), 1: (9, 8, 7), 2: (200, 0, 0)}


@pytest.mark.parametrize(
    ("num_classes", "values", "said"),
    [
        (19, {7, 19, 33}, "labelIds"),
        (19, {24000, 26001, 3}, "instanceIds"),
        (21, {0, 256, 512}, "divide by 256"),
        (21, {0, 38, 128}, "gray values of VOC's colors"),  # Pillow's weights
        (21, {0, 27, 91, 255}, "gray values of VOC's colors"),  # libpng's
        (3, {1, 2, 3}, "If 0 means void and ids start at 1: --set data.void_value=0"),
        (3, {0, 3}, "If 3 means void: --set data.void_value=3. If 0 means void"),
        (3, {0, 254}, "If 254 means void: --set data.void_value=254."),
        (3, set(range(0, 200, 5)), "interpolation"),
        (3, {0, 7, 9}, "Correct the masks or the list of classes."),
    ],
)
def test_advice_on_values(num_classes, values, said):
    rule = masks.consecutive(tuple(map(str, range(num_classes))), takes_void_value=True)
    kind = rule.value_fault(values)
    assert said in kind.mend, kind
    assert f"0 to {num_classes - 1} and 255 (void) are allowed" in kind.what
