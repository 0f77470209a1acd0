"""Stage export: write the evaluated predictor as a SavedModel, export/saved_model."""

import dataclasses

from mm_keras.inference import ClassTable
from mm_keras.inference.export import PixelWindow
from pipelines import datasets
from trainers import config
from trainers.runs.files import replacing, write_json
from trainers.runs.runtime import Runtime
from trainers.training import networks


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Export the predictor, and write class names, colors and mask values beside the model."""
    classes = class_table(runtime.dataset.spec)
    predictor = networks.predictor(experiment, runtime)
    folder = runtime.folder("export")
    window = classes.window and PixelWindow(**classes.window)
    with replacing(folder / "saved_model") as temporary:
        predictor.export(temporary, window, classes)
    write_json(folder / "classes.json", classes.as_json())
    return {}


def class_table(spec: datasets.DatasetSpec) -> ClassTable:
    """Return the meaning of the class ids of a data set."""
    window = spec.window and dataclasses.asdict(spec.window)
    return ClassTable(
        spec.class_names, spec.colors, spec.mask_values, spec.background_label, window
    )
