"""Results of reading the images and masks of a data set: samples and faults."""

import dataclasses
import pathlib

import numpy as np

from pipelines.datasets import faults, masks

# A photograph used as a mask has more colors than a message can list.
_MAX_COLORS = 10_000


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image on its way into the records.

    Attributes:
        id: the image's name, unique in its split.
        image: path of a JPEG or PNG file, or bytes of a PNG, which the builder writes to a file.
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
        orientation: EXIF orientation of the image, 1 to 8; 1 is upright.
    """

    id: str
    sample: Sample | None = None
    pixels: np.ndarray | None = None
    mask: masks.Mask | None = None
    image_file: str = ""
    mask_file: str = ""
    found: tuple[tuple[faults.Kind, str], ...] = ()
    unreadable: tuple[str, ...] = ()
    orientation: int = 1


class Inspection:
    """Collect the faults of the files of a data set, image by image.

    Attributes:
        unreadable: damaged files, each with the reason.
    """

    def __init__(self, rule: masks.MaskRule):
        self.unreadable: list[str] = []
        self._rule = rule
        self._faults = faults.Faults()
        self._values: set[int] = set()  # over all masks
        self._colors: dict[masks.RGB, int] = {}  # colors that are not in the table
        self._mask_files: list[str] = []
        self._wrong_values: list[str] = []
        self._wrong_colors: list[str] = []

    def add(self, checked: CheckedImage) -> None:
        """Add the result of one image; keep none of its arrays."""
        self._faults.update((kind, (name,)) for kind, name in checked.found)
        self.unreadable += checked.unreadable
        if checked.mask is None:
            return
        self._mask_files.append(checked.mask_file)
        self._values |= checked.mask.values
        for color, count in checked.mask.unknown.items():
            if color in self._colors or len(self._colors) < _MAX_COLORS:
                self._colors[color] = self._colors.get(color, 0) + count
        if checked.mask.wrong:
            self._wrong_values.append(checked.mask_file)
        if checked.mask.unknown:
            self._wrong_colors.append(checked.mask_file)

    def found(self) -> faults.Faults:
        """Return all faults so far, including faults that only all masks together show."""
        result = faults.Faults()
        result.update(self._faults)
        if self._wrong_values:
            kind = self._rule.value_fault(self._values)
            result.update([(kind, self._wrong_values)])
        if self._wrong_colors:
            kind = self._rule.color_fault(self._colors)
            result.update([(kind, self._wrong_colors)])
        is_class = self._rule.table[0] == 0 and len(self._rule.class_names) > 1
        if is_class and self._values == {0, masks.VOID}:
            result.update([(masks.BINARY, self._mask_files)])
        return result
