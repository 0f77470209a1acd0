"""Random crops of labelled images on the accelerator: `pipelines.batches.crops` in JAX.

The random numbers differ from the input pipeline, and the rules are the same, with two exceptions.
An image that shrinks is not reduced with antialiasing first. A crop without a labelled pixel stays
after `NUM_TRIES` draws, and the loss leaves it out.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from pipelines import chroma
from pipelines.amounts import Augmentation
from pipelines.datasets.spec import VOID

NUM_TRIES = 4


@dataclasses.dataclass(frozen=True)
class View:
    """The settings by which crops are drawn, see `pipelines.batches.View`.

    Attributes:
        crop: side of a crop in pixels.
        changes: amounts of the augmentation.
        mirror: whether crops are mirrored with probability 1/2.
        rare_share: probability that a crop must show a class drawn uniformly.
        pad_color: color outside of the image.
    """

    crop: int
    changes: Augmentation = Augmentation()
    mirror: bool = True
    rare_share: float = 0.0
    pad_color: tuple[int, ...] = (0, 0, 0)


class Placement(NamedTuple):
    """Map from (y, x) of a crop to (y, x) of the image: matrix [2, 2] and offset [2]."""

    matrix: jax.Array
    offset: jax.Array


def draw(key, scenes, index, view: View):
    """Return crops of some images and their label maps.

    Args:
        key: random key.
        scenes: `trainers.device_studies.scenes.Scenes` of arrays on the device.
        index: int32 [B].
        view: how crops are drawn.

    Returns:
        (images float32 [B, crop, crop, 3] with whole numbers in 0..255, labels int32 [B, crop,
        crop]).
    """

    def one(key, k):
        return _draw_one(key, scenes.images[k], scenes.labels[k], scenes.sizes[k], view)

    return jax.vmap(one)(random.split(key, index.shape[0]), index)


def _draw_one(key, image, label, size, view):
    place_key, color_key, wanted_key = random.split(key, 3)
    wanted = _draw_wanted(wanted_key, label, view.rare_share)
    tries = jax.vmap(lambda key: draw_placement(key, size, view, wanted))(
        random.split(place_key, NUM_TRIES)
    )
    maps = jax.vmap(lambda place: show_label(label, size, place, view.crop))(tries)
    chosen = jnp.argmax(jnp.any(maps < VOID, axis=(1, 2)))
    placement = Placement(*(values[chosen] for values in tries))
    pixels, is_inside = show_image(image, size, placement, view.crop)
    pixels = jnp.floor(change_pixels(color_key, pixels, view.changes) + 0.5)
    color = jnp.array(view.pad_color, jnp.float32)
    return jnp.where(is_inside[..., None], pixels, color), maps[chosen].astype(jnp.int32)


def _draw_wanted(key, label, share):
    """Return (whether a pixel is wanted, the pixel) of a class drawn uniformly."""
    coin_key, class_key, pixel_key = random.split(key, 3)
    flat = label.reshape(-1).astype(jnp.int32)
    counts = jnp.bincount(flat, length=VOID + 1)[:VOID]
    weights = jnp.where(counts > 0, 0.0, -jnp.inf)
    drawn = random.categorical(class_key, weights)
    rank = jnp.where(flat == drawn, random.uniform(pixel_key, flat.shape), -1.0)
    pixel = jnp.argmax(rank)
    is_wanted = random.uniform(coin_key) < share
    return is_wanted, jnp.stack([pixel // label.shape[1], pixel % label.shape[1]])


def draw_placement(key, size, view: View, wanted) -> Placement:
    """Draw scale, aspect, rotation, mirror and position of one crop.

    The rules are those of `pipelines.batches.augmentation.draw_placement`.

    Args:
        key: random key.
        size: int32 [2], (height, width) of the image.
        view: how crops are drawn.
        wanted: (whether a pixel is wanted, the pixel int32 [2]).
    """
    changes, crop = view.changes, view.crop
    scale, aspect, turns, angle, coin, mirror, y, x = random.uniform(key, (8,))
    factor = jnp.exp((2 * scale - 1) * math.log(changes.scale))
    stretch = jnp.exp((aspect - 0.5) * math.log(changes.aspect))
    scaled = jnp.maximum(jnp.round(size * jnp.stack([factor / stretch, factor * stretch])), 1)
    degrees = jnp.where(coin < changes.rotation_share, (2 * angle - 1) * changes.rotation, 0.0)
    degrees = degrees + (90 * jnp.floor(4 * turns) if changes.quarter_turns else 0)
    is_mirrored = (mirror < 0.5) & view.mirror
    lowest, highest = jnp.minimum(scaled - crop, 0), jnp.maximum(scaled - crop, 0)
    draws = jnp.stack([y, x])
    origin = lowest + jnp.floor(draws * (highest - lowest + 1))
    if view.rare_share:
        place = jnp.floor(draws * crop) + 0.5
        at_zero = _placed(size, scaled, jnp.zeros(2), degrees, is_mirrored, crop)
        target = (wanted[1] + 0.5) * scaled / size
        shown = at_zero.matrix @ place + at_zero.offset
        shown = jnp.clip(jnp.round(target - shown * scaled / size), lowest, highest)
        origin = jnp.where(wanted[0], shown, origin)
    return _placed(size, scaled, origin, degrees, is_mirrored, crop)


def _placed(size, scaled, origin, degrees, is_mirrored, crop):
    angle = degrees * (math.pi / 180)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    side = jnp.where(is_mirrored, -1.0, 1.0)
    factor = size / scaled
    matrix = jnp.array([[cosine, -sine * side], [sine, cosine * side]]) * factor[:, None]
    return Placement(matrix, (origin + crop / 2) * factor - crop / 2 * matrix.sum(axis=1))


def positions(placement: Placement, crop: int):
    """Return y and x in the image of the centers of the crop's pixels, float32 [crop, crop]."""
    steps = jnp.arange(crop, dtype=jnp.float32) + 0.5
    matrix, offset = placement
    grid = matrix[:, 0, None, None] * steps[:, None] + matrix[:, 1, None, None] * steps
    return grid[0] + offset[0], grid[1] + offset[1]


def _is_inside(y, x, size):
    return (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])


def show_label(label, size, placement: Placement, crop: int):
    """Return the label map inside a crop, nearest neighbor, 255 outside of the image."""
    y, x = positions(placement, crop)
    is_inside = _is_inside(y, x, size)
    rows, columns = (jnp.clip(jnp.floor(v).astype(jnp.int32), 0) for v in (y, x))
    return jnp.where(is_inside, label[rows, columns], VOID)


def show_image(image, size, placement: Placement, crop: int):
    """Return the image inside a crop, float32, and whether each pixel lies in the image."""
    y, x = positions(placement, crop)
    return bilinear(image, size, y, x), _is_inside(y, x, size)


def bilinear(image, size, y, x):
    """Return the image at continuous positions; the border repeats.

    Args:
        image: uint8 [H, W, C].
        size: int32 [2], the part of the image that holds pixels.
        y, x: float32 [...]. Pixel i spans i..i + 1.
    """
    (top, bottom, down), (left, right, along) = (
        neighbors(v, limit) for v, limit in ((y, size[0]), (x, size[1]))
    )
    down, along = down[..., None], along[..., None]
    upper = image[top, left] * (1 - along) + image[top, right] * along
    lower = image[bottom, left] * (1 - along) + image[bottom, right] * along
    return upper * (1 - down) + lower * down


def neighbors(position, limit):
    """Return the pixels before and after continuous positions, and the share of the second.

    Args:
        position: float32 [...]; positions beyond the border stand for the border.
        limit: number of pixels along the axis.
    """
    position = jnp.clip(position - 0.5, 0.0, limit - 1.0)
    first = jnp.floor(position).astype(jnp.int32)
    return first, jnp.minimum(first + 1, limit - 1), position - first


def change_pixels(key, pixels, changes: Augmentation):
    """Change colors, blur and add noise, see `pipelines.batches.augmentation.change_pixels`."""
    color_key, blur_key, noise_key = random.split(key, 3)
    if changes.changes_colors:
        pixels = _change_colors(color_key, pixels, changes)
    if changes.blur * changes.blur_share > 0:
        pixels = _blur(pixels, _amount(blur_key, changes.blur, changes.blur_share), changes.blur)
    if changes.noise * changes.noise_share > 0:
        amount = _amount(noise_key, changes.noise, changes.noise_share)
        noise = random.normal(random.fold_in(noise_key, 1), pixels.shape)
        pixels = jnp.clip(pixels + amount * noise, 0, 255)
    return pixels


def _amount(key, largest, share):
    amount, coin = random.uniform(key, (2,))
    return jnp.where(coin < share, amount * largest, 0.0)


def _change_colors(key, pixels, changes):
    brightness, contrast, saturation, hue, coin, gray = random.uniform(key, (6,))
    amount = jnp.where(coin < changes.color_share, 1.0, 0.0)

    def around(draw, largest):
        return amount * (2 * draw - 1) * largest

    bright = 1 + around(brightness, changes.brightness)
    contrast = 1 + around(contrast, changes.contrast)
    is_gray = gray < changes.gray_share
    saturation = jnp.where(is_gray, 0.0, 1 + around(saturation, changes.saturation))
    turn = 2 * math.pi * around(hue, changes.hue)
    color = jnp.cos(turn) * (jnp.eye(3) - chroma.GRAY) + jnp.sin(turn) * chroma.QUARTER_TURN
    matrix = bright * contrast * (chroma.GRAY + saturation * color)
    offset = bright * (1 - contrast) * (pixels.mean(axis=(0, 1)) @ jnp.array(chroma.LUMA))
    return jnp.clip(pixels @ matrix.T + offset, 0, 255)


def _blur(pixels, deviation, largest):
    """Blur with a Gaussian whose kernel reaches 3 * largest pixels; the border is reflected."""
    radius = math.ceil(3 * largest)
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(deviation, 1e-3)))
    weights = weights / weights.sum()
    for axis in (0, 1):
        padding = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        wide = jnp.pad(pixels, padding, "symmetric")
        length = pixels.shape[axis]
        pixels = sum(
            weights[k] * jax.lax.slice_in_dim(wide, k, k + length, axis=axis)
            for k in range(2 * radius + 1)
        )
    return pixels
