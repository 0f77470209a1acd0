"""The Mix step: patches of many sizes around random labelled pixels of one image (M&M paper, Mix).

`sample_boxes` draws square boxes and their labels from a label map. `cut` cuts them out of the
image and resizes them to one size. Boxes are int32 `[y0, x0, y1, x1]`, end exclusive, and may leave
the image. Label maps hold class ids, 255 is void. All functions run in graph mode and hold no
state: the result depends only on the arguments and the seed.
"""

from typing import NamedTuple

import tensorflow as tf

from pipelines.batches import views
from pipelines.datasets.spec import VOID
from pipelines.patch_sampling import (
    CANDIDATES_PER_PATCH,
    PAPER_OVERLAP,
    RELEASE_OVERLAP,
    PatchSampling,
)

# Pixels tried for each candidate before the whole label map is searched. On a map with 7 % of
# foreground, the tries almost surely contain the 45 foreground candidates of 9 patches.
TRIES_PER_CANDIDATE = 20

# Points per side of a box at which its label share is estimated. The standard deviation of a share
# from 64 points is at most 0.06.
SHARE_POINTS = 8


class Chosen(NamedTuple):
    """The chosen patches of one image.

    Attributes:
        boxes: int32 [num, 4].
        labels: int32 [num].
        shares: float32 [num], the label shares; see `sample_boxes`.
        refilled: bool [num], whether the patch was rejected and added back.
    """

    boxes: tf.Tensor
    labels: tf.Tensor
    shares: tf.Tensor
    refilled: tf.Tensor


class _Candidates(NamedTuple):
    """Candidates in drawing order, the foreground first."""

    boxes: tf.Tensor  # int32 [num, 4]
    labels: tf.Tensor  # int32 [num]
    shares: tf.Tensor  # float32 [num]
    is_allowed: tf.Tensor  # bool [num], whether the share reaches min_share

    def part(self, start: int | None, stop: int | None = None) -> "_Candidates":
        """Return the candidates start .. stop - 1."""
        return _Candidates(*(values[start:stop] for values in self))

    def take(self, order, is_refilled) -> Chosen:
        """Return the candidates with these indices as the chosen patches."""
        columns = (self.boxes, self.labels, self.shares)
        return Chosen(*(tf.gather(values, order) for values in columns), is_refilled)


def sample_boxes(
    label: tf.Tensor,
    sampling: PatchSampling,
    seed: int | tf.Tensor = 0,
    mirror: bool | tf.Tensor = False,
    bounds: tf.Tensor | None = None,
) -> Chosen:
    """Draw the boxes and labels of one image's patches.

    Five candidates are drawn for each wanted patch. The center pixel of a candidate is uniform with
    replacement over the labelled pixels. Its side is floor(U / 2) * 2 with U uniform on
    min_size..max_size. Candidates that overlap too much with earlier accepted candidates are
    rejected. If too few are left, rejected candidates are added back in drawing order. They are not
    used to reject later candidates.

    The label share of a box is the share of its labelled pixels that have its label. It is
    estimated at 8 x 8 points of the box; points outside the map count as void. If all points are
    void, the share is 1, because the labelled center is the only known pixel. With a `min_share`,
    candidates with a smaller share are rejected before the overlaps are compared. They are added
    back after all others, by falling share.

    With a `background_label`, max(1, floor(patches_per_image * background_share)) patches have
    their center on background and the others, at least one, on foreground. Where an image lacks one
    kind, the other kind replaces it. A single patch is a foreground patch (the released code would
    make two, and fails). Without a background label, or with background_share=0, all classes form
    one pool.

    Rule "paper" is our rule: the paper only requires that strongly overlapping patches are
    discarded. In drawing order, a candidate is rejected when its intersection over union with an
    accepted patch exceeds 3/7. Two patches of one size that share 0.6 of their area have this
    value. Foreground and background are compared with each other. The label of a patch is always
    the label of its center pixel.

    Rule "release" (create_patch.py) counts the pixels of a foreground candidate's box, clipped to
    the map, that accepted boxes already cover. The candidate is rejected when they number more than
    0.6 times the area of the *first* candidate. Background candidates are not compared. They are
    labelled `background_label` even on a map without background. The released code gives a void
    label on an all-void map; this function never does.

    Args:
        label: integer [height, width], class ids 0..254, 255 = void.
        sampling: the settings; `patch_size` is not used.
        seed: int or int32 [2].
        mirror: bool scalar, return boxes on the left-right mirror image of the map. The mirror
            image itself is never built.
        bounds: int32 [y0, x0, y1, x1], the area to which rule "release" clips boxes if the map is a
            part of a larger canvas. None means the map itself.

    Returns:
        The patches, foreground first. The labelled pixel of a box is (y0 + side // 2,
        x0 + side // 2).

    Raises:
        ValueError: if `label` has another shape or type, or, in eager mode, if no pixel is
            labelled.
        tf.errors.InvalidArgumentError: if no pixel is labelled, in graph mode.

    Example:
        >>> sampling = PatchSampling(patches_per_image=1, min_size=4, max_size=4)
        >>> chosen = sample_boxes(tf.constant([[255, 3]]), sampling)
        >>> chosen.boxes.numpy().tolist(), chosen.labels.numpy().tolist()
        ([[-2, -1, 2, 3]], [3])
    """
    label = tf.convert_to_tensor(label)
    if label.shape.rank != 2 or not label.dtype.is_integer:
        raise ValueError(f"label must be integer [height, width], got {label.dtype} {label.shape}.")
    candidates = _candidates(label, sampling, views.as_seed(seed), mirror)
    if sampling.rule == "release":
        bounds = tf.concat([[0, 0], tf.shape(label)], axis=0) if bounds is None else bounds
        return _choose_release(candidates, sampling.quotas, bounds)
    return _choose_paper(candidates, sampling.quotas)


def cut(
    image: tf.Tensor, boxes: tf.Tensor, size: int, pad_color: tuple[int, ...] = (0, 0, 0)
) -> tf.Tensor:
    """Cut boxes out of an image and resize each to one size.

    Pixels outside the image get the pad color *before* resizing. Resizing is bilinear with
    half-pixel centers and clamped edges, without antialiasing (released code, get_patch: OpenCV's
    INTER_LINEAR).

    Args:
        image: uint8 [height, width, bands].
        boxes: int32 [num_patches, 4], squares. num_patches must be static.
        size: side of the patches in pixels.
        pad_color: ints in 0..255, one for each band.

    Returns:
        uint8 [num_patches, size, size, bands].

    Raises:
        ValueError: if `boxes` has another shape or `pad_color` is out of range.

    Example:
        >>> image = tf.fill([2, 2, 3], tf.constant(8, tf.uint8))
        >>> cut(image, [[0, 1, 2, 3]], size=2)[0, ..., 0].numpy()
        array([[8, 0],
               [8, 0]], dtype=uint8)
    """
    bands = len(pad_color)
    views.check_pad_color(pad_color, image.shape[-1])
    boxes = tf.convert_to_tensor(boxes, tf.int32)
    if boxes.shape.rank != 2 or boxes.shape[0] is None or boxes.shape[1] != 4:
        raise ValueError(
            f"boxes must be [num_patches, 4] with a static num_patches, got {boxes.shape}."
        )

    size_of_image = tf.shape(image)[:2]
    start, end = tf.split(boxes, 2, axis=1)
    shape = end - start
    # A box that is completely outside is moved next to the image, so the padding stays small.
    start = tf.clip_by_value(start, -shape, size_of_image)
    before = tf.maximum(-tf.reduce_min(start, axis=0), 0)
    after = tf.maximum(tf.reduce_max(start + shape, axis=0) - size_of_image, 0)
    # Rows of bytes are sliced with one copy per row, and float32 squares resized twice as fast.
    rows = views.pad_rows(image, before, after, pad_color)
    corners = (start + before) * [1, bands]
    squares = tf.pad(shape, [[0, 0], [1, 1]], constant_values=1) + [[0, 0, 0, bands - 1]]

    # A Python loop costs less than tf.map_fn. Patches are cut one after another: tf.data already
    # processes images in parallel, and one thread per patch would cost more than it gains.
    patches = []
    for corner, row_shape, square_shape in zip(
        *map(tf.unstack, (corners, shape * [1, bands], squares)), strict=True
    ):
        with tf.control_dependencies(patches[-1:]):
            square = tf.reshape(tf.slice(rows, corner, row_shape), square_shape)
            patches.append(_resized(square, size))
    return tf.ensure_shape(tf.concat(patches, axis=0), [len(patches), size, size, bands])


def _resized(square, size):
    resized = tf.raw_ops.ResizeBilinear(
        images=tf.cast(square, tf.float32), size=[size, size], half_pixel_centers=True
    )
    return views.round_to_uint8(resized)


# Drawing candidates


def _candidates(label, sampling, seed, mirror=False):
    """Draw boxes and the labels of their centers, the foreground candidates first."""
    quotas = sampling.quotas
    center_seed, size_seed = tf.unstack(tf.random.split(seed))
    pixels = _draw_centers(
        label, quotas, sampling.separate_background, sampling.class_balanced, center_seed
    )
    labels = tf.cast(tf.gather(tf.reshape(label, [-1]), pixels), tf.int32)
    if sampling.rule == "release" and quotas[1]:  # the label of background is fixed
        split, num = (CANDIDATES_PER_PATCH * quota for quota in quotas)
        labels = tf.concat([labels[:split], tf.fill([num], sampling.background_label)], axis=0)
    width = tf.shape(label)[1]
    y, x = pixels // width, pixels % width
    x = tf.abs(x - tf.where(mirror, width - 1, 0))
    centers = tf.stack([y, x], axis=1)
    shape = [CANDIDATES_PER_PATCH * sum(quotas), 1]
    sides = (sampling.min_size, sampling.max_size + 1)
    half = tf.random.stateless_uniform(shape, size_seed, *sides, tf.int32) // 2
    boxes = tf.concat([centers - half, centers + half], axis=1)
    shares = _label_shares(label, boxes, labels, mirror)
    return _Candidates(boxes, labels, shares, shares >= sampling.min_share)


def _label_shares(label, boxes, labels, mirror=False):
    """Estimate the share of each box's labelled pixels that have its label; see `sample_boxes`.

    Args:
        label: integer [height, width].
        boxes: int32 [num, 4] on the map, or on its mirror image.
        labels: int32 [num].
        mirror: bool scalar.

    Returns:
        float32 [num].
    """
    height, width = tf.unstack(tf.shape(label))
    sides = boxes[:, 2:3] - boxes[:, :1]
    steps = (2 * tf.range(SHARE_POINTS) + 1) * sides // (2 * SHARE_POINTS)
    y, x = (boxes[:, :1] + steps)[:, :, None], (boxes[:, 1:2] + steps)[:, None]
    is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    x = tf.abs(x - tf.where(mirror, width - 1, 0))
    found = tf.gather(tf.reshape(label, [-1]), tf.where(is_inside, y * width + x, 0))
    found = tf.where(is_inside, tf.cast(found, tf.int32), VOID)
    num_labelled = tf.math.count_nonzero(found != VOID, axis=[1, 2], dtype=tf.int32)
    num_own = tf.math.count_nonzero(found == labels[:, None, None], axis=[1, 2], dtype=tf.int32)
    shares = tf.cast(num_own / tf.maximum(num_labelled, 1), tf.float32)
    return tf.where(num_labelled > 0, shares, 1.0)


def _draw_centers(label, quotas, background_label, class_balanced, seed):
    """Draw the candidates' centers, foreground first: int32 [5 * sum(quotas)], y * width + x."""
    num_foreground, num_background = (CANDIDATES_PER_PATCH * quota for quota in quotas)
    apart = VOID if background_label is None else background_label
    foreground = (lambda labels: (labels != apart) & (labels != VOID), num_foreground)
    background = (lambda labels: labels == apart, num_background)
    if not class_balanced:
        return _draw_uniform(label, [foreground, background], seed)
    seeds = tf.random.split(seed)
    pixels = _draw_by_class(label, apart, num_foreground, seeds[0])
    return tf.concat([pixels, _draw_uniform(label, [background], seeds[1])], axis=0)


def _draw_uniform(label, pools, seed):
    """Draw pixels uniformly from pools; replace an empty pool by all labelled pixels.

    The function first tries uniform pixels of the map and keeps the ones inside a pool. If they are
    too few, it searches the map. In both cases all pixels of a pool are equally likely,
    independent of earlier draws.

    Args:
        label: integer [height, width].
        pools: sequence of (function from labels to bool, True for pixels in the pool; the number
            to draw). No pixel is in two pools.
        seed: int32 [2].

    Returns:
        int32 [sum of the numbers], y * width + x, pool by pool.
    """
    pools = [(is_member, num) for is_member, num in pools if num]
    if not pools:
        return tf.zeros([0], tf.int32)
    num_drawn = sum(num for _, num in pools)
    num_tries = TRIES_PER_CANDIDATE * num_drawn
    tries = tf.random.stateless_uniform([num_tries], seed, 0, tf.size(label), tf.int32)
    labels = tf.gather(tf.reshape(label, [-1]), tries)
    hits = tf.concat([tf.where(is_member(labels))[:num, 0] for is_member, num in pools], axis=0)

    def searched():
        seeds = tf.random.split(tf.random.fold_in(seed, 1), len(pools))
        return tf.concat([_search(label, *pool, seeds[i]) for i, pool in enumerate(pools)], axis=0)

    is_enough = tf.size(hits) == num_drawn
    drawn = tf.cond(is_enough, lambda: tf.gather(tries, hits), searched)
    # Set here: inside the branch, TensorFlow would infer that hits always has this shape.
    return tf.ensure_shape(drawn, [num_drawn])


def _search(label, is_member, num, seed):
    """Draw uniformly from one pool by counting its pixels in the whole map."""
    label, labelled = _check_labelled(label)
    members = _count_rows(is_member(label))
    empty = tf.reduce_sum(members) == 0
    rows = tf.where(empty, labelled, members)
    rank = views.uniform(tf.zeros([num], tf.int32), tf.reduce_sum(rows) - 1, seed)
    return _locate(
        label,
        rows[:, None],
        rank,
        lambda labels: tf.where(empty, labels != VOID, is_member(labels)),
    )


def _draw_by_class(label, apart, num, seed):
    """Draw present classes uniformly, then one pixel of each drawn class uniformly.

    The class `apart`, the background, is drawn only if the map has no other class.
    """
    class_seed, pixel_seed = tf.unstack(tf.random.split(seed))
    label, _ = _check_labelled(label)
    rows = tf.math.bincount(tf.cast(label, tf.int32), minlength=256, maxlength=256, axis=-1)
    classes = tf.range(256)
    present = (tf.reduce_sum(rows, axis=0) > 0) & (classes != VOID)
    others = present & (classes != apart)
    present = tf.boolean_mask(classes, tf.where(tf.reduce_any(others), others, present))
    index = views.uniform(tf.zeros([num], tf.int32), tf.size(present) - 1, class_seed)
    drawn = tf.gather(present, index)
    rows = tf.gather(rows, drawn, axis=1)
    rank = views.uniform(0, tf.reduce_sum(rows, axis=0) - 1, pixel_seed)
    return _locate(label, rows, rank, lambda labels: tf.cast(labels, tf.int32) == drawn[:, None])


def _locate(label, rows, rank, is_member):
    """Find the rank-th members in reading order: the row by the counts, then the column in it.

    Listing all pixels of a map would take several times as long as the rest of the sampling.

    Args:
        label: integer [height, width].
        rows: int32 [height, num], members in each row for each of the num draws, or [height, 1]
            if all draws have the same members.
        rank: int32 [num].
        is_member: function from labels [num, width] to bool.

    Returns:
        int32 [num], y * width + x.
    """
    ends = tf.cumsum(rows, axis=0)
    above = ends <= rank
    y = tf.reduce_sum(tf.cast(above, tf.int32), axis=0)
    rank_in_row = rank - tf.reduce_max(tf.where(above, ends, 0), axis=0)
    members = is_member(tf.gather(label, y))
    columns = tf.cast(tf.where(members)[:, 1], tf.int32)
    first = tf.cumsum(_count_rows(members), exclusive=True)
    return y * tf.shape(label)[1] + tf.gather(columns, first + rank_in_row)


def _count_rows(mask):
    return tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)


def _check_labelled(label):
    """Return the label map and the labelled pixels per row; raise an error if there are none.

    Draws must use the returned label map. Otherwise, without a labelled pixel, the draw may fail
    first, and its message would not help.
    """
    labelled = _count_rows(label != VOID)
    found = tf.reduce_any(labelled > 0)
    message = (
        "No pixel of the label map is labelled (all are 255, void), so no patch can be drawn. "
        "Leave such images out, for example with Split.labelled()."
    )
    if tf.executing_eagerly() and not found:
        raise ValueError(message)
    with tf.control_dependencies([tf.debugging.Assert(found, [message])]):
        return tf.identity(label), labelled


# Choosing among candidates


def _choose_paper(candidates, quotas):
    """Choose foreground and background by greedy rejection; see `sample_boxes`."""
    num_foreground, num_background = quotas
    split = CANDIDATES_PER_PATCH * num_foreground
    pool = candidates.part(None, split)
    kept = _kept_paper(pool.boxes, pool.is_allowed, num_foreground)
    foreground = pool.take(*_filled_up(kept, pool, num_foreground))
    if not num_background:
        return foreground
    pool = candidates.part(split)
    compared = tf.concat([foreground.boxes, pool.boxes], axis=0)
    is_allowed = tf.concat([~foreground.refilled, pool.is_allowed], axis=0)
    kept = _kept_paper(compared, is_allowed, num_foreground + num_background) - num_foreground
    kept = tf.gather(kept, tf.where(kept >= 0)[:, 0])
    return _joined(foreground, pool.take(*_filled_up(kept, pool, num_background)))


def _choose_release(candidates, quotas, bounds):
    """Choose foreground by coverage and background in drawing order; see `sample_boxes`."""
    num_foreground, num_background = quotas
    split = CANDIDATES_PER_PATCH * num_foreground
    pool = candidates.part(None, split)
    area = (pool.boxes[0, 2] - pool.boxes[0, 0]) ** 2
    survived = _survivors_release(pool.boxes, pool.is_allowed, area, bounds, num_foreground)
    foreground = pool.take(*_filled_up(_indices(survived), pool, num_foreground))
    if not num_background:
        return foreground
    pool = candidates.part(split)
    allowed = _indices(pool.is_allowed)
    return _joined(foreground, pool.take(*_filled_up(allowed, pool, num_background)))


def _joined(foreground, background):
    columns = zip(foreground, background, strict=True)
    return Chosen(*(tf.concat(parts, axis=0) for parts in columns))


def _indices(mask):
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def _filled_up(kept, candidates, limit):
    """Return the first `limit` kept candidates, filled up with rejected candidates.

    Args:
        kept: int32 [any], indices of kept candidates in drawing order.
        candidates: all candidates.
        limit: int, the number to return.

    Returns:
        (int32 [limit], indices of candidates; bool [limit], whether rejected).
    """
    # Equal scores keep their order, so allowed candidates are in drawing order.
    scores = tf.where(candidates.is_allowed, 2.0, candidates.shares)
    rest = tf.argsort(scores, direction="DESCENDING", stable=True)
    order = tf.unique(tf.concat([kept, rest], axis=0)).y[:limit]
    return tf.ensure_shape(order, [limit]), tf.range(limit) >= tf.size(kept)


def _kept_paper(boxes, is_allowed, limit):
    """Return indices of the first `limit` candidates that greedy rejection keeps: int32 [any].

    Non-maximum suppression with falling scores is exactly this rule, in one op. It compares in
    float32, which separates any other quotient of areas from 3/7 up to sides of 1500 pixels.

    Args:
        boxes: int32 [num, 4] in drawing order.
        is_allowed: bool [num]; the others are not kept.
        limit: int, stop after this number.
    """
    scores = tf.range(boxes.shape[0], 0, -1, dtype=tf.float32)
    return tf.image.non_max_suppression(
        tf.cast(boxes, tf.float32),
        scores=tf.where(is_allowed, scores, 0.0),
        max_output_size=limit,
        iou_threshold=PAPER_OVERLAP[0] / PAPER_OVERLAP[1],
        score_threshold=0.5,
    )


def _survivors_release(boxes, is_allowed, reference_area, bounds, limit):
    """Mark the first `limit` candidates that the released code's coverage rule keeps: bool [num].

    The coverage map is stored on the grid of the boxes' edges, at most 2 num - 1 cells per side,
    instead of in pixels. The areas are the same.

    Args:
        boxes: int32 [num, 4] in drawing order.
        is_allowed: bool [num]; the others do not survive.
        reference_area: int32 scalar, the area that overlaps are compared with.
        bounds: int32 [y0, x0, y1, x1], to which boxes are clipped.
        limit: int, stop after this number of survivors.
    """
    num = boxes.shape[0]
    boxes = tf.clip_by_value(boxes, tf.tile(bounds[:2], [2]), tf.tile(bounds[2:], [2]))
    inside_y, heights = _grid(boxes[:, 0], boxes[:, 2])
    inside_x, widths = _grid(boxes[:, 1], boxes[:, 3])
    areas = heights[:, None] * widths
    numerator, denominator = RELEASE_OVERLAP

    def unfinished(i, survived, _):
        return (i < num) & (tf.reduce_sum(tf.cast(survived, tf.int32)) < limit)

    def check_next(i, survived, covered):
        box = inside_y[i][:, None] & inside_x[i]
        overlap = tf.reduce_sum(tf.where(box & covered, areas, 0))
        keep = is_allowed[i] & (denominator * overlap <= numerator * reference_area)
        return i + 1, survived | (keep & (tf.range(num) == i)), covered | (keep & box)

    nothing = (0, tf.zeros([num], tf.bool), tf.zeros_like(areas, tf.bool))
    return tf.while_loop(unfinished, check_next, nothing)[1]


def _grid(starts, ends):
    """Cut an axis at all edges of the intervals start..end.

    Returns:
        (bool [num_intervals, num_cells], whether an interval contains a cell; int32 [num_cells],
        the lengths of the cells).
    """
    edges = tf.sort(tf.concat([starts, ends], axis=0))
    inside = (edges[:-1] >= starts[:, None]) & (edges[1:] <= ends[:, None])
    return inside, edges[1:] - edges[:-1]
