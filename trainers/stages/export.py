"""Stage export: write the evaluated predictor as a SavedModel, export/saved_model."""

import os
import shutil

from trainers import config
from trainers.runs.files import write_json
from trainers.runs.runtime import Runtime
from trainers.training import networks


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Export under a temporary name, then rename. Write class names and colors beside the model."""
    spec = runtime.dataset.spec
    predictor = networks.predictor(experiment, runtime)
    folder = runtime.folder("export")
    temporary, final = folder / f"{os.getpid()}.tmp", folder / "saved_model"
    predictor.export(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    write_json(
        folder / "classes.json",
        {"class_names": list(spec.class_names), "colors": [list(c) for c in spec.colors]},
    )
    return {}
