"""The first crops in TensorBoard, and the crops without augmentation."""

import types

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines import batches, datasets
from trainers.training import augmentation


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
