"""Results of reading the images and masks of a data set: samples and faults."""

import dataclasses
import pathlib

import numpy as np

from pipelines.datasets import faults, masks

UNDECIDED = faults.Kind(
    "image that its EXIF data turn or mirror, and whose mask fits the stored pixels as well",
    "The image is turned, as annotation tools turn it. If its mask was made for the stored pixels, "
    "remove the EXIF orientation (exiftool -Orientation= FILE).",
)
NOT_TURNED = faults.Kind(
    "image that its EXIF data turn, but whose mask fits only the stored pixels",
    "The image is used as it is stored. If this is wrong, make the mask for the turned image.",
)
ALPHA = faults.Kind(
    "image with an alpha band that is not opaque everywhere",
    "The alpha band is not used. If it holds data (such as near infrared), the network never sees "
    "these; if it hides pixels, label them as void.",
)

# A photograph used as a mask has more colors than a message can list.
_MAX_COLORS = 10_000
_MOSTLY_UNLABELLED = 0.9


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image on its way into the records.

    Attributes:
        id: the image's name, unique in its split.
        image: path of a JPEG or PNG file, or bytes of a PNG, which the builder writes to a file.
            Turned images are always bytes, because training ignores EXIF data.
        label: uint8 [height, width], class ids, 255 = void.
    """

    id: str
    image: pathlib.Path | bytes
    label: np.ndarray


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """One image and its mask, read and checked.

    Attributes:
        id: the image's name.
        sample: the sample for the records; None if there is a fault.
        pixels: uint8 [height, width, 3], RGB; None if the image cannot be read.
        mask: the mask; None if there is no mask, or if it cannot be read.
        image_file: path of the image, for messages.
        mask_file: path of the mask, for messages; empty if there are no labels.
        found: kinds of fault, each with the file.
        unreadable: damaged files, each with the reason.
        is_turned: whether the image was turned by its EXIF data to fit its mask.
        is_large: whether the image is stored as tiles.
        warnings: kinds of problem that do not exclude the image.
    """

    id: str
    sample: Sample | None = None
    pixels: np.ndarray | None = None
    mask: masks.Mask | None = None
    image_file: str = ""
    mask_file: str = ""
    found: tuple[tuple[faults.Kind, str], ...] = ()
    unreadable: tuple[str, ...] = ()
    is_turned: bool = False
    is_large: bool = False
    warnings: tuple[faults.Kind, ...] = ()


class Inspection:
    """Collect the faults of the files of a data set, image by image.

    Attributes:
        unreadable: damaged files, each with the reason.
    """

    def __init__(self, rule: masks.MaskRule):
        self.unreadable: list[str] = []
        self._rule = rule
        self._faults = faults.Faults()
        self._warnings = faults.Faults()
        self._turned: list[str] = []
        self._large: list[str] = []
        self._nodata: set[int] = set()
        self._coverage = masks.Coverage(0, 0, 0)
        self._values: set[int] = set()  # over all masks
        self._colors: dict[masks.RGB, int] = {}  # colors that are not in the table
        self._mask_files: list[str] = []
        self._wrong_values: list[str] = []
        self._wrong_colors: list[str] = []
        self._palettes = _Palettes()

    def add(self, checked: CheckedImage) -> None:
        """Add the result of one image; keep none of its arrays."""
        self._faults.update((kind, (name,)) for kind, name in checked.found)
        self._warnings.update((kind, (checked.image_file,)) for kind in checked.warnings)
        self.unreadable += checked.unreadable
        if checked.is_large:
            self._large.append(checked.image_file)
        if checked.is_turned:
            self._turned.append(checked.image_file)
        if checked.mask is None:
            return
        self._mask_files.append(checked.mask_file)
        self._values |= checked.mask.values
        self._palettes.add(checked.mask_file, checked.mask.palette)
        if checked.mask.coverage is not None:
            sums = zip(self._coverage, checked.mask.coverage, strict=True)
            self._coverage = masks.Coverage(*map(sum, sums))
        if checked.mask.nodata is not None:
            self._nodata.add(checked.mask.nodata)
        for color, count in checked.mask.unknown.items():
            if color in self._colors or len(self._colors) < _MAX_COLORS:
                self._colors[color] = self._colors.get(color, 0) + count
        if checked.mask.wrong:
            self._wrong_values.append(checked.mask_file)
        if checked.mask.unknown:
            self._wrong_colors.append(checked.mask_file)

    def revised_rule(self) -> masks.MaskRule | None:
        """Return the rule with which the masks must be read again, or None.

        Only all masks together show that they are binary, or that their palettes differ.
        """
        if self._palettes.differ and self._rule.knows(self._palettes.colors):
            return dataclasses.replace(self._rule, palettes_by_color=True)
        if self._rule.may_be_binary and self._is_binary():
            return self._rule.binary()
        return None

    def _is_binary(self) -> bool:
        return self._values == {0, masks.VOID}

    def found(self) -> faults.Faults:
        """Return all faults so far, including faults that only all masks together show."""
        result = faults.Faults()
        result.update(self._faults)
        is_read = self._rule.palettes_by_color or self._rule.ignores_palettes
        if self._palettes.differ and not is_read:
            result.update([(masks.PALETTES, self._palettes.differ)])
        elif self._wrong_values:
            kind = self._rule.value_fault(self._values)
            result.update([(kind, self._wrong_values)])
        if self._wrong_colors:
            kind = self._rule.color_fault(self._colors)
            result.update([(kind, self._wrong_colors)])
        is_class = self._rule.table[0] == 0 and len(self._rule.class_names) > 1
        has_void = self._rule.table[masks.VOID] == masks.VOID
        if is_class and has_void and self._is_binary():
            result.update([(masks.BINARY, self._mask_files)])
        return result

    def warnings(self) -> faults.Faults:
        """Return the problems so far that do not exclude an image."""
        return self._warnings

    def warning_lines(self) -> tuple[str, ...]:
        """Return the warnings as sentences for the log of a run."""
        return tuple(
            f"Warning: {len(names)} x {kind.problem}: {faults.named(names)}. {kind.fix}"
            for kind, names in self._warnings
        )

    def messages(self) -> tuple[str, ...]:
        """Return sentences on the choices that the loader made for the user."""
        lines = []
        if self._rule.takes_void_value and self._rule.table[masks.VOID] == 1:
            first, second = self._rule.class_names
            lines.append(
                f"All masks hold 0 and 255 only. With two classes this is read as 0 = '{first}' and"
                f" 255 = '{second}', without void. If 255 means void, masks need pixels of value 1."
            )
        if self._rule.palettes_by_color:
            lines.append(
                "The palettes of the masks differ: palette masks are decoded by their colors, with "
                "the color table."
            )
        if self._nodata:
            numbers = ", ".join(map(str, sorted(self._nodata)))
            lines.append(f"The value without data of the GeoTIFF masks ({numbers}) is void.")
        if self._turned:
            lines.append(
                f"{len(self._turned)} images were turned by their EXIF data, as annotation tools "
                f"turn them: {faults.named(self._turned)}."
            )
        if self._large:
            lines.append(
                f"{len(self._large)} images are large and are used as tiles, in training and in "
                f"evaluation: {faults.named(self._large)}."
            )
        return (*lines, *self._coverage_lines())

    def _coverage_lines(self) -> list[str]:
        """Return sentences on the pixels without a label, and on pixels in several shapes."""
        num_pixels, num_unlabelled, num_contested = self._coverage
        if not num_pixels:
            return []
        share, meaning = num_unlabelled / num_pixels, self._rule.unlabelled
        other = "void" if meaning == "background" else "background"
        warning = "Warning: " if share > _MOSTLY_UNLABELLED else ""
        lines = [
            f"{warning}{share:.1%} of the pixels have no label. They are {meaning}; with "
            f"unlabelled='{other}' they are {other}."
        ]
        if num_contested:
            lines.append(
                f"{num_contested:,} pixels are covered by shapes of several classes "
                f"({num_contested / num_pixels:.1%})."
            )
        return lines


class _Palettes:
    """Compare the palettes of all masks over the indices that the masks use.

    Index 255 means void whatever its color, so it is not compared.

    Attributes:
        colors: all colors that the masks use.
        differ: the first two files whose palettes differ, each with its palette; or empty.
    """

    def __init__(self):
        self.colors: set[masks.RGB] = set()
        self.differ: tuple[str, ...] = ()
        self._first: dict[int, tuple[masks.RGB, str, dict]] = {}

    def add(self, file: str, palette: dict[int, masks.RGB]) -> None:
        """Add the used part of the palette of one mask."""
        for value, color in palette.items():
            if len(self.colors) < _MAX_COLORS:
                self.colors.add(color)
            if value == masks.VOID:
                continue
            first_color, first_file, first = self._first.setdefault(value, (color, file, palette))
            if color != first_color and not self.differ:
                self.differ = (_described(first_file, first), _described(file, palette))


def _described(file: str, palette: dict[int, masks.RGB], limit: int = 8) -> str:
    entries = [f"{value} = {color}" for value, color in palette.items()]
    more = ", ..." if len(entries) > limit else ""
    return f"{file} ({', '.join(entries[:limit])}{more})"
