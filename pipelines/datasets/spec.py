"""Records of a data set and its splits, which every module may import."""

import dataclasses
import difflib
import os
import unicodedata
from collections.abc import Iterable

VOID = 255
"""Label of pixels without a class."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Choices on reading a user's own files, for data set "folder".

    Attributes:
        unlabelled: meaning of pixels without a label, "background" or "void"; None for the usual
            meaning of the export's format.
        unannotated: "skip" leaves out pictures without any annotation; "background" uses them as
            pictures without an object.
        images: path of another folder with the pictures of an export, or None.
        window: (low, high), the values that become 0 and 255. None means `percentiles`, for images
            of more than 8 bits or of other bands than gray and color.
        percentiles: percentiles of each band, over a sample of images, that become 0 and 255.
        bands: numbers from 1 of the bands to use; one band is gray. None means `channels`.
        channels: number of bands of the images that the network takes. None means all bands of
            images with two, or with four and more; and three for all other images.
    """

    unlabelled: str | None = None
    unannotated: str = "skip"
    images: str | os.PathLike | None = None
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (1.0, 99.0)
    bands: tuple[int, ...] | None = None
    channels: int | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `datasets.load` that a source gets to find its files.

    Attributes:
        data_dir: path of the data set's folder or its parent, or None.
        train_split: name of the split to train on, or None for the usual one.
        eval_split: name of the split to measure on, or None for the usual one.
        void_value: int in 0..255, the value in the masks of pixels without a class.
        reading: further choices for annotation exports and image files.

    Example:
        >>> Request(eval_split="test").splits("train", "val")
        ('train', 'test')
    """

    data_dir: str | os.PathLike | None = None
    train_split: str | None = None
    eval_split: str | None = None
    void_value: int = VOID
    reading: Reading = Reading()

    def splits(self, train: str, eval_: str) -> tuple[str, str]:
        """Return the names of both splits; `train` and `eval_` are the source's usual splits."""
        return self.train_split or train, self.eval_split or eval_


def printable(text: str, keep: str = "") -> str:
    r"""Return text with control characters, invisible ones and bytes outside UTF-8 escaped.

    Names of files come from others. Escape sequences in them would reach the terminal.

    Args:
        text: any text.
        keep: characters that stay as they are, such as the line breaks of a message.

    Example:
        >>> printable("a\x1b[2J\n.png")
        'a\\x1b[2J\\n.png'
    """
    if text.isprintable():
        return text
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(
        repr(c)[1:-1] if unicodedata.category(c) in hidden and c not in keep else c for c in text
    )


class DatasetError(ValueError):
    """A data set that cannot be used as it is; the message names the files and the fix."""

    def __init__(self, message: str = ""):
        super().__init__(printable(message, keep="\n"))


@dataclasses.dataclass(frozen=True)
class PixelWindow:
    """The mapping of stored values of images to 8 bits.

    Attributes:
        num_bands: the number of bands of the stored images.
        bands: indices of the bands that are used, in order. Three are red, green and blue.
        low: the value of each of these bands that becomes 0.
        high: the value of each of these bands that becomes 255.
    """

    num_bands: int
    bands: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Facts of a data set that do not depend on its files.

    Attributes:
        name: the name that `load` takes.
        class_names: class k is `class_names[k]`; void is not among them.
        colors: one RGB triple, 0..255, a class, for pictures.
        background_label: the class id of "everything else", or None where all classes are equal.
        source: origin and terms of use.
        label_ids: ids in 0..255 of the classes in the files that a benchmark's server accepts. None
            if class k has the id k there.
        window: the mapping of the stored images to 8 bits, or None for images of 8 bits.
    """

    name: str
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    background_label: int | None
    source: str
    label_ids: tuple[int, ...] | None = None
    window: PixelWindow | None = None

    @property
    def num_bands(self) -> int:
        """The number of bands of the images; three are red, green and blue."""
        return 3 if self.window is None else len(self.window.bands)

    @property
    def mask_values(self) -> tuple[int, ...]:
        """The value of each class in the data set's own files."""
        return tuple(range(self.num_classes)) if self.label_ids is None else self.label_ids

    @property
    def num_classes(self) -> int:
        """The number of classes, without void."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of one split, in order.

    Attributes:
        name: the split's name.
        ids: one name per image.
        image_files: absolute paths of JPEG or PNG files, the original bytes of the data set.
        label_files: absolute paths of 8-bit gray PNGs of class ids, 255 = void; all void where the
            split has no labels (`is_labelled`).
        has_labels: whether any pixel of the image has a class.
        shorter_side: median over the whole split of min(height, width), in pixels.
        records: folder of the TFDS records that hold this split.
        positions: position of each image in the records.
        checksums: one int for each image and its label map.
        class_pixels: for each image, the number of pixels of each class; counted once, when the
            records are written. Loss functions use them for class weights.
        part: description of the chosen images; empty for the whole split.
        num_bands: number of bands of the images. Three are RGB, and files of another number hold
            `pipelines.datasets.planes`.
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
    class_pixels: tuple[tuple[int, ...], ...] = ()
    part: str = ""
    num_bands: int = 3

    @property
    def num_images(self) -> int:
        """The number of images."""
        return len(self.ids)

    @property
    def is_labelled(self) -> bool:
        """Whether any pixel of the split has a class. Otherwise it can only be predicted."""
        return any(self.has_labels)

    @property
    def title(self) -> str:
        """The name and the description of the part: "train, 60 held out"."""
        return f"{self.name}, {self.part}" if self.part else self.name

    def labelled(self) -> "Split":
        """Return the split without the images that have no labelled pixel."""
        return self.take(k for k, has_labels in enumerate(self.has_labels) if has_labels)

    def take(self, indices: Iterable[int], part: str | None = None) -> "Split":
        """Return a split of the images at these indices, in the split's order.

        `shorter_side` is not computed again. Sizes that depend on it are therefore independent of
        the choice.

        Args:
            indices: ints in 0 .. num_images - 1, each at most once.
            part: description of the choice. None keeps the current description.

        Raises:
            ValueError: if an index is out of range or repeated.

        Example:
            >>> split = Split("train", ("a", "b"), ("a.png", "b.png"), ("", ""), (True, True), 90)
            >>> split.take([1], "one image").title
            'train, one image'
        """
        indices = sorted(indices)
        if len(set(indices)) < len(indices) or set(indices) - set(range(self.num_images)):
            raise ValueError(
                f"Indices must be in 0..{self.num_images - 1}, each at most once, got {indices}."
            )
        per_image = ("ids", "image_files", "label_files", "has_labels")
        per_image += ("positions", "checksums", "class_pixels")
        chosen = {name: getattr(self, name) for name in per_image}
        chosen = {name: tuple(v[k] for k in indices) if v else v for name, v in chosen.items()}
        return dataclasses.replace(self, **chosen, part=self.part if part is None else part)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set: its facts, its two splits, and messages about how it was read.

    Attributes:
        spec: the facts.
        train: the split to train on; may hold images without labels (`Split.labelled`).
        eval: the split to measure on.
        messages: sentences for the log.
        validation: the split to score while training; None without validation.
        left_out: the images of the train split without use: no labels are read from them. None
            unless a run asks for them.
    """

    spec: DatasetSpec
    train: Split
    eval: Split
    messages: tuple[str, ...]
    validation: Split | None = None
    left_out: Split | None = None


def voc_colors(num_colors: int) -> tuple[tuple[int, int, int], ...]:
    """Return the first `num_colors` (at most 256) RGB colors of PASCAL VOC's color map.

    The rule of the map (VOC development kit): bit 3 i + c of the class id (from the lowest) becomes
    bit 7 - i of color channel c. Class 0 is black, 1 is (128, 0, 0), 255 is (224, 224, 192).

    Example:
        >>> voc_colors(3)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """

    def channel(label: int, c: int) -> int:
        return sum((label >> (3 * i + c) & 1) << (7 - i) for i in range(3))

    return tuple(tuple(channel(k, c) for c in range(3)) for k in range(num_colors))


def suggest(wrong: str, known: tuple[str, ...]) -> str:
    """Return " Did you mean 'x'?" for the names of `known` close to `wrong`, or an empty text.

    Example:
        >>> suggest("papr", ("paper", "release"))
        " Did you mean 'paper'?"
    """
    close = difflib.get_close_matches(wrong.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
