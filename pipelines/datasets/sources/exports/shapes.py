"""Shapes of annotations, and painting them into a label map.

Coordinates are x right and y down, in pixels; pixel (0, 0) covers 0..1. A shape gives a `Patch`:
the pixels that it covers, as a small mask and its place. Polygons follow the pixel centers, as
pycocotools draws them (facts in docs/design/exports.md). labelme draws outlines as well.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from pipelines.datasets.sources.exports import run_lengths

Points = tuple[tuple[float, float], ...]

_LONGEST_OUTLINE = 1e7  # pixels; pycocotools needs 40 bytes for each


class Patch(NamedTuple):
    """Covered pixels: bool [height, width], with the upper left pixel at (y, x) of the image."""

    y: int
    x: int
    covered: np.ndarray


class Shape(Protocol):
    """A shape that can be painted."""

    def patch(self, size: tuple[int, int]) -> Patch:
        """Return the covered pixels of an image of (height, width); may be empty.

        Raises:
            ValueError: if the shape does not fit the image.
        """


@dataclasses.dataclass(frozen=True)
class Polygon:
    """Rings whose areas are united, without the areas of the holes.

    Attributes:
        rings: rings of points (x, y).
        holes: rings of points that are cut out.
    """

    rings: tuple[Points, ...]
    holes: tuple[Points, ...] = ()

    def patch(self, size):
        """Return the pixels whose centers lie inside; vertices outside of the image are clipped."""
        box = _box(self.rings, size)
        covered = _rasterized(self.rings, box, size)
        if self.holes:
            covered &= ~_rasterized(self.holes, box, size)
        return Patch(box[0], box[1], covered)


@dataclasses.dataclass(frozen=True)
class Relative:
    """A polygon in fractions of width and height."""

    ring: Points

    def patch(self, size):
        """Return the pixels whose centers lie inside."""
        height, width = size
        return Polygon((tuple((x * width, y * height) for x, y in self.ring),)).patch(size)


@dataclasses.dataclass(frozen=True)
class Outlined:
    """A polygon as labelme draws it: with its outline, about half a pixel larger on each side."""

    points: Points

    def patch(self, size):
        """Return the pixels that Pillow paints."""
        y0, x0, y1, x1 = _box([self.points], size, margin=2)
        canvas = Image.new("1", (x1 - x0, y1 - y0))
        points = [(x - x0, y - y0) for x, y in _clipped(self.points, size)]
        if canvas.width and canvas.height:
            ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
        return Patch(y0, x0, np.array(canvas, bool).reshape(y1 - y0, x1 - x0))


@dataclasses.dataclass(frozen=True)
class OutlinedBox:
    """A rectangle or a full ellipse between two corners, which are included, as in labelme."""

    corners: Points
    is_ellipse: bool = False

    def patch(self, size):
        """Return the pixels that Pillow paints."""
        y0, x0, y1, x1 = _box([self.corners], size, margin=2)
        canvas = Image.new("1", (x1 - x0, y1 - y0))
        xs, ys = zip(*_clipped(self.corners, size), strict=True)
        ends = [(min(xs) - x0, min(ys) - y0), (max(xs) - x0, max(ys) - y0)]
        if canvas.width and canvas.height:
            draw = ImageDraw.Draw(canvas)
            (draw.ellipse if self.is_ellipse else draw.rectangle)(ends, fill=1, outline=1)
        return Patch(y0, x0, np.array(canvas, bool).reshape(y1 - y0, x1 - x0))


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """An ellipse: center, half axes and rotation in degrees, clockwise on screen."""

    center: tuple[float, float]
    radii: tuple[float, float]
    rotation: float = 0.0

    def patch(self, size):
        """Return the pixels whose centers lie inside."""
        cx, cy = self.center
        reach = max(abs(radius) for radius in self.radii)
        ends = ((cx - reach, cy - reach), (cx + reach, cy + reach))
        y0, x0, y1, x1 = _box([ends], size)
        dx, dy = np.arange(x0, x1) + 0.5 - cx, (np.arange(y0, y1) + 0.5 - cy)[:, None]
        cos, sin = math.cos(math.radians(self.rotation)), math.sin(math.radians(self.rotation))
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        rx, ry = (max(abs(radius), 1e-9) for radius in self.radii)
        return Patch(y0, x0, (along / rx) ** 2 + (across / ry) ** 2 <= 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Bitmap:
    """A mask of pixels with its upper left corner at (y, x)."""

    y: int
    x: int
    covered: np.ndarray

    def patch(self, size):
        """Return the part of the mask inside of the image."""
        height, width = self.covered.shape
        y0, x0 = max(0, self.y), max(0, self.x)
        y1, x1 = max(y0, min(size[0], self.y + height)), max(x0, min(size[1], self.x + width))
        part = self.covered[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x]
        return Patch(y0, x0, part)


@dataclasses.dataclass(frozen=True, eq=False)
class CocoRuns:
    """A mask of run lengths over the whole image, as text or as a list."""

    counts: object
    size: tuple[int, int]

    def patch(self, size):
        """Return the decoded mask, cut to the covered rows and columns."""
        if self.size != size:
            raise ValueError(f"run lengths for {_text(self.size)} in an image of {_text(size)}")
        return _cut(run_lengths.coco(self.counts, size))


@dataclasses.dataclass(frozen=True, eq=False)
class BrushRuns:
    """A brush region of Label Studio over the whole image."""

    code: Sequence[int]
    size: tuple[int, int]

    def patch(self, size):
        """Return the decoded mask, cut to the covered rows and columns."""
        if self.size != size:
            raise ValueError(f"a brush region for {_text(self.size)} in an image of {_text(size)}")
        return _cut(run_lengths.label_studio(self.code, size))


class Painted(NamedTuple):
    """A label map, its pixels without a shape, and pixels claimed by shapes of other classes."""

    labels: np.ndarray
    num_unlabelled: int
    num_contested: int


def paint(
    shapes: Iterable[tuple[int, Shape]],
    size: tuple[int, int],
    unlabelled: int,
    small_on_top: bool,
) -> Painted:
    """Paint shapes in order, later ones on top.

    Args:
        shapes: (class id or 255, shape).
        size: (height, width) of the image.
        unlabelled: id of the pixels without a shape.
        small_on_top: whether shapes with fewer pixels come later; equal ones keep their order.

    Raises:
        ValueError: if a shape does not fit the image.
    """
    patches = [(label, shape.patch(size)) for label, shape in shapes]
    if small_on_top:
        patches.sort(key=lambda entry: -np.count_nonzero(entry[1].covered))
    labels = np.full(size, unlabelled, np.uint8)
    is_labelled, is_contested = np.zeros(size, bool), np.zeros(size, bool)
    for label, (y, x, covered) in patches:
        area = (slice(y, y + covered.shape[0]), slice(x, x + covered.shape[1]))
        is_contested[area] |= covered & is_labelled[area] & (labels[area] != label)
        is_labelled[area] |= covered
        labels[area][covered] = label
    return Painted(
        labels, int(is_labelled.size - is_labelled.sum()), int(np.count_nonzero(is_contested))
    )


def points(flat: object) -> Points:
    """Return the points of a flat list [x0, y0, x1, y1, ...]; () for fewer than three, or NaN.

    Example:
        >>> points([0, 0, 2, 0, 2, 2])
        ((0.0, 0.0), (2.0, 0.0), (2.0, 2.0))
        >>> points([0, 0, 2, 0])
        ()
    """
    if not isinstance(flat, list | tuple) or len(flat) < 6 or len(flat) % 2:
        return ()
    return pairs(list(zip(flat[::2], flat[1::2], strict=True)))


def pairs(listed: object, fewest: int = 3) -> Points:
    """Return the points of a list [[x, y], ...]; () for fewer than `fewest`, or for no numbers."""
    if not isinstance(listed, list | tuple) or len(listed) < fewest:
        return ()
    try:
        result = tuple((float(x), float(y)) for x, y in listed)
    except (TypeError, ValueError, OverflowError):
        return ()
    return result if all(math.isfinite(x) and math.isfinite(y) for x, y in result) else ()


def rectangle(
    x0: float, y0: float, x1: float, y1: float, rotation: float = 0, about: tuple | None = None
) -> Polygon:
    """Return a rectangle, turned clockwise on screen by `rotation` degrees about a point.

    Args:
        x0: left side.
        y0: upper side.
        x1: right side.
        y1: lower side.
        rotation: degrees.
        about: (x, y) of the fixed point; None means the center.
    """
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    if rotation:
        cx, cy = about or ((x0 + x1) / 2, (y0 + y1) / 2)
        cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
        corners = tuple(
            (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
            for x, y in corners
        )
    return Polygon((corners,))


def _clipped(ring: Points, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the points at most ten images away: farther ones would cost memory only."""
    height, width = size
    return [
        (min(max(x, -10.0 * width), 11.0 * width), min(max(y, -10.0 * height), 11.0 * height))
        for x, y in ring
    ]


def _box(rings: Iterable[Points], size: tuple[int, int], margin: int = 0) -> tuple[int, ...]:
    """Return the box [y0, x0, y1, x1] of rings inside of the image; may be empty."""
    xs = [x for ring in rings for x, _ in _clipped(ring, size)]
    ys = [y for ring in rings for _, y in _clipped(ring, size)]
    y0, x0 = max(0, math.floor(min(ys)) - margin), max(0, math.floor(min(xs)) - margin)
    y1 = max(y0, min(size[0], math.ceil(max(ys)) + 1 + margin))
    x1 = max(x0, min(size[1], math.ceil(max(xs)) + 1 + margin))
    return y0, x0, y1, x1


def _rasterized(rings: Iterable[Points], box: tuple[int, ...], size: tuple) -> np.ndarray:
    """Return the union of rings in a box; a shift by whole pixels changes nothing."""
    y0, x0, y1, x1 = box
    if y1 == y0 or x1 == x0:
        return np.zeros([y1 - y0, x1 - x0], bool)
    shifted = [np.array(_clipped(ring, size)) - (x0, y0) for ring in rings]
    length = sum(np.abs(np.diff(ring, axis=0, append=ring[:1])).sum() for ring in shifted)
    if length > _LONGEST_OUTLINE:
        raise ValueError(f"an outline of {length:.2g} pixels is no outline of an object")
    codes = coco_mask.frPyObjects([ring.ravel().tolist() for ring in shifted], y1 - y0, x1 - x0)
    return coco_mask.decode(coco_mask.merge(codes)).astype(bool)


def _cut(covered: np.ndarray) -> Patch:
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    if not rows.size:
        return Patch(0, 0, covered[:0, :0])
    part = covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Patch(int(rows[0]), int(columns[0]), part.copy())


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
