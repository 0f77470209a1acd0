"""Prediction of whole images, and its export. Needs TensorFlow."""

from mm_keras.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
