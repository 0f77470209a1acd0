"""Stage export: write the evaluated predictor as a SavedModel, export/saved_model."""

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
        predictor.export(temporary)
    write_json(folder / "classes.json", classes(spec))
    return {}


def classes(spec: datasets.DatasetSpec) -> dict:
    """Return the meaning of the class ids of a model, ready for JSON.

    Returns:
        "class_names", "colors" (RGB) and "mask_values" (the data set's own value of each class in
        its masks), each in the order of the class ids.
    """
    return {
        "class_names": list(spec.class_names),
        "colors": [list(color) for color in spec.colors],
        "mask_values": list(spec.mask_values),
    }
