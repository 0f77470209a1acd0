"""Presets: named settings of a whole run, and what each is to reproduce.

A preset is data: the keys that it changes, those that it changes further for a backbone, a data set
or a backbone from an init, and, for a cell of the paper's tables and figures, a claim. Flags and
--set come after it and win. `python -m trainers.report --presets` lists them all.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from trainers.config.errors import ConfigError, unknown
from trainers.config.keys import changed, flatten
from trainers.config.schema import Experiment

NAIVE, TUNED, ENSEMBLE = "naive", "M&M", "ensemble"
"""What a number belongs to: fine-tuning from the init, the same after M&M, or the mean of the class
probabilities of two networks.
"""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A published result.

    source: table or figure of the M&M paper (AAAI 2018), and the row.
    command: what reproduces it; DIR is the data set's folder, FILE the published weights of the
        init (VGG-16's from ImageNet are fetched).
    expected: {NAIVE, TUNED or ENSEMBLE: mIoU in percent on the data set's val split}; empty where
        the paper draws a curve and does not name its values.
    hardware, hours: of M&M tuning as the paper gives them; None where nothing is tuned. It gives no
        times of fine-tuning.
    """

    source: str
    command: str
    expected: Mapping[str, float]
    hardware: str | None
    hours: float | None


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of a whole run.

    summary: one line for people.
    keys: {key of the configuration: value}.
    of_backbone, of_dataset, of_network: {its name, or (backbone, init): further keys}, for the one
        that the run has in the end.
    claim: what the preset is to reproduce, if it is a cell of the paper.
    """

    summary: str
    keys: Mapping[str, object] = dataclasses.field(default_factory=dict)
    of_backbone: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    of_dataset: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    of_network: Mapping[tuple[str, str], Mapping[str, object]] = dataclasses.field(
        default_factory=dict
    )
    claim: Claim | None = None


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

# AlexNet's own first fully connected layer, and its hypercolumn in colorize_hypercolumn.py.
_ALEXNET = {"colorization.fc6_size": 6, "colorization.input_tap": True}

# Batches of fine-tuning: the paper gives none; the released solvers have 6 x 2 x 4 images for
# VGG-16 (the default) and 16 x iter_size 4 for AlexNet.
_LARGE_ALEXNET = _ALEXNET | {"segment.num_images": 64}

# The test protocols of both. Patches of Cityscapes: the released sampler has one size there; the
# paper speaks of various sizes and gives none.
_PROTOCOLS = {
    "voc_sbd": {"evaluate.protocol": "pascal"},
    "cityscapes": {
        "evaluate.protocol": "cityscapes",
        "mm.min_size": 128,
        "mm.max_size": 128,
    },
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

# An arm without M&M has a stage mm of no steps, which hands on the weights of the init.
WITHOUT_MM = {"mm.steps": 0, "mm.drops": ()}

# The pixels themselves are a part of the hypercolumn. As the release feeds them to random networks,
# in gray levels around the mean (-123..151), their kernel takes steps thousands of times those of
# all others, and fine-tuning can stay at the class frequencies (BUILD_NOTES.md, Study). About their
# deviation, so that it becomes 1.
_SMALL_PIXELS = {"segment.input_scale": 1 / 64}

_GENERAL = {
    "quick": Preset(
        "a slim network (width 0.25) and a short schedule, minutes on a 2-core CPU; "
        "--preset=paper has the published settings",
        QUICK,
        of_backbone={"alexnet": _ALEXNET},
        of_network={("vgg16", "random"): _SMALL_PIXELS},
    ),
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


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A cell of a table in short; `_preset` makes a preset of it."""

    row: str
    dataset: str
    backbone: str
    init: str
    expected: Mapping[str, float]
    keys: Mapping[str, object] = dataclasses.field(default_factory=dict)


_CELLS = {
    "table1/vgg16-imagenet": _Cell(
        "VGG-16, ImageNet", "voc_sbd", "vgg16", "imagenet", {NAIVE: 64.2}
    ),
    "table1/vgg16-random": _Cell("VGG-16, random", "voc_sbd", "vgg16", "random", {NAIVE: 35.0}),
    "table1/vgg16-colorization": _Cell(
        "VGG-16, Larsson et al. 2017, and M&M with the graph from it",
        "voc_sbd",
        "vgg16",
        "colorization",
        {
            NAIVE: 56.0,
            TUNED: 64.5,
        },  # 56.0 is what Larsson et al. report, Table 3 has the paper's own run
    ),
    "table1/alexnet-imagenet": _Cell(
        "AlexNet, ImageNet", "voc_sbd", "alexnet", "imagenet", {NAIVE: 48.0}
    ),
    "table1/alexnet-random": _Cell(
        "AlexNet, random, and M&M with the graph from it",
        "voc_sbd",
        "alexnet",
        "random",
        {NAIVE: 23.5, TUNED: 43.6},
    ),
    "table1/alexnet-jigsaw": _Cell(
        "AlexNet, Noroozi and Favaro 2016", "voc_sbd", "alexnet", "jigsaw", {NAIVE: 37.6}
    ),
    "table1/alexnet-colorization": _Cell(
        "AlexNet, Larsson et al. 2017, and M&M with the graph from it",
        "voc_sbd",
        "alexnet",
        "colorization",
        {NAIVE: 38.4, TUNED: 42.8},
    ),
    "table1/alexnet-colorization-random-triplets": _Cell(
        "AlexNet, M&M with random triplets from colorization",
        "voc_sbd",
        "alexnet",
        "colorization",
        {TUNED: 40.9},
        {"mm.matching": "random_triplets"},
    ),
    "table2/vgg16-imagenet": _Cell(
        "VGG-16, ImageNet", "voc_sbd", "vgg16", "imagenet", {NAIVE: 64.2}
    ),
    "table2/vgg16-colorization": _Cell(
        "VGG-16, colorization, and M&M from it",
        "voc_sbd",
        "vgg16",
        "colorization",
        {NAIVE: 60.2, TUNED: 64.5},
    ),
    "table3/voc-alexnet-imagenet": _Cell(
        "VOC2012, AlexNet, ImageNet", "voc_sbd", "alexnet", "imagenet", {NAIVE: 48.0}
    ),
    "table3/voc-alexnet-random": _Cell(
        "VOC2012, AlexNet, random", "voc_sbd", "alexnet", "random", {NAIVE: 19.8, TUNED: 43.6}
    ),
    "table3/voc-alexnet-jigsaw": _Cell(
        "VOC2012, AlexNet, jigsaw", "voc_sbd", "alexnet", "jigsaw", {NAIVE: 36.5, TUNED: 41.2}
    ),
    "table3/voc-alexnet-colorization": _Cell(
        "VOC2012, AlexNet, colorization",
        "voc_sbd",
        "alexnet",
        "colorization",
        {NAIVE: 38.4, TUNED: 42.8},
    ),
    "table3/voc-vgg16-imagenet": _Cell(
        "VOC2012, VGG-16, ImageNet", "voc_sbd", "vgg16", "imagenet", {NAIVE: 64.2}
    ),
    "table3/voc-vgg16-random": _Cell(
        "VOC2012, VGG-16, random", "voc_sbd", "vgg16", "random", {NAIVE: 35.0, TUNED: 56.7}
    ),
    "table3/voc-vgg16-colorization": _Cell(
        "VOC2012, VGG-16, colorization",
        "voc_sbd",
        "vgg16",
        "colorization",
        {NAIVE: 60.2, TUNED: 64.5},
    ),
    "table3/cityscapes-vgg16-imagenet": _Cell(
        "Cityscapes, VGG-16, ImageNet", "cityscapes", "vgg16", "imagenet", {NAIVE: 67.9}
    ),
    "table3/cityscapes-vgg16-random": _Cell(
        "Cityscapes, VGG-16, random", "cityscapes", "vgg16", "random", {NAIVE: 42.5, TUNED: 49.1}
    ),
    "table3/cityscapes-vgg16-colorization": _Cell(
        "Cityscapes, VGG-16, colorization",
        "cityscapes",
        "vgg16",
        "colorization",
        {NAIVE: 57.5, TUNED: 66.4},
    ),
    "fig5/100": _Cell("100 nodes", "voc_sbd", "alexnet", "colorization", {}, {"mm.num_images": 10}),
    "fig5/200": _Cell("200 nodes", "voc_sbd", "alexnet", "colorization", {}, {"mm.num_images": 20}),
    "fig5/400": _Cell("400 nodes", "voc_sbd", "alexnet", "colorization", {}, {"mm.num_images": 40}),
}
"""Settings are those of preset paper, but for the graph of AlexNet: the text says 16 x 10 for all
networks, the released AlexNet files and the largest graph of Fig. 5 have 40 x 10. Some figures of
Table 1 are other groups' own (VGG-16 from colorization 56.0); Table 3 has the paper's own runs.
"""

_HOURS = {"alexnet": 3.5, "vgg16": 5.8}  # of M&M on one TITAN-X, from the paper


def _preset(name: str, cell: _Cell) -> Preset:
    is_tuned = set(cell.expected) != {NAIVE}
    keys = {
        "data.dataset": cell.dataset,
        "network.backbone": cell.backbone,
        "network.init": cell.init,
        **(_ALEXNET_GRAPH if cell.backbone == "alexnet" else {}),
        **cell.keys,
        **({} if is_tuned else WITHOUT_MM),
    }
    return Preset(
        summary=f"{_source(name)}, {cell.row}; needs a GPU",
        keys=keys,
        of_backbone={"alexnet": _LARGE_ALEXNET},
        of_dataset=_PROTOCOLS,
        claim=Claim(
            source=f"{_source(name)}, {cell.row}",
            command=_command(name, cell),
            expected=cell.expected,
            hardware="one TITAN-X" if is_tuned else None,
            hours=_HOURS[cell.backbone] if is_tuned else None,
        ),
    )


def _source(name):
    """Table 3 of "table3/voc-vgg16-random"."""
    place = name.split("/")[0]
    return f"Table {place[5:]}" if place.startswith("table") else f"Fig. {place[3:]}"


def _command(name, cell):
    command = f"python -m trainers.mm --preset={name} --data_dir=DIR"
    if cell.init != "random" and (cell.backbone, cell.init) != ("vgg16", "imagenet"):
        command += " --init_weights=FILE"
    return f"{command} --compare" if len(cell.expected) == 2 else command


PRESETS = _GENERAL | {name: _preset(name, cell) for name, cell in _CELLS.items()}
"""quick: minutes on 2 cores. paper: the published settings. release: the authors' code wherever it
differs. table1/..., table2/..., table3/..., fig5/...: cells of the paper.
"""

ENSEMBLE_MEMBERS = (("table2/vgg16-imagenet", NAIVE), ("table2/vgg16-colorization", TUNED))
"""(preset, arm) of the networks that the paper averages."""

ENSEMBLE_CLAIM = Claim(
    source="Table 2, VGG-16, ensemble of ImageNet and M&M",
    command="python -m trainers.mm --data_dir=DIR --stage=evaluate,export --ensemble="
    "runs/voc_sbd-vgg16-imagenet-table2_vgg16-imagenet,"
    "runs/voc_sbd-vgg16-colorization-table2_vgg16-colorization",
    expected={ENSEMBLE: 67.4},
    hardware=None,
    hours=None,
)
"""No preset: the members are trained already."""


def layers(name: str, given: Mapping[str, object]) -> Iterator[tuple[dict[str, object], str]]:
    """Yield the values that a preset sets, layer by layer, each with its origin.

    Args:
        name: a key of `PRESETS`.
        given: values that are set after the preset. Data set, backbone and init are taken from
            them in place of the preset's own: the later layers depend on them.

    Raises:
        config.ConfigError: unknown preset.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, PRESETS))
    preset, origin = PRESETS[name], f"preset {name}"
    yield dict(preset.keys), origin
    chosen = ("data.dataset", "network.backbone", "network.init")
    defaults = flatten(Experiment())
    dataset, backbone, init = (
        given.get(key) or preset.keys.get(key) or defaults[key] for key in chosen
    )
    yield dict(preset.of_backbone.get(backbone, {})), origin
    yield dict(preset.of_dataset.get(dataset, {})), origin
    yield dict(preset.of_network.get((backbone, init), {})), origin


def experiment(
    name: str, dataset: str | None = None, backbone: str | None = None, init: str | None = None
) -> Experiment:
    """Return the settings of a preset.

    Args:
        name: a key of `PRESETS`.
        dataset, backbone, init: taken in place of the preset's own.

    Raises:
        config.ConfigError: unknown preset, or a value that cannot be used.

    >>> experiment("quick").mm.steps
    150
    """
    given = {"data.dataset": dataset, "network.backbone": backbone, "network.init": init}
    given = {key: value for key, value in given.items() if value is not None}
    result = Experiment()
    for values, _ in layers(name, given):
        result = changed(result, values)
    return changed(result, given)
