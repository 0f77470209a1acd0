"""Prediction of whole images, and its export. Needs TensorFlow."""

from mm_keras.inference.class_table import ClassTable
from mm_keras.inference.loading import ImageError, LoadedPredictor, load_predictor
from mm_keras.inference.predictor import Prediction, Predictor

__all__ = [
    "ClassTable",
    "ImageError",
    "LoadedPredictor",
    "Prediction",
    "Predictor",
    "load_predictor",
]
