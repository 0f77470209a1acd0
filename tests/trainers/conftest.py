"""Made-up working folders of finished runs."""

import json

import pytest

from trainers import config, presets

CLASSES = ["background", *(f"class{k}" for k in range(1, 21))]


def write_run(folder, experiment, miou, ious=None, arm="", facts=(10582, 1449), seconds=10.0):
    """Writes what the stages leave of a finished run, weights apart.

    Args:
        ious: {class name: IoU}; None gives every class the mIoU.
        facts: images of the train and of the eval split.
    """
    recorded = config.flatten(experiment) | {
        "classes": list(ious or CLASSES),
        "num_train_images": facts[0],
        "num_eval_images": facts[1],
    }
    ious = ious or dict.fromkeys(CLASSES, miou)
    results = {"miou": miou, "pixel_accuracy": 0.9, "mean_accuracy": 0.5, "per_class_iou": ious}
    for stage in ("segment", "evaluate") if arm else ("mm", "segment", "evaluate"):
        place = folder / arm / stage
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(recorded))
        content = (results if stage == "evaluate" else {}) | {"seconds": seconds, "peak_bytes": 1}
        (place / "results.json").write_text(json.dumps(content))
    return folder / arm


@pytest.fixture
def make_preset_run(tmp_path):
    """Function(name, preset, miou, **changes of keys with __ for dots) -> folder."""

    def make(name, preset, miou, arm="", facts=(10582, 1449), ious=None, **changes):
        experiment = presets.experiment(preset)
        for key, value in changes.items():
            experiment = config.replace(experiment, key.replace("__", "."), value)
        return write_run(tmp_path / name, experiment, miou, ious, arm, facts)

    return make
