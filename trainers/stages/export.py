"""Stage export: write the evaluated predictor as a SavedModel, export/saved_model."""

import dataclasses

from mm_keras.inference.export import PixelWindow
from pipelines import datasets
from trainers import config
from trainers.runs.files import replacing, write_json
from trainers.runs.runtime import Runtime
from trainers.training import networks


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Export the predictor, and write class names, colors and mask values beside the model."""
    spec = runtime.dataset.spec
    predictor = networks.predictor(experiment, runtime)
    folder = runtime.folder("export")
    with replacing(folder / "saved_model") as temporary:
        predictor.export(temporary, _window(spec))
    write_json(folder / "classes.json", classes(spec))
    return {}


def _window(spec: datasets.DatasetSpec):
    """Return the mapping of the data set's stored values to 8 bits, or None."""
    if spec.window is None:
        return None
    return PixelWindow(**dataclasses.asdict(spec.window))


def classes(spec: datasets.DatasetSpec) -> dict:
    """Return the meaning of the class ids of a model, ready for JSON.

    Returns:
        "class_names", "colors" (RGB) and "mask_values" (the data set's own value of each class in
        its masks), each in the order of the class ids. "window": the mapping of stored values of
        images to 8 bits, or None.
    """
    return {
        "class_names": list(spec.class_names),
        "colors": [list(color) for color in spec.colors],
        "mask_values": list(spec.mask_values),
        "window": spec.window and dataclasses.asdict(spec.window),
    }
