"""Look at all masks of a folder without a class table: which values or colors they hold.

The result is kept in the cache of data sets, because each start of a run needs it.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from pipelines.datasets import faults, headers, image_mask_pairs, masks
from pipelines.datasets.spec import VOID, DatasetError

MAX_COLORS = 64
"""The largest number of colors, or of values, that are taken for classes."""
_MAX_VALUES = 4096
_NUM_COMPARED = 8  # masks in which the pieces of values are counted
_FEWEST_INSTANCES = 8
_SHARE_OF_PIECES = 0.9
_VERSION = 3


@dataclasses.dataclass(frozen=True)
class Seen:
    """The content of all masks.

    Attributes:
        values: the values of masks of values, sorted; at most a few thousand.
        colors: the colors of color masks, and of palettes that number the same color differently;
            sorted.
        palettes_differ: whether palettes differ, although none numbers the same color differently.
        are_instances: whether the values seem to number objects, not classes.
    """

    values: tuple[int, ...] = ()
    colors: tuple[masks.RGB, ...] = ()
    palettes_differ: bool = False
    are_instances: bool = False


def scan(files: Sequence[pathlib.Path], pages: Sequence[int | None] = ()) -> Seen:
    """Read all masks, or the result of an earlier scan of the same files.

    Args:
        files: the masks.
        pages: the page of each mask in a TIFF stack; () for files of one page.

    Raises:
        DatasetError: if a mask is of a kind that holds no class ids, such as JPEG.
    """
    pages = pages or [None] * len(files)
    states = [f"{f} {p} {image_mask_pairs.state(f)}" for f, p in zip(files, pages, strict=True)]
    key = hashlib.sha256("\n".join([str(_VERSION), *states]).encode("utf-8", "surrogateescape"))
    cache = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    file = cache / "mm_exports" / f"scan-{key.hexdigest()[:24]}.json"
    try:
        raw = json.loads(file.read_text())
        raw["values"], raw["colors"] = tuple(raw["values"]), tuple(map(tuple, raw["colors"]))
        return Seen(**raw)
    except (OSError, ValueError, KeyError, TypeError):
        seen = _scan(files, pages)
        _write(file, dataclasses.asdict(seen))
        return seen


def _write(file: pathlib.Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "w") as stream:
        json.dump(content, stream)
    pathlib.Path(temporary).replace(file)


def _scan(files, pages) -> Seen:
    found, values, colors, palettes = faults.Faults(), set(), set(), _Palettes()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        for file, result in zip(files, executor.map(_content, files, pages), strict=True):
            if isinstance(result, faults.WrongKindError):
                found.add(result.kind, result.described(file))
            elif result is not None:
                values |= result[0]
                colors |= result[1]
                palettes.add(result[2])
    found.check("The masks cannot be used")
    if palettes.contradict:
        return Seen((), tuple(sorted(palettes.values_of.keys() | colors)))
    are_instances = bool(values) and not colors and _are_instances(files, pages, values)
    listed = tuple(sorted(values)[:_MAX_VALUES])
    return Seen(listed, tuple(sorted(colors)), palettes.differ, are_instances)


class _Palettes:
    """Compare the used part of the palettes of all masks.

    Attributes:
        values_of: color -> its values.
    """

    def __init__(self):
        self.values_of: dict[masks.RGB, set[int]] = {}
        self._colors_of: dict[int, set[masks.RGB]] = {}

    def add(self, palette: dict[int, masks.RGB]) -> None:
        """Add value -> color of one mask; 255 means void, whatever its color."""
        for value, color in palette.items():
            if value != VOID and len(self.values_of) < _MAX_VALUES:
                self.values_of.setdefault(color, set()).add(value)
                self._colors_of.setdefault(value, set()).add(color)

    @property
    def differ(self) -> bool:
        """Whether a value has several colors."""
        return any(len(colors) > 1 for colors in self._colors_of.values())

    @property
    def contradict(self) -> bool:
        """Whether a color has several values as well: then the colors are the classes."""
        return self.differ and any(len(values) > 1 for values in self.values_of.values())


def _content(file: pathlib.Path, page: int | None):
    """Return (values, colors, value -> palette color), an error of kind, or None if damaged."""
    try:
        stored = masks.read_stored(file, page)
    except faults.WrongKindError as error:
        return error
    except headers.DAMAGED:
        return None  # loading reports it, or leaves it out
    if stored.is_color:
        gray_or_color = _unique_colors(stored.pixels)
        are_gray = all(r == g == b for r, g, b in gray_or_color)
        if are_gray:
            return {r for r, _, _ in gray_or_color}, set(), {}
        return set(), gray_or_color, {}
    values = set(np.unique(stored.pixels).astype(int).tolist())
    palette = {v: stored.palette[v] for v in values if 0 <= v < len(stored.palette)}
    return values, set(), palette


def _unique_colors(pixels: np.ndarray) -> set[masks.RGB]:
    """Return at most MAX_COLORS + 1 colors of [height, width, 2 to 4]; transparent is black."""
    is_clear, bands = masks.without_alpha(pixels)
    bands = np.where(is_clear[..., None], 0, bands) if is_clear.any() else bands
    bands = np.repeat(bands, 3, -1) if bands.shape[2] == 1 else bands
    keys = np.unique(bands.astype(np.int64) @ np.array([65536, 256, 1]))[: MAX_COLORS + 1].tolist()
    return {(key >> 16, key >> 8 & 255, key & 255) for key in keys}


def _are_instances(files, pages, values: set[int]) -> bool:
    """Return whether values number objects: many, from 1 on, and nearly each of one piece."""
    if len(values) < _FEWEST_INSTANCES:
        return False
    num_values, num_single = 0, 0
    step = max(1, len(files) // _NUM_COMPARED)
    for file, page in list(zip(files, pages, strict=True))[::step]:
        result = _content(file, page)
        if isinstance(result, tuple):
            pieces = num_pieces(masks.read_stored(file, page).pixels)
            num_values += len(pieces)
            num_single += sum(count == 1 for count in pieces.values())
    return num_single >= max(_FEWEST_INSTANCES, _SHARE_OF_PIECES * num_values)


def num_pieces(labels: np.ndarray) -> dict[int, int]:
    """Return value -> number of its connected pieces (8 neighbors), without value 0.

    Example:
        >>> num_pieces(np.array([[1, 0, 1], [0, 2, 2]]))
        {1: 2, 2: 1}
    """
    parents: list[int] = []

    def root(k):
        while parents[k] != k:
            parents[k] = parents[parents[k]]
            k = parents[k]
        return k

    above: list[tuple[int, int, int, int]] = []
    values: list[int] = []
    for row in labels:
        changes = np.flatnonzero(np.diff(row.astype(np.int64))) + 1
        edges = [0, *changes.tolist(), len(row)]
        current = []
        for start, stop in itertools.pairwise(edges):
            value = int(row[start])
            if value:
                number = len(parents)
                parents.append(number)
                values.append(value)
                for other_start, other_stop, other_value, other in above:
                    touches = other_start <= stop and start <= other_stop
                    if other_value == value and touches:
                        parents[root(number)] = root(other)
                current.append((start, stop, value, number))
        above = current
    pieces: dict[int, set[int]] = {}
    for number, value in enumerate(values):
        pieces.setdefault(value, set()).add(root(number))
    return {value: len(roots) for value, roots in sorted(pieces.items())}


def check_countable(seen: Seen, where: str) -> None:
    """Raise DatasetError if there are too many values or colors for classes."""
    number = len(seen.colors) or len(seen.values)
    if number > MAX_COLORS:
        kind = "colors" if seen.colors else "values"
        raise DatasetError(
            f"The masks in {where} hold more than {MAX_COLORS} {kind}, and no class table is here. "
            "So many come from smooth edges, from interpolation, or from a photograph. Use the "
            "original masks, or write classes.txt (and colors.txt) with the names of the classes."
        )
