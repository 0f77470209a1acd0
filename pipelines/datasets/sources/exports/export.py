"""The common form of all annotation exports: classes, and pictures with shapes or masks."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping

from pipelines.datasets import masks
from pipelines.datasets.sources.exports.shapes import Shape
from pipelines.datasets.spec import VOID, DatasetError, printable, voc_colors

BACKGROUND_NAMES = masks.BACKGROUND_NAMES

VOID_NAMES = (*masks.VOID_NAMES, "__ignore__", "dont_care", "don't care", "out of roi")
"""Names of pixels without a class, in lower case."""

MAX_CLASSES = VOID - 1


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of an export.

    Attributes:
        names: names of the classes; class k is `names[k]`.
        ids: name in the export -> class id, or 255 for void.
        origin: the source of the names, for messages: "labelmap.txt".
        background: class id of the background, or None.
        colors: one RGB triple a class, or () for usual colors.
        is_guess: whether the names were made up, because the export has none.
    """

    names: tuple[str, ...]
    ids: Mapping[str, int]
    origin: str
    background: int | None = None
    colors: tuple[masks.RGB, ...] = ()
    is_guess: bool = False

    def id_of(self, name: object) -> int | None:
        """Return the class id of a name in the export, or None if it is unknown."""
        return self.ids.get(name) if isinstance(name, str) else None


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A picture inside an annotation file.

    Attributes:
        file: the annotation.
        read: function () -> the bytes of the picture.
    """

    file: pathlib.Path
    read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of an export and its labels.

    Attributes:
        id: name, unique in the export.
        image: path of the image, or an image inside of the annotation.
        split: name of the split in the export, or None.
        shapes: (class id or 255, shape) in painting order; None if a mask holds the labels.
        masks: paths of mask files; several are united, 0 is the background of each.
        size: (height, width) in the annotation, or None.
        page: page of image and mask in TIFF stacks, or None.
        annotation: file of the labels, for messages.
    """

    id: str
    image: pathlib.Path | Embedded
    split: str | None = None
    shapes: tuple[tuple[int, Shape], ...] | None = None
    masks: tuple[pathlib.Path, ...] = ()
    size: tuple[int, int] | None = None
    page: int | None = None
    annotation: str = ""


@dataclasses.dataclass(frozen=True)
class Export:
    """An export that was read, without its pictures' pixels.

    Attributes:
        format: name of the format, with its tool.
        root: folder of the export.
        classes: its classes.
        pictures: the annotated pictures.
        unlabelled: meaning of pixels without a label, "background" or "void".
        sources: annotation files; the prepared data set depends on them.
        rule: the meaning of the values in mask files; None if shapes hold the labels.
        small_on_top: whether smaller shapes are painted over larger ones.
        counts: problem -> names of the files or shapes that were skipped.
        messages: further sentences for the log.
        bare: the pictures without any annotation, which are left out.
    """

    format: str
    root: pathlib.Path
    classes: Classes
    pictures: tuple[Picture, ...]
    unlabelled: str
    sources: tuple[pathlib.Path, ...] = ()
    rule: masks.MaskRule | None = None
    small_on_top: bool = False
    counts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    messages: tuple[str, ...] = ()
    bare: tuple[Picture, ...] = ()


class Skipped:
    """Counts of shapes and files that an export names and that cannot be used."""

    def __init__(self):
        self._names: dict[str, list[str]] = {}

    def add(self, problem: str, name: object) -> None:
        """Add one case of a problem, such as "image that is not here"."""
        self._names.setdefault(problem, []).append(str(name))

    def counts(self) -> dict[str, tuple[str, ...]]:
        """Return problem -> names."""
        return {problem: tuple(names) for problem, names in self._names.items()}


def shape_classes(
    names: Iterable[str],
    origin: str,
    unlabelled: str | None,
    colors: Iterable[masks.RGB] = (),
    background: str = "background",
) -> Classes:
    """Return the classes of an export of shapes.

    A name that means background becomes class 0; without one, `background` is put in front unless
    pixels without a shape are void. Names that mean void get id 255.

    Args:
        names: names in the order of the export; repeated names count once.
        origin: source of the names, for messages.
        unlabelled: "background", "void", or None for the usual meaning, background.
        colors: one color for each name, or ().
        background: name of the class that is put in front.

    Example:
        >>> shape_classes(["leaf", "ignore"], "a list", None).ids
        {'leaf': 1, 'ignore': 255}
    """
    names = list(names)
    colors = dict(zip(names, colors, strict=False))
    names = checked_names(dict.fromkeys(names), origin)
    own = [name for name in names if name.lower() in BACKGROUND_NAMES]
    void = [name for name in names if name.lower() in VOID_NAMES]
    others = [name for name in names if name not in own and name not in void]
    front = own[:1] or ([background] if unlabelled != "void" else [])
    listed = (*front, *others)
    ids = {name: k for k, name in enumerate(listed) if name in names}
    ids |= dict.fromkeys(own, 0) | dict.fromkeys(void, VOID)
    known = [(front, (0, 0, 0)) for front in front if front not in colors]
    colors |= dict(known)
    table = tuple(colors[name] for name in listed) if all(n in colors for n in listed) else ()
    if len(set(table)) < len(table):
        table = ()
    return Classes(tuple(listed), ids, origin, 0 if front else None, table)


def checked_names(names: Iterable[object], origin: str) -> list[str]:
    """Return names without white space around them.

    Raises:
        DatasetError: if a name is no text, empty or has control characters, or for too many names.
    """
    names = list(names)
    odd = [n for n in names if not isinstance(n, str) or not n.strip() or printable(n) != n]
    if odd:
        raise DatasetError(f"{origin} has a class name that is no plain text: {odd[0]!r}.")
    if len(names) > MAX_CLASSES:
        raise DatasetError(
            f"{origin} has {len(names):,} classes, the limit is {MAX_CLASSES}. Export fewer, or "
            "merge them in the annotation tool."
        )
    return names


def usual_colors(classes: Classes) -> tuple[masks.RGB, ...]:
    """Return the colors of the classes, or VOC's colors with black for the background only."""
    if classes.colors:
        return classes.colors
    first = 0 if classes.background == 0 else 1
    return voc_colors(256)[first : first + len(classes.names)]


def mask_classes(
    values: Mapping[int, str],
    origin: str,
    unlabelled: str | None,
    colors: Mapping[int, masks.RGB] | None = None,
    void_values: Iterable[int] = (VOID,),
    background: int | None = None,
    is_guess: bool = False,
) -> tuple[Classes, masks.MaskRule, str]:
    """Return the classes and the mask rule of an export whose masks hold values or colors.

    Args:
        values: mask value -> name, in the order of the classes. Names that mean void are void.
        origin: source of the names, for messages.
        unlabelled: "background" or "void" to change the meaning of pixels without a label.
        colors: mask value -> color, if the masks may hold colors.
        void_values: further values that mean void.
        background: value of the background class; None means a class with a usual name.
        is_guess: whether the names were made up.

    Returns:
        (classes, rule, meaning of pixels without a label).
    """
    checked_names(dict.fromkeys(values.values()), origin)
    names = {v: n for v, n in values.items() if v == background or n.lower() not in VOID_NAMES}
    void = [*void_values, *(v for v in values if v not in names)]
    if background is None:
        usual = [v for v, name in names.items() if name.lower() in BACKGROUND_NAMES]
        background = usual[0] if usual else None
    default = "void" if background is None else "background"
    if unlabelled == "void" and background is not None:
        void.append(background)
        names.pop(background)
        background = None
    taken = list(dict.fromkeys(names.values()))
    ids = {value: taken.index(name) for value, name in names.items()}
    if unlabelled == "background":
        if background is None:
            taken, ids = ["background", *taken], {value: k + 1 for value, k in ids.items()}
        zero = 0 if background is None else ids[background]
        ids |= dict.fromkeys([v for v in void if v not in names], zero)
        background_id = zero
    else:
        ids |= dict.fromkeys([v for v in void if v not in names], VOID)
        background_id = ids.get(background) if background is not None else None
    rule = _rule(tuple(taken), ids, colors or {})
    tints = _tints(taken, ids, colors or {})
    by_name = {name: ids[value] for value, name in values.items()}
    classes = Classes(tuple(taken), by_name, origin, background_id, tints, is_guess)
    return classes, rule, unlabelled or default


def _rule(names: tuple[str, ...], ids: Mapping[int, int], colors: Mapping) -> masks.MaskRule:
    table = [masks.NOT_ALLOWED] * 256
    table[VOID] = VOID
    for value, label in ids.items():
        if 0 <= value <= VOID:
            table[value] = label
    pairs = {color: ids[value] for value, color in colors.items()}
    return masks.MaskRule(names, tuple(table), tuple(pairs.items()), takes_void_value=False)


def _tints(names: list[str], ids: Mapping[int, int], colors: Mapping) -> tuple[masks.RGB, ...]:
    by_label = {ids[value]: color for value, color in reversed(list(colors.items()))}
    listed = tuple(by_label.get(k, (0, 0, 0)) for k in range(len(names)))
    return listed if len(set(listed)) == len(listed) else ()
