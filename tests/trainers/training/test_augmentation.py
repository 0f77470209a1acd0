"""The settings of a stage as an augmentation, and the first crops in TensorBoard."""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import amounts, batches, datasets
from trainers import config
from trainers.training import augmentation


def test_every_amount_is_a_setting_of_the_stage_that_can_use_it():
    amounts = {field.name for field in dataclasses.fields(batches.Augmentation)}
    settings = config.Experiment()
    assert {field.name for field in dataclasses.fields(settings.segment.augment)} == amounts
    of_patches = {field.name for field in dataclasses.fields(settings.mm.augment)}
    assert of_patches == amounts - {"mix", "mix_share"}


@pytest.mark.parametrize("stage", ["mm", "segment"])
def test_single_amounts_replace_the_amounts_of_the_strength(stage):
    values = {f"{stage}.augmentation": "strong", f"{stage}.augment.rotation": 45.0}
    values[f"{stage}.augment.hue"] = 0.0
    made = augmentation.of_stage(getattr(config.changed(config.Experiment(), values), stage))
    expected = dataclasses.replace(batches.STRENGTHS["strong"], rotation=45.0, hue=0.0)
    assert made == expected


def test_amounts_have_the_same_bounds_in_settings_and_pipelines():
    for name, bounds in amounts.BOUNDS.items():
        for value in bounds:
            key = f"segment.augment.{name}"
            augmentation.of_stage(config.replace(config.Experiment(), key, value).segment)
            with pytest.raises(config.ConfigError):
                config.replace(config.Experiment(), key, value + np.sign(value - 0.25) * 20)


def test_the_first_crops_are_written_to_tensorboard(tmp_path):
    colors = ((255, 0, 0), (0, 255, 0))
    spec = datasets.DatasetSpec("x", ("one", "two"), colors, None, "")
    writer = tf.summary.create_file_writer(str(tmp_path))
    step = {
        "image": tf.zeros([3, 8, 8, 3], tf.uint8),
        "label": tf.constant(np.eye(8, dtype=np.uint8)[None].repeat(3, 0)),
    }
    loop = types.SimpleNamespace(
        settings=types.SimpleNamespace(steps=1),
        data=lambda start, share: [step],
        replicas=types.SimpleNamespace(shares=[batches.WHOLE]),
        writer=writer,
        stage="segment",
    )
    augmentation.show_first_crops(loop, spec)
    writer.close()
    (file,) = tmp_path.iterdir()
    events = list(tf.compat.v1.train.summary_iterator(str(file)))
    tags = [value.tag for event in events for value in event.summary.value]
    assert tags == ["segment/crops"]
    none = types.SimpleNamespace(settings=types.SimpleNamespace(steps=0))
    assert augmentation.show_first_crops(none, spec) is None


def test_sparse_labels_are_reported(tmp_path):
    label = np.full((64, 64), datasets.VOID, np.uint8)
    label[20:23, 30:33] = 3
    Image.fromarray(label).save(tmp_path / "label.png")
    split = types.SimpleNamespace(
        ids=("a",), image_files=("",), label_files=(str(tmp_path / "label.png"),)
    )
    view, order = batches.View(8), batches.Order(num_images=8)
    changes = batches.Augmentation(scale=1.5)
    line = augmentation.unaugmented(split, view, order, changes)
    assert "of the first 8 crops are shown without augmentation" in line
    assert augmentation.unaugmented(split, view, order, batches.NONE) is None
