"""Stage evaluate: predicts the evaluation split and leaves evaluate/results.json."""

import rich.progress
import tensorflow as tf

from mm_keras import metrics, visualize
from trainers import config, networks
from trainers.runtime import Runtime, stage


def run(experiment: config.Experiment, runtime: Runtime):
    """Streams the images one by one into a confusion matrix; shows some predictions in
    TensorBoard.
    """
    dataset = runtime.dataset
    with stage(runtime, "evaluate", experiment) as results:
        predictor = networks.predictor(experiment, runtime)
        confusion = metrics.ConfusionMatrix(dataset.spec.num_classes)
        shown, numbers = [], _spread(dataset.eval.num_images, experiment.evaluate.num_pictures)
        for number, example in enumerate(_progress(runtime, dataset.eval)):
            prediction = predictor.predict(example["image"][None]).class_ids[0].numpy()
            label = example["label"].numpy()
            confusion.update_state(label, prediction)
            if number in numbers:
                shown.append((example["image"].numpy(), label, prediction))
        results |= metrics.summary(confusion.result(), dataset.spec.class_names)
        _write_logs(runtime, results, shown)


def _spread(num_images, num_pictures) -> set[int]:
    """Numbers of the images to show, evenly spread: neighbours may be frames of one film."""
    return {k * num_images // num_pictures for k in range(num_pictures)}


def _progress(runtime, split):
    return rich.progress.track(
        split.examples(), "evaluate", total=split.num_images, console=runtime.console
    )


def _write_logs(runtime, results, shown):
    spec = runtime.dataset.spec
    writer = tf.summary.create_file_writer(str(runtime.folder("evaluate") / "logs"))
    with writer.as_default(step=0):
        for name in ("miou", "pixel_accuracy", "mean_accuracy"):
            tf.summary.scalar(f"evaluate/{name}", results[name])
        if shown:
            images, labels, predictions = zip(*shown, strict=True)
            gallery = visualize.segmentation_gallery(
                images, labels, predictions, spec.colours, spec.class_names
            )
            tf.summary.image("evaluate/predictions", gallery[None])
    writer.close()
