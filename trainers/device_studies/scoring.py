"""Scores of a segmenter on the accelerator."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import ops

from mm_keras import layers
from pipelines.datasets.spec import VOID

BATCH = 16


class Scorer:
    """Count the confusions of a segmenter on held-out images; compiled once for many runs.

    Args:
        model: `mm_keras.models.segmenter.Segmenter`.
        scenes: the images, arrays on the device.
    """

    def __init__(self, model: keras.Model, scenes):
        self.model = model
        number = len(scenes.labels)
        extra = -number % BATCH
        widths = [(0, extra), (0, 0), (0, 0)]
        images = jnp.pad(scenes.images, [*widths, (0, 0)])
        labels = jnp.pad(scenes.labels, widths, constant_values=VOID)
        self._images = images.reshape(-1, BATCH, *images.shape[1:])
        self._labels = labels.reshape(-1, BATCH, *labels.shape[1:])
        self._run = jax.jit(self._confusion)

    def confusion(self) -> np.ndarray:
        """Return pixels by (true class, predicted class), integer [K, K]."""
        state = [variable.value for variable in self.model.variables]
        return np.array(self._run(state, self._images, self._labels), np.int64)

    def _confusion(self, state, images, labels):
        num_classes = self.model.num_classes
        known = list(zip(self.model.variables, state, strict=True))

        def one(batch):
            images, labels = batch
            with keras.StatelessScope(state_mapping=known):
                logits = self.model(images, training=False)
            logits = layers.upsample(logits, self.model.output_stride, ops.shape(images)[1:3])
            predicted = jnp.argmax(logits, axis=-1).reshape(-1)
            labels = labels.reshape(-1).astype(jnp.int32)
            cells = jnp.where(labels < VOID, labels * num_classes + predicted, num_classes**2)
            return jnp.bincount(cells, length=num_classes**2 + 1)[:-1]

        counts = jax.lax.map(one, (images, labels)).sum(axis=0)
        return counts.reshape(num_classes, num_classes)
