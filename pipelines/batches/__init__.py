"""Input pipelines: element k holds the data of training step k, a pure function of (seed, k)."""

from pipelines.batches.labelled import crops, patches
from pipelines.batches.mix import PatchSampling
from pipelines.batches.order import WHOLE, Order, Share
from pipelines.batches.views import View

__all__ = ["WHOLE", "Order", "PatchSampling", "Share", "View", "crops", "patches"]
