"""Figures of reports and studies: arrays in, matplotlib figures out.

Only this module uses matplotlib; `pip install -e ".[viz]"` installs it. No figure needs a display.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

BASELINE, TUNED = "#8a8a8a", "#0b6fb8"
# The palette of Okabe and Ito, which suits all kinds of color vision.
_PALETTE = ("#8a8a8a", "#0b6fb8", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "os^Dv"
CLASSES_PER_MAP = len(_MARKERS)
"""Classes in one map, five as in Fig. 4 of the paper."""


def per_class_bars(
    class_names: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    series: Mapping[str, Sequence[float]],
    deviations: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> Figure:
    """Draw the IoU of each class and their mean as bars (Table 2 of the paper).

    Args:
        class_names: K names.
        colors: K RGB colors, 0..255; a square of this color is drawn beside each name.
        series: {label: K IoUs in percent}, NaN for a class that does not occur. The last series is
            blue.
        deviations: {label: K standard deviations over runs}; None for single runs.
        title: title of the figure.

    >>> figure = per_class_bars(["sky"], [(0, 0, 255)], {"baseline": [40.0], "M&M": [50.0]})
    >>> [bar.get_width().item() for bars in figure.axes[0].containers for bar in bars]
    [40.0, 40.0, 50.0, 50.0]
    """
    names = [*class_names, "mean"]
    figure = Figure(figsize=(7.5, 1.5 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    thickness = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        values = np.array([*values, np.nanmean(values)])
        places = np.arange(len(names)) + (number - (len(series) - 1) / 2) * thickness
        errors = [*deviations[label], 0] if deviations else None
        color = TUNED if number == len(series) - 1 else BASELINE
        axes.barh(
            places, values, thickness, xerr=errors, color=color, label=label, ecolor="#404040"
        )
        ends = values + (np.array(errors) if deviations else 0)
        for place, value, end in zip(places, values, ends, strict=True):
            if not math.isnan(value):
                axes.text(end + 0.8, place, f"{value:.1f}", va="center", fontsize=7)
    for place, color in enumerate(colors):
        axes.plot(-1.6, place, "s", ms=8, color=_rgb(color), mec="#404040", clip_on=False)
    axes.axhline(len(class_names) - 0.5, color="#404040", lw=0.8)
    axes.set_yticks(np.arange(len(names)), names)
    axes.tick_params(axis="y", length=0, pad=18)
    axes.set(xlim=(0, 106), xlabel="IoU in percent", title=title)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(series), frameon=False)
    return figure


def embedding_maps(
    maps: Mapping[str, np.ndarray],
    labels: np.ndarray,
    class_names: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    title: str = "",
) -> Figure:
    """Draw patches as points in the plane (Figs. 1b and 4 of the paper).

    Each column is a network. Each row shows up to five classes in color. The points of the other
    classes are light gray, so that each row shows the whole map.

    Args:
        maps: {head of the column: coordinates, float [N, 2]}.
        labels: class ids of the patches, integer [N].
        class_names: K names.
        colors: K RGB colors, 0..255.
        title: title of the figure.
    """
    present = [k for k in range(len(class_names)) if (labels == k).any()]
    num_rows = math.ceil(len(present) / CLASSES_PER_MAP)
    groups = np.array_split(present, num_rows)
    figure = Figure(figsize=(4 * len(maps) + 2.2, 3.7 * num_rows + 0.7), layout="constrained")
    grid = figure.subplots(num_rows, len(maps), squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        for axes, points in zip(row, maps.values(), strict=True):
            others = ~np.isin(labels, group)
            axes.scatter(*points[others].T, s=5, color="#e4e4e4", lw=0)
            for marker, k in zip(_MARKERS, group, strict=False):
                axes.scatter(
                    *points[labels == k].T,
                    s=16,
                    marker=marker,
                    color=_rgb(colors[k]),
                    ec="#202020",
                    lw=0.3,
                    label=class_names[k],
                )
            axes.set(xticks=[], yticks=[])
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for axes, head in zip(grid[0], maps, strict=True):
        axes.set_title(head, fontsize=10)
    figure.suptitle(title)
    return figure


def graph_sizes(
    nodes: Sequence[int], mious: Sequence[float], seconds: Sequence[float], title: str = ""
) -> Figure:
    """Draw mIoU and time per step over the size of the graph, one point per run (Fig. 5).

    Args:
        nodes: patches of a step, one value per run.
        mious: mIoU in percent, one value per run.
        seconds: seconds of a step of M&M, one value per run.
        title: title of the figure.
    """
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for axes, values, name, color in (
        (upper, mious, "mIoU in percent", TUNED),
        (lower, seconds, "seconds per M&M step", BASELINE),
    ):
        sizes = sorted(set(nodes))
        means = [
            np.mean([v for n, v in zip(nodes, values, strict=True) if n == size]) for size in sizes
        ]
        axes.plot(sizes, means, color=color, lw=2)
        axes.plot(nodes, values, "o", color=color, mec="white", ms=7)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    lower.set_ylim(bottom=0)
    lower.set(xlabel="nodes of the graph (patches per step)", xticks=sorted(set(nodes)))
    upper.set_title(title)
    return figure


def study(
    curves: Mapping[str, Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]]],
    mious: Mapping[str, Mapping[int, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float | None, float | None]]],
    baseline: str,
    title: str = "",
) -> Figure:
    """Draw the training curves of all arms, their mIoUs paired by seed, and the intervals.

    Args:
        curves: {name of a curve, for example "M&M loss": {arm: [(steps, values) of each run]}}.
        mious: {arm: {seed: mIoU in percent}}.
        intervals: {arm: {name of the interval: (mean, low, high) in points}}; bounds may be None.
        baseline: the arm to which the differences are computed.
        title: title of the figure.
    """
    colors = dict(zip(mious, _cycle(len(mious)), strict=True))
    figure = Figure(figsize=(6.2 * max(2, len(curves)), 9.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    panels = upper.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, runs) in zip(panels, curves.items(), strict=True):
        _curves(axes, runs, colors)
        axes.set(title=name, xlabel="step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    points, differences = lower.subplots(1, 2)
    _paired_points(points, mious, colors)
    _forest(differences, intervals, colors, baseline)
    figure.suptitle(title)
    handles = [axes.get_legend_handles_labels() for axes in panels]
    named = {label: handle for group in handles for handle, label in zip(*group, strict=True)}
    ordered = [arm for arm in mious if arm in named]
    figure.legend(
        [named[arm] for arm in ordered],
        ordered,
        loc="outside lower center",
        ncols=min(4, len(ordered)),
        frameon=False,
    )
    return figure


def _curves(axes, runs, colors):
    """Draw a thin line per run, and a thick line for the mean of each arm."""
    for arm, lines in runs.items():
        for steps, values in lines:
            axes.plot(steps, values, color=colors[arm], lw=0.6, alpha=0.4)
        shared = min((steps for steps, _ in lines), key=len)
        mean = np.mean([values[: len(shared)] for _, values in lines], axis=0)
        axes.plot(shared, mean, color=colors[arm], lw=2, label=arm)


def _paired_points(axes, mious, colors):
    """Draw a column of points per arm; lines join the points of one seed."""
    arms = list(mious)
    for seed in sorted({seed for values in mious.values() for seed in values}):
        there = [(place, mious[arm][seed]) for place, arm in enumerate(arms) if seed in mious[arm]]
        axes.plot(*zip(*there, strict=True), color="#b0b0b0", lw=0.8, zorder=1)
    for place, arm in enumerate(arms):
        values = list(mious[arm].values())
        axes.scatter([place] * len(values), values, color=colors[arm], s=28, zorder=2)
        mean = np.mean(values)
        axes.plot([place - 0.22, place + 0.22], [mean, mean], color=colors[arm], lw=2.5)
    axes.set_xticks(range(len(arms)), [arm.replace("_", "\n") for arm in arms])
    axes.set(xlim=(-0.6, len(arms) - 0.4), ylabel="mIoU in percent")
    axes.set_title("mIoU; lines join runs of one seed, bars are means")
    axes.grid(axis="y", alpha=0.3)


def _forest(axes, intervals, colors, baseline):
    """Draw the differences to the baseline with their intervals, one line each."""
    styles = dict(
        zip(dict.fromkeys(n for arm in intervals.values() for n in arm), "-:", strict=False)
    )
    rows = [
        (arm, name, *bounds) for arm, named in intervals.items() for name, bounds in named.items()
    ]
    for place, (arm, name, mean, low, high) in enumerate(rows):
        if low is not None:
            axes.plot([low, high], [place, place], styles[name], color=colors[arm], lw=2)
        axes.plot(mean, place, "o", color=colors[arm])
    axes.axvline(0, color="#404040", lw=0.8)
    axes.set_yticks(range(len(rows)), [f"{arm}\n{name}" for arm, name, *_ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set(xlabel="points of mIoU", title=f"difference to {baseline}, 95 % intervals")
    axes.grid(axis="x", alpha=0.3)


def _cycle(number):
    return [_PALETTE[k % len(_PALETTE)] for k in range(number)]


def _rgb(color):
    return tuple(channel / 255 for channel in color)
