"""The lines of the benchmark and their targets."""

import dataclasses

from trainers.benchmarks import patch_losses
from trainers.benchmarks.timing import Measurement


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the benchmark.

    Attributes:
        group: lines of one group are measured together.
        key: its name in files.
        title: its name in tables.
        unit: unit of the figure, and of the figure of the peer.
        peer: name of the reference that is measured beside it; empty without a reference.
        most: upper bound of the figure, or of its ratio to the peer; None without a bound.
        least: lower bound of the same; None without a bound.
        of_ratio: whether the bounds apply to the ratio.
    """

    group: str
    key: str
    title: str
    unit: str
    peer: str = ""
    most: float | None = None
    least: float | None = None
    of_ratio: bool = False

    @property
    def target(self) -> str:
        """The target in words; empty without a target.

        >>> Line("step", "a", "a step", "CPU s", "the backbone", most=1.05, of_ratio=True).target
        'ratio at most 1.05'
        """
        subject = "ratio " if self.of_ratio else ""
        if self.most is not None:
            return f"{subject}at most {self.most:.3g}"
        return f"{subject}at least {self.least:.3g}" if self.least is not None else ""


def is_met(line: Line, measurement: Measurement) -> bool | None:
    """Return whether a measurement meets the target of its line.

    Returns:
        None if the line has no target, or if nothing was measured.

    >>> is_met(Line("match", "match_400", "match", "ms", most=1.5), Measurement(1.2))
    True
    """
    value = measurement.ratio if line.of_ratio else measurement.figure
    if value is None or (line.most is None and line.least is None):
        return None
    return (line.most is None or value <= line.most) and (line.least is None or value >= line.least)


_PATCH_LOSSES = tuple(
    Line(
        "losses",
        patch_losses.key(name, nodes),
        f"loss {name}, {nodes:,} nodes",
        "CPU ms",
        peer="M&M step, VGG-16, patches of 128" if nodes == patch_losses.NODES[0] else "",
        most=0.01 if nodes == patch_losses.NODES[0] else None,
        of_ratio=nodes == patch_losses.NODES[0],
    )
    for name in patch_losses.NAMES
    for nodes in patch_losses.NODES
)

LINES = (
    Line("match", "match_400", "match, 400 nodes", "ms", "the graph in a Python loop", most=1.5),
    Line("match", "match_4096", "match, 4,096 nodes", "ms", most=5),
    Line("match", "match_65536", "match, 65,536 nodes", "ms", most=80),
    Line("match", "match_400_xla", "match, 400 nodes, XLA", "ms", most=6),
    Line("match", "match_4096_xla", "match, 4,096 nodes, XLA", "ms", most=20),
    Line("match", "match_65536_xla", "match, 65,536 nodes, XLA", "ms", most=320),
    Line(
        "mix",
        "mix",
        "mix, two files to 10 patches of 128",
        "ms/image",
        peer="decoding the two files",
        most=1.6,
        of_ratio=True,
    ),
    Line(
        "mix",
        "mix_opencv",
        "mix, two files to 10 patches of 128",
        "ms/image",
        peer="numpy and OpenCV",
        most=1 / 1.5,
        of_ratio=True,
    ),
    Line(
        "step",
        "step",
        "M&M step, VGG-16, 16 patches of 128",
        "CPU s",
        peer="the backbone's step alone",
        most=1.05,
        of_ratio=True,
    ),
    Line(
        "step",
        "step_torch",
        "M&M step, VGG-16, 16 patches of 128",
        "images/s",
        peer="PyTorch, the network alone",
        least=1.1,
        of_ratio=True,
    ),
    Line("step", "match_share", "match of 400 nodes, share of that step", "%", most=0.5),
    Line("step", "step_xla", "the same with XLA", "images/s", peer="without"),
    Line(
        "hypercolumn",
        "dense",
        "dense inference, 512 x 512, stride 2",
        "CPU s",
        peer="the backbone's forward pass",
        most=1.35,
        of_ratio=True,
    ),
    Line("hypercolumn", "dense_memory", "its memory above the model", "GiB", most=2),
    Line(
        "hypercolumn",
        "points",
        "training on 256 points, 512 x 512",
        "CPU s",
        peer="the backbone's step alone",
        most=1.15,
        of_ratio=True,
    ),
    *_PATCH_LOSSES,
    Line("gpu", "vgg_bf16", "M&M, VGG-16, 160 patches, bfloat16", "patches/s"),
    Line("gpu", "vgg_f32", "M&M, VGG-16, 160 patches, float32", "patches/s"),
    Line("gpu", "vgg_rate_bf16", "the same, bfloat16", "TFLOP/s", "a matrix product"),
    Line("gpu", "vgg_rate_f32", "the same, float32", "TFLOP/s", "a matrix product"),
    Line("gpu", "alexnet", "M&M, AlexNet, 400 patches, bfloat16", "patches/s"),
    Line("gpu", "dense_512", "dense inference, 512 x 512, bfloat16", "images/s"),
    Line("gpu", "run", "8,000 M&M iterations, VGG-16, bfloat16", "min", most=10),
)
"""All lines of the benchmark, in the order of the tables."""

GROUPS = tuple(dict.fromkeys(line.group for line in LINES))
"""The groups of lines."""
