"""The cost of a training step, in multiply-adds of the forward pass: equal on all machines.

In both stages the backward pass costs about twice as much as the forward pass. The ratio of two
forward passes is therefore also the ratio of two whole steps.
"""

import dataclasses
import functools
import math

import keras
import tensorflow as tf

import mm_keras
from trainers import config
from trainers.runs import stage_scope
from trainers.studies.plan import StepCost
from trainers.training import networks, tuned_models


def count(experiment: config.Experiment, num_classes: int) -> StepCost:
    """Return the cost of one step of each stage.

    Args:
        experiment: settings with sizes in pixels.
        num_classes: number of classes of the data set.
    """
    # Settings without influence on the cost get fixed values, so that the cache serves all arms.
    experiment = config.replace(experiment, "seed", 0)
    mm = dataclasses.replace(experiment.mm, steps=0, drops=())
    segment = dataclasses.replace(experiment.segment, steps=1, drops=())
    return _count(dataclasses.replace(experiment, mm=mm, segment=segment), num_classes)


@functools.cache
def _count(experiment, num_classes):
    stage_scope.set_up(experiment)
    tuning, fine_tuning = experiment.mm, experiment.segment
    num_patches = tuning.num_images * tuning.patches_per_image
    body = networks.backbone(experiment)
    model, bands = mm_keras.MixAndMatch(body), body.spec.num_bands
    shape = (num_patches, tuning.patch_size, tuning.patch_size, bands)
    if tuned_models.takes_crops(tuning):
        shape = (tuning.num_images, tuning.crop, tuning.crop, bands)
    mm = multiply_adds(model, shape)
    model = networks.segmenter(experiment, num_classes)
    shape = (fine_tuning.num_images, fine_tuning.crop, fine_tuning.crop, bands)
    return StepCost(mm, multiply_adds(model, shape))


def multiply_adds(model: keras.Model, shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of convolutions and matrix products in one training forward pass.

    Other operations, for example pooling and normalization, cost little and are not counted.

    Args:
        model: network that takes uint8 pixels.
        shape: shape of its input, with the batch dimension.
    """
    traced = tf.function(lambda pixels: model(pixels, training=True)).get_concrete_function(
        tf.TensorSpec(shape, tf.uint8)
    )
    return sum(_of_operation(operation) for operation in traced.graph.get_operations())


def _of_operation(operation) -> int:
    """Return the number of output elements, times the number of products in each of them."""
    if operation.type not in _SUMS:
        return 0
    return math.prod(operation.outputs[0].shape) * _SUMS[operation.type](operation)


def _matrix_sum(operation):
    """Return the length of the dimension that a matrix product sums over."""
    attribute = "transpose_a" if operation.type == "MatMul" else "adj_x"
    return operation.inputs[0].shape[-2 if operation.get_attr(attribute) else -1]


_SUMS = {
    "Conv2D": lambda operation: math.prod(operation.inputs[1].shape[:3]),
    "DepthwiseConv2dNative": lambda operation: math.prod(operation.inputs[1].shape[:2]),
    "MatMul": _matrix_sum,
    "BatchMatMulV2": _matrix_sum,
}
"""{type of operation: function(operation) -> number of products in each output element}."""
