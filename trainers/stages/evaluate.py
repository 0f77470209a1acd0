"""Stage evaluate: predict the evaluation split and return its scores."""

from collections.abc import Iterable

import tensorflow as tf

from mm_keras import metrics, visualize
from mm_keras.metrics import contours
from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import networks

_SCALARS = ("miou", "pixel_accuracy", "mean_accuracy", "boundary_iou", "thin_iou")


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Score the images one by one. Write some predictions and the confusion matrix to TensorBoard.

    Returns:
        The scores, as `figures` returns them.
    """
    settings, class_names = experiment.evaluate, runtime.dataset.spec.class_names
    predictor = networks.predictor(experiment, runtime)
    shown = []
    maps = _maps(predictor, runtime, settings.num_pictures, shown)
    results = figures(maps, class_names, settings.boundary)
    _write_logs(runtime, results, shown)
    return results


def figures(maps: Iterable, class_names: tuple[str, ...], boundary: bool = True) -> dict:
    """Return all scores of predicted class ids, ready for JSON.

    Args:
        maps: pairs of true and predicted class ids, integer [H, W] each, one pair per image.
        class_names: names in the order of the ids.
        boundary: also score contours and thin regions.
    """
    confusion = metrics.ConfusionMatrix(len(class_names))
    kinds = (contours.BoundaryIoU, contours.ThinRegions) if boundary else ()
    scores = [kind(len(class_names)) for kind in kinds]
    for truth, prediction in maps:
        for score in (confusion, *scores):
            score.update_state(truth, prediction)
    results = metrics.summary(confusion.result(), class_names)
    for score in scores:
        results |= score.summary(class_names)
    return results


def _maps(predictor, runtime, num_pictures, shown):
    """Yield true and predicted class ids of each image. Append some images to `shown`."""
    numbers = _spread(runtime.dataset.eval.num_images, num_pictures)
    predictions = networks.predictions(predictor, runtime, "evaluate")
    for number, (example, prediction) in enumerate(predictions):
        label = example["label"].numpy()
        if number in numbers:
            shown.append((example["image"].numpy(), label, prediction))
        yield label, prediction


def _spread(num_images, num_pictures) -> set[int]:
    """Return the numbers of the images to show, evenly spread: neighbors may be similar frames."""
    return {k * num_images // num_pictures for k in range(num_pictures)}


def _write_logs(runtime, results, shown):
    spec = runtime.dataset.spec
    writer = tf.summary.create_file_writer(str(runtime.folder("evaluate") / "logs"))
    with writer.as_default(step=0):
        for name in _SCALARS:
            if results.get(name) is not None:
                tf.summary.scalar(f"evaluate/{name}", results[name])
        confusion = visualize.confusion_picture(results["confusion_matrix"], spec.class_names)
        tf.summary.image("evaluate/confusion", confusion[None])
        if shown:
            images, labels, predictions = zip(*shown, strict=True)
            gallery = visualize.segmentation_gallery(
                images, labels, predictions, spec.colors, spec.class_names
            )
            tf.summary.image("evaluate/predictions", gallery[None])
    writer.close()
