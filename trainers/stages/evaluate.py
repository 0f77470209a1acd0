"""Stage evaluate: predict the evaluation split and return its scores."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from mm_keras import metrics, visualize
from mm_keras.metrics import contours
from trainers import config
from trainers.runs import examples, files
from trainers.runs.runtime import Runtime
from trainers.training import networks

_SCALARS = ("miou", "pixel_accuracy", "mean_accuracy", "boundary_iou", "thin_iou")


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Score the images one by one. Write some predictions and the confusion matrix to TensorBoard.

    The confusion matrix of each image goes to per_image.npz. The images with the best and the worst
    prediction, and the image with the most errors of each class, go to examples.npz.

    Returns:
        The scores, as `figures` returns them, and "intervals", their 95 % intervals over images.
    """
    settings, spec = experiment.evaluate, runtime.dataset.spec
    predictor = networks.predictor(experiment, runtime)
    watch = _Watch(runtime, settings.num_pictures)
    maps = watch.maps(networks.predictions(predictor, runtime, "evaluate"))
    results = figures(maps, spec.class_names, settings.boundary)
    confusions = np.stack(watch.confusions)
    results["intervals"] = intervals(confusions, spec.class_names)
    folder = runtime.folder("evaluate")
    files.save_arrays(folder / "per_image.npz", confusion=confusions, id=np.array(watch.ids))
    watch.examples.save(folder / "examples.npz")
    _write_logs(runtime, results, watch.shown)
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


def intervals(confusions: np.ndarray, class_names: tuple[str, ...]) -> dict:
    """Return the 95 % intervals of the scores over images, ready for JSON.

    Args:
        confusions: integer [num_images, K, K].
        class_names: K names.

    Returns:
        {"miou": [low, high] or None, "per_class_iou": {name: [low, high] or None}}.
    """
    found = metrics.image_intervals(confusions)
    pairs = [None if np.isnan(pair).any() else pair.tolist() for pair in found.per_class_iou]
    return {
        "miou": None if np.isnan(found.miou).any() else found.miou.tolist(),
        "per_class_iou": dict(zip(class_names, pairs, strict=True)),
    }


class _Watch:
    """Keep the confusion matrix of each image, and the images that will be shown."""

    def __init__(self, runtime: Runtime, num_pictures: int):
        self.num_classes = runtime.dataset.spec.num_classes
        self.numbers = _spread(runtime.dataset.eval.num_images, num_pictures)
        self.ids, self.confusions, self.shown = [], [], []
        self.examples = examples.Examples(self.num_classes)

    def maps(self, predictions: Iterable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield true and predicted class ids of each image."""
        for number, (example, prediction) in enumerate(predictions):
            image, label = example["image"].numpy(), example["label"].numpy()
            if number in self.numbers:
                self.shown.append((image, label, prediction))
            matrix = metrics.ConfusionMatrix(self.num_classes)
            matrix.update_state(label, prediction)
            self.ids.append(example["id"].numpy().decode())
            self.confusions.append(matrix.result().astype(np.int32))
            shown = examples.Example(self.ids[-1], image, label, prediction)
            self.examples.update(shown, self.confusions[-1])
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
