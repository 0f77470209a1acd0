"""The results of the M&M paper (AAAI 2018), each with the settings that reproduce it. Data only.

`RECIPES` holds the settings of each run behind Tables 1 to 3 and Figure 5. `CELLS` holds the
published numbers. `trainers.config.presets` makes a preset of each recipe, and
`trainers.reporting.paper_tables` prints the cells.
"""

import dataclasses
from collections.abc import Iterator, Mapping

NAIVE, TUNED, ENSEMBLE = "naive", "M&M", "ensemble"
"""The variants of a run: fine-tuning from the init, fine-tuning after M&M, and an ensemble. The
ensemble averages the class probabilities of two networks."""

CLASSES_OF_TABLE_2 = (
    "aero",
    "bike",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "table",
    "dog",
    "horse",
    "mbike",
    "person",
    "plant",
    "sheep",
    "sofa",
    "train",
    "tv",
)
"""Classes 1 to 20 of VOC, abbreviated as in the paper. Its Table 2 has no column for background."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of one run of the paper.

    Attributes:
        source: table or figure.
        row: its row or rows.
        dataset: name of the data set.
        backbone: name of the network.
        init: origin of the first weights.
        keys: {key of the settings: value} on top of preset `paper`.
    """

    source: str
    row: str
    dataset: str
    backbone: str
    init: str
    keys: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the paper.

    Attributes:
        table: 1, 2 or 3.
        row: the labels of the row, one for each column of labels.
        column: the name of the column.
        paper: the published number in percent.
        preset: the recipe that reproduces it. None for the ensemble, and for methods that this
            project does not have.
        variant: NAIVE, TUNED or ENSEMBLE.
        class_number: id of the class whose IoU it is; None for the mIoU.
    """

    table: int
    row: tuple[str, ...]
    column: str
    paper: float
    preset: str | None = None
    variant: str = NAIVE
    class_number: int | None = None


_VGG, _ALEXNET, _VOC, _CITYSCAPES = "VGG-16", "AlexNet", "VOC2012", "Cityscapes"
_NAMES = {_VGG: "vgg16", _ALEXNET: "alexnet", _VOC: "voc_sbd", _CITYSCAPES: "cityscapes"}


def _table_1_recipes() -> Iterator[tuple[str, Recipe]]:
    rows = (
        (_VGG, "imagenet", "ImageNet"),
        (_VGG, "random", "random"),
        (_VGG, "colorization", "Larsson et al. 2017, and M&M with the graph from it"),
        (_ALEXNET, "imagenet", "ImageNet"),
        (_ALEXNET, "random", "random, and M&M with the graph from it"),
        (_ALEXNET, "kmeans", "k-means (Krähenbühl et al. 2016)"),
        (_ALEXNET, "context_encoder", "Pathak et al. 2016"),
        (_ALEXNET, "bigan", "Donahue et al. 2016"),
        (_ALEXNET, "color_classes", "Zhang et al. 2016a"),
        (_ALEXNET, "split_brain", "Zhang et al. 2016b"),
        (_ALEXNET, "jigsaw", "Noroozi and Favaro 2016"),
        (_ALEXNET, "colorization", "Larsson et al. 2017, and M&M with the graph from it"),
    )
    for network, init, row in rows:
        recipe = Recipe("Table 1", f"{network}, {row}", "voc_sbd", _NAMES[network], init)
        yield f"table1/{_NAMES[network]}-{init}", recipe
    yield (
        "table1/alexnet-colorization-random-triplets",
        Recipe(
            "Table 1",
            "AlexNet, M&M with random triplets from colorization",
            "voc_sbd",
            "alexnet",
            "colorization",
            {"mm.matching": "random_triplets"},
        ),
    )


def _table_2_recipes() -> Iterator[tuple[str, Recipe]]:
    rows = (("imagenet", "ImageNet"), ("colorization", "colorization, and M&M from it"))
    for init, row in rows:
        recipe = Recipe("Table 2", f"VGG-16, {row}", "voc_sbd", "vgg16", init)
        yield f"table2/vgg16-{init}", recipe


_TABLE_3 = (
    (_VOC, _ALEXNET, "random", 19.8, 43.6),
    (_VOC, _ALEXNET, "jigsaw", 36.5, 41.2),
    (_VOC, _ALEXNET, "colorization", 38.4, 42.8),
    (_VOC, _VGG, "random", 35.0, 56.7),
    (_VOC, _VGG, "colorization", 60.2, 64.5),
    (_CITYSCAPES, _VGG, "random", 42.5, 49.1),
    (_CITYSCAPES, _VGG, "colorization", 57.5, 66.4),
)
"""Data set, network, init, mIoU without M&M, mIoU with M&M."""

_TABLE_3_IMAGENET = {(_VOC, _ALEXNET): 48.0, (_VOC, _VGG): 64.2, (_CITYSCAPES, _VGG): 67.9}
"""mIoU of the network that starts from ImageNet labels."""


def _table_3_recipes() -> Iterator[tuple[str, Recipe]]:
    for block in _TABLE_3_IMAGENET:
        dataset, network = block
        inits = [init for *others, init, _, _ in _TABLE_3 if tuple(others) == block]
        for init in ("ImageNet", *inits):
            recipe = Recipe(
                "Table 3",
                f"{dataset}, {network}, {init}",
                _NAMES[dataset],
                _NAMES[network],
                init.lower(),
            )
            yield _table_3_name(dataset, network, init), recipe


def _table_3_name(dataset, network, init) -> str:
    place = {_VOC: "voc", _CITYSCAPES: "cityscapes"}[dataset]
    return f"table3/{place}-{_NAMES[network]}-{init.lower()}"


def _figure_5_recipes() -> Iterator[tuple[str, Recipe]]:
    for nodes in (100, 200, 400):
        keys = {"mm.num_images": nodes // 10}
        recipe = Recipe("Fig. 5", f"{nodes} nodes", "voc_sbd", "alexnet", "colorization", keys)
        yield f"fig5/{nodes}", recipe


RECIPES = dict(
    [*_table_1_recipes(), *_table_2_recipes(), *_table_3_recipes(), *_figure_5_recipes()]
)
"""{name of the preset: settings of a run of the paper}. Figure 5 draws a curve and states no
values."""


def _table_1() -> Iterator[Cell]:
    """Yield the rows in the paper's order. Some numbers are other groups' own results.

    One example is the 56.0 of VGG-16 from colorization; Table 3 has the authors' own run, 60.2.
    """
    rows = (
        (_VGG, "ImageNet", 64.2, "table1/vgg16-imagenet", NAIVE),
        (_VGG, "random", 35.0, "table1/vgg16-random", NAIVE),
        (_VGG, "Larsson et al. 2016", 50.2),
        (_VGG, "Larsson et al. 2017", 56.0, "table1/vgg16-colorization", NAIVE),
        (_VGG, "M&M, graph, from colorization", 64.5, "table1/vgg16-colorization", TUNED),
        (_ALEXNET, "ImageNet", 48.0, "table1/alexnet-imagenet", NAIVE),
        (_ALEXNET, "random", 23.5, "table1/alexnet-random", NAIVE),
        (_ALEXNET, "k-means", 32.6, "table1/alexnet-kmeans", NAIVE),
        (_ALEXNET, "Pathak et al. 2016", 29.7, "table1/alexnet-context_encoder", NAIVE),
        (_ALEXNET, "Donahue et al. 2016", 35.2, "table1/alexnet-bigan", NAIVE),
        (_ALEXNET, "Zhang et al. 2016a", 35.6, "table1/alexnet-color_classes", NAIVE),
        (_ALEXNET, "Zhang et al. 2016b", 36.0, "table1/alexnet-split_brain", NAIVE),
        (_ALEXNET, "Noroozi and Favaro 2016", 37.6, "table1/alexnet-jigsaw", NAIVE),
        (_ALEXNET, "Larsson et al. 2017", 38.4, "table1/alexnet-colorization", NAIVE),
        (
            _ALEXNET,
            "M&M, random triplets, from colorization",
            40.9,
            "table1/alexnet-colorization-random-triplets",
            TUNED,
        ),
        (_ALEXNET, "M&M, graph, from colorization", 42.8, "table1/alexnet-colorization", TUNED),
        (_ALEXNET, "M&M, graph, from random", 43.6, "table1/alexnet-random", TUNED),
    )
    for network, method, *number_and_run in rows:
        yield Cell(1, (network, method), "mIoU", *number_and_run)


def _table_2() -> Iterator[Cell]:
    """Yield the IoU of each class, then the mIoU over the 21 classes with background."""
    rows = (
        (
            "ImageNet",
            "table2/vgg16-imagenet",
            NAIVE,
            "81.7 37.4 73.3 55.8 59.6 82.4 74.7 82.4 30.8 60.3 46.1 71.4 65.3 72.6 76.7 49.7 70.6 "
            "34.2 72.7 60.2",
            64.2,
        ),
        (
            "colorization",
            "table2/vgg16-colorization",
            NAIVE,
            "73.6 28.5 67.5 55.5 50.2 78.3 66.1 78.3 26.8 60.8 50.6 70.6 64.9 62.2 73.5 38.2 66.8 "
            "38.8 68.1 55.1",
            60.2,
        ),
        (
            "M&M",
            "table2/vgg16-colorization",
            TUNED,
            "83.1 37.0 69.6 56.1 62.9 84.4 76.4 82.8 33.4 61.5 44.7 67.3 68.5 68.0 78.5 42.2 72.7 "
            "37.2 75.7 58.6",
            64.5,
        ),
        (
            "ensemble ImageNet + M&M",
            None,
            ENSEMBLE,
            "84.5 39.4 76.3 60.3 64.6 85.4 77.7 84.1 35.6 63.6 50.4 70.6 72.0 73.6 80.1 50.2 73.7 "
            "37.6 77.8 66.6",
            67.4,
        ),
    )
    for method, preset, variant, ious, miou in rows:
        numbers = map(float, ious.split())
        for k, (name, iou) in enumerate(zip(CLASSES_OF_TABLE_2, numbers, strict=True), start=1):
            yield Cell(2, (method,), name, iou, preset, variant, k)
        yield Cell(2, (method,), "mIoU", miou, preset, variant)


def _table_3() -> Iterator[Cell]:
    for dataset, network, init, baseline, tuned in _TABLE_3:
        row, preset = (dataset, network, init), _table_3_name(dataset, network, init)
        yield Cell(3, row, "baseline", baseline, preset, NAIVE)
        yield Cell(3, row, "M&M", tuned, preset, TUNED)
        imagenet = _table_3_name(dataset, network, "ImageNet")
        yield Cell(3, row, "ImageNet", _TABLE_3_IMAGENET[dataset, network], imagenet, NAIVE)


CELLS = (*_table_1(), *_table_2(), *_table_3())
"""All cells of the paper's three tables, row by row."""

ENSEMBLE_MEMBERS = (("table2/vgg16-imagenet", NAIVE), ("table2/vgg16-colorization", TUNED))
"""(preset, variant) of the networks that the paper averages."""


def expected(preset: str | None) -> dict[str, float]:
    """Return {variant: published mIoU in percent} of a recipe; None stands for the ensemble.

    >>> expected("table3/voc-vgg16-colorization")
    {'naive': 60.2, 'M&M': 64.5}
    >>> expected(None)
    {'ensemble': 67.4}
    """
    return {
        cell.variant: cell.paper
        for cell in CELLS
        if cell.preset == preset
        and cell.class_number is None
        and (preset is not None or cell.variant == ENSEMBLE)
    }
