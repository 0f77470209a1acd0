"""Stage segment: fine-tune the segmenter and write segment/segmenter.weights.h5."""

from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import fine_tuning, pseudo_labels


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Fine-tune on the labelled images, and on the images that stage pseudo labelled.

    Returns:
        See `fine_tuning.run`.
    """
    split = runtime.dataset.train.labelled()
    if experiment.data.pseudo_labels is not None:
        split = pseudo_labels.joined(split, experiment, runtime)
    return fine_tuning.run(experiment, runtime, "segment", split)
