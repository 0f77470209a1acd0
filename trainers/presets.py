"""Presets: named settings of a whole run. Each states what it is for; everything may be overridden
with `--set`.
"""

from trainers import config

QUICK = {
    "network.width": 0.25,
    # Images larger than this would be neither trained on nor predicted in minutes on a small CPU.
    "data.shorter_side": 180,
    "colorization.steps": 300,
    "colorization.drops": (250,),
    "colorization.num_images": 8,
    "colorization.crop": 112,
    "colorization.num_points": 128,
    "colorization.shorter_side": 180,
    "colorization.dropout": 0.0,
    "colorization.stddev": 1e-2,
    "colorization.checkpoint_every": 50,
    "colorization.log_every": 10,
    # Learns above chance within minutes, which the paper's sizes and first weights do not.
    "jigsaw.steps": 300,
    "jigsaw.drops": (250,),
    "jigsaw.num_images": 32,
    "jigsaw.num_permutations": 24,
    "jigsaw.rule": "minimum",
    "jigsaw.shorter_side": 112,
    "jigsaw.cell": 36,
    "jigsaw.tile": 32,
    "jigsaw.dropout": 0.0,
    "jigsaw.initialization": "he",
    "jigsaw.checkpoint_every": 50,
    "jigsaw.log_every": 10,
    "mm.steps": 150,
    "mm.drops": (112,),
    "mm.num_images": 8,
    "mm.patches_per_image": 12,
    "mm.patch_size": 64,
    # The paper's 64..256 and 512 pixels, for VOC's usual shorter side of 375, as shares of it.
    "mm.min_size": 64 / 375,
    "mm.max_size": 256 / 375,
    "mm.crop": 1.0,
    "mm.class_balanced": True,
    "mm.checkpoint_every": 50,
    "mm.log_every": 10,
    "segment.steps": 360,
    "segment.drops": (320,),
    "segment.num_images": 8,
    "segment.crop": 1.0,
    "segment.stddev": 1e-2,
    "segment.checkpoint_every": 50,
    "segment.log_every": 10,
}

RELEASE = {
    "jigsaw.cell": 85,
    "jigsaw.placement": "centre",
    "jigsaw.grey_share": 0.0,
    "jigsaw.normalization": "mean",
    "mm.num_images": 16,
    "mm.patches_per_image": 9,
    "mm.rule": "release",
    "mm.scale": "release",
    "mm.background": "class_zero",
    "segment.steps": 42000,
    "segment.drops": (24000, 36000, 40000),
}

PRESETS = {"quick": QUICK, "paper": {}, "release": RELEASE}
"""quick: minutes on 2 cores. paper: the published settings. release: the authors' code wherever it
differs.
"""

SUMMARIES = {
    "quick": "a slim network (width 0.25) and a short schedule, minutes on a 2-core CPU; "
    "--preset=paper has the published settings",
    "paper": "the published settings: 8,000 M&M steps, 40,000 fine-tuning steps; needs a GPU",
    "release": "the settings of the authors' released code where it differs from the paper; "
    "needs a GPU",
}


def experiment(preset: str, dataset: str) -> config.Experiment:
    """The settings of `preset` for `dataset`.

    Raises:
        config.ConfigError: unknown preset.
    """
    if preset not in PRESETS:
        raise config.ConfigError(config.unknown("preset", preset, PRESETS))
    result = config.replace(config.Experiment(), "data.dataset", dataset)
    if dataset == "voc_sbd" and preset != "quick":
        result = config.replace(result, "evaluate.protocol", "pascal")
    for key, value in PRESETS[preset].items():
        result = config.replace(result, key, value)
    return result
