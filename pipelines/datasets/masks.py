"""Mask files: the meaning of their values or colors, and reading them as class ids.

Masks are gray, palette or 1-bit pictures of values, pictures of colors with a color table, or
SBD's .mat files. The indices of a palette are the values, as long as all palettes of a data set
agree (`MaskRule.palettes_by_color`).
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipelines.datasets import faults, files, headers, sbd_mat
from pipelines.datasets.spec import VOID, DatasetError, voc_colors

ENDINGS = (".png", ".bmp", ".tif", ".tiff")
NOT_ALLOWED = -1
"""In `MaskRule.table`: a value that no mask may hold."""

VOID_NAMES = ("void", "unlabelled", "unlabeled", "ignore", "ignored")
"""Usual names for pixels without a class, in lower case."""

BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg")
"""Usual names of the class of everything else, in lower case."""

_VALUE_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_COLOR_MODES = ("LA", "RGB", "RGBA")
_BLOCK_ROWS = 512
_MOST_BETWEEN = 0.01  # share of half transparent pixels; source: reference of formats, smooth edges
# Weights of red, green and blue when colors become gray: of Pillow (ITU-R 601) and of libpng, which
# TensorFlow uses (ITU-R 709).
_GRAY_WEIGHTS = ((0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722))

RGB = tuple[int, int, int]

COLORED = faults.Kind(
    "mask that holds colors, but there is no color table",
    "Either write the table (data set 'folder': colors.txt with a line 'name red green blue' for "
    "each class, and 'void red green blue'), or save each pixel's class id as a gray or palette "
    f"PNG, {VOID} for void.",
)
LOSSY = faults.Kind(
    "mask with lossy compression (JPEG, or JPEG inside another container), which blurs class ids",
    "Save masks as PNG from their source.",
)
TRANSPARENT = faults.Kind(
    "mask with half transparent pixels, whose class is unknown",
    "Paint with a hard brush (pencil), without smooth edges, and save it again.",
)
NO_VALUES = faults.Kind(
    "mask of a pixel format that holds no class ids (such as real numbers, CMYK or 16-bit colors)",
    f"Save each pixel's class id as an 8-bit gray or palette PNG, {VOID} for void.",
)
BINARY = faults.Kind(
    f"mask of 0 and {VOID} only: a binary mask?",
    f"{VOID} is void, so class 1 has no pixel in any mask. Write 1 instead of {VOID}; or name two "
    f"classes only, so that {VOID} is the second class.",
)
PALETTES = faults.Kind(
    "palette mask; the palettes of the masks differ, so one index means different classes",
    "Write colors.txt with a line 'name red green blue' for each class, and 'void red green blue': "
    "it must hold each color of the palettes. Or save each pixel's class id as a gray PNG.",
)


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """The meaning of the values, or colors, in the masks of a data set.

    Attributes:
        class_names: names of the classes, by class id.
        table: 256 entries: the class id of each value, 255 for void, or NOT_ALLOWED.
        colors: (RGB, class id or 255) of each allowed color of a color mask. Empty if color masks
            are refused.
        takes_void_value: whether the argument void_value can change the table, for advice.
        palettes_by_color: whether `colors` decodes palette masks, instead of their indices.
        ignores_palettes: whether the palettes may differ, because the indices are the values.
        unlabelled: meaning of pixels without a label in an export, "background" or "void"; empty
            if the share of such pixels is not reported.
        background: class id of the background of an export, or None.
        above: class id of all values above 255, or None if there may be none.
    """

    class_names: tuple[str, ...]
    table: tuple[int, ...]
    colors: tuple[tuple[RGB, int], ...] = ()
    takes_void_value: bool = False
    palettes_by_color: bool = False
    ignores_palettes: bool = False
    unlabelled: str = ""
    background: int | None = None
    above: int | None = None

    @property
    def values(self) -> tuple[int, ...]:
        """The mask value of each class; the class id where only colors stand for the class."""
        labels = range(len(self.class_names))
        return tuple(self.table.index(k) if k in self.table else k for k in labels)

    @property
    def of_transparent(self) -> int:
        """The class id of transparent pixels: of black, of the background, or 255."""
        names = [name.lower() in BACKGROUND_NAMES for name in self.class_names]
        usual = names.index(True) if True in names else VOID
        return dict(self.colors).get((0, 0, 0), usual)

    @property
    def may_be_binary(self) -> bool:
        """Whether masks of 0 and 255 alone can mean the classes 0 and 1: two classes, no void."""
        is_usual = self.table[0] == 0 and self.table[VOID] == VOID
        return self.takes_void_value and len(self.class_names) == 2 and is_usual

    def binary(self) -> "MaskRule":
        """Return the rule for masks of 0 and 255 alone, in which 255 is the second class."""
        return dataclasses.replace(self, table=(0, *[NOT_ALLOWED] * 254, 1))

    def knows(self, colors: Iterable[RGB]) -> bool:
        """Return whether the color table holds all these colors."""
        return {*colors} <= {color for color, _ in self.colors}

    def allows(self, value: int) -> bool:
        """Return whether masks may hold `value`."""
        if value > VOID:
            return self.above is not None
        return value >= 0 and self.table[value] != NOT_ALLOWED

    def value_fault(self, values: Iterable[int]) -> faults.Kind:
        """Return the kind of fault of masks with `values`, some of which are not allowed."""
        values = set(values)
        wrong = sorted(v for v in values if not self.allows(v))
        seen = f"{wrong[0]} to {wrong[-1]}" if len(wrong) > 1 else f"{wrong[0]}"
        classes = [v for v, label in enumerate(self.table) if label not in (VOID, NOT_ALLOWED)]
        void = [v for v, label in enumerate(self.table) if label == VOID]
        return faults.Kind(
            f"mask with values outside the classes, {seen} seen where {_ranges(classes)} and "
            f"{_ranges(void)} (void) are allowed",
            self._advice(values, wrong),
        )

    def color_fault(self, unknown: dict[RGB, int]) -> faults.Kind:
        """Return the kind of fault of masks with colors that are not in the table.

        Args:
            unknown: unknown color -> number of its pixels.
        """
        frequent = sorted(unknown, key=lambda color: (-unknown[color], color))[:5]
        listed = "; ".join(
            f"{_text(color)} in {unknown[color]} pixels, closest is {self._closest(color)}"
            for color in frequent
        )
        more = f"; and {len(unknown) - len(frequent)} more" if len(unknown) > len(frequent) else ""
        return faults.Kind(
            f"mask with colors that are not in the color table ({listed}{more})",
            self._color_advice(unknown),
        )

    def _advice(self, values: set[int], wrong: list[int]) -> str:
        num_classes = len(self.class_names)
        if num_classes == 19 and wrong[0] >= 19 and wrong[-1] <= 33:  # as in Cityscapes
            return "These look like labelIds. Use masks with trainIds (*_labelTrainIds.png)."
        if all(24 <= v // 1000 <= 33 for v in wrong):
            return "These look like Cityscapes' instanceIds. Use masks with trainIds."
        if wrong[-1] > 255 and all(v % 256 == 0 for v in wrong):
            return "The ids are in the high byte of 16 bits: divide by 256, and save as 8 bits."
        if len(wrong) > 1 and _are_grays_of_voc(values):
            return (
                "These are the gray values of VOC's colors: a palette mask was converted to gray. "
                "Save the palette's indices."
            )
        if wrong == [num_classes] and 0 not in values:
            return "The ids seem to start at 1: the first class is 0." + self._void_advice(0)
        if len(wrong) == 1:
            either = self._void_advice(wrong[0])
            if self.may_be_binary and values == {0, *wrong}:
                second = self.class_names[1]
                either = f" If {wrong[0]} means '{second}': write 1 instead." + either
            if wrong == [num_classes]:
                either += self._void_advice(0)
            return "Correct the masks or the list of classes." + either
        if len(wrong) > max(20, num_classes):
            return (
                "So many values come from interpolation, or the mask holds no class ids. Create "
                "the masks again, with nearest neighbor."
            )
        return "Correct the masks or the list of classes."

    def _void_advice(self, value: int) -> str:
        if not self.takes_void_value:
            return ""
        if not 0 <= value <= VOID:
            return f" If {value} means void: write {VOID} instead."
        follows = " and ids start at 1" if value == 0 else ""
        return f" If {value} means void{follows}: use void_value={value}."

    def _closest(self, color: RGB) -> str:
        def distance(entry):
            return sum((a - b) ** 2 for a, b in zip(entry[0], color, strict=True))

        closest, label = min(self.colors, key=distance)
        name = "void" if label == VOID else self.class_names[label]
        return f"'{name}' {_text(closest)}"

    def _color_advice(self, unknown: dict[RGB, int]) -> str:
        grays = [r for r, g, b in unknown if r == g == b and self.allows(r)]
        # White or black alone is void or background without a line in the table.
        if len(grays) == len(unknown) and set(grays) - {0, VOID}:
            return (
                "They look like class ids saved as colors: save the masks as gray PNGs, "
                "or remove colors.txt."
            )
        table = "Add them to colors.txt; the color of void is a line 'void red green blue'."
        if len(unknown) > 4 * len(self.colors):
            table += " So many colors come from JPEG or smooth edges: use the original masks."
        return table


class Coverage(NamedTuple):
    """Numbers of pixels: all, without a label, and claimed by shapes of several classes."""

    num_pixels: int
    num_unlabelled: int
    num_contested: int = 0


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask after reading.

    Attributes:
        ids: uint8 [height, width], class ids, 255 = void and for wrong values.
        values: the values in the file; empty if it holds colors.
        wrong: the values that are not allowed.
        unknown: color that is not in the color table -> number of its pixels.
        palette: value -> color, if the file has a palette.
        nodata: the GeoTIFF's value without data that became void, or None.
        coverage: numbers of labelled pixels of an export, or None.
    """

    ids: np.ndarray
    values: frozenset[int] = frozenset()
    wrong: frozenset[int] = frozenset()
    unknown: dict[RGB, int] = dataclasses.field(default_factory=dict)
    palette: dict[int, RGB] = dataclasses.field(default_factory=dict)
    nodata: int | None = None
    coverage: Coverage | None = None


def consecutive(
    class_names: tuple[str, ...],
    void_value: int = VOID,
    colors: tuple[tuple[RGB, int], ...] = (),
    takes_void_value: bool = False,
) -> MaskRule:
    """Return the usual rule: classes have the values 0, 1, 2, ..., and one value means void.

    Classes skip the values that mean void. With void_value=0 they start at 1. With void_value=5
    they are 0 to 4, 6, 7, and so on. 255 always means void, too.

    Args:
        class_names: names of the classes, by class id.
        void_value: int in 0..255.
        colors: (RGB, class id or 255) of each allowed color of a color mask.
        takes_void_value: whether users can set void_value, for advice in messages.

    Raises:
        DatasetError: if void_value is not in 0..255, or if there are more classes than values.

    Example:
        >>> consecutive(("sky", "road"), void_value=0).table[:4]
        (255, 0, 1, -1)
    """
    if not 0 <= void_value <= 255:
        raise DatasetError(f"void_value must be in 0..255. Received {void_value}.")
    values = [value for value in range(VOID) if value != void_value]
    if len(class_names) > len(values):
        raise DatasetError(
            f"{len(class_names)} classes are too many: 8-bit masks with void = {void_value} hold "
            f"at most {len(values)}."
        )
    table = [NOT_ALLOWED] * 256
    table[void_value] = table[VOID] = VOID
    for label, value in enumerate(values[: len(class_names)]):
        table[value] = label
    return MaskRule(class_names, tuple(table), colors, takes_void_value)


def read(file: pathlib.Path, rule: MaskRule, page: int | None = None) -> Mask:
    """Read a mask.

    Args:
        file: path of a .mat file or of a picture that Pillow can read.
        rule: the meaning of its values.
        page: page of a file of several pages, from 0; None for a file of one page.

    Raises:
        WrongKindError: if the file does not hold class ids.
        OSError: or ValueError and others, if it is damaged (see `image_mask_pairs`).
    """
    files.check_regular(file)
    if file.suffix == ".mat":
        return _of_values(sbd_mat.read_segmentation(file), rule)
    stored = read_stored(file, page)
    if stored.is_color:
        return _of_colors(stored.pixels, rule)
    if stored.palette and rule.palettes_by_color:
        return _decode(stored.colored(), rule)
    mask = _of_values(stored.pixels, rule, stored.nodata)
    palette = stored.palette
    shown = {v: palette[v] for v in sorted(mask.values) if 0 <= v < len(palette)}
    return dataclasses.replace(mask, palette=shown)


@dataclasses.dataclass(frozen=True)
class Stored:
    """The content of a mask file before its values or colors are looked up.

    Attributes:
        pixels: [height, width] of values, or uint8 [height, width, 2 to 4] of colors.
        palette: the colors of a palette; empty without one, or if it is gray.
        nodata: the value without data of a GeoTIFF, or None.
    """

    pixels: np.ndarray
    palette: tuple[RGB, ...] = ()
    nodata: int | None = None

    @property
    def is_color(self) -> bool:
        """Whether the pixels are colors, gray with alpha included."""
        return self.pixels.ndim == 3

    def colored(self) -> np.ndarray:
        """Return the palette's color of each pixel, uint8 [height, width, 3]."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table[self.pixels]


def read_stored(file: pathlib.Path, page: int | None = None) -> Stored:
    """Read the stored values of a mask file.

    Grays of few bits are not scaled, and "min is white" does not invert them.

    Args:
        file: path of a picture.
        page: page of a file of several pages, from 0; None for a file of one page.

    Raises:
        WrongKindError: if the file does not hold class ids.
        OSError: or ValueError and others, if it is damaged (see `image_mask_pairs`).
    """
    header = headers.read(file)
    _check_header(header, page)
    with headers.open_image(file, page) as image:
        if image.mode in _COLOR_MODES:
            return Stored(np.asarray(image))
        if image.mode not in _VALUE_MODES:
            raise faults.WrongKindError(NO_VALUES, header)
        values = np.asarray(image)
        if header.is_min_white:
            values = ~values  # Pillow inverts them
        if image.mode == "L" and header.bits in (2, 4):
            values = values // (255 // (2**header.bits - 1))  # Pillow scales them to 0..255
        palette = _palette(image) if image.mode == "P" else ()
    return Stored(values, palette, header.nodata)


def _check_header(header: headers.Header, page: int | None) -> None:
    """Raise WrongKindError for masks that Pillow would convert without a word."""
    if header.is_lossy:
        raise faults.WrongKindError(LOSSY)
    if header.num_pages > 1 and page is None:
        raise faults.WrongKindError(headers.PAGES, f"{header.num_pages} pages")
    is_deep_color = header.bands > 1 and not header.is_8_bit
    if header.number not in ("uint", "int") or header.num_unknown or is_deep_color:
        raise faults.WrongKindError(NO_VALUES, header)


def _palette(image: Image.Image) -> tuple[RGB, ...]:
    """Return the colors of a palette; empty for gray ones, whose color k is the gray value k."""
    colors = np.reshape(image.getpalette(), [-1, 3])
    if (colors == np.arange(len(colors))[:, None]).all():
        return ()
    return tuple(map(tuple, colors.tolist()))


def _of_values(pixels: np.ndarray, rule: MaskRule, nodata: int | None = None) -> Mask:
    """Look up the values in the rule's table; `nodata` is void unless it is an allowed value."""
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype == np.uint8:
        values = np.flatnonzero(value_counts(pixels)).tolist()
    else:
        values = np.unique(pixels).tolist()
    is_void = None
    if nodata in values and not rule.allows(nodata):
        is_void = pixels == nodata
        values.remove(nodata)
    wrong = frozenset(v for v in values if not rule.allows(v))
    # Only 0..255 can be allowed; other values must not wrap around into this range.
    outside = None if pixels.dtype == np.uint8 else (pixels < 0) | (pixels > 255)
    ids = _lookup(rule)[pixels if outside is None else np.where(outside, 0, pixels)]
    if outside is not None:
        ids[outside] = VOID if rule.above is None else rule.above
    if is_void is not None:
        ids[is_void] = VOID
    return Mask(ids, frozenset(values), wrong, nodata=nodata if is_void is not None else None)


def value_counts(pixels: np.ndarray) -> np.ndarray:
    """Count the pixels of each value of uint8 [height, width]: int64 [256].

    Rows are counted in blocks, because `np.bincount` copies its input as int64.

    Example:
        >>> value_counts(np.array([[0, 2], [2, 2]], np.uint8))[:3].tolist()
        [1, 0, 3]
    """
    counts = np.zeros(256, np.int64)
    for start in range(0, len(pixels), _BLOCK_ROWS):
        counts += np.bincount(pixels[start : start + _BLOCK_ROWS].ravel(), minlength=256)
    return counts


@functools.cache
def _lookup(rule: MaskRule) -> np.ndarray:
    """Return the table as uint8 [256], VOID for values that are not allowed."""
    return np.array([VOID if k == NOT_ALLOWED else k for k in rule.table], np.uint8)


def _of_colors(pixels: np.ndarray, rule: MaskRule) -> Mask:
    """Decode [height, width, 2 to 4]: gray or RGB, with or without alpha."""
    is_clear, pixels = without_alpha(pixels)
    if not is_clear.any():
        return _of_opaque(pixels, rule)
    # The color below transparent pixels means nothing, so it is replaced by an allowed one.
    has_colors = rule.colors and pixels.shape[2] == 3
    allowed = rule.colors[0][0] if has_colors else rule.values[0]
    mask = _of_opaque(np.where(is_clear[..., None], allowed, pixels).astype(np.uint8), rule)
    ids = np.where(is_clear, rule.of_transparent, mask.ids).astype(np.uint8)
    return dataclasses.replace(mask, ids=ids)


def without_alpha(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a color mask is transparent, and its pixels without alpha.

    Up to one percent of half transparent pixels are smooth edges: they count as opaque from an
    alpha of 128 on.

    Args:
        pixels: uint8 [height, width, 1 to 4].

    Raises:
        WrongKindError: if more pixels are half transparent.
    """
    if pixels.shape[2] not in (2, 4):
        return np.zeros(pixels.shape[:2], bool), pixels
    alpha = pixels[..., -1]
    is_between = (alpha > 0) & (alpha < 255)
    if np.count_nonzero(is_between) > _MOST_BETWEEN * alpha.size:
        share = np.count_nonzero(is_between) / alpha.size
        raise faults.WrongKindError(TRANSPARENT, f"{share:.1%} of the pixels")
    return alpha < 128, pixels[..., :-1]


def _of_opaque(pixels: np.ndarray, rule: MaskRule) -> Mask:
    """Decode [height, width, 1 or 3]."""
    if pixels.shape[2] == 1:
        return _of_values(pixels[..., 0], rule)
    if rule.colors:
        return _decode(pixels, rule)
    if (pixels == pixels[..., :1]).all():  # values that were saved with three equal channels
        return _of_values(pixels[..., 0], rule)
    raise faults.WrongKindError(COLORED)


def _decode(pixels: np.ndarray, rule: MaskRule) -> Mask:
    """Look up the colors of [height, width, 3] in the color table."""
    keys, labels = _color_keys(rule)
    wanted = pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    known = keys[places] == wanted
    unknown = {}
    if not known.all():
        colors, counts = np.unique(wanted[~known], return_counts=True)
        split = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1).tolist()
        unknown = dict(zip(map(tuple, split), counts.tolist(), strict=True))
    return Mask(np.where(known, labels[places], VOID).astype(np.uint8), unknown=unknown)


@functools.cache
def _color_keys(rule: MaskRule) -> tuple[np.ndarray, np.ndarray]:
    """Return the color table as sorted int32 keys (65536 r + 256 g + b) and their class ids."""
    entries = sorted((65536 * r + 256 * g + b, label) for (r, g, b), label in rule.colors)
    keys, labels = zip(*entries, strict=True)
    return np.array(keys, np.int32), np.array(labels, np.uint8)


def _ranges(values: list[int]) -> str:
    """Return "0 to 3, 5" for 0, 1, 2, 3, 5."""
    runs = itertools.groupby(enumerate(values), lambda pair: pair[1] - pair[0])
    ends = [[value for _, value in run] for _, run in runs]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in ends)


def _are_grays_of_voc(values: set[int]) -> bool:
    """Return whether all values are gray values of VOC's 21 colors and its void color."""
    colors = np.array([*voc_colors(21), voc_colors(256)[VOID]])
    grays = colors @ np.transpose(_GRAY_WEIGHTS)
    rounded = [{*np.floor(g).tolist(), *np.ceil(g).tolist(), VOID} for g in grays.T]
    return any(values <= group for group in rounded)


def _text(color: RGB) -> str:
    return f"({', '.join(map(str, color))})"
