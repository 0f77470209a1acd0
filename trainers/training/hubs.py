"""The hubs of stage mm, one vector for each class, as first weights in fine-tuning.

With `mm.loss=softmax`, stage mm trains a linear layer on pooled patches. Its columns are the hubs
of the classes. Under `segment.start_from_hubs` the U-Net starts with them: the layer scores the
cells of its coarsest map, which hold the same features.
"""

import keras

import mm_keras
from mm_keras import backbones
from trainers import config
from trainers.runs.files import save_weights
from trainers.runs.runtime import Runtime
from trainers.training import tuned_models

WEIGHTS = "hubs.weights.h5"


def check(experiment: config.Experiment, spec: backbones.BackboneSpec) -> None:
    """Raise an error before the first stage if fine-tuning cannot start from hubs.

    Args:
        experiment: the settings.
        spec: of the backbone.

    Raises:
        config.ConfigError: stage mm has no hubs of pooled features, or the segmenter has no scores
            of the coarsest map.
    """
    if not experiment.segment.start_from_hubs:
        return
    settings = experiment.mm
    names = settings.loss.split("+")
    if "softmax" not in names or tuned_models.embedding_of(settings) != ("pool", ()):
        raise config.ConfigError(
            "segment.start_from_hubs needs mm.loss=softmax on pooled features without a "
            f"projection. Received mm.loss={settings.loss}, mm.embedding={settings.embedding}, "
            f"mm.projection={settings.projection}."
        )
    head = experiment.segment.head or spec.segmenter
    if head != "unet" or not experiment.segment.deep_supervision:
        raise config.ConfigError(
            "segment.start_from_hubs needs segment.head=unet and segment.deep_supervision above 0. "
            f"Received {head} and {experiment.segment.deep_supervision:g}."
        )


def save(model: mm_keras.MixAndMatch, runtime: Runtime) -> None:
    """Write mm/hubs.weights.h5 if the model of stage mm has hubs."""
    objective = getattr(model, "objective", None)
    if objective is not None and objective.hubs is not None:
        save_weights(_model(objective.hubs), runtime.folder("mm") / WEIGHTS)


def load_into(segmenter: mm_keras.UnetSegmenter, runtime: Runtime) -> None:
    """Start the scores of the segmenter's coarsest map from mm/hubs.weights.h5.

    Raises:
        WorkdirError: the file is missing, or not the one that stage mm wrote.
    """
    hubs = keras.layers.Dense(segmenter.num_classes, dtype="float32")
    hubs.build((None, segmenter.backbone.spec.embedding.channels))
    _model(hubs).load_weights(runtime.needed("mm", WEIGHTS))
    segmenter.score_by(hubs)


def _model(hubs):
    """Return the model whose file holds the weights of a built layer."""
    return keras.Sequential([keras.Input((hubs.kernel.shape[0],)), hubs])
