"""Segmenters from settings, on any backend of Keras."""

from collections.abc import Callable

import mm_keras
from mm_keras import backbones
from mm_keras.models.auxiliary_contrast import AuxiliaryContrast, ContrastSettings
from mm_keras.models.segmenter import Segmenter
from trainers import config


def build(
    experiment: config.Experiment,
    body: backbones.Backbone,
    num_classes: int,
    loss: Callable | None = None,
) -> Segmenter:
    """Return the segmenter that the settings or the spec of the backbone name.

    Args:
        experiment: the settings.
        body: the backbone.
        num_classes: number of classes.
        loss: the loss over pixels; None for cross-entropy without weights.
    """
    head = experiment.segment.head or body.spec.segmenter
    return SEGMENTERS[head](experiment, body, num_classes, loss)


def _contrast(experiment, body, num_classes):
    if not experiment.segment.contrast:
        return None
    sizes = ContrastSettings(experiment.segment.contrast)
    return AuxiliaryContrast(body.spec, num_classes, sizes, experiment.seed)


def _hypercolumn(experiment, body, num_classes, loss):
    return mm_keras.HypercolumnSegmenter(
        body,
        num_classes,
        num_points=experiment.segment.num_points,
        output_stride=experiment.evaluate.output_stride,
        dropout=experiment.segment.dropout,
        stddev=experiment.segment.stddev,
        input_scale=experiment.segment.input_scale,
        point_border=experiment.segment.point_border,
        balanced_points=experiment.segment.balanced_points,
        seed=experiment.seed,
        loss=loss,
        contrast=_contrast(experiment, body, num_classes),
    )


def _fcn(experiment, body, num_classes, loss):
    # It predicts every pixel: num_points, stddev and output_stride do not apply.
    return mm_keras.FcnSegmenter(
        body,
        num_classes,
        dropout=experiment.segment.dropout,
        seed=experiment.seed,
        loss=loss,
        contrast=_contrast(experiment, body, num_classes),
    )


def _unet(experiment, body, num_classes, loss):
    return mm_keras.UnetSegmenter(
        body,
        num_classes,
        output_stride=experiment.evaluate.output_stride,
        dropout=experiment.segment.dropout,
        width=experiment.segment.decoder_width,
        deep_supervision=experiment.segment.deep_supervision,
        seed=experiment.seed,
        loss=loss,
        contrast=_contrast(experiment, body, num_classes),
    )


SEGMENTERS = {"hypercolumn": _hypercolumn, "fcn": _fcn, "unet": _unet}
"""{kind of segmenter in a `BackboneSpec`: function(experiment, body, num_classes, loss)}."""
