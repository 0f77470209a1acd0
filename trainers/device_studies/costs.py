"""Multiply-adds of training steps, counted on JAX; see `trainers.studies.step_cost`."""

import math

import jax
import keras
import numpy as np

from trainers import config
from trainers.device_studies import stages
from trainers.studies.plan import StepCost
from trainers.training import segmenters, tuned_models


def count(experiment: config.Experiment, num_classes: int) -> StepCost:
    """Return the cost of one step of each stage.

    Args:
        experiment: settings with sizes in pixels.
        num_classes: number of classes of the data set.
    """
    tuning, fine_tuning, body = experiment.mm, experiment.segment, stages.backbone(experiment)
    num_patches = tuning.num_images * tuning.patches_per_image
    shape = (num_patches, tuning.patch_size, tuning.patch_size, 3)
    if tuned_models.takes_crops(tuning):
        shape = (tuning.num_images, tuning.crop, tuning.crop, 3)
    mm = multiply_adds(body, shape)
    model = segmenters.build(experiment, body, num_classes)
    shape = (fine_tuning.num_images, fine_tuning.crop, fine_tuning.crop, 3)
    return StepCost(mm, multiply_adds(model, shape))


def multiply_adds(model: keras.Model, shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of convolutions and matrix products in one forward pass.

    Args:
        model: network that takes pixels.
        shape: shape of its input, with the batch dimension.
    """

    def forward(images):
        with keras.StatelessScope():
            return model(images, training=True)

    traced = jax.make_jaxpr(forward)(jax.ShapeDtypeStruct(shape, np.float32))
    return _of_equations(traced.jaxpr)


def _of_equations(jaxpr):
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation):
    inner = [v for v in equation.params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
    if inner:
        return sum(_of_equations(getattr(v, "jaxpr", v)) for v in inner)
    size = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return size * math.prod(kernel) // outputs
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return size * math.prod(equation.invars[0].aval.shape[k] for k in contracted)
    return 0
