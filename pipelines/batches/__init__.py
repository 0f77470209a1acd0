"""Input pipelines: element k holds the data of training step k, a pure function of (seed, k)."""

from pipelines.amounts import NONE, STRENGTHS, Augmentation, of_strength
from pipelines.batches.labelled import crops, num_unaugmented, patches
from pipelines.batches.order import WHOLE, Order, Share
from pipelines.batches.views import View
from pipelines.patch_sampling import PatchSampling

__all__ = [
    "NONE",
    "STRENGTHS",
    "WHOLE",
    "Augmentation",
    "Order",
    "PatchSampling",
    "Share",
    "View",
    "crops",
    "num_unaugmented",
    "of_strength",
    "patches",
]
