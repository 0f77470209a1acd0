"""The facts of a data set and of its splits: records that every module may import."""

import dataclasses
import difflib
from collections.abc import Iterable

VOID = 255
"""Label of pixels without a class."""


class DatasetError(ValueError):
    """A data set that cannot be used as it is; the message names the files and the fix."""


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What is true of a data set, whatever its files.

    Attributes:
        name: the name that `load` takes.
        class_names: class k is `class_names[k]`; void is not among them.
        colors: one RGB triple, 0..255, a class, for pictures.
        background_label: the class id of "everything else", or None where all classes are equal.
        source: origin and terms of use.
        label_ids: what a benchmark's server calls class k in the files that it takes, 0..255; None
            where that is k.
    """

    name: str
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    background_label: int | None
    source: str
    label_ids: tuple[int, ...] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes, void not counted."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of one split, in order.

    Attributes:
        name: the split's name.
        ids: one name an image.
        image_files: absolute paths of JPEG or PNG files, the original bytes of the data set.
        label_files: absolute paths of 8-bit gray PNGs of class ids, 255 = void; all void where the
            split has no labels (`is_labelled`).
        has_labels: whether any pixel of the image has a class.
        shorter_side: median over the whole split of min(height, width), in pixels.
        records: folder of the TFDS records that hold this split.
        positions: where each image stands in the records.
        checksums: of each image and its label map.
        part: which of the split's images these are, in words; empty for all of them.
    """

    name: str
    ids: tuple[str, ...]
    image_files: tuple[str, ...]
    label_files: tuple[str, ...]
    has_labels: tuple[bool, ...]
    shorter_side: int
    records: str = ""
    positions: tuple[int, ...] = ()
    checksums: tuple[int, ...] = ()
    part: str = ""

    @property
    def num_images(self) -> int:
        """The number of images."""
        return len(self.ids)

    @property
    def is_labelled(self) -> bool:
        """Whether any pixel of the split has a class; without, it can be predicted only."""
        return any(self.has_labels)

    @property
    def title(self) -> str:
        """The name, and which part of the split it is: "train, 60 held out"."""
        return f"{self.name}, {self.part}" if self.part else self.name

    def labelled(self) -> "Split":
        """Returns the split without the images that have no labelled pixel."""
        return self.take(k for k, has_labels in enumerate(self.has_labels) if has_labels)

    def take(self, indices: Iterable[int], part: str | None = None) -> "Split":
        """Returns the images of these indices, in the split's order.

        The shorter side stays that of the whole split, so that sizes which depend on it do not
        depend on the choice.

        Args:
            indices: 0 .. num_images - 1, each at most once.
            part: the choice in words; None leaves the words as they are.

        Raises:
            ValueError: an index is out of range or comes twice.
        """
        indices = sorted(indices)
        if len(set(indices)) < len(indices) or set(indices) - set(range(self.num_images)):
            raise ValueError(
                f"Indices must be different ones of 0..{self.num_images - 1}, got {indices}."
            )
        per_image = ("ids", "image_files", "label_files", "has_labels", "positions", "checksums")
        chosen = {name: getattr(self, name) for name in per_image}
        chosen = {name: tuple(v[k] for k in indices) if v else v for name, v in chosen.items()}
        return dataclasses.replace(self, **chosen, part=self.part if part is None else part)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set's facts, its two splits, and what a person should know of how it was read.

    Attributes:
        spec: the facts.
        train: the split to train on; may hold images without labels (`Split.labelled`).
        eval: the split to measure on.
        messages: plain sentences for the log.
    """

    spec: DatasetSpec
    train: Split
    eval: Split
    messages: tuple[str, ...]


def voc_colors(num_colors: int) -> tuple[tuple[int, int, int], ...]:
    """Returns the first `num_colors` (at most 256) RGB colors of PASCAL VOC's color map.

    The map's rule (VOC development kit): of the class id's bits, number 3 i + c (from the lowest)
    becomes bit 7 - i of color channel c: 0 is black, 1 (128, 0, 0), 255 (224, 224, 192).
    """

    def channel(label: int, c: int) -> int:
        return sum((label >> (3 * i + c) & 1) << (7 - i) for i in range(3))

    return tuple(tuple(channel(k, c) for c in range(3)) for k in range(num_colors))


def suggest(wrong: str, known: tuple[str, ...]) -> str:
    """Returns " Did you mean 'x'?" for the names of `known` close to `wrong`, or an empty text."""
    close = difflib.get_close_matches(wrong.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
