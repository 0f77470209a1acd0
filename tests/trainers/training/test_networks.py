"""Networks from settings: refused settings, networks of one width, the choice of segmenter."""

import dataclasses
import io

import pytest
import rich.console

import mm_keras
from mm_keras import backbones
from trainers import config
from trainers.config import presets, resolved
from trainers.training import networks, segmenters


def _experiment(preset="paper", **network):
    experiment = presets.experiment(preset, "texture_scenes")
    for key, value in network.items():
        experiment = config.replace(experiment, f"network.{key}", value)
    return experiment


@pytest.mark.parametrize("name", ["vgg16", "applications/ResNet50", "kerascv/ResNet50Backbone"])
def test_known_networks_are_accepted(name):
    networks.check(_experiment(backbone=name))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"backbone": "vgg"},
            "Unknown backbone 'vgg'; known: alexnet, alexnet_one_column, testing, vgg16, appl",
        ),
        ({"backbone": "applications/ResNet5"}, "Unknown network 'ResNet5'.*'ResNet50'"),
        ({"backbone": "applications/ResNet50", "width": 0.5}, "width must be 1"),
        ({"backbone": "applications/ResNet50", "pixels": "gray"}, "pixels must be 'own'"),
        ({"pixels": "grey"}, "Unknown kind of pixels 'grey'.*gray"),
        ({"width": 0.0}, "network.width must be float, more than 0. Received 0.0"),
        ({"init": "imagenet", "backbone": "testing"}, "no ImageNet weights for 'testing'"),
        ({"init": "imagenet", "backbone": "alexnet"}, "bvlc_alexnet.caffemodel.*init_weights"),
        ({"init": "imagenet", "width": 0.5}, "width 1. Received width=0.5"),
        ({"init": "jigsaw", "init_weights": "nowhere.h5"}, "nowhere.h5: there is no such file"),
        (
            {"init": "jigsaw", "init_weights": "a.h5", "init_source": "norozi"},
            "Unknown network.init_source 'norozi'.* Did you mean noroozi",
        ),
        (
            {"init": "split_brain", "backbone": "applications/ResNet50"},
            "split_brain needs network.backbone=alexnet. Received applications/ResNet50",
        ),
        ({"init": "pretrained", "backbone": "vgg16"}, "is for the networks of other libraries"),
        ({"init": "pretrained", "backbone": "kerascv/ResNet18Backbone"}, "weights must be None"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(network, message):
    with pytest.raises(config.ConfigError, match=message):
        networks.check(_experiment(**network))


def test_pixels_follow_the_backbone():
    assert networks.backbone(_experiment(backbone="testing")).spec.pixels == backbones.PIXELS["bgr"]
    gray = networks.backbone(_experiment(backbone="testing", pixels="gray"))
    assert gray.spec.pixels == backbones.PIXELS["gray"]


@pytest.mark.parametrize(("init", "pixels"), [("colorization", "gray"), ("jigsaw", "jigsaw")])
def test_pixels_follow_the_init(init, pixels):
    body = networks.backbone(_experiment(backbone="testing", init=init))
    assert body.spec.pixels == backbones.PIXELS[pixels]
    networks.check(_experiment(backbone="applications/ResNet50", init=init))  # its own pixels


@pytest.fixture
def built(monkeypatch):
    """The arguments of `backbones.build`, which builds a cheap network in place of any other."""
    calls, original = [], backbones.build

    def build(name, **arguments):
        calls.append((name, arguments["weights"], arguments["load"]))
        return original("testing")

    monkeypatch.setattr(backbones, "build", build)
    return calls


@pytest.mark.parametrize("init", ["imagenet", "pretrained"])
def test_published_weights_are_loaded_only_where_they_are_needed(built, init):
    experiment = _experiment(backbone="applications/ResNet50", init=init)
    networks.backbone(experiment, load=True)
    networks.backbone(experiment)  # its weights come from the stage before
    assert built == [("applications/ResNet50", init, load) for load in (True, False)]


def test_a_file_replaces_published_weights(built, tmp_path):
    experiment = _experiment(
        backbone="applications/ResNet50", init="pretrained", init_weights=str(tmp_path / "a.h5")
    )
    networks.backbone(experiment)
    assert built == [("applications/ResNet50", None, False)]


def test_a_unet_is_refused_on_maps_of_one_stride(monkeypatch):
    def build(*_, **__):
        body = original("testing")
        taps = tuple(dataclasses.replace(tap, stride=14) for tap in body.spec.taps)
        body.spec = dataclasses.replace(body.spec, taps=taps, embedding=taps[-1])
        return body

    original = backbones.build
    monkeypatch.setattr(backbones, "build", build)
    experiment = config.replace(_experiment(backbone="testing"), "segment.head", "unet")
    with pytest.raises(config.ConfigError, match="has stride 14 alone. Use segment.head=hyperc"):
        networks.backbone(experiment)


def test_a_frozen_backbone_has_no_trainable_variables():
    experiment = _experiment(backbone="testing")
    assert networks.segmenter(experiment, 3).backbone.trainable_variables
    frozen = config.replace(experiment, "segment.frozen", True)
    model = networks.segmenter(frozen, 3)
    assert not model.backbone.trainable_variables
    assert {v.path.split("/")[0] for v in model.trainable_variables} >= {"hypercolumn", "score"}


def test_a_decay_over_blocks_needs_adamw():
    experiment = config.replace(_experiment(backbone="testing"), "segment.layer_decay", 0.75)
    with pytest.raises(
        config.ConfigError, match="segment.layer_decay=0.75 needs segment.optimizer"
    ):
        networks.check(experiment)
    networks.check(config.replace(experiment, "segment.optimizer", "adamw"))


def test_a_failed_download_is_a_config_error(monkeypatch):
    def build(*_, **__):
        raise ValueError("ImageNet weights could not be downloaded")

    monkeypatch.setattr(backbones, "build", build)
    with pytest.raises(config.ConfigError, match="could not be downloaded"):
        networks.backbone(_experiment(backbone="applications/ResNet50"), load=True)


@pytest.mark.parametrize(
    "key", ["mm.patch_size", pytest.param("segment.crop", marks=pytest.mark.slow)]
)
def test_images_too_small_for_a_network_are_refused(key):
    """InceptionV3 needs at least 75 pixels, because its 3 x 3 windows have no padding."""
    experiment = config.replace(_experiment(backbone="applications/InceptionV3"), key, 64)
    with pytest.raises(config.ConfigError, match=f"{key} must be at least 75 for applications"):
        networks.backbone(experiment)


def test_a_window_too_small_for_a_network_is_refused_before_training(monkeypatch):
    body = backbones.build("testing")
    body.spec = dataclasses.replace(body.spec, min_size=50)
    monkeypatch.setattr(backbones, "build", lambda *_, **__: body)
    experiment = config.replace(_experiment(backbone="testing"), "evaluate.window", 49)
    with pytest.raises(config.ConfigError, match="evaluate.window must be at least 50 for testing"):
        networks.backbone(experiment)


@pytest.mark.parametrize(
    ("given", "width", "message"),
    [
        ({"network.backbone": "applications/ResNet50"}, 1.0, "network.width=0.25 is left out"),
        ({"network.backbone": "applications/ResNet50", "network.width": 0.25}, 0.25, ""),
        ({"network.backbone": "applications/ResNet50", "mm.steps": 2}, 1.0, "comes in one width"),
        ({"network.init": "imagenet"}, 1.0, "vgg16 with imagenet weights comes in one width"),
        ({"network.backbone": "vgg16"}, 0.25, ""),
    ],
)
def test_the_width_of_a_preset_is_left_out_for_networks_of_one_width(given, width, message):
    console = rich.console.Console(file=io.StringIO(), width=200)
    settings = resolved.of_preset("quick", given).changed(given, "flag")
    settings = networks.with_possible_width(settings, console)
    assert settings.experiment.network.width == width
    printed = console.file.getvalue()
    assert message in printed and bool(message) == bool(printed)


@pytest.mark.parametrize(
    ("name", "width", "kind", "stride"),
    [
        ("testing", 1.0, mm_keras.HypercolumnSegmenter, 2),
        ("alexnet", 0.02, mm_keras.FcnSegmenter, 1),
    ],
)
def test_the_spec_chooses_the_segmenter(name, width, kind, stride):
    experiment = config.Experiment(
        network=config.Network(backbone=name, width=width),
        segment=config.Segment(dropout=0.25),
    )
    model = networks.segmenter(experiment, num_classes=3)
    assert type(model) is kind and model.backbone.name == name
    assert (model.num_classes, model.output_stride) == (3, stride)
    assert model.context.get_layer("drop_fc6").rate == 0.25


def test_every_segmenter_of_a_backbone_can_be_built():
    kinds = {
        mm_keras.backbones.build(name, width=0.02).spec.segmenter
        for name in mm_keras.backbones.BACKBONES
    }
    assert kinds | {"unet"} == set(segmenters.SEGMENTERS)
