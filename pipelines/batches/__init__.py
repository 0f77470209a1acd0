"""tf.data pipelines: element k holds the data of training step k, a pure function of (seed, k)."""

from pipelines.batches.labelled import crops, patches
from pipelines.batches.order import WHOLE, Share

__all__ = ["WHOLE", "Share", "crops", "patches"]
