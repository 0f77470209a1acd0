"""Presets: settings of the paper and of the release, and a claim for each cell of the paper."""

import json
import pathlib
import re

import pytest

from trainers import config
from trainers import flags as run_flags
from trainers.config import paper_cells, presets

CELLS = {name: preset for name, preset in presets.PRESETS.items() if preset.claim}


OURS = ("quick", "standard", "detail", "photos", "tuned", "naive")


def flat(name, dataset=None, backbone=None):
    return config.flatten(presets.experiment(name, dataset, backbone))


def differences(first, second):
    return {key: second[key] for key in first if first[key] != second[key]}


def test_preset_paper_has_the_published_numbers():
    published = {
        "mm.steps": 8000,
        "mm.drops": [6000],
        "mm.num_images": 16,
        "mm.patches_per_image": 10,
        "mm.patch_size": 128,
        "mm.margin": 2.1,
        "mm.scale": "paper",
        "mm.rule": "paper",
        "segment.steps": 40000,
        "segment.drops": [24000, 36000],
        "segment.num_images": 48,
        "network.width": 1.0,
        "data.shorter_side": None,
        "evaluate.protocol": "pascal",
    }
    paper = flat("paper", "voc_sbd")
    assert {key: paper[key] for key in published} == published
    for stage in ("mm", "segment"):
        solver = [paper[f"{stage}.{key}"] for key in ("learning_rate", "momentum", "decay")]
        assert solver == [0.01, 0.9, 5e-4]


def test_preset_paper_follows_backbone_and_data_set():
    paper = flat("paper", "voc_sbd")
    alexnet = flat("paper", "voc_sbd", "alexnet")
    assert differences(paper, alexnet) == {
        "network.backbone": "alexnet",
        "segment.num_images": 64,  # 16 x iter_size 4
        "colorization.fc6_size": 6,
        "colorization.input_tap": True,
        "color_classes.fc6_size": 6,
    }
    assert differences(paper, flat("paper", "cityscapes")) == {
        "data.dataset": "cityscapes",
        "evaluate.protocol": "cityscapes",
        "mm.min_size": 128,
        "mm.max_size": 128,
    }


def test_preset_release_differs_from_paper_as_the_released_code_does():
    assert differences(flat("paper", "voc_sbd"), flat("release", "voc_sbd")) == {
        "jigsaw.cell": 85,
        "jigsaw.placement": "center",
        "jigsaw.gray_share": 0.0,
        "jigsaw.normalization": "mean",
        "mm.patches_per_image": 9,
        "mm.rule": "release",
        "mm.scale": "release",
        "mm.background": "class_zero",
        "segment.steps": 42000,
        "segment.drops": [24000, 36000, 40000],
    }
    alexnet = flat("release", "voc_sbd", "alexnet")
    graph = {key: alexnet[f"mm.{key}"] for key in ("num_images", "patches_per_image")}
    assert graph == {"num_images": 40, "patches_per_image": 10}
    assert alexnet["segment.num_images"] == 64


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_resolves_to_pixels_and_has_a_summary(name):
    experiment = config.resolve(presets.experiment(name), shorter_side=375)
    for key in ("mm.min_size", "mm.max_size", "mm.crop", "segment.crop"):
        assert isinstance(config.flatten(experiment)[key], int)
    assert presets.PRESETS[name].summary


def test_presets_and_cells_equal_the_frozen_copy(published):
    """The frozen copy was written when presets and tables still had separate numbers.

    The presets that are ours follow what is measured, so they are not frozen.
    """
    rest = {name: preset for name, preset in presets.PRESETS.items() if name not in OURS}
    assert list(rest) == list(published["presets"])
    for name, preset in rest.items():
        frozen = published["presets"][name]
        assert preset.summary == frozen["summary"]
        assert differences(config.flatten(config.Experiment()), flat(name)) == frozen["settings"]
        assert (preset.claim and vars(preset.claim)) == frozen["claim"]
    assert vars(presets.ENSEMBLE_CLAIM) == published["ensemble"]
    cells = [list(vars(cell).values()) for cell in paper_cells.CELLS]
    assert [[table, list(row), *rest] for table, row, *rest in cells] == published["cells"]


@pytest.fixture(scope="module")
def published():
    return json.loads((pathlib.Path(__file__).parent / "published.json").read_text())


def test_every_number_of_the_paper_is_reached_from_its_preset():
    for cell in paper_cells.CELLS:
        if cell.preset and cell.class_number is None:
            assert presets.PRESETS[cell.preset].claim.expected[cell.variant] == cell.paper


def test_every_recipe_of_the_paper_has_a_preset():
    tables = {
        "table1": 13,  # methods that this project has, one or two rows each
        "table2": 2,
        "table3": 10,  # 7 rows and the ImageNet network of each of the three blocks
        "fig5": 3,
    }
    for place, number in tables.items():
        assert sum(name.startswith(f"{place}/") for name in CELLS) == number
    for name in ("table3/voc-alexnet-random", "table3/cityscapes-vgg16-colorization", "fig5/200"):
        assert name in CELLS


@pytest.mark.parametrize("name", CELLS)
def test_claims_are_complete_and_agree_with_the_settings(name):
    claim, settings = CELLS[name].claim, flat(name)
    assert re.match(r"(Table [123]|Fig. 5), .+", claim.source)
    assert claim.command.startswith(f"python -m trainers.mm --preset={name} --data_dir=DIR")
    known = {presets.NAIVE, presets.TUNED}
    assert set(claim.expected) <= known and all(15 < v < 70 for v in claim.expected.values())
    assert bool(claim.expected) != name.startswith("fig5/")
    is_naive = set(claim.expected) == {presets.NAIVE}
    assert is_naive == (settings["mm.steps"] == 0) == (claim.hours is None)
    assert (claim.hardware is None) == (claim.hours is None)
    assert ("--compare" in claim.command) == (len(claim.expected) == 2)
    backbone, init = settings["network.backbone"], settings["network.init"]
    made_here = ("random", "kmeans", "color_classes", "split_brain", "context_encoder", "bigan")
    is_made_here = init in made_here or (backbone, init) == ("vgg16", "imagenet")
    assert ("--init_weights=FILE" in claim.command) != is_made_here
    if not name.startswith("fig5/"):
        assert name.split("/")[1].endswith(f"{backbone}-{init}") or "triplets" in name
    if not is_naive:
        assert claim.hours == {"alexnet": 3.5, "vgg16": 5.8}[backbone]
        assert settings["mm.patches_per_image"] == 10
    assert settings["segment.num_images"] == {"alexnet": 64, "vgg16": 48}[backbone]
    assert settings["data.dataset"] == ("cityscapes" if "cityscapes" in name else "voc_sbd")


def test_the_command_of_the_ensemble_names_the_folders_of_its_members():
    claim = presets.ENSEMBLE_CLAIM
    for name, variant in presets.ENSEMBLE_MEMBERS:
        assert variant in presets.PRESETS[name].claim.expected
        init = flat(name)["network.init"]
        assert f"runs/voc_sbd-vgg16-{init}-{name.replace('/', '_')}" in claim.command
    assert claim.expected == {presets.ENSEMBLE: 67.4}


def test_graph_sizes_follow_figure_5_and_the_released_networks():
    nodes = {name: flat(name)["mm.num_images"] * 10 for name in CELLS if "fig5" in name}
    assert nodes == {"fig5/100": 100, "fig5/200": 200, "fig5/400": 400}
    assert flat("table3/voc-alexnet-random")["mm.num_images"] == 40
    assert flat("table3/voc-vgg16-random")["mm.num_images"] == 16
    name = "table1/alexnet-colorization-random-triplets"
    assert flat(name)["mm.matching"] == "random_triplets"


def test_given_values_win_over_the_preset():
    settings = flat("table3/voc-alexnet-random", "camvid", "vgg16")
    assert settings["data.dataset"] == "camvid" and settings["network.backbone"] == "vgg16"
    assert settings["evaluate.protocol"] == "native" and settings["segment.num_images"] == 48
    assert flat("quick")["data.dataset"] == "texture_scenes"
    assert flat("quick", "voc_sbd")["evaluate.protocol"] == "native"
    with pytest.raises(config.ConfigError, match="Unknown preset 'table3/voc'"):
        presets.experiment("table3/voc")


@pytest.mark.parametrize(
    ("backbone", "init", "scale"),
    [
        (None, None, 1 / 64),
        ("vgg16", "random", 1 / 64),
        ("vgg16", "colorization", 1),  # gray pixels are small
        ("alexnet", "random", 1),  # has no hypercolumn
        ("applications/ResNet50", "random", 1),
    ],
)
def test_preset_quick_scales_the_pixels_of_random_hypercolumns(backbone, init, scale):
    experiment = presets.experiment("quick", backbone=backbone, init=init)
    assert experiment.segment.input_scale == scale and experiment.network.pixels is None
    paper = presets.experiment("paper", backbone=backbone, init=init)
    assert paper.segment.input_scale == 1


@pytest.mark.parametrize("start", ["--init=colorization", "--set=network.init=colorization"])
def test_a_preset_follows_the_backbone_and_init_of_the_command_line(flags, start):
    flags(start, "--set=network.backbone=alexnet")
    experiment = run_flags.read().experiment
    assert experiment.segment.input_scale == 1  # a random network has 1 / 64
    assert experiment.colorization.fc6_size == 6  # of AlexNet


@pytest.mark.parametrize(
    ("pixels", "scale"),
    [("bgr", 1 / 64), ("jigsaw", 1 / 64), ("gray", 1), ("torch", 1)],
)
def test_preset_quick_looks_at_the_pixels_that_the_network_gets(flags, pixels, scale):
    """Gray pixels are -0.45 to 0.55; a factor of 1/64 would erase them."""
    flags(f"--set=network.pixels={pixels}")
    assert run_flags.read().experiment.segment.input_scale == scale


def test_only_our_presets_depart_from_the_released_points_and_statistics():
    for name in presets.PRESETS:
        experiment = presets.experiment(name)
        is_ours = name in OURS
        assert experiment.segment.point_border == (0 if is_ours else 96 / 512)
        assert experiment.network.batch_norm == ("data" if is_ours else "identity")
        for stage in (experiment.mm, experiment.segment, experiment.colorization):
            assert stage.statistics_steps == (40 if is_ours else 0)


@pytest.mark.parametrize("name", OURS)
def test_our_presets_scale_the_pixels_of_random_networks_alike(name):
    assert presets.experiment(name).segment.input_scale == 1 / 64
    assert presets.experiment(name, init="imagenet").segment.input_scale == 1
