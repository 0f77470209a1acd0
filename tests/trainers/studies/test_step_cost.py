"""The counted cost of a step, compared with arithmetic by hand."""

import keras
import pytest

from trainers import config
from trainers.config import presets
from trainers.studies import step_cost


def experiment(**changes):
    result = presets.experiment("tuned")
    for key, value in {"network.backbone": "testing", "network.width": 1.0, **changes}.items():
        result = config.replace(result, key.replace("__", "."), value)
    return config.resolve(result, 160)


def test_multiply_adds_of_layers_equal_arithmetic_by_hand():
    """3 x 3 x 3 x 4 weights at 2 x 8 x 6 cells, 2 x 2 per channel at 2 x 7 x 5, and 4 x 5."""
    layers = [
        keras.layers.Rescaling(1.0),
        keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.DepthwiseConv2D(2),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(5),
    ]
    convolution, depthwise, dense = 27 * 4 * 2 * 8 * 6, 4 * 4 * 2 * 7 * 5, 2 * 4 * 5
    cost = step_cost.multiply_adds(keras.Sequential(layers), (2, 8, 6, 3))
    assert cost == convolution + depthwise + dense


def test_multiply_adds_of_an_mm_step_equal_arithmetic_by_hand():
    """6 patches through blocks of 4, 8 and 16 channels at strides 1, 2 and 4, 3 x 3 kernels."""
    settings = experiment(mm__num_images=2, mm__patches_per_image=3, mm__patch_size=16)
    by_hand = 6 * 9 * (3 * 4 * 16**2 + 4 * 8 * 8**2 + 8 * 16 * 4**2)
    assert step_cost.count(settings, 9).mm == by_hand


@pytest.mark.slow
def test_images_and_points_raise_the_cost_of_fine_tuning():
    head = {"segment__head": "hypercolumn"}
    base = step_cost.count(experiment(**head), 9)
    twice = step_cost.count(experiment(segment__num_images=4, **head), 9)  # tuned has 2
    points = step_cost.count(experiment(segment__num_points=512, **head), 9)  # 256
    assert twice.segment == 2 * base.segment and twice.mm == base.mm
    channels = 3 + 4 + 8 + 16 + 16 + 16 + 8 + 8  # all taps of `testing`, fc6 to conv_add2
    assert points.segment - base.segment == 2 * 256 * (channels * 16 + 16 * 9)


def test_steps_and_seeds_do_not_change_the_cost_of_a_step():
    settings = experiment()
    other = experiment(mm__steps=7, segment__steps=9, segment__drops="3", seed=5)
    assert step_cost.count(settings, 9) is step_cost.count(other, 9)


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_published_networks_have_the_known_cost(backbone):
    """The forward pass of VGG-16 at 128 x 128 has 5.0e9 multiply-adds, or 30.07 GFLOP with the
    backward pass.
    """
    settings = experiment(
        network__backbone=backbone,
        mm__num_images=1,
        mm__patches_per_image=1,
        mm__patch_size=128,
        segment__num_images=1,
    )
    cost = step_cost.count(settings, 9)
    assert cost.mm == pytest.approx({"alexnet": 0.27e9, "vgg16": 5.01e9}[backbone], rel=0.25)
    assert cost.segment > 0
