"""The hubs of stage mm as first scores of fine-tuning: the file, and refused settings."""

import io

import keras
import numpy as np
import pytest
import rich.console

import mm_keras
from mm_keras import backbones
from pipelines import datasets
from trainers import config
from trainers.runs import files
from trainers.runs.runtime import Runtime, WorkdirError
from trainers.training import hubs, networks, tuned_models

KEYS = {
    "network.backbone": "alexnet",
    "network.width": 1 / 32,
    "mm.loss": "softmax",
    "mm.patch_size": 128,
    "segment.head": "unet",
    "segment.deep_supervision": 0.4,
    "segment.start_from_hubs": True,
}


def _experiment(**changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return config.changed(config.Experiment(), KEYS | changes)


def _runtime(folder):
    spec = datasets.DatasetSpec("made", ("a", "b"), ((0, 0, 0), (1, 1, 1)), None, "")
    split = datasets.Split("train", (), (), (), (), 50)
    console = rich.console.Console(file=io.StringIO())
    return Runtime(folder, datasets.Dataset(spec, split, split, ()), console)


def test_hubs_pass_from_stage_mm_to_the_segmenter(tmp_path):
    runtime, experiment = _runtime(tmp_path), _experiment()
    runtime.folder("mm").mkdir()
    tuned = tuned_models.build(experiment, 2, networks.backbone(experiment))
    hubs.save(tuned, runtime)
    files.write_json(
        runtime.folder("mm") / "results.json",
        {"seconds": 0, "checksums": files.checksums(runtime.folder("mm"))},
    )
    segmenter = networks.segmenter(experiment, 2)
    hubs.load_into(segmenter, runtime)
    kernel = keras.ops.convert_to_numpy(segmenter.coarsest_score.kernel)
    trained = keras.ops.convert_to_numpy(tuned.objective.hubs.kernel)
    np.testing.assert_array_equal(kernel[0, 0], trained)


def test_without_hubs_nothing_is_written_and_a_missing_file_is_an_error(tmp_path):
    runtime = _runtime(tmp_path)
    runtime.folder("mm").mkdir()
    hubs.save(mm_keras.MixAndMatch(backbones.build("testing")), runtime)
    assert not list(runtime.folder("mm").iterdir())
    with pytest.raises(WorkdirError, match=r"hubs.weights.h5 is missing: run .* --stage=mm first"):
        hubs.load_into(networks.segmenter(_experiment(), 2), runtime)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm__loss": "triplet"}, "needs mm.loss=softmax on pooled features.*mm.loss=triplet"),
        ({"mm__embedding": "grid"}, "mm.embedding=grid"),
        ({"mm__projection": (8,)}, r"mm.projection=\(8,\)"),
        ({"segment__head": "fcn"}, "needs segment.head=unet.*Received fcn and 0.4"),
        ({"segment__deep_supervision": 0.0}, "Received unet and 0"),
    ],
)
def test_settings_without_hubs_or_scores_are_refused_before_the_first_stage(changes, message):
    with pytest.raises(config.ConfigError, match=message):
        networks.backbone(_experiment(**changes))
