"""Stage teacher: fine-tune the segmenter that labels images, and write teacher/*.weights.h5.

It has the settings of stage segment. Only runs with `data.pseudo_labels` have it.
"""

from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import fine_tuning


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Fine-tune on the labelled images.

    Returns:
        See `fine_tuning.run`.
    """
    return fine_tuning.run(experiment, runtime, "teacher", runtime.dataset.train.labelled())
