"""Mix-and-match tuning for semantic segmentation with few labels, in Keras 3.

The library needs only Keras and numpy, on any backend. Modules that need TensorFlow (`Predictor`,
`load_predictor`, `inference`), h5py (`weights`) or Pillow (`visualize`) are imported on first use.
"""

from mm_keras import backbones, layers, losses, matching, metrics, optimizers
from mm_keras.losses import VOID
from mm_keras.models.fcn_segmenter import FcnSegmenter
from mm_keras.models.hypercolumn_segmenter import HypercolumnSegmenter
from mm_keras.models.mix_and_match import MixAndMatch
from mm_keras.models.unet_segmenter import UnetSegmenter

__all__ = [
    "VOID",
    "FcnSegmenter",
    "HypercolumnSegmenter",
    "MixAndMatch",
    "Predictor",
    "UnetSegmenter",
    "backbones",
    "inference",
    "layers",
    "load_predictor",
    "losses",
    "matching",
    "metrics",
    "optimizers",
    "visualize",
    "weights",
]


def __getattr__(name):
    # `from mm_keras import ...` would call this function again.
    if name in ("Predictor", "load_predictor"):
        import mm_keras.inference

        return getattr(mm_keras.inference, name)
    if name == "inference":
        import mm_keras.inference

        return mm_keras.inference
    if name == "visualize":
        import mm_keras.visualize

        return mm_keras.visualize
    if name == "weights":
        import mm_keras.weights

        return mm_keras.weights
    raise AttributeError(f"module 'mm_keras' has no attribute {name!r}")
