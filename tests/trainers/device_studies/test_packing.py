import numpy as np

from pipelines.datasets.spec import VOID
from trainers import config
from trainers.device_studies import packing
from trainers.runs import dataset as run_dataset


def test_images_are_shrunk_and_padded():
    data = config.changed(config.Experiment(), {"data.num_train_images": 3}).data
    dataset = run_dataset.load_dataset(data)
    whole = packing.pack(dataset, None)
    small = packing.pack(dataset, 50)
    assert len(small.train.labels) == 3 and len(small.held_out.labels) == len(dataset.eval.ids)
    assert small.shorter_side == 50 and whole.shorter_side == dataset.train.shorter_side
    assert small.class_names == tuple(dataset.spec.class_names)
    for k in range(3):
        height, width = small.train.sizes[k]
        maps = [scenes.train.labels[k] for scenes in (small, whole)]
        assert set(np.unique(maps[0])) <= {*np.unique(maps[1]), VOID}
        assert (maps[0][:height, :width] < VOID).mean() > 0.5
        assert (maps[0][height:] == VOID).all() and (maps[0][:, width:] == VOID).all()
        # Shrinking keeps the mean color to within a few gray levels.
        rows, columns = whole.train.sizes[k]
        means = [
            images[k, :h, :w].mean(axis=(0, 1))
            for images, h, w in (
                (small.train.images, height, width),
                (whole.train.images, rows, columns),
            )
        ]
        np.testing.assert_allclose(*means, atol=4)
