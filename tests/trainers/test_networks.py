"""From a configuration to the segmenter that the backbone's spec names."""

import pytest

import mm_keras
from trainers import config, networks


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


def test_every_kind_of_segmenter_can_be_built():
    kinds = {
        mm_keras.backbones.build(name, width=0.02).spec.segmenter
        for name in mm_keras.backbones.BACKBONES
    }
    assert kinds == set(networks.SEGMENTERS)
