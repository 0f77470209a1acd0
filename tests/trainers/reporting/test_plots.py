"""Figures: the drawn values equal the given values."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from trainers.reporting import plots

NAMES, COLORS = ["sky", "road", "car"], [(128, 128, 128), (128, 64, 128), (64, 0, 128)]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_bars_have_the_lengths_of_the_ious_and_their_mean():
    series = {"baseline": [50.0, 20.0, np.nan], "M&M": [60.0, 30.0, 12.0]}
    figure = plots.per_class_bars(NAMES, COLORS, series, title="a title")
    (axes,) = figure.axes
    first, second = (bars.patches for bars in axes.containers)
    assert [bar.get_width() for bar in second] == [60, 30, 12, 34]
    widths = [bar.get_width() for bar in first]
    assert widths[:2] == [50, 20] and np.isnan(widths[2]) and widths[3] == 35
    assert texts(axes) == ["50.0", "20.0", "35.0", "60.0", "30.0", "12.0", "34.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [*NAMES, "mean"]
    swatches = [line for line in axes.lines if line.get_marker() == "s"]
    shown = [tuple(round(255 * v) for v in line.get_color()) for line in swatches]
    assert shown == COLORS
    figure.savefig("/dev/null", format="png")


def test_bars_of_several_runs_have_deviations():
    series = {"baseline": [50.0, 20.0, 5.0], "M&M": [60.0, 30.0, 12.0]}
    deviations = {"baseline": [1.0, 2.0, 3.0], "M&M": [4.0, 5.0, 6.0]}
    (axes,) = plots.per_class_bars(NAMES, COLORS, series, deviations).axes
    segments = axes.containers[-1].errorbar.lines[2][0].get_segments()
    halves = [(segment[1, 0] - segment[0, 0]) / 2 for segment in segments]
    assert halves == pytest.approx([4, 5, 6, 0])


def test_maps_show_each_class_once_a_network_in_its_color():
    rng = np.random.default_rng(0)
    num_classes = 7
    labels = np.array([0, 0, 1, 2, 3, 4, 6, 6, 6])  # class 5 has no patch: six classes, two rows
    names = [f"c{k}" for k in range(num_classes)]
    colors = rng.integers(0, 256, (num_classes, 3))
    maps = {"before": rng.normal(size=(9, 2)), "after": rng.normal(size=(9, 2))}
    figure = plots.embedding_maps(maps, labels, names, colors, "title")
    assert len(figure.axes) == 4
    drawn = {}
    for axes, head in zip(figure.axes, ("before", "after") * 2, strict=True):
        others, *classes = axes.collections
        shown = 0
        for points in classes:
            k = names.index(points.get_label())
            drawn.setdefault(head, []).append(k)
            np.testing.assert_allclose(points.get_offsets(), maps[head][labels == k])
            np.testing.assert_allclose(points.get_facecolor()[0][:3], colors[k] / 255)
            shown += len(points.get_offsets())
        assert shown + len(others.get_offsets()) == 9
    assert drawn == {"before": [0, 1, 2, 3, 4, 6], "after": [0, 1, 2, 3, 4, 6]}
    assert figure.axes[0].get_title() == "before" and figure.axes[1].get_title() == "after"


def test_graph_sizes_join_the_means_of_each_size():
    nodes, mious, seconds = [400, 100, 100], [42.0, 40.0, 38.0], [3.0, 1.0, 2.0]
    upper, lower = plots.graph_sizes(nodes, mious, seconds).axes
    mean, points = upper.lines
    assert mean.get_xydata().tolist() == [[100, 39], [400, 42]]
    assert sorted(points.get_xydata().tolist()) == [[100, 38], [100, 40], [400, 42]]
    assert lower.lines[0].get_xydata().tolist() == [[100, 1.5], [400, 3]]


def test_study_pairs_seeds_and_draws_intervals():
    curves = {
        "M&M loss": {"graph": [([1, 2], [2.0, 1.0]), ([1, 2], [4.0, 3.0])]},
        "fine-tuning loss": {"naive": [([1, 2, 3], [3.0, 2.0, 1.0])]},
    }
    mious = {"naive": {0: 40.0, 1: 42.0}, "graph": {1: 45.0}}
    intervals = {"graph": {"over seeds": (3.0, None, None), "over images": (3.0, 1.0, 5.0)}}
    figure = plots.study(curves, mious, intervals, "naive", "title")
    matching, tuning, points, differences = figure.axes
    mean = [line for line in matching.lines if line.get_label() == "graph"]
    assert mean[0].get_xydata().tolist() == [[1, 3], [2, 2]]
    assert tuning.lines[-1].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    joined = [line.get_xydata().tolist() for line in points.lines[:2]]
    assert joined == [[[0, 40]], [[0, 42], [1, 45]]]  # seed 0 has no second arm
    spans = [line.get_xdata() for line in differences.lines if len(line.get_xdata()) == 2]
    assert [1.0, 5.0] in [list(span) for span in spans]
    assert sum(len(line.get_xdata()) == 1 for line in differences.lines) == 2
    figure.savefig("/dev/null", format="png")
