"""Curves of logged metrics as SVG text, for pages without scripts and without other files."""

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 300, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 22, 18
_MOST_POINTS = 300  # of a line; a drawing of 300 pixels shows no more

Points = Sequence[tuple[float, float | None]]


def svg(title: str, series: Mapping[str, Points]) -> str:
    """Draw lines over steps.

    Args:
        title: name of the metric.
        series: {label of a line: (step, value) pairs}; values that are no finite number leave a
            gap.

    Returns:
        An `<svg>` element. The classes line0, line1, ... and grid give it its colors.

    >>> svg("loss", {"M&M": [(0, 2.0), (10, 1.0)]}).count("<polyline")
    1
    """
    points = [p for line in series.values() for p in line if _is_number(p[1])]
    if not points:
        return ""
    steps, values = zip(*points, strict=True)
    frame = _Frame(min(steps), max(steps), *_padded(min(values), max(values)))
    lines = "".join(
        f'<polyline class="line{k}" points="{text}"/>'
        for k, line in enumerate(series.values())
        for text in frame.parts(line)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f'<text x="{_LEFT}" y="14" class="title">{html.escape(title)}</text>'
        f"{frame.axes()}{lines}</svg>"
    )


class _Frame:
    """The area of a drawing, and the place of a point in it."""

    def __init__(self, first, last, low, high):
        self.first, self.last, self.low, self.high = first, max(last, first + 1), low, high

    def parts(self, line: Points) -> list[str]:
        """Return the points of a line as text, one text for each part without a gap."""
        step = max(1, math.ceil(len(line) / _MOST_POINTS))
        parts: list[list[str]] = [[]]
        for x, y in line[::step]:
            if _is_number(y):
                parts[-1].append(f"{self._x(x):.1f},{self._y(y):.1f}")
            elif parts[-1]:
                parts.append([])
        return [" ".join(part) for part in parts if part]

    def axes(self) -> str:
        """Return the lines and numbers of both axes."""
        bottom = _HEIGHT - _BOTTOM
        middle = (self.low + self.high) / 2
        rows = "".join(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{self._y(v):.1f}" '
            f'y2="{self._y(v):.1f}"/><text class="tick" text-anchor="end" x="{_LEFT - 4}" '
            f'y="{self._y(v) + 3:.1f}">{v:.3g}</text>'
            for v in (self.low, middle, self.high)
        )
        return (
            f'{rows}<text class="tick" x="{_LEFT}" y="{bottom + 13}">{self.first:g}</text>'
            f'<text class="tick" text-anchor="end" x="{_WIDTH - _RIGHT}" y="{bottom + 13}">'
            f"step {self.last:g}</text>"
        )

    def _x(self, step):
        share = (step - self.first) / (self.last - self.first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value):
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)


def _padded(low, high):
    """Return the range of the values, which must not be empty."""
    if high > low:
        return low, high
    margin = abs(low) / 10 or 1.0
    return low - margin, high + margin


def _is_number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
