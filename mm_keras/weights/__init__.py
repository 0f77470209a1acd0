"""Weights of published networks: file formats, name tables, and loading into our networks."""

from mm_keras.weights.files import WeightsError
from mm_keras.weights.loading import Report, load

__all__ = ["Report", "WeightsError", "load"]
