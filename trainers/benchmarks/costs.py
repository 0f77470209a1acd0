"""The time and memory of each stage by number of images, patch size, nodes and width.

python -m trainers.benchmark --only=cost
"""

import pathlib
import tempfile
from collections.abc import Callable

from trainers.benchmarks import cpu
from trainers.benchmarks.timing import medians, sampled

# Each table varies one quantity at a time.
TUNING = (
    (0.25, 40, 64),
    (0.25, 160, 64),
    (0.25, 640, 64),
    (0.25, 160, 128),
    (0.5, 160, 64),
    (1.0, 16, 128),
)
"""(width, patches, patch size) of M&M steps."""

FINE_TUNING = ((0.25, 2, 180), (0.25, 8, 180), (0.25, 2, 360), (0.5, 2, 180), (1.0, 1, 512))
"""(width, images, crop) of fine-tuning steps."""

INFERENCE = ((0.25, 256), (0.25, 512), (0.5, 512), (1.0, 512))
"""(width, side of the image) of dense inference."""

MIX = (((375, 500), 10, 128), ((375, 500), 20, 128), ((375, 500), 10, 64), ((750, 1000), 10, 128))
"""((height, width) of the image, patches per image, patch size) of the mix step."""


def table(
    log: Callable[[str], None] = lambda text: None,
    tuning=TUNING,
    fine_tuning=FINE_TUNING,
    inference=INFERENCE,
    mix=MIX,
    backbone: str = "vgg16",
) -> str:
    """Measure all rows, each in its own process.

    Args:
        log: function that is called with each line of the table as soon as it is measured.
        tuning: rows of stage mm, in the form of `TUNING`.
        fine_tuning: rows of stage segment, in the form of `FINE_TUNING`.
        inference: rows of stage evaluate, in the form of `INFERENCE`.
        mix: rows of the mix step, in the form of `MIX`.
        backbone: name of the network.

    Returns:
        A table in Markdown.
    """
    lines = []

    def write(line):
        lines.append(line)
        log(line)

    def add(stage, subject, seconds, peak_bytes=None):
        peak = "" if peak_bytes is None else f"{peak_bytes / 2**20:.0f}"
        write(f"| {stage} | {subject} | {seconds:.3g} | {peak} |")

    write("| stage | task | CPU s | peak memory above the model, MiB |")
    write("|---|---|---|---|")
    for width, patches, size in tuning:
        cost = cpu.alone(cpu.tuning_cost, backbone, patches, size, width)
        add("mm", f"step of {patches} nodes of {size} pixels, width {width:g}", *cost)
    for width, images, crop in fine_tuning:
        cost = cpu.alone(cpu.fine_tuning_cost, backbone, images, crop, width)
        add("segment", f"step of {images} crops of {crop} pixels, width {width:g}", *cost)
    for width, side in inference:
        cost = cpu.alone(cpu.dense_cost, backbone, side, width)
        add("evaluate", f"image of {side} x {side}, width {width:g}", *cost)
    for size, patches, patch_size in mix:
        subject = f"image of {size[0]} x {size[1]}, {patches} patches of {patch_size} pixels"
        add("mix", subject, cpu.alone(mix_seconds, size, patches, patch_size))
    return "\n".join(lines)


def mix_seconds(
    size: tuple[int, int], patches: int, patch_size: int, steps: tuple[int, int] = (4, 20)
) -> float:
    """Return the CPU seconds of the mix step per image.

    Args:
        size: (height, width) of the image.
        patches: patches of an image.
        patch_size: side of the patches in pixels.
        steps: numbers of steps of the short and of the long run.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = cpu.image_files(pathlib.Path(folder), size)
        settings = {"patches_per_image": patches, "patch_size": patch_size}
        timer = cpu.charged(lambda count: cpu.patches_of(files, count, **settings), steps)
        return medians(sampled({"mix": timer}, rounds=3))["mix"]
