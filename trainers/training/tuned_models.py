"""The model of stage mm from settings: one loss on patches, or a contrast of pixels."""

import mm_keras
from mm_keras import backbones, matching
from mm_keras.models import objective, trainable
from mm_keras.models.pixel_contrast import PixelContrast
from trainers import config

_HEAD = (256, 128)


def build(
    experiment: config.Experiment, num_classes: int, body: backbones.Backbone
) -> mm_keras.MixAndMatch | PixelContrast:
    """Return the model of stage mm around a backbone. It has its weights, and is not compiled.

    Args:
        experiment: the settings.
        num_classes: number of classes.
        body: the backbone.

    Raises:
        config.ConfigError: settings that do not fit together, or patches without features.
    """
    if takes_crops(experiment.mm):
        return _pixel_contrast(experiment, num_classes, body)
    settings = experiment.mm
    rule = getattr(matching, settings.matching)
    embedding, projection = embedding_of(settings)
    is_paper = (settings.loss, embedding, projection) == ("triplet", "flatten", ())
    model = mm_keras.MixAndMatch(
        body,
        margin=settings.margin,
        scale=settings.scale,
        matching=rule,
        seed=experiment.seed,
        chunk=settings.chunk,
        graph=settings.graph,
        objective=None if is_paper else _objective(experiment, num_classes, projection, rule),
        embedding=embedding,
        num_classes=num_classes,
    )
    try:
        model.build((None, settings.patch_size, settings.patch_size, body.spec.num_bands))
    except ValueError as error:
        raise config.ConfigError(f"{error} (keys mm.patch_size, mm.embedding)") from error
    return model


def takes_crops(settings: config.Tune) -> bool:
    """Return whether a step of stage mm takes whole crops with their labels, and no patches."""
    return settings.loss == "pixel_contrast"


def embedding_of(settings: config.Tune) -> tuple[str, tuple[int, ...]]:
    """Return the embedding and the projection of stage mm, with the defaults of its loss."""
    are_triplets = all(name.startswith("triplet") for name in settings.loss.split("+"))
    embedding = settings.embedding or ("flatten" if are_triplets else "pool")
    if settings.projection is not None:
        return embedding, settings.projection
    return embedding, _HEAD if settings.loss == "supcon" else ()


def _objective(experiment, num_classes, projection, rule):
    settings = experiment.mm
    return objective.build(
        settings.loss,
        num_classes,
        projection=projection,
        temperature=settings.temperature,
        margin=settings.loss_margin,
        triplets=objective.TripletSettings(
            rule,
            settings.margin,
            settings.scale,
            trainable.sum_over_replicas if settings.graph == "global" else None,
        ),
        seed=experiment.seed,
    )


def _pixel_contrast(experiment, num_classes, body):
    settings = experiment.mm
    unusable = {
        "mm.chunk": settings.chunk is not None,
        "mm.graph": settings.graph != "replica",
        "mm.embedding": settings.embedding is not None,
        "data.service": experiment.data.service is not None,
    }
    if any(unusable.values()):
        keys = ", ".join(key for key, is_set in unusable.items() if is_set)
        raise config.ConfigError(
            f"mm.loss=pixel_contrast takes whole crops and has no patches: leave {keys} at the "
            "default."
        )
    try:
        return PixelContrast(
            body,
            num_classes,
            num_points=settings.num_points,
            head=_HEAD if settings.projection is None else settings.projection,
            temperature=settings.temperature or 0.07,
            seed=experiment.seed,
        )
    except ValueError as error:
        raise config.ConfigError(f"{error} (key mm.projection)") from error
