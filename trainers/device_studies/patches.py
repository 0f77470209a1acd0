"""The Mix step on the accelerator: `pipelines.batches.mix` in JAX, overlap rule "paper"."""

import jax
import jax.numpy as jnp
from jax import random

from pipelines.datasets.spec import VOID
from pipelines.patch_sampling import CANDIDATES_PER_PATCH, PAPER_OVERLAP, PatchSampling
from trainers.device_studies import crops


def draw(key, images, labels, sampling: PatchSampling, pad_color):
    """Return patches of some crops and the labels of their centers.

    Args:
        key: random key.
        images: float32 [B, crop, crop, 3].
        labels: int32 [B, crop, crop].
        sampling: how patches are drawn.
        pad_color: color outside of the crop.

    Returns:
        (patches float32 [B * n, patch_size, patch_size, 3], labels int32 [B * n]). The patches of
        a crop without labelled pixels are void.
    """

    def one(key, image, label):
        boxes, chosen = sample_boxes(key, label, sampling)
        return cut(image, boxes, sampling.patch_size, pad_color), chosen

    patches, chosen = jax.vmap(one)(random.split(key, images.shape[0]), images, labels)
    return patches.reshape(-1, *patches.shape[2:]), chosen.reshape(-1)


def sample_boxes(key, label, sampling: PatchSampling):
    """Return boxes int32 [n, 4] and their labels int32 [n], see `mix.sample_boxes`."""
    keys = random.split(key, 3)
    flat = label.reshape(-1)
    (num_foreground, num_background), background = sampling.quotas, sampling.separate_background
    is_labelled = flat < VOID
    is_background = jnp.zeros_like(is_labelled) if background is None else flat == background
    counts = jnp.bincount(flat, length=VOID + 1)
    balanced = 1 / jnp.maximum(counts[flat], 1) if sampling.class_balanced else 1.0
    pools = [(num_foreground, is_labelled & ~is_background, balanced)]
    if num_background:
        pools.append((num_background, is_background, 1.0))
    kept_boxes, kept_labels, is_kept = jnp.zeros((0, 4), jnp.int32), flat[:0], jnp.zeros(0, bool)
    for pool_key, (number, is_member, weight) in zip(keys, pools, strict=False):
        is_member = jnp.where(is_member.any(), is_member, is_labelled)
        pixels, halves = _candidates(pool_key, is_member * weight, number, sampling)
        centers = jnp.stack([pixels // label.shape[1], pixels % label.shape[1]], axis=1)
        boxes = jnp.concatenate([centers - halves, centers + halves], axis=1).astype(jnp.int32)
        joined = jnp.concatenate([kept_boxes, boxes])
        is_allowed = jnp.concatenate([is_kept, jnp.ones(len(boxes), bool)])
        fits = greedy(joined, is_allowed)[len(kept_boxes) :]
        order = jnp.argsort(~fits, stable=True)[:number]
        kept_boxes = jnp.concatenate([kept_boxes, boxes[order]])
        kept_labels = jnp.concatenate([kept_labels, flat[pixels[order]]])
        is_kept = jnp.concatenate([is_kept, fits[order]])
    return kept_boxes, kept_labels


def _candidates(key, weights, number, sampling):
    """Draw centers with replacement, in proportion to the weights, and half sides."""
    center_key, size_key = random.split(key)
    number = CANDIDATES_PER_PATCH * number
    ends = jnp.cumsum(weights.astype(jnp.float32))
    marks = random.uniform(center_key, (number,)) * ends[-1]
    pixels = jnp.minimum(jnp.searchsorted(ends, marks, side="right"), len(weights) - 1)
    sides = random.randint(size_key, (number, 1), sampling.min_size, sampling.max_size + 1)
    return pixels, sides // 2


def greedy(boxes, is_allowed):
    """Return which boxes are kept if each must fit to all kept ones before it, bool [n].

    The intersection over union of two kept boxes is at most `PAPER_OVERLAP`.

    Args:
        boxes: int32 [n, 4] in drawing order.
        is_allowed: bool [n]; the others are not kept.
    """
    start = jnp.maximum(boxes[:, None, :2], boxes[None, :, :2])
    end = jnp.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = jnp.prod(jnp.maximum(end - start, 0), axis=-1)
    area = jnp.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    union = area[:, None] + area - common
    numerator, denominator = PAPER_OVERLAP
    conflicts = jnp.tril(denominator * common > numerator * union, -1)

    # After k rounds the first k boxes are right, and nothing changes once all are.
    def changes(state):
        return jnp.any(state[0] != state[1])

    def again(state):
        kept, _ = state
        return is_allowed & ~jnp.any(conflicts & kept, axis=1), kept

    return jax.lax.while_loop(changes, again, (is_allowed, ~is_allowed))[0]


def cut(image, boxes, size: int, pad_color):
    """Cut boxes out of a crop and resize them, bilinear without antialiasing, see `mix.cut`.

    Args:
        image: float32 [height, width, 3].
        boxes: int32 [n, 4], squares; they may leave the crop.
        size: side of the patches.
        pad_color: color outside of the crop.

    Returns:
        float32 [n, size, size, 3], whole numbers.
    """
    limits = image.shape[:2]
    color = jnp.array(pad_color, jnp.float32)

    def one(box):
        steps = (jnp.arange(size) + 0.5) * (box[2] - box[0]) / size
        (top, bottom, down), (left, right, along) = (
            crops.neighbors(steps, box[2] - box[0]) for _ in range(2)
        )

        def pixel(rows, columns):
            y, x = box[0] + rows[:, None], box[1] + columns
            is_inside = (y >= 0) & (y < limits[0]) & (x >= 0) & (x < limits[1])
            found = image[jnp.clip(y, 0, limits[0] - 1), jnp.clip(x, 0, limits[1] - 1)]
            return jnp.where(is_inside[..., None], found, color)

        down, along = down[:, None, None], along[None, :, None]
        upper = pixel(top, left) * (1 - along) + pixel(top, right) * along
        lower = pixel(bottom, left) * (1 - along) + pixel(bottom, right) * along
        return jnp.floor(upper * (1 - down) + lower * down + 0.5)

    return jax.vmap(one)(boxes)
