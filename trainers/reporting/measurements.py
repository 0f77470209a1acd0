"""Measurements on the networks of finished runs, for reports and studies."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mm_keras import backbones, losses, metrics
from pipelines import batches, datasets
from pipelines.batches import order
from trainers import config
from trainers.runs import files, stage_scope
from trainers.runs.finished import Run
from trainers.training import amounts, initial_weights, networks

_BATCH = 64  # patches embedded at a time
MIN_DISTANCE = 16
"""Positions in a split between two images whose patches count as neighbors. Nearer frames of a film
show the same objects."""
_TOLERANCE = 1e-3  # of mIoU: on another machine rounding changes some pixels


def per_image_confusions(run: Run, dataset: datasets.Dataset) -> np.ndarray:
    """Return the confusion matrix of each image of the evaluation split.

    The network of the run predicts the images once. Later calls read the matrices from
    evaluate/per_image.npz, key "confusion".

    Args:
        run: a finished run.
        dataset: its data set.

    Returns:
        int32 [num_images, K, K]; rows are the truth, columns the prediction.

    Raises:
        config.UserError: the matrices give another mIoU than stage evaluate.
    """
    path = run.folder / "evaluate" / "per_image.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            matrices = stored["confusion"]
    else:
        matrices = _predicted_confusions(run, dataset)
        files.save_arrays(path, confusion=matrices)
    miou = metrics.mean_iou(matrices.sum(axis=0, dtype=np.int64))
    if abs(miou - run.results["miou"]) > _TOLERANCE:
        raise config.UserError(
            f"{path} gives mIoU {100 * miou:.2f}, but stage evaluate found "
            f"{100 * run.results['miou']:.2f}. Delete the file to predict the images again. If the "
            "error remains, the data set or the weights have changed: run stage evaluate again."
        )
    return matrices


def _predicted_confusions(run, dataset):
    predictor, matrices = _predictor(run, dataset), []
    for example in datasets.examples(dataset.eval):
        matrix = metrics.ConfusionMatrix(dataset.spec.num_classes)
        matrix.update_state(example["label"], _class_ids(predictor, example["image"]))
        matrices.append(matrix.result().astype(np.int32))
    return np.stack(matrices)


def image_mious(confusions: np.ndarray) -> np.ndarray:
    """Return the mIoU of each image, over the classes in its truth or prediction.

    Args:
        confusions: integer [num_images, K, K].

    Returns:
        float [num_images], 0..1; NaN for an image that is void everywhere.
    """
    return np.array([metrics.mean_iou(matrix) for matrix in confusions])


def predictions(run: Run, dataset: datasets.Dataset, numbers: Sequence[int]) -> list[np.ndarray]:
    """Return the predicted class ids, int32 [H, W] each, of some images of the evaluation split."""
    predictor = _predictor(run, dataset)
    return [_class_ids(predictor, image) for image, _ in images(dataset, numbers)]


def images(
    dataset: datasets.Dataset, numbers: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return some images of the evaluation split with their labels.

    Args:
        dataset: the data set.
        numbers: indices of the images, in any order.

    Returns:
        (image uint8 [H, W, 3], label uint8 [H, W]) for each index.
    """
    part = dataset.eval.take(set(numbers))
    read = [(e["image"].numpy(), e["label"].numpy()) for e in datasets.examples(part)]
    found = dict(zip(sorted(set(numbers)), read, strict=True))
    return [found[number] for number in numbers]


class Patches(NamedTuple):
    """Patches of images.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        labels: class ids, int32 [N].
        positions: position of the patch's image in its split, int64 [N].
    """

    pixels: np.ndarray
    labels: np.ndarray
    positions: np.ndarray


def patches(experiment: config.Experiment, dataset: datasets.Dataset, num_patches: int) -> Patches:
    """Return about `num_patches` patches of the evaluation split, sampled as in stage mm.

    All images have equally many patches. The class of a patch is drawn first, so that rare classes
    occur. Patches are not mirrored. Outside of the image they have the pad color of the backbone.

    Args:
        experiment: settings with sizes in pixels.
        dataset: the data set.
        num_patches: number of patches.
    """
    split, settings = dataset.eval.labelled(), experiment.mm
    num_images = min(split.num_images, num_patches)
    background_label = networks.background_label(experiment, dataset.spec)
    sampling = dataclasses.replace(
        amounts.sampling(settings, background_label),
        patches_per_image=max(1, num_patches // num_images),
        class_balanced=True,
    )
    view = batches.View(
        crop=settings.crop,
        shorter_side=experiment.data.shorter_side,
        mirror=False,
        pad_color=networks.backbone(experiment).spec.pad_color,
    )
    numbers = list(datasets.spread(num_images, split.num_images))
    step_order = batches.Order(num_images=num_images, num_steps=1)
    element = next(iter(batches.patches(split.take(numbers), sampling, view, step_order)))
    images = next(iter(order.batches(num_images, lambda image_id, _: image_id, step_order)))
    positions = np.asarray(numbers)[images.numpy()].repeat(sampling.patches_per_image)
    return Patches(element["patches"].numpy(), element["labels"].numpy(), positions)


def initial_backbone(run: Run, dataset: datasets.Dataset) -> backbones.Backbone:
    """Return the backbone with the first weights of the run."""
    experiment = run.experiment()
    stage_scope.set_up(experiment)
    return initial_weights.backbone(experiment, run.runtime(dataset))


def tuned_backbone(run: Run, dataset: datasets.Dataset) -> backbones.Backbone:
    """Return the backbone after M&M and before fine-tuning."""
    experiment = run.experiment()
    stage_scope.set_up(experiment)
    backbone = networks.backbone(experiment)
    backbone.load_weights(run.runtime(dataset).needed("mm", "backbone.weights.h5"))
    return backbone


def fine_tuned_backbone(run: Run, dataset: datasets.Dataset) -> backbones.Backbone:
    """Return the backbone of the run's segmenter, after fine-tuning."""
    return _predictor(run, dataset).models[0].backbone


def embeddings(backbone: backbones.Backbone, pixels: np.ndarray) -> np.ndarray:
    """Return the unit embeddings, float32 [N, D], of patches, uint8 [N, S, S, 3]."""
    name = backbone.spec.embedding.name
    parts = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    features = (backbone(part.astype("float32"), training=False)[name] for part in parts)
    return np.concatenate([np.asarray(losses.embed(part)) for part in features])


def neighbor_agreement(
    points: np.ndarray,
    labels: np.ndarray,
    positions: np.ndarray,
    min_distance: int | None = None,
) -> float:
    """Return the share of embeddings whose nearest neighbor has the same class.

    Only patches of images that are at least `min_distance` positions apart are compared. Patches of
    one image never are. In a film, a network with random weights finds the next frame, which shows
    the same objects. Patches without any other patch far enough away are left out.

    Args:
        points: unit embeddings, float [N, D].
        labels: class ids, integer [N].
        positions: position of the patch's image in its split, integer [N].
        min_distance: 1 or more. None: `MIN_DISTANCE`, or a quarter of the range of the positions if
            that is less.

    Returns:
        0..1; NaN if no patch can be compared.

    >>> points = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> neighbor_agreement(points, np.array([3, 3, 5]), np.array([0, 40, 80]))
    0.6666666666666666
    """
    if min_distance is None:
        min_distance = max(1, min(MIN_DISTANCE, int(np.ptp(positions) + 1) // 4))
    distances = 2 - 2 * points @ points.T
    distances[np.abs(positions[:, None] - positions) < min_distance] = np.inf
    is_counted = np.isfinite(distances).any(axis=1)
    if not is_counted.any():
        return float("nan")
    nearest = labels[distances[is_counted].argmin(axis=1)]
    return float(np.mean(nearest == labels[is_counted]))


def _predictor(run, dataset):
    experiment = run.experiment()
    stage_scope.set_up(experiment)
    return networks.predictor(experiment, run.runtime(dataset))


def _class_ids(predictor, image):
    return predictor.predict(image[None]).class_ids[0].numpy()
