"""Mix-and-match tuning for semantic segmentation with few labels, in Keras 3.

The library itself needs only Keras and numpy, on any backend. What needs TensorFlow (`Predictor`)
or h5py (`weights`) is imported when it is first asked for.
"""

import importlib

from mm_keras import backbones, contours, layers, losses, matching, metrics, optimizers, weights
from mm_keras.losses import VOID
from mm_keras.models.fcn import FcnSegmenter
from mm_keras.models.mix_and_match import MixAndMatch
from mm_keras.models.segmenter import HypercolumnSegmenter

__all__ = [
    "VOID",
    "FcnSegmenter",
    "HypercolumnSegmenter",
    "MixAndMatch",
    "Predictor",
    "backbones",
    "contours",
    "inference",
    "layers",
    "losses",
    "matching",
    "metrics",
    "optimizers",
    "visualize",
    "weights",
]


def __getattr__(name):
    if name == "Predictor":
        return importlib.import_module("mm_keras.inference").Predictor
    if name in ("inference", "visualize", "weights"):
        return importlib.import_module(f"mm_keras.{name}")
    raise AttributeError(f"module 'mm_keras' has no attribute {name!r}")
