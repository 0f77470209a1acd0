"""Targets of the colorization proxy on the accelerator: `pipelines.batches.colorization` in JAX."""

import jax.numpy as jnp
from jax import random

_MARGIN = 1e-4  # as in pipelines.batches.colorization


def batch(key, images, num_points: int, border: int, num_bins: int) -> dict:
    """Return a batch of `mm_keras.models.proxies.colorization.Colorization`.

    Args:
        key: random key.
        images: float32 [B, crop, crop, 3] in 0..255.
        num_points: points of an image.
        border: smallest distance of a point from the border in pixels.
        num_bins: bins of hue and of chroma.
    """
    number, crop = images.shape[:2]
    points = random.randint(key, (number, num_points, 2), border, crop - border)
    colors = images[jnp.arange(number)[:, None], points[..., 0], points[..., 1]]
    hue, chroma = hue_and_chroma(colors)
    return {
        "image": images,
        "points": points,
        "hue": _bins(hue, num_bins),
        "chroma": _bins(chroma, num_bins),
        "chroma_value": chroma,
        "lightness": colors.mean(axis=-1) / 255,
    }


def hue_and_chroma(pixels):
    """Return hue and chroma in 0..1 of RGB pixels [..., 3] in 0..255. Gray has hue 0."""
    red, green, blue = jnp.moveaxis(pixels / 255, -1, 0)
    largest = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = largest - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(
        largest == red,
        (green - blue) / safe,
        jnp.where(largest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    return jnp.where(chroma > 0, (hue / 6) % 1.0, 0.0), chroma


def _bins(values, num_bins):
    return jnp.minimum(jnp.floor(values * num_bins + _MARGIN).astype(jnp.int32), num_bins - 1)
