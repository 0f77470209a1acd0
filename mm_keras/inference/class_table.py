"""The meaning of the class ids of an exported model, kept beside it as JSON."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

CLASSES_FILE = "classes.json"
"""Name of the file beside an exported model, and inside it (`extra_assets`)."""

EXTRA_ASSETS = "assets.extra"
"""Folder of a SavedModel for files that no graph reads.

Source: tensorflow.org, guide "Using the SavedModel format".
"""

_MOST_BYTES = 1 << 20  # of a file; 256 classes with long names need less


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Names, colors and mask values of the classes, in the order of the class ids.

    Attributes:
        class_names: K names.
        colors: K RGB triples, 0..255.
        mask_values: the data set's own value of each class in its masks, 0..255, all different.
        background: the class id of "everything else", or None.
        window: fields of `export.PixelWindow`, the mapping of stored values of images to 8 bits;
            None for images of 8 bits.

    Raises:
        ValueError: if the attributes do not fit each other.

    Example:

    >>> table = ClassTable(("ground", "sky"), ((0, 0, 0), (0, 0, 255)), (1, 2))
    >>> table.num_classes, table.as_json()["mask_values"]
    (2, [1, 2])
    """

    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    mask_values: tuple[int, ...]
    background: int | None = None
    window: Mapping | None = None

    def __post_init__(self):
        counts = [len(part) for part in (self.class_names, self.colors, self.mask_values)]
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError(
                f"Expected as many colors and mask values as class names. Received {counts}."
            )
        if not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"Class names must be text. Received {list(self.class_names)}.")
        if not all(len(c) == 3 and all(map(_is_byte, c)) for c in self.colors):
            raise ValueError(f"Colors must be RGB triples, 0..255. Received {list(self.colors)}.")
        values = self.mask_values
        if not all(map(_is_byte, values)) or len(set(values)) < len(values):
            raise ValueError(f"Mask values must differ and be 0..255. Received {list(values)}.")
        if self.background is not None and self.background not in range(self.num_classes):
            raise ValueError(f"background must be a class id. Received {self.background!r}.")

    @property
    def num_classes(self) -> int:
        """The number of classes, without void."""
        return len(self.class_names)

    def as_json(self) -> dict:
        """Return the table, ready for JSON."""
        return {
            "class_names": list(self.class_names),
            "colors": [list(color) for color in self.colors],
            "mask_values": list(self.mask_values),
            "background": self.background,
            "window": self.window and dict(self.window),
        }

    @classmethod
    def from_json(cls, content: Mapping) -> "ClassTable":
        """Return the table of a dict that `as_json` made.

        Raises:
            ValueError: if keys are missing, or the values do not fit each other.
        """
        try:
            return cls(
                tuple(content["class_names"]),
                tuple(map(tuple, content["colors"])),
                tuple(content["mask_values"]),
                content.get("background"),
                _window(content.get("window")),
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"Expected lists class_names, colors and mask_values. Problem: {error!r}."
            ) from error

    @classmethod
    def read(cls, file: pathlib.Path) -> "ClassTable":
        """Read a table from a JSON file.

        Raises:
            ValueError: if the file cannot be read or holds no table; names the file.
        """
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES:,} bytes.")
            return cls.from_json(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not a table of classes: {error}") from error


def _window(content):
    """Return the fields of a mapping to 8 bits, checked; None for None."""
    if content is None:
        return None
    lists = {name: tuple(content[name]) for name in ("bands", "low", "high")}
    numbers = [content["num_bands"], *(x for values in lists.values() for x in values)]
    is_numeric = all(type(number) in (int, float) for number in numbers)
    counts = {len(values) for values in lists.values()}
    if not is_numeric or len(counts) != 1 or 0 in counts:
        raise ValueError(f"window needs num_bands and as many bands, low and high: {content}.")
    return {"num_bands": content["num_bands"], **lists}


def _is_byte(value) -> bool:
    return type(value) is int and 0 <= value <= 255
