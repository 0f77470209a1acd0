"""Statistics that show whether a batch of embeddings has collapsed.

They use `keras.ops` in float32, so a compiled training step can compute them.
"""

from keras import ops

# Entries of the Gram matrix that are computed at a time: 4 MiB of float32.
_ENTRIES_PER_BAND = 2**20


def effective_rank(embeddings):
    """Return the effective number of directions of a batch of embeddings.

    It is the participation ratio of the eigenvalues of the N x N Gram matrix, not centered: the
    square of their sum over the sum of their squares. k equal eigenvalues give k. Near 1, the
    network maps all inputs to one point or line. Both sums are plain sums over the Gram matrix, so
    no decomposition is needed. If N is known, the whole matrix is never in memory. The cost is
    small compared with a training step.

    Args:
        embeddings: float tensor [N, D], N >= 1.

    Returns:
        float32 scalar in 1 .. min(N, D); 1 if all embeddings are zero, NaN if one is not finite.

    Example:

    >>> print(float(effective_rank(ops.convert_to_tensor([[1.0, 0.0], [0.0, 1.0]]))))
    2.0
    """
    embeddings = ops.cast(embeddings, "float32")
    largest = ops.max(ops.abs(embeddings))
    # Without this scale the fourth powers of tiny or huge features would leave float32.
    embeddings = embeddings / ops.where(ops.equal(largest, 0), 1.0, largest)
    trace = ops.sum(ops.square(embeddings))
    sum_of_squares = _squared_norm_of_gram(embeddings)
    rank = ops.square(trace) / ops.where(largest > 0, sum_of_squares, 1.0)
    return ops.where(ops.equal(largest, 0), 1.0, rank)


def _squared_norm_of_gram(rows):
    """Sum the squared entries of rows x rows^T, band by band."""
    num_rows = rows.shape[0]
    band = num_rows and max(1, _ENTRIES_PER_BAND // num_rows)
    columns = ops.transpose(rows)
    if not band or band >= num_rows:
        return ops.sum(ops.square(ops.matmul(rows, columns)))
    num_bands = -(-num_rows // band)
    padded = ops.pad(rows, ((0, num_bands * band - num_rows), (0, 0)))
    bands = ops.reshape(padded, (num_bands, band, -1))
    return ops.sum(ops.map(lambda part: ops.sum(ops.square(ops.matmul(part, columns))), bands))


def collapsed_share(embeddings, threshold=1e-3):
    """Return the share of embedding dimensions that hardly differ between patches of a batch.

    A dimension is collapsed when its standard deviation over the batch is at most `threshold` times
    the root mean square of all entries, which is 1 / sqrt(D) for unit vectors. So the threshold has
    the same meaning for every D. At 1e-3, a dimension contributes less than a millionth of an
    average dimension to the squared distances of Eq. 2. Rounding (1e-7) stays far below the
    threshold. A unit that is active for one patch of 400 (1 / 20 of its value) stays far above.

    Args:
        embeddings: float tensor [N, D], N >= 1.
        threshold: relative standard deviation, positive.

    Returns:
        float32 scalar in 0..1; 1 for a single embedding and for all-zero embeddings.
        NaN if an entry is not finite.
    """
    embeddings = ops.cast(embeddings, "float32")
    deviation = ops.std(embeddings, axis=0)
    scale = ops.sqrt(ops.mean(ops.square(embeddings)))
    share = ops.mean(ops.cast(deviation <= threshold * scale, "float32"))
    return ops.where(ops.isfinite(scale), share, float("nan"))
