"""A finished run with small networks, tuned and naive."""

import dataclasses
import io

import keras
import numpy as np
import pytest
import rich.console

from trainers import config
from trainers.config import presets
from trainers.runs import files, runtime, stage_scope
from trainers.runs import finished as finished_runs
from trainers.runs.dataset import load_dataset
from trainers.stages import find
from trainers.training import networks

SETTINGS = {
    "network.backbone": "testing",
    "network.width": 1.0,
    "data.shorter_side": 48,
    "data.num_train_images": 6,
    "data.holdout": 4,
    "mm.steps": 1,
    "mm.patch_size": 32,
    "evaluate.num_pictures": 1,
}


def _experiment():
    experiment = presets.experiment("quick")
    for key, value in SETTINGS.items():
        experiment = config.replace(experiment, key, value)
    return experiment


def _save_networks(experiment, run):
    """Save weights as the stages do; each network has different weights."""
    backbone = networks.backbone(experiment)
    _shake(backbone, 1)
    files.save_weights(backbone, run.folder("mm") / "backbone.weights.h5")
    segmenter = networks.segmenter(experiment, run.dataset.spec.num_classes)
    _shake(segmenter, 2)
    files.save_weights(segmenter, run.folder("segment") / "segmenter.weights.h5")


def _shake(model, seed):
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(variable.numpy() + rng.normal(0, 0.1, variable.shape))


@pytest.fixture(scope="module")
def finished(prepared_records, tmp_path_factory):
    """(runs, dataset): a tuned run and its naive variant, both evaluated."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(prepared_records))
        experiment = _experiment()
        dataset = load_dataset(experiment.data)
    experiment = config.resolve(experiment, dataset.train.shorter_side)
    console = rich.console.Console(file=io.StringIO())
    tuned = runtime.Runtime(folder / "pair", dataset, console)
    naive = tuned.naive()
    for stage, run in (("mm", tuned), ("segment", tuned), ("segment", naive)):
        untrained = dataclasses.replace(find(stage), run=lambda *_: {})
        stage_scope.run_stage(untrained, experiment, run)
    _save_networks(experiment, tuned)
    segmenter = networks.segmenter(experiment, dataset.spec.num_classes)
    _shake(segmenter, 3)
    files.save_weights(segmenter, naive.folder("segment") / "segmenter.weights.h5")
    for run in (tuned, naive):
        stage_scope.run_stage(find("evaluate"), experiment, run)
    yield finished_runs.find([folder / "pair"]), dataset
    keras.backend.clear_session()
