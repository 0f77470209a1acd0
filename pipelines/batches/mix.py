"""The Mix step: patches of many sizes around random labelled pixels of one image (M&M paper, Mix).

`sample_boxes` draws square boxes and their labels from a label map, `cut` cuts them out of the
image and resizes them to one size. Boxes are int32 `[y0, x0, y1, x1]`, end exclusive, and may leave
the image. Label maps hold class ids, 255 is void. Graph mode, stateless: the result is a function
of the arguments and the seed.
"""

from typing import NamedTuple

import tensorflow as tf

from pipelines.batches import views
from pipelines.datasets.spec import VOID, suggest

RULES = ("paper", "release")

CANDIDATES_PER_PATCH = 5  # released code, sampling_layers.py

# Pixels tried for each candidate before the whole label map is searched: 45 foreground candidates
# are found among the tries, almost surely, where a map has 7 % of foreground.
TRIES_PER_CANDIDATE = 20

# Limits as fractions, to compare in whole numbers; what reaches a limit is kept.
RELEASE_OVERLAP = (3, 5)  # of the reference area; released code, create_patch.py
PAPER_OVERLAP = (3, 7)  # of the union: equal areas a that share 0.6 a have 0.6 / (2 - 0.6)


class Chosen(NamedTuple):
    """Patches of one image."""

    boxes: tf.Tensor  # int32 [num, 4]
    labels: tf.Tensor  # int32 [num]
    refilled: tf.Tensor  # bool [num], rejected for their overlap but put back


def sample_boxes(
    label: tf.Tensor,
    num_patches: int,
    min_size: int,
    max_size: int,
    rule: str = "paper",
    background_label: int | None = None,
    seed: int | tf.Tensor = 0,
    background_share: float = 0.1,
    class_balanced: bool = False,
    mirror: bool | tf.Tensor = False,
    bounds: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the boxes and labels of one image's patches.

    Five candidates are drawn for each wanted patch: a center pixel, uniform with replacement over
    the labelled pixels, and a side floor(U / 2) * 2 with U uniform on min_size..max_size.
    Candidates that overlap too much with those accepted before are rejected; if too few are left,
    rejected ones are put back in the order in which they were drawn, and judge nobody.

    With a `background_label`, max(1, floor(num_patches * background_share)) patches have their
    center on background and the others, at least one, on foreground; where an image lacks one kind,
    the other stands in. A single patch is a foreground patch (the released code would make two, and
    fails). Without a background label, or with background_share=0, all classes form one pool.

    Rule "paper", ours, for the paper says only that strongly overlapping patches are discarded:
    greedily in order of drawing, a candidate is rejected when its intersection over union with a
    patch already accepted exceeds 3/7, which is what two patches of one size have that share 0.6 of
    their area. Foreground and background are judged together, and a patch's label is that of its
    center pixel, always.

    Rule "release" (create_patch.py): a foreground candidate is rejected when the pixels of its box,
    clipped to the map, that accepted boxes cover already number more than 0.6 times the area of the
    *first* candidate. Background candidates are not compared, and are labelled `background_label`
    even on a map without background. A void label, which the released code gives on an all-void
    map, is never given.

    Args:
        label: integer [height, width], class ids 0..254, 255 = void.
        num_patches: boxes to draw, at least 1.
        min_size: smallest side in pixels, even, at least 2.
        max_size: largest side in pixels, even, at least min_size.
        rule: "paper" or "release".
        background_label: the id of the background class, None if there is none.
        seed: int or int32 [2].
        background_share: share of background patches, 0..1; 0.1 in the released code.
        class_balanced: draw centers of the (foreground) pool by class first, uniform over the
            classes present, then uniform over the pixels of that class.
        mirror: bool scalar, give boxes on the left-right mirror image of the map, which is never
            built.
        bounds: int32 [y0, x0, y1, x1], the area that rule "release" clips boxes to, where the map
            is a part of it; None is the map itself.

    Returns:
        (boxes int32 [num_patches, 4], labels int32 [num_patches]), foreground first. The labelled
        pixel of a box is (y0 + side // 2, x0 + side // 2).

    Raises:
        ValueError: an argument is out of range; or, called eagerly, no pixel is labelled.
        tf.errors.InvalidArgumentError: no pixel is labelled, in graph mode.
    """
    chosen = _sample(
        label,
        num_patches,
        min_size,
        max_size,
        rule,
        background_label,
        seed,
        background_share,
        class_balanced,
        mirror,
        bounds,
    )
    return chosen.boxes, chosen.labels


def cut(
    image: tf.Tensor, boxes: tf.Tensor, size: int, pad_color: tuple[int, int, int] = (0, 0, 0)
) -> tf.Tensor:
    """Cuts boxes out of an image and resizes each to one size.

    What lies outside the image has the pad color *before* the resizing, which is bilinear with
    half-pixel centers and clamped edges and without antialiasing (released code, get_patch:
    OpenCV's INTER_LINEAR).

    Args:
        image: uint8 [height, width, 3].
        boxes: int32 [num_patches, 4], squares, num_patches known when the graph is built.
        size: side of the patches in pixels.
        pad_color: three ints in 0..255.

    Returns:
        uint8 [num_patches, size, size, 3].
    """
    check_pad_color(pad_color)
    boxes = tf.convert_to_tensor(boxes, tf.int32)
    if boxes.shape.rank != 2 or boxes.shape[0] is None or boxes.shape[1] != 4:
        raise ValueError(
            f"boxes must be [num_patches, 4] with a static num_patches, got {boxes.shape}."
        )

    size_of_image = tf.shape(image)[:2]
    start, end = tf.split(boxes, 2, axis=1)
    shape = end - start
    # A box that lies wholly outside may as well lie next to the image: the padding stays small.
    start = tf.clip_by_value(start, -shape, size_of_image)
    before = tf.maximum(-tf.reduce_min(start, axis=0), 0)
    after = tf.maximum(tf.reduce_max(start + shape, axis=0) - size_of_image, 0)
    # Rows of bytes are sliced with one copy per row, and float32 squares resized twice as fast.
    rows = views.pad_rows(image, before, after, pad_color)
    corners = (start + before) * [1, 3]
    squares = tf.pad(shape, [[0, 0], [1, 1]], constant_values=1) + [[0, 0, 0, 2]]

    def patch(corner, row_shape, square_shape):
        square = tf.reshape(tf.slice(rows, corner, row_shape), square_shape)
        resized = tf.raw_ops.ResizeBilinear(
            images=tf.cast(square, tf.float32), size=[size, size], half_pixel_centers=True
        )
        return views.round_to_uint8(resized)

    # A Python loop costs less than tf.map_fn. One patch after another: images are worked on side by
    # side, and handing each patch to another thread would cost more than it gains.
    patches = []
    for corner, row_shape, square_shape in zip(
        *map(tf.unstack, (corners, shape * [1, 3], squares)), strict=True
    ):
        with tf.control_dependencies(patches[-1:]):
            patches.append(patch(corner, row_shape, square_shape))
    return tf.concat(patches, axis=0)


def check_sampling(
    num_patches: int,
    min_size: int,
    max_size: int,
    rule: str,
    background_label: int | None,
    background_share: float,
) -> None:
    """Raises ValueError for settings that `sample_boxes` cannot follow; the ranges stand there."""
    if rule not in RULES:
        hint = suggest(str(rule), RULES)
        raise ValueError(f"Unknown overlap rule {rule!r}: expected one of {RULES}.{hint}")
    if num_patches < 1:
        raise ValueError(f"num_patches must be at least 1, got {num_patches}.")
    if min_size < 2 or min_size % 2 or max_size % 2:
        raise ValueError(
            f"Patch sizes must be even and at least 2, got {min_size} to {max_size}: "
            "use the next even numbers."
        )
    if min_size > max_size:
        raise ValueError(
            f"min_size must not exceed max_size, got {min_size} > {max_size}: swap them."
        )
    if not 0 <= background_share <= 1:
        raise ValueError(f"background_share must lie in 0..1, got {background_share}.")
    if background_label is not None and not 0 <= background_label < VOID:
        raise ValueError(
            f"background_label must lie in 0..254, got {background_label}; "
            "None means that there is no background."
        )


def check_pad_color(pad_color: tuple[int, int, int]) -> None:
    """Raises ValueError unless the color is three integers in 0..255."""
    if len(pad_color) != 3 or any(c != int(c) or not 0 <= c <= 255 for c in pad_color):
        raise ValueError(f"pad_color must be three integers in 0..255, got {pad_color}.")


def _sample(
    label,
    num_patches,
    min_size,
    max_size,
    rule,
    background_label,
    seed,
    background_share,
    class_balanced,
    mirror=False,
    bounds=None,
):
    """`sample_boxes` with its inner result: returns Chosen."""
    check_sampling(num_patches, min_size, max_size, rule, background_label, background_share)
    if background_share == 0:
        background_label = None  # without a share of its own, background is a class like any other
    quotas = _quotas(num_patches, background_label, background_share)
    label = tf.convert_to_tensor(label)
    if label.shape.rank != 2 or not label.dtype.is_integer:
        raise ValueError(f"label must be integer [height, width], got {label.dtype} {label.shape}.")
    boxes, labels = _candidates(
        label,
        quotas,
        min_size,
        max_size,
        background_label,
        views.as_seed(seed),
        class_balanced,
        mirror,
    )
    if rule == "release":
        bounds = tf.concat([[0, 0], tf.shape(label)], axis=0) if bounds is None else bounds
        return _choose_release(boxes, labels, quotas, bounds, background_label)
    return _choose_paper(boxes, labels, quotas)


def _quotas(num_patches, background_label, background_share):
    """Numbers of foreground and background patches (released code, sampling_layers.py)."""
    if background_label is None:
        return num_patches, 0
    # At least one of each; of a single patch the released code makes two, here it is foreground.
    background = min(max(1, int(num_patches * background_share)), num_patches - 1)
    return num_patches - background, background


# Drawing candidates


def _candidates(
    label, quotas, min_size, max_size, background_label, seed, class_balanced, mirror=False
):
    """Draws boxes and their centers' labels, the foreground candidates first."""
    center_seed, size_seed = tf.unstack(tf.random.split(seed))
    pixels = _draw_centers(label, quotas, background_label, class_balanced, center_seed)
    labels = tf.cast(tf.gather(tf.reshape(label, [-1]), pixels), tf.int32)
    width = tf.shape(label)[1]
    y, x = pixels // width, pixels % width
    x = tf.abs(x - tf.where(mirror, width - 1, 0))
    centers = tf.stack([y, x], axis=1)
    shape = [CANDIDATES_PER_PATCH * sum(quotas), 1]
    half = tf.random.stateless_uniform(shape, size_seed, min_size, max_size + 1, tf.int32) // 2
    return tf.concat([centers - half, centers + half], axis=1), labels


def _draw_centers(label, quotas, background_label, class_balanced, seed):
    """Draws the candidates' centers, foreground first: int32 [5 * sum(quotas)], y * width + x."""
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
    """Draws pixels uniformly from pools; from an empty one, from all labelled pixels.

    Any pixels of the map are drawn first, and those kept that lie in a pool. Only where these are
    too few, the map is searched. Either way all pixels of a pool are equally likely, whatever was
    drawn before.

    Args:
        label: integer [height, width].
        pools: sequence of (function from labels to bool, whether such a pixel is in the pool;
            how many to draw). No pixel is in two pools.
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
    # Within the branch, the shape would tell TensorFlow how many hits there are, always.
    return tf.ensure_shape(drawn, [num_drawn])


def _search(label, is_member, num, seed):
    """`_draw_uniform` from one pool by counting its pixels."""
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
    """Draws classes present, uniformly, then for each one of its pixels, uniformly.

    The class set apart, the background, is drawn only where there is no other.
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
    """Finds the rank-th members in reading order: the row by the counts, then the column in it.

    Listing all pixels of a map would take several times as long as everything else here.

    Args:
        label: integer [height, width].
        rows: int32 [height, num] or [height, 1], members in each row, for each of the num draws or
            for all.
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
    """Passes on the label map, with the number of labelled pixels in each row; raises if none is.

    What is drawn must depend on the label map returned: without a labelled pixel the drawing fails
    as well, and its message would be of no help.
    """
    labelled = _count_rows(label != VOID)
    found = tf.reduce_any(labelled > 0)
    message = (
        "No pixel of the label map is labelled (all are 255, void), so no patch can be drawn. "
        "Leave such images out, for instance with Split.labelled()."
    )
    if tf.executing_eagerly() and not found:
        raise ValueError(message)
    with tf.control_dependencies([tf.debugging.Assert(found, [message])]):
        return tf.identity(label), labelled


# Choosing among candidates


def _choose_paper(boxes, labels, quotas):
    """Foreground and background by greedy rejection; see `sample_boxes`."""
    num_foreground, num_background = quotas
    split = CANDIDATES_PER_PATCH * num_foreground
    order, refilled = _filled_up(_kept_paper(boxes[:split], num_foreground), split, num_foreground)
    if num_background:
        # Foreground that was put back overlaps what was kept, so that here, too, it is rejected.
        judged = tf.concat([tf.gather(boxes, order), boxes[split:]], axis=0)
        kept = _kept_paper(judged, num_foreground + num_background) - num_foreground
        kept = tf.gather(kept, tf.where(kept >= 0)[:, 0])
        rest = _filled_up(kept, CANDIDATES_PER_PATCH * num_background, num_background)
        order = tf.concat([order, split + rest[0]], axis=0)
        refilled = tf.concat([refilled, rest[1]], axis=0)
    return Chosen(tf.gather(boxes, order), tf.gather(labels, order), refilled)


def _choose_release(boxes, labels, quotas, bounds, background_label):
    """Foreground by coverage, background as drawn; see `sample_boxes`."""
    num_foreground, num_background = quotas
    split = CANDIDATES_PER_PATCH * num_foreground
    survived = _survivors_release(boxes[:split], _areas(boxes)[0], bounds, num_foreground)
    kept = tf.cast(tf.where(survived)[:, 0], tf.int32)
    order, refilled = _filled_up(kept, split, num_foreground)
    foreground = Chosen(tf.gather(boxes, order), tf.gather(labels, order), refilled)
    if not num_background:
        return foreground
    background = Chosen(
        boxes[split : split + num_background],
        tf.fill([num_background], background_label),
        tf.zeros([num_background], tf.bool),
    )
    return Chosen(*(tf.concat(parts, axis=0) for parts in zip(foreground, background, strict=True)))


def _filled_up(kept, num, limit):
    """The first `limit` of the candidates that were kept, filled up with rejected ones.

    Args:
        kept: int32 [any], indices of candidates in their order.
        num: of all candidates.
        limit: how many to take.

    Returns:
        (int32 [limit], indices of candidates; bool [limit], whether rejected).
    """
    order = tf.unique(tf.concat([kept, tf.range(num)], axis=0)).y[:limit]
    return tf.ensure_shape(order, [limit]), tf.range(limit) >= tf.size(kept)


def _kept_paper(boxes, limit):
    """The first `limit` candidates that greedy rejection keeps: int32 [at most limit], indices.

    Non-maximum suppression with falling scores is exactly this, in one op. It compares in float32,
    which separates any other quotient of areas from 3/7 up to sides of 1500 pixels.

    Args:
        boxes: int32 [num, 4] in the order of judging.
        limit: stop after so many.
    """
    return tf.image.non_max_suppression(
        tf.cast(boxes, tf.float32),
        scores=tf.range(boxes.shape[0], 0, -1, dtype=tf.float32),
        max_output_size=limit,
        iou_threshold=PAPER_OVERLAP[0] / PAPER_OVERLAP[1],
    )


def _areas(boxes):
    return (boxes[:, 2] - boxes[:, 0]) ** 2


def _survivors_release(boxes, reference_area, bounds, limit):
    """Marks the first `limit` candidates that the released code's coverage rule keeps: bool [num].

    The coverage map is held on the grid of the boxes' own edges, at most 2 num - 1 cells a side,
    rather than in pixels; the areas are the same.

    Args:
        boxes: int32 [num, 4] in the order of judging.
        reference_area: int32 scalar, the area that overlaps are compared with.
        bounds: int32 [y0, x0, y1, x1], to which boxes are clipped.
        limit: stop after so many survivors.
    """
    num = boxes.shape[0]
    boxes = tf.clip_by_value(boxes, tf.tile(bounds[:2], [2]), tf.tile(bounds[2:], [2]))
    inside_y, heights = _grid(boxes[:, 0], boxes[:, 2])
    inside_x, widths = _grid(boxes[:, 1], boxes[:, 3])
    areas = heights[:, None] * widths
    numerator, denominator = RELEASE_OVERLAP

    def unfinished(i, survived, _):
        return (i < num) & (tf.reduce_sum(tf.cast(survived, tf.int32)) < limit)

    def judge(i, survived, covered):
        box = inside_y[i][:, None] & inside_x[i]
        overlap = tf.reduce_sum(tf.where(box & covered, areas, 0))
        keep = denominator * overlap <= numerator * reference_area
        return i + 1, survived | (keep & (tf.range(num) == i)), covered | (keep & box)

    nothing = (0, tf.zeros([num], tf.bool), tf.zeros_like(areas, tf.bool))
    return tf.while_loop(unfinished, judge, nothing)[1]


def _grid(starts, ends):
    """Cuts an axis at all edges of the intervals start..end.

    Returns:
        (bool [num_intervals, num_cells], whether an interval holds a cell; int32 [num_cells], the
        cells' lengths).
    """
    edges = tf.sort(tf.concat([starts, ends], axis=0))
    inside = (edges[:-1] >= starts[:, None]) & (edges[1:] <= ends[:, None])
    return inside, edges[1:] - edges[:-1]
