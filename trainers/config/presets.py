"""Presets: named settings of a whole run, with the published result that each one reproduces.

A preset is data. It holds the keys that it changes, and further keys for a backbone, a data set, or
a backbone from an init. A preset of a cell of the paper also holds a claim. Values that a user
gives are applied after the preset and win. `python -m trainers.report --presets` lists all presets.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from trainers.config import paper_cells
from trainers.config.errors import ConfigError, unknown
from trainers.config.keys import changed, flatten
from trainers.config.paper_cells import Recipe
from trainers.config.schema import Experiment

NAIVE, TUNED, ENSEMBLE = paper_cells.NAIVE, paper_cells.TUNED, paper_cells.ENSEMBLE
"""The variants of a run that a published number belongs to."""

ENSEMBLE_MEMBERS = paper_cells.ENSEMBLE_MEMBERS
"""(preset, variant) of the networks that the paper averages."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A published result.

    Attributes:
        source: table or figure of the M&M paper (AAAI 2018), and the row.
        command: the command that reproduces it. DIR is the folder of the data set, FILE the
            published weights of the init. The ImageNet weights of VGG-16 are downloaded.
        expected: {NAIVE, TUNED or ENSEMBLE: mIoU in percent on the val split}; empty where the
            paper draws a curve without values.
        hardware: machine of the M&M tuning in the paper; None without tuning.
        hours: duration of the M&M tuning in the paper; None without tuning. The paper gives no
            duration of fine-tuning.
    """

    source: str
    command: str
    expected: Mapping[str, float]
    hardware: str | None
    hours: float | None


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of a whole run.

    Attributes:
        summary: one line of description.
        keys: {key of the settings: value}.
        of_backbone: {name of the run's backbone: further keys}.
        of_dataset: {name of the run's data set: further keys}.
        of_network: {(backbone, init, pixels) of the run: further keys}; pixels None stands for the
            pixels of the init.
        claim: the published result, if the preset is a cell of the paper.
    """

    summary: str
    keys: Mapping[str, object] = dataclasses.field(default_factory=dict)
    of_backbone: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    of_dataset: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    of_network: Mapping[tuple[str, str, str | None], Mapping[str, object]] = dataclasses.field(
        default_factory=dict
    )
    claim: Claim | None = None


QUICK = {
    "network.width": 0.25,
    "network.batch_norm": "data",
    # With larger images, training and prediction take more than minutes on a small CPU.
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
    # These settings learn above chance within minutes. The paper's sizes and first weights do not.
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
    "color_classes.steps": 300,
    "color_classes.drops": (),
    "color_classes.learning_rate": 1e-3,
    "color_classes.schedule": "cosine",
    "color_classes.warmup": 0.05,
    "color_classes.num_images": 8,
    "color_classes.crop": 112,
    "color_classes.shorter_side": 180,
    "color_classes.checkpoint_every": 50,
    "color_classes.log_every": 10,
    "split_brain.steps": 300,
    "split_brain.drops": (),
    "split_brain.learning_rate": 1e-3,
    "split_brain.schedule": "cosine",
    "split_brain.warmup": 0.05,
    "split_brain.num_images": 8,
    "split_brain.crop": 112,
    "split_brain.shorter_side": 180,
    "split_brain.checkpoint_every": 50,
    "split_brain.log_every": 10,
    # Thin holes, and small targets without texture, are filled well by the nearest pixel, and no
    # network is better within minutes. So the holes are large and the targets nearly full size.
    "context_encoder.steps": 600,
    "context_encoder.hole": "central",
    "context_encoder.center": "mean",
    "context_encoder.drops": (),
    "context_encoder.schedule": "cosine",
    "context_encoder.warmup": 0.05,
    "context_encoder.num_images": 8,
    "context_encoder.crop": 112,
    "context_encoder.shorter_side": 180,
    "context_encoder.decoder": (64, 32, 32, 16),
    "context_encoder.checkpoint_every": 50,
    "context_encoder.log_every": 10,
    # With 32 pairs a step, SGD and one channel of a patch, nothing is learned within minutes.
    "context_prediction.steps": 400,
    "context_prediction.drops": (),
    "context_prediction.optimizer": "adamw",
    "context_prediction.learning_rate": 1e-3,
    "context_prediction.schedule": "cosine",
    "context_prediction.warmup": 0.05,
    "context_prediction.color": "project",
    "context_prediction.num_images": 96,
    "context_prediction.shorter_side": 132,
    "context_prediction.patch": 32,
    "context_prediction.gap": 12,
    "context_prediction.jitter": 4,
    "context_prediction.checkpoint_every": 50,
    "context_prediction.log_every": 10,
    "bigan.steps": 1500,
    "bigan.learning_rate": 5e-4,
    "bigan.num_images": 32,
    "bigan.crop": 64,
    "bigan.shorter_side": 72,
    "bigan.side": 32,
    "bigan.num_codes": 50,
    "bigan.channels": 16,
    "bigan.statistics_steps": 40,
    "bigan.checkpoint_every": 100,
    "bigan.log_every": 20,
    # Fine-tuning uses the time better, from random weights and from colorization
    # (docs/results/studies.md).
    "mm.steps": 0,
    "mm.drops": (),
    "mm.num_images": 8,
    "mm.patches_per_image": 12,
    "mm.patch_size": 64,
    # The paper's 64..256 and 512 pixels as shares of 375, the usual shorter side in VOC.
    "mm.min_size": 64 / 375,
    "mm.max_size": 256 / 375,
    "mm.crop": 1.0,
    "mm.class_balanced": True,
    "mm.checkpoint_every": 50,
    "mm.log_every": 10,
    "mm.probe_every": 50,
    # These schedules are shorter than the 1,000 steps over which AlexNet's batch norm averages.
    "colorization.statistics_steps": 40,
    "jigsaw.statistics_steps": 40,
    "color_classes.statistics_steps": 40,
    "split_brain.statistics_steps": 40,
    "context_encoder.statistics_steps": 40,
    "context_prediction.statistics_steps": 40,
    "mm.statistics_steps": 40,
    "segment.statistics_steps": 40,
    "segment.head": "unet",
    "segment.decoder_width": 1.0,
    "segment.deep_supervision": 0.4,
    "segment.loss": "cross_entropy",
    # Weights help rare classes, and cost accuracy where there are none.
    "segment.class_weights": "auto",
    "segment.optimizer": "adamw",
    "segment.schedule": "cosine",
    "segment.learning_rate": 3e-3,
    "segment.warmup": 0.05,
    "segment.decay": 1e-2,
    "segment.dropout": 0.0,
    "segment.steps": 1300,
    "segment.drops": (),
    # Scores while training, of the images that are reported: the last weights are kept.
    "data.validation": "eval",
    "segment.validate_every": 300,
    "segment.keep": "last",
    # Small batches learn more in a given time: 2 images a step are ahead of 4 and 8.
    "segment.num_images": 2,
    "segment.crop": 1.0,
    # The crop lies inside the image, so its border holds pixels of the image and no padding.
    "segment.point_border": 0.0,
    "segment.stddev": 1e-2,
    "segment.checkpoint_every": 100,
    "segment.log_every": 20,
}

# The first fully connected layer of AlexNet has a kernel of 6 x 6. Its hypercolumn includes the
# pixels (release, colorize_hypercolumn.py).
_ALEXNET = {
    "colorization.fc6_size": 6,
    "colorization.input_tap": True,
    "color_classes.fc6_size": 6,
}

# The paper gives no batch size of fine-tuning. The released solvers use 6 x 2 x 4 images for VGG-16
# (the default) and 16 x iter_size 4 for AlexNet.
_LARGE_ALEXNET = _ALEXNET | {"segment.num_images": 64}

# Test protocols of the paper's two data sets. On Cityscapes the released sampler uses one patch
# size; the paper mentions various sizes and gives none.
_PROTOCOLS = {
    "voc_sbd": {"evaluate.protocol": "pascal"},
    "cityscapes": {
        "evaluate.protocol": "cityscapes",
        "mm.min_size": 128,
        "mm.max_size": 128,
    },
}

# Crops and patches of the same size in pixels as in quick, for images of any size.
DETAIL = QUICK | {
    "data.shorter_side": None,
    "mm.crop": 180,
    "mm.min_size": 32,
    "mm.max_size": 122,
    "segment.crop": 180,
}

# Photographs of many places differ more than the images of one camera. There, larger batches and a
# smaller rate learn more (docs/results/ingredients.md).
PHOTOS = QUICK | {
    "segment.steps": 1000,
    "segment.num_images": 8,
    "segment.learning_rate": 1e-3,
}

# Quick on larger images, with a wider network: an hour on two cores, 3 s a step of CamVid.
STANDARD = QUICK | {
    "network.width": 0.5,
    "data.shorter_side": 360,
    "data.validation_images": 64,
    "segment.num_images": 4,
    "segment.crop": 256,
    "segment.steps": 1100,
    "segment.validate_every": 500,
}

RELEASE = {
    "jigsaw.cell": 85,
    "jigsaw.placement": "center",
    "jigsaw.gray_share": 0.0,
    "jigsaw.normalization": "mean",
    "mm.num_images": 16,
    "mm.patches_per_image": 9,  # 144 nodes in VGG/*/train_graph.prototxt, on each of 4 GPUs
    "mm.rule": "release",
    "mm.scale": "release",
    "mm.background": "class_zero",
    "segment.steps": 42000,
    "segment.drops": (24000, 36000, 40000),
}

# 40 images x 10 patches = 400 nodes, Alexnet/*/train_graph.prototxt.
_ALEXNET_GRAPH = {"mm.num_images": 40, "mm.patches_per_image": 10}

# Without M&M, stage mm runs no steps and passes on the weights of the init.
WITHOUT_MM = {"mm.steps": 0, "mm.drops": ()}

# A short M&M. Batches of two images learn more in a given time than batches of eight, and the
# softmax more than triplets (docs/results/studies.md).
SHORT_MM = {
    "mm.steps": 800,
    "mm.num_images": 2,
    "mm.loss": "softmax",
    "mm.optimizer": "adamw",
    "mm.schedule": "cosine",
    "mm.learning_rate": 1e-3,
    "mm.warmup": 0.05,
    "mm.decay": 1e-2,
    "mm.drops": (),
}

# The hypercolumn includes the pixels. The release feeds them to random networks in gray levels
# around the mean (-123..151). The steps of their kernel are then thousands of times larger than the
# steps of all other kernels, and fine-tuning can stay at the class frequencies
# (docs/design/networks.md). The deviation of the pixels is about 64; this factor makes it 1. Pixels
# "gray" and "torch" have this scale already.
_SMALL_PIXELS = {"segment.input_scale": 1 / 64}


def _short(summary: str, keys: Mapping[str, object]) -> Preset:
    """Return a preset with a short schedule: `quick`, or one made from it."""
    pixels = (None, "bgr", "jigsaw")
    return Preset(
        summary,
        keys,
        of_backbone={"alexnet": _ALEXNET},
        of_network={
            ("vgg16", init, kind): _SMALL_PIXELS for init in ("random", "kmeans") for kind in pixels
        }
        | {("vgg16", init, None): _SMALL_PIXELS for init in ("color_classes", "context_encoder")},
    )


_GENERAL = {
    "quick": _short(
        "a slim network (width 0.25) and a short schedule, minutes on a 2-core CPU; "
        "--preset=paper has the published settings",
        QUICK,
    ),
    "standard": _short(
        "as quick with larger images and a wider network: an hour on a 2-core CPU, minutes on a "
        "GPU",
        STANDARD,
    ),
    "detail": _short(
        "as quick, on crops of the full resolution: for thin structures and textures, such as "
        "cells under a microscope",
        DETAIL,
    ),
    "photos": _short(
        "as quick, with larger batches and a smaller rate: for photographs of many places and "
        "things; three times the time of quick",
        PHOTOS,
    ),
    "tuned": _short("as quick with M&M before fine-tuning, from any init", QUICK | SHORT_MM),
    "naive": _short("as quick without M&M: the first weights go to fine-tuning unchanged", QUICK),
    "paper": Preset(
        "the published settings: 8,000 M&M steps, 40,000 fine-tuning steps; needs a GPU",
        of_backbone={"alexnet": _LARGE_ALEXNET},
        of_dataset=_PROTOCOLS,
    ),
    "release": Preset(
        "the settings of the authors' released code where it differs from the paper; needs a GPU",
        RELEASE,
        of_backbone={"alexnet": _ALEXNET_GRAPH | _LARGE_ALEXNET},
        of_dataset=_PROTOCOLS,
    ),
}


_HOURS = {"alexnet": 3.5, "vgg16": 5.8}  # hours of M&M tuning on one TITAN-X, from the paper


def _preset(name: str, recipe: Recipe) -> Preset:
    expected = paper_cells.expected(name)
    is_tuned = set(expected) != {NAIVE}
    keys = {
        "data.dataset": recipe.dataset,
        "network.backbone": recipe.backbone,
        "network.init": recipe.init,
        **(_ALEXNET_GRAPH if recipe.backbone == "alexnet" else {}),
        **recipe.keys,
        **({} if is_tuned else WITHOUT_MM),
    }
    source = f"{recipe.source}, {recipe.row}"
    return Preset(
        summary=f"{source}; needs a GPU",
        keys=keys,
        of_backbone={"alexnet": _LARGE_ALEXNET},
        of_dataset=_PROTOCOLS,
        claim=Claim(
            source=source,
            command=_command(name, recipe, has_both=set(expected) == {NAIVE, TUNED}),
            expected=expected,
            hardware="one TITAN-X" if is_tuned else None,
            hours=_HOURS[recipe.backbone] if is_tuned else None,
        ),
    )


def _command(name, recipe, has_both):
    command = f"python -m trainers.mm --preset={name} --data_dir=DIR"
    is_downloaded = (recipe.backbone, recipe.init) == ("vgg16", "imagenet")
    if recipe.init in ("imagenet", "colorization", "jigsaw") and not is_downloaded:
        command += " --init_weights=FILE"
    return f"{command} --compare" if has_both else command


PRESETS = _GENERAL | {name: _preset(name, recipe) for name, recipe in paper_cells.RECIPES.items()}
"""All presets: eight general ones, and one for each recipe of the paper.

A recipe has the settings of preset `paper`, with one exception, the graph of AlexNet. The text of
the paper uses 16 x 10 patches for all networks. The released AlexNet files and the largest graph of
Fig. 5 have 40 x 10, and so do these presets.
"""

ENSEMBLE_CLAIM = Claim(
    source="Table 2, VGG-16, ensemble of ImageNet and M&M",
    command="python -m trainers.mm --data_dir=DIR --stage=evaluate,export --ensemble="
    "runs/voc_sbd-vgg16-imagenet-table2_vgg16-imagenet,"
    "runs/voc_sbd-vgg16-colorization-table2_vgg16-colorization",
    expected=paper_cells.expected(None),
    hardware=None,
    hours=None,
)
"""The published ensemble. It has no preset, because its members are trained already."""


def layers(name: str, given: Mapping[str, object]) -> Iterator[tuple[dict[str, object], str]]:
    """Yield the values that a preset sets, layer by layer, each with its origin.

    Args:
        name: a key of `PRESETS`.
        given: values that are set after the preset. Data set, backbone, init and pixels are taken
            from them in place of the preset's own: the later layers depend on them.

    Raises:
        config.ConfigError: unknown preset.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, PRESETS))
    preset, origin = PRESETS[name], f"preset {name}"
    yield dict(preset.keys), origin
    chosen = ("data.dataset", "network.backbone", "network.init", "network.pixels")
    defaults = flatten(Experiment())
    dataset, backbone, init, pixels = (
        given.get(key) or preset.keys.get(key) or defaults[key] for key in chosen
    )
    yield dict(preset.of_backbone.get(backbone, {})), origin
    yield dict(preset.of_dataset.get(dataset, {})), origin
    yield dict(preset.of_network.get((backbone, init, pixels), {})), origin


def experiment(
    name: str, dataset: str | None = None, backbone: str | None = None, init: str | None = None
) -> Experiment:
    """Return the settings of a preset.

    Args:
        name: a key of `PRESETS`.
        dataset, backbone, init: taken in place of the preset's own.

    Raises:
        config.ConfigError: unknown preset, or a value that cannot be used.

    >>> experiment("tuned").mm.steps
    800
    """
    given = {"data.dataset": dataset, "network.backbone": backbone, "network.init": init}
    given = {key: value for key, value in given.items() if value is not None}
    result = Experiment()
    for values, _ in layers(name, given):
        result = changed(result, values)
    return changed(result, given)
