"""From the feature map of a patch to one vector: flattened, pooled, of unit length."""

from keras import ops

GRID = 2
"""Cells per side of `grid_pooled`."""


def flattened(features):
    """Return each feature map as one vector, as the M&M paper does.

    Args:
        features: float tensor [N, ...] of any precision.

    Returns:
        float32 [N, D].
    """
    return ops.cast(ops.reshape(features, (ops.shape(features)[0], -1)), "float32")


def pooled(features):
    """Return the mean over the cells of each feature map.

    Args:
        features: float tensor [N, h, w, C] of any precision.

    Returns:
        float32 [N, C].
    """
    return ops.mean(ops.cast(features, "float32"), axis=(1, 2))


def grid_pooled(features, grid: int = GRID):
    """Return the means over grid x grid parts of each feature map, one after the other.

    Part k of n rows covers the rows from floor(k n / grid) to ceil((k + 1) n / grid), end
    exclusive. So neighboring parts share a row if the grid does not divide n.

    Args:
        features: float tensor [N, h, w, C] of any precision and a known size.
        grid: number of parts per side.

    Returns:
        float32 [N, grid * grid * C].
    """
    height, width = features.shape[1:3]
    parts = [
        pooled(features[:, y0:y1, x0:x1])
        for y0, y1 in _parts(height, grid)
        for x0, x1 in _parts(width, grid)
    ]
    return ops.concatenate(parts, axis=-1)


def _parts(size, grid):
    return [(k * size // grid, -(-(k + 1) * size // grid)) for k in range(grid)]


EMBEDDINGS = {"flatten": flattened, "pool": pooled, "grid": grid_pooled}
"""{name: function from feature maps [N, h, w, C] to float32 [N, D]}."""


def unit(vectors):
    """Scale each vector to unit length.

    Args:
        vectors: float32 [..., D].

    Returns:
        float32 [..., D]. A zero vector stays zero, with zero gradient.
    """
    squared_norm = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    # The double `where` keeps the gradient of the unused square root out of the zero vectors.
    is_zero = squared_norm < 1e-30
    norm = ops.sqrt(ops.where(is_zero, 1.0, squared_norm))
    return ops.where(is_zero, 0.0, vectors / norm)


def embed(features):
    """Flatten feature maps and scale each to unit length.

    Source: released NormalizeLayer, over all of C, H and W. For a zero vector, the release passes
    the gradient of the embedding on unchanged. Here its gradient is zero.

    Args:
        features: float tensor [N, ...] of any precision.

    Returns:
        float32 [N, D]. A zero vector stays zero, with zero gradient.

    Example:

    >>> print(ops.convert_to_numpy(embed(ops.convert_to_tensor([[3.0, 4.0], [0.0, 0.0]]))))
    [[0.6 0.8]
     [0.  0. ]]
    """
    return unit(flattened(features))
