"""What reading the images and masks of a data set gives: samples, and what is wrong with them."""

import dataclasses
import pathlib

import numpy as np

from pipelines.datasets import faults, masks

# A photograph in the place of a mask has more colors than a message can name.
_MAX_COLORS = 10_000


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image on its way into the records.

    Attributes:
        id: the image's name, unique in its split.
        image: path of a JPEG or PNG file, or the bytes of a PNG that the builder is to write.
        label: uint8 [height, width], class ids, 255 = void.
    """

    id: str
    image: pathlib.Path | bytes
    label: np.ndarray


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one image and its mask hold.

    Attributes:
        id: the image's name.
        sample: what goes into the records; None if something is wrong.
        pixels: uint8 [height, width, 3], RGB, if the image could be read.
        mask: the mask, if there is one that could be read.
        image_file, mask_file: their files, for messages; no mask file without labels.
        found: kinds of fault, each with the file.
        unreadable: damaged files, each with the reason.
        orientation: of the image by its EXIF data, 1 to 8; 1 is upright.
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
    """Gathers what is wrong with the files of a data set, one reading after the other.

    Attributes:
        unreadable: damaged files, each with the reason.
    """

    def __init__(self, rule: masks.MaskRule):
        self.unreadable: list[str] = []
        self._rule = rule
        self._faults = faults.Faults()
        self._values: set[int] = set()  # over all masks
        self._colors: dict[masks.RGB, int] = {}  # those that are not in the table
        self._mask_files: list[str] = []
        self._wrong_values: list[str] = []
        self._wrong_colors: list[str] = []

    def add(self, reading: Reading) -> None:
        """Notes one reading; keeps none of its arrays."""
        self._faults.update((kind, (name,)) for kind, name in reading.found)
        self.unreadable += reading.unreadable
        if reading.mask is None:
            return
        self._mask_files.append(reading.mask_file)
        self._values |= reading.mask.values
        for color, count in reading.mask.unknown.items():
            if color in self._colors or len(self._colors) < _MAX_COLORS:
                self._colors[color] = self._colors.get(color, 0) + count
        if reading.mask.wrong:
            self._wrong_values.append(reading.mask_file)
        if reading.mask.unknown:
            self._wrong_colors.append(reading.mask_file)

    def found(self) -> faults.Faults:
        """Returns all faults so far, with those that only all masks together show."""
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
