"""The Mix step against golden values, oracles in plain Python, and properties on random masks."""

import fractions
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from pipelines import datasets
from pipelines.batches import mix
from pipelines.patch_sampling import RULES, PatchSampling

VOID = datasets.VOID
GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / "golden" / "patches.json").read_text())


def sampling(patches_per_image=4, min_size=2, max_size=8, rule="paper", **options):
    return PatchSampling(patches_per_image, min_size, max_size, rule=rule, **options)


def draw_map(recipe):
    label = np.full(recipe["size"], recipe["fill"], np.uint8)
    rows, columns = np.mgrid[: label.shape[0], : label.shape[1]]
    for op in recipe["ops"]:
        if op["op"] == "rect":
            label[op["r0"] : op["r1"], op["c0"] : op["c1"]] = op["value"]
        else:
            disc = (rows - op["cr"]) ** 2 + (columns - op["cc"]) ** 2 <= op["rad"] ** 2
            label[disc] = op["value"]
    return label


def boxes_of(candidates):
    """[row, column, side] -> [y0, x0, y1, x1]."""
    r, c, s = np.asarray(candidates).T
    return np.stack([r - s // 2, c - s // 2, r + s // 2, c + s // 2], axis=1).astype(np.int32)


def centers_of(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) // 2


def random_label(rng, height, width, classes=(0, 1, 2, VOID)):
    """Blocks of random classes, at least one pixel of them labelled."""
    blocks = rng.choice(classes, size=(-(-height // 4), -(-width // 4)))
    label = np.kron(blocks, np.ones((4, 4)))[:height, :width].astype(np.uint8)
    if (label == VOID).all():
        label[rng.integers(height), rng.integers(width)] = 1
    return label


# Rule "release"


def release_survivors(boxes, is_allowed, height, width, reference_area):
    """create_patch.py's rule on a coverage map of pixels."""
    covered, survived = np.zeros((height, width), bool), []
    for (y0, x0, y1, x1), allowed in zip(boxes, is_allowed, strict=True):
        inside = covered[max(0, y0) : min(y1, height), max(0, x0) : min(x1, width)]
        survived.append(allowed and inside.sum() / reference_area <= 0.6)
        if survived[-1]:
            inside[:] = True
    return survived


def refill(survived, is_allowed, shares, num):
    """Kept candidates, then allowed ones in drawing order, then the others by falling share."""
    kept, others = [], []
    for i, is_kept in enumerate(survived):
        (kept if is_kept else others).append(i)
    others.sort(key=lambda i: -2 if is_allowed[i] else -shares[i])
    order = (kept + others)[:num]
    return order, [i not in kept for i in order]


def choose_release(candidates, quotas, size, background_label):
    boxes, labels, shares, is_allowed = (values.numpy() for values in candidates)
    split = 5 * quotas[0]
    area = int(boxes[0, 2] - boxes[0, 0]) ** 2
    survived = release_survivors(boxes[:split], is_allowed[:split], *size, area)
    chosen, refilled = refill(survived, is_allowed, shares, quotas[0])
    apart = (is_allowed[split:], is_allowed[split:], shares[split:])
    background, background_refilled = refill(*apart, quotas[1])
    chosen += [split + i for i in background]
    labels = [*labels[chosen[: quotas[0]]], *[background_label] * quotas[1]]
    return boxes[chosen], labels, shares[chosen], refilled + background_refilled


@pytest.mark.parametrize("case", GOLDEN["dedup"], ids=lambda case: case["name"])
def test_release_survivors_equal_the_golden_survivors(case):
    boxes, order = boxes_of(case["candidates_row_col_size"]), np.array(case["order"])
    # The reference area is always the area of candidate 0, in any order.
    area = case["candidates_row_col_size"][0][2] ** 2
    is_allowed = tf.fill([len(order)], True)
    survived = mix._survivors_release(
        boxes[order], is_allowed, area, [0, 0, case["h"], case["w"]], limit=len(order)
    )
    assert sorted(order[survived.numpy()]) == case["kept"]


@pytest.mark.parametrize(("background_label", "min_share"), [(None, 0.0), (0, 0.0), (0, 0.5)])
def test_rule_release_equals_plain_python(background_label, min_share):
    rng = np.random.default_rng(0)
    quotas = (8, 2) if background_label == 0 else (10, 0)
    options = {"background_label": background_label, "background_share": 0.2}
    settings = sampling(10, 4, 24, "release", min_share=min_share, **options)

    @tf.function(reduce_retracing=True)
    def both(label, seed):
        candidates = mix._candidates(label, settings, seed)
        bounds = tf.concat([[0, 0], tf.shape(label)], axis=0)
        return candidates, mix._choose_release(candidates, quotas, bounds)

    num_refilled = 0
    for seed in range(150):
        label = random_label(rng, *rng.integers(1, 60, 2))
        candidates, chosen = both(tf.constant(label), tf.constant([seed, 0]))
        expected = choose_release(candidates, quotas, label.shape, background_label)
        for got, wanted in zip(chosen, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
        num_refilled += chosen.refilled.numpy().sum()
    assert 0 < num_refilled < 1500  # both ways were taken


def release_statistics(label, run, num_images):
    """One row per image of each quantity of a golden run."""
    quotas = (run["fg_count"], run["bg_count"])
    settings = sampling(sum(quotas), *run["size_range"], "release", background_label=0)
    assert settings.quotas == quotas
    label = tf.constant(label)

    def sample(seed):
        candidates = mix._candidates(label, settings, seed)
        bounds = (0, 0, *label.shape)
        chosen = mix._choose_release(candidates, quotas, bounds)
        foreground = candidates.part(0, 5 * quotas[0])
        area = (foreground.boxes[0, 2] - foreground.boxes[0, 0]) ** 2
        survived = mix._survivors_release(*foreground[::3], area, bounds, 5 * quotas[0])
        return chosen.boxes, chosen.labels, survived

    seeds = tf.random.split([3, 1], num_images)
    samples = tf.data.Dataset.from_tensor_slices(seeds).map(sample, num_parallel_calls=2)
    return [x.numpy() for x in samples.batch(num_images).get_single_element()]


def assert_agree(per_image, golden_mean_se, what):
    mean, error = np.mean(per_image), np.std(per_image) / np.sqrt(len(per_image))
    expected, expected_error = golden_mean_se
    assert abs(mean - expected) <= 5 * np.hypot(error, expected_error) + 1e-9, what


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda run: f"{run['map']}-{run['num']}")
def test_release_statistics_equal_the_golden_statistics(run):
    label = draw_map(GOLDEN["maps"][run["map"]])
    boxes, labels, survived = release_statistics(label, run, 60 if run["num"] == 40 else 250)
    sides, num = boxes[..., 2] - boxes[..., 0], run["fg_count"]
    outside = ((boxes[..., :2] < 0) | (boxes[..., 2:] > 512)).any(axis=-1)
    center_labels = label[tuple(np.moveaxis(centers_of(boxes), -1, 0))]
    assert_agree(sides[:, :num].mean(1), run["fg_kept_size_mean_se"], "foreground sizes")
    assert_agree(sides[:, num:].mean(1), run["bg_size_mean_se"], "background sizes")
    assert_agree(survived.sum(1), run["survivors_mean_se"], "survivors")
    assert_agree(survived.sum(1) < num, run["fill_up_probability_mean_se"], "refills")
    assert_agree(outside.mean(1), run["fraction_touching_outside_mean_se"], "touching outside")
    for name, share in run["fg_label_fraction_mean_se"].items():
        assert_agree((labels[:, :num] == int(name)).mean(1), share, f"label {name}")
    np.testing.assert_array_equal(labels[:, :num], center_labels[:, :num])
    assert (labels[:, num:] == 0).all()
    agreement = (center_labels[:, num:] == 0).mean()
    assert agreement == run["bg_label_equals_centre_pixel"]


# Rule "paper"


def overlap(box, other):
    """Intersection over union, exactly."""
    y0, x0 = np.maximum(box[:2], other[:2])
    y1, x1 = np.minimum(box[2:], other[2:])
    shared = max(int(y1 - y0), 0) * max(int(x1 - x0), 0)
    areas = sum(int(b[2] - b[0]) ** 2 for b in (box, other))
    return fractions.Fraction(shared, areas - shared)


def choose_paper(candidates, quotas):
    boxes, labels, shares, is_allowed = (values.numpy() for values in candidates)
    chosen, accepted, refilled = [], [], []
    pools = np.split(np.arange(len(boxes)), [5 * quotas[0]])
    for pool, quota in zip(pools, quotas, strict=True):
        kept = []
        for i in pool:
            limit = fractions.Fraction(3, 7)
            judges = accepted + kept
            if is_allowed[i] and all(overlap(boxes[i], boxes[j]) <= limit for j in judges):
                kept.append(i)
        survived = [i in kept for i in pool]
        order, is_refilled = refill(survived, is_allowed[pool], shares[pool], quota)
        refilled += is_refilled
        chosen += [pool[i] for i in order]
        accepted += kept[:quota]  # added back ones reject no others
        # Kept ones beyond the quota came last, so judging by them changed nothing within it.
    return boxes[chosen], labels[chosen], shares[chosen], refilled


@pytest.mark.parametrize(("background_label", "min_share"), [(None, 0.0), (0, 0.0), (0, 0.5)])
def test_rule_paper_equals_plain_python(background_label, min_share):
    rng = np.random.default_rng(1)
    quotas = (6, 2) if background_label == 0 else (8, 0)
    options = {"background_label": background_label, "background_share": 0.25}
    settings = sampling(8, 4, 24, min_share=min_share, **options)
    assert settings.quotas == quotas

    @tf.function(reduce_retracing=True)
    def both(label, seed):
        candidates = mix._candidates(label, settings, seed)
        return candidates, mix._choose_paper(candidates, quotas)

    num_refilled = 0
    for seed in range(100):
        label = random_label(rng, *rng.integers(1, 40, 2))
        candidates, chosen = both(tf.constant(label), tf.constant([seed, 0]))
        expected = choose_paper(candidates, quotas)
        for got, wanted in zip(chosen, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
        num_refilled += sum(expected[3])
    assert 0 < num_refilled < 800  # both ways were taken


def test_rule_paper_keeps_an_overlap_of_exactly_three_sevenths():
    # Sides of 10: a shift by 4 shares 60 of 140 pixels of the union, a shift by 3 shares 70 of 130.
    boxes = np.array([[0, 0, 10, 10], [0, 4, 10, 14], [3, 0, 13, 10], [20, 0, 30, 10]], np.int32)
    assert mix._kept_paper(boxes, [True] * 4, limit=4).numpy().tolist() == [0, 1, 3]


def test_rule_paper_rejects_background_that_overlaps_foreground():
    # Five candidates each: the foreground patch, and background at the same place but for the last.
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.int32), [10, 1])
    boxes[9] += 20
    labels = np.array([1] * 5 + [0] * 5, np.int32)
    candidates = mix._Candidates(boxes, labels, tf.ones([10]), tf.fill([10], True))
    chosen = mix._choose_paper(candidates, (1, 1))
    np.testing.assert_array_equal(chosen.boxes, boxes[[0, 9]])
    assert not chosen.refilled.numpy().any()


# Both rules


def random_mask(seed):
    """A label map of up to 20 x 20 pixels; some lack one kind, and void takes any share."""
    seeds = tf.random.split(seed, 5)
    size = tf.random.stateless_uniform([2], seeds[0], 1, 21, tf.int32)
    num_classes = tf.random.stateless_uniform([], seeds[1], 1, 5, tf.int32)
    classes = tf.random.experimental.stateless_shuffle([0, 1, 2, 7], seeds[1])
    index = tf.random.stateless_uniform(size, seeds[2], 0, num_classes, tf.int32)
    share = tf.random.stateless_uniform([], seeds[3])
    void = tf.random.stateless_uniform(size, seeds[4]) < share
    label = tf.cast(tf.where(void, VOID, tf.gather(classes, index)), tf.uint8)
    return tf.cond(tf.reduce_all(void), lambda: tf.ones_like(label), lambda: label)


def sample_many(rule, class_balanced, num_masks=2500):
    """Return masks padded to 20 x 20 with 0, their sizes, and boxes, labels, refilled of each."""
    settings = sampling(
        5, 4, 16, rule, background_label=0, background_share=0.3, class_balanced=class_balanced
    )

    def sample(seed):
        label = random_mask(seed)
        chosen = mix.sample_boxes(label, settings, seed)
        size = tf.shape(label)
        columns = (chosen.boxes, chosen.labels, chosen.refilled)
        return tf.pad(label, [[0, 20 - size[0]], [0, 20 - size[1]]]), size, *columns

    seeds = tf.random.split([11, len(rule) + class_balanced], num_masks)
    samples = tf.data.Dataset.from_tensor_slices(seeds).map(sample, num_parallel_calls=2)
    return [x.numpy() for x in samples.batch(num_masks).get_single_element()]


def shared_pixels(boxes):
    """int [num_masks, num, num], pixels that two boxes of one mask share."""
    start = np.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    end = np.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    return np.maximum(end - start, 0).prod(-1)


@pytest.mark.parametrize("rule", ["paper", "release"])
@pytest.mark.parametrize("class_balanced", [False, True])
def test_boxes_and_labels_are_consistent_on_random_masks(rule, class_balanced):
    masks, sizes, boxes, labels, refilled = sample_many(rule, class_balanced)
    sides, centers = boxes[..., 2:] - boxes[..., :2], centers_of(boxes)
    assert (sides[..., 0] == sides[..., 1]).all()
    assert (sides % 2 == 0).all() and sides.min() == 4 and sides.max() == 16
    assert (centers >= 0).all() and (centers < sizes[:, None]).all()
    center_labels = masks[np.arange(len(masks))[:, None], centers[..., 0], centers[..., 1]]
    assert (labels != VOID).all() and (center_labels != VOID).all()

    foreground = slice(None) if rule == "paper" else slice(0, 4)
    np.testing.assert_array_equal(labels[:, foreground], center_labels[:, foreground])
    assert rule == "paper" or (labels[:, 4] == 0).all()
    inside = np.arange(20) < sizes[:, :1], np.arange(20) < sizes[:, 1:]
    inside = inside[0][:, :, None] & inside[1][:, None]
    has_background = (inside & (masks == 0)).any((1, 2))
    has_foreground = (inside & (masks != 0) & (masks != VOID)).any((1, 2))
    both = has_background & has_foreground
    assert 500 < both.sum() < 2500
    assert (center_labels[both, :4] != 0).all() and (center_labels[both, 4] == 0).all()
    assert (center_labels[~has_foreground] == 0).all()
    assert (center_labels[~has_background] != 0).all()

    assert 0 < refilled.mean() < 1
    assert (np.diff(refilled[:, :4].astype(int)) >= 0).all()  # survivors stand first
    check = assert_bounded_union if rule == "paper" else assert_bounded_coverage
    check(boxes, refilled, sizes)


def assert_bounded_union(boxes, refilled, _):
    judged = ~refilled[:, :, None] & ~refilled[:, None] & ~np.eye(5, dtype=bool)
    shared, areas = shared_pixels(boxes), (boxes[..., 2] - boxes[..., 0]) ** 2
    union = areas[:, :, None] + areas[:, None] - shared
    assert (7 * shared <= 3 * union)[judged].all()


def assert_bounded_coverage(boxes, refilled, sizes):
    # Inside the map, two survivors share at most the allowed coverage of the later one: 0.6 of the
    # area of the first candidate, which always survives.
    boxes, refilled = boxes[:, :4], refilled[:, :4]
    assert not refilled[:, 0].any()
    reference = (boxes[:, 0, 2] - boxes[:, 0, 0]) ** 2
    judged = ~refilled[:, :, None] & ~refilled[:, None] & ~np.eye(4, dtype=bool)
    shared = shared_pixels(np.clip(boxes, 0, np.tile(sizes, 2)[:, None]))
    assert (5 * shared <= 3 * reference[:, None, None])[judged].all()


@pytest.mark.parametrize("num_tries", [0, 20])
def test_centers_are_uniform_over_the_pool(num_tries, monkeypatch):
    """By trying pixels, and by searching the map where tries are too few."""
    monkeypatch.setattr(mix, "TRIES_PER_CANDIDATE", num_tries)
    label = np.full((5, 7), VOID, np.uint8)
    label[0, 3], label[2, 1:6], label[4] = 1, 2, 1
    for background_label, quotas, pool in [
        (None, (4000, 0), label != VOID),
        (2, (4000, 800), label == 1),
    ]:
        drawn = mix._draw_centers(tf.constant(label), quotas, background_label, False, [5, 6])
        assert drawn.shape == [5 * sum(quotas)]
        assert_uniform(drawn[:20000].numpy(), pool)
        if background_label is not None:
            assert_uniform(drawn[20000:].numpy(), label == background_label)


def assert_uniform(pixels, pool):
    counts = np.bincount(pixels, minlength=pool.size).reshape(pool.shape)
    mean = len(pixels) / pool.sum()
    assert (counts[~pool] == 0).all()
    assert (abs(counts[pool] - mean) < 5 * np.sqrt(mean)).all()


def test_a_class_of_a_single_pixel_is_found():
    label = np.zeros((300, 200), np.uint8)
    label[123, 45] = 7
    boxes, labels, *_ = mix.sample_boxes(label, sampling(4, 2, 4, background_label=0))
    assert labels.numpy().tolist() == [7, 7, 7, 0]
    assert (centers_of(boxes.numpy())[:3] == [123, 45]).all()


@pytest.mark.parametrize("rule", RULES)
def test_mirrored_boxes_fit_the_mirror_image(rule):
    label = random_label(np.random.default_rng(4), 40, 31)
    settings = sampling(6, 4, 12, rule)
    boxes, labels, *_ = mix.sample_boxes(label, settings, seed=3, mirror=True)
    rows, columns = centers_of(boxes.numpy()).T
    np.testing.assert_array_equal(label[:, ::-1][rows, columns], labels)
    if rule == "paper":  # which does not know left from right
        straight = mix.sample_boxes(label, settings, seed=3, mirror=tf.constant(False))
        np.testing.assert_array_equal(centers_of(straight.boxes.numpy()).T, [rows, 30 - columns])


def test_rule_release_clips_boxes_to_the_bounds():
    """Equal boxes at the edge of a part: clipped to it, they overlap less."""
    label = np.zeros((1, 1), np.uint8)

    def num_refilled(bounds):
        settings = sampling(4, 8, 8, "release", background_share=0.0)
        chosen = mix.sample_boxes(label, settings, 0, bounds=tf.constant(bounds))
        return chosen.refilled.numpy().sum()

    assert num_refilled([0, 0, 1, 1]) == 0
    assert num_refilled([-9, -9, 9, 9]) == 3


def test_class_balanced_sampling_draws_classes_first_then_pixels():
    label = np.zeros((6, 6), np.uint8)
    label[0, 0], label[3, :4], label[5] = 9, 4, VOID
    pixels = mix._draw_centers(tf.constant(label), (4000, 800), 0, True, [5, 6]).numpy()
    drawn = label.ravel()[pixels]
    assert (drawn[20000:] == 0).all()
    assert set(drawn[:20000]) == {4, 9}
    assert abs((drawn[:20000] == 9).sum() - 10000) < 5 * np.sqrt(5000)
    counts = np.bincount(pixels[:20000][drawn[:20000] == 4] - 3 * 6, minlength=4)
    assert (abs(counts - 2500) < 5 * np.sqrt(2500)).all()


@pytest.mark.parametrize("min_size, max_size", [(64, 256), (128, 128)])
def test_sizes_have_the_released_distribution(min_size, max_size):
    label = tf.zeros([4, 4], tf.uint8)
    boxes = mix._candidates(label, sampling(4000, min_size, max_size), [1, 2]).boxes
    sides = (boxes[:, 2] - boxes[:, 0]).numpy()
    counts = np.bincount(sides, minlength=max_size + 2)
    # floor(U / 2) * 2: two values of U for each even side, one for the largest.
    weights = np.zeros(max_size + 2)
    np.add.at(weights, np.arange(min_size, max_size + 1) // 2 * 2, 1 / (max_size - min_size + 1))
    expected = 20000 * weights
    assert (counts[weights == 0] == 0).all()
    assert (abs(counts - expected) <= 5 * np.sqrt(expected)).all()


# Label shares


def slow_share(label, box, own, mirror):
    """The share of a label at 8 x 8 points of a box; 1 without a labelled point."""
    (y0, x0, y1, _), (height, width) = box, label.shape
    counts = {}
    for i in range(8):
        for j in range(8):
            y, x = (start + int((k + 0.5) / 8 * (y1 - y0)) for start, k in ((y0, i), (x0, j)))
            if 0 <= y < height and 0 <= x < width:
                value = label[y, width - 1 - x if mirror else x]
                counts[value] = counts.get(value, 0) + 1
    num_labelled = sum(count for value, count in counts.items() if value != VOID)
    return counts.get(own, 0) / num_labelled if num_labelled else 1.0


@pytest.mark.parametrize("mirror", [False, True])
def test_label_shares_equal_plain_python(mirror):
    rng = np.random.default_rng(6)
    settings = sampling(6, 2, 40, background_label=0)
    for seed in range(20):
        label = random_label(rng, *rng.integers(1, 40, 2))
        boxes, labels, shares, _ = mix.sample_boxes(label, settings, seed, mirror)
        boxes, labels = boxes.numpy(), labels.numpy()
        expected = [slow_share(label, *pair, mirror) for pair in zip(boxes, labels, strict=True)]
        np.testing.assert_allclose(shares, expected, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_patches_reach_the_minimum_share_where_the_map_allows_it(rule):
    label = np.ones((60, 80), np.uint8)
    label[:30, :40] = 0  # patches around the corner and the edges of 0 hold less of it
    means = []
    for min_share in (0.0, 0.7):
        settings = sampling(8, 16, 24, rule, class_balanced=True, min_share=min_share)
        sample = tf.function(lambda seed, s=settings: mix.sample_boxes(label, s, seed).shares)
        shares = np.concatenate([sample(tf.constant([seed, 0])) for seed in range(20)])
        means.append(shares.mean())
        assert ((shares < 0.7).any()) == (min_share == 0)
    assert means[1] > means[0]


@pytest.mark.parametrize("rule", RULES)
def test_where_no_candidate_reaches_the_minimum_the_largest_shares_are_chosen(rule):
    label = np.arange(64, dtype=np.uint8).reshape(8, 8)  # each pixel has a class of its own
    settings = sampling(3, 4, 16, rule, min_share=0.9)
    candidates = mix._candidates(tf.constant(label), settings, [5, 5])
    chosen = mix.sample_boxes(label, settings, tf.constant([5, 5]))
    assert chosen.refilled.numpy().all()
    np.testing.assert_array_equal(chosen.shares, np.sort(candidates.shares)[::-1][:3])


@pytest.mark.parametrize("rule", RULES)
def test_a_minimum_of_one_accepts_a_map_of_one_class_and_void(rule):
    label = np.full((9, 9), VOID, np.uint8)
    label[4, 4] = 3
    chosen = mix.sample_boxes(label, sampling(2, 2, 200, rule, min_share=1.0))
    assert chosen.labels.numpy().tolist() == [3, 3]
    assert chosen.shares.numpy().tolist() == [1, 1]


def test_rule_release_measures_the_share_of_the_background_label():
    label = np.full((20, 20), 5, np.uint8)  # without background
    settings = sampling(4, 4, 8, "release", background_label=0, min_share=0.5)
    _, labels, shares, refilled = mix.sample_boxes(label, settings)
    assert labels.numpy().tolist() == [5, 5, 5, 0]
    assert shares.numpy().tolist() == [1, 1, 1, 0]
    assert refilled.numpy()[3]


# Quotas and degenerate maps


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("background_label", [None, 0])
@pytest.mark.parametrize("num_patches", [1, 3])
def test_a_map_of_one_pixel_gives_boxes_around_it(
    rule, class_balanced, background_label, num_patches
):
    options = {"background_label": background_label, "class_balanced": class_balanced}
    settings = sampling(num_patches, 300, 300, rule, **options)
    boxes, labels, *_ = mix.sample_boxes(np.array([[3]], np.uint8), settings)
    np.testing.assert_array_equal(boxes, [[-150, -150, 150, 150]] * num_patches)
    # Rule "release" labels the background patch so even where there is no background.
    quirk = rule == "release" and background_label == 0 and num_patches == 3
    assert labels.numpy().tolist() == [3] * (num_patches - quirk) + [0] * quirk


@pytest.mark.parametrize("rule", RULES)
def test_background_replaces_missing_foreground(rule):
    label = np.full((30, 20), VOID, np.int32)
    label[29, 0] = 0
    boxes, labels, *_ = mix.sample_boxes(label, sampling(4, 2, 8, rule, background_label=0))
    assert (centers_of(boxes.numpy()) == [29, 0]).all()
    assert (labels.numpy() == 0).all()


def test_a_single_patch_is_a_foreground_patch():
    label = np.zeros((20, 20), np.uint8)
    label[7, 8] = 5
    for seed in range(5):
        assert mix.sample_boxes(label, sampling(1, 4, 8, background_label=0), seed)[1] == [5]


def test_without_a_share_background_is_an_ordinary_class():
    label = np.zeros((20, 20), np.uint8)
    label[7, 8] = 5
    settings = sampling(8, 4, 8, background_label=0, background_share=0)
    labels = mix.sample_boxes(label, settings).labels
    assert (labels.numpy() == 0).sum() >= 6


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("class_balanced", [False, True])
def test_a_map_without_labelled_pixels_raises_an_error(rule, class_balanced):
    label = np.full((8, 9), VOID, np.uint8)

    def sample():
        options = {"background_label": 0, "class_balanced": class_balanced}
        return mix.sample_boxes(label, sampling(4, 2, 8, rule, **options))

    with pytest.raises(ValueError, match="all are 255"):
        sample()
    with pytest.raises(tf.errors.InvalidArgumentError, match="all are 255"):
        tf.function(sample)()
    dataset = tf.data.Dataset.range(1).map(lambda _: sample())
    with pytest.raises(tf.errors.InvalidArgumentError, match="all are 255"):
        list(dataset)


def test_the_result_depends_only_on_the_seed():
    label, settings = random_label(np.random.default_rng(2), 40, 40), sampling(6, 4, 12)

    def sample(seed):
        return mix.sample_boxes(label, settings, seed)[0].numpy().tolist()

    graph = tf.function(lambda: mix.sample_boxes(label, settings, 7)[0])
    assert sample(7) == sample(np.int64(7)) == graph().numpy().tolist()
    assert sample(tf.constant([7, 8])) == sample([7, 8])
    assert len({str(sample(s)) for s in (7, 8, -1, 2**40 + 7, 2**70)}) >= 4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label": np.zeros((2, 2, 1), np.uint8)}, r"label must be integer \[height, width\]"),
        ({"label": np.zeros((2, 2), np.float32)}, "float32"),
        ({"seed": [1, 2, 3]}, "seed"),
    ],
)
def test_wrong_arguments_raise_an_error_with_their_name(change, message):
    arguments = {"label": np.zeros((4, 4), np.uint8), "sampling": sampling()}
    with pytest.raises(ValueError, match=message):
        mix.sample_boxes(**(arguments | change))


# Cutting


def resize_bilinear(square, size):
    """Half-pixel centers, clamped edges, no antialiasing."""

    def weights(length):
        matrix = np.zeros((size, length))
        for i in range(size):
            x = min(max((i + 0.5) * length / size - 0.5, 0), length - 1)
            low = int(x)
            matrix[i, low] += 1 - (x - low)
            matrix[i, min(low + 1, length - 1)] += x - low
        return matrix

    return np.einsum("yi,xj,ijc->yxc", *map(weights, square.shape[:2]), square)


def cut_slowly(image, box, size, pad_color):
    square = np.zeros((box[2] - box[0], box[3] - box[1], 3)) + pad_color
    for y in range(max(box[0], 0), min(box[2], image.shape[0])):
        for x in range(max(box[1], 0), min(box[3], image.shape[1])):
            square[y - box[0], x - box[1]] = image[y, x]
    return resize_bilinear(square, size)


@pytest.mark.parametrize("case", GOLDEN["extraction"])
def test_cut_returns_the_golden_patch(case):
    c, r, k = np.mgrid[:3, :8, :8]
    image = np.moveaxis(100 * c + 10 * r + k, 0, -1)
    # The third channel does not fit into uint8, so the test compares it shifted by 100.
    assert image.max() > 255
    image[..., 2] -= 100
    box = boxes_of([[*case["center"], case["size"]]])
    expected = np.moveaxis(case["patch_chw"], 0, -1)
    weight = resize_bilinear(
        cut_slowly(np.ones((8, 8, 3)), box[0], case["size"], (0, 0, 0)), case["output"]
    )
    expected[..., 2] -= 100 * weight[..., 2]
    got = mix.cut(image.astype(np.uint8), box, case["output"])
    np.testing.assert_array_equal(got[0], np.floor(expected + 0.5))


@pytest.mark.parametrize("pad_color", [(0, 0, 0), (7, 7, 7), (104, 117, 123)])
def test_cut_equals_plain_python(pad_color):
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (23, 31, 3), np.uint8)
    sides = rng.choice([2, 4, 8, 16, 30, 64], 60)
    boxes = boxes_of(np.stack([rng.integers(-40, 60, 60), rng.integers(-40, 70, 60), sides], 1))
    got = mix.cut(image, boxes, 8, pad_color)
    assert got.dtype == tf.uint8 and got.shape == [60, 8, 8, 3]
    expected = np.stack([cut_slowly(image, box, 8, pad_color) for box in boxes])
    # Float32 may fall on the other side of a half: nothing else may differ.
    assert abs(got.numpy() - expected).max() <= 0.5 + 1e-4


def test_boxes_far_outside_show_the_pad_color():
    image = np.full((5, 6, 3), 200, np.uint8)
    boxes = [[10**8, 0, 10**8 + 4, 4], [-(10**8), -(10**8), 4 - 10**8, 4 - 10**8], [0, 0, 4, 4]]
    got = mix.cut(image, boxes, 4, (1, 2, 3)).numpy()
    assert (got[:2] == [1, 2, 3]).all() and (got[2] == 200).all()


def test_cut_rejects_wrong_boxes_and_colors():
    image = np.zeros((5, 6, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\[num_patches, 4\]"):
        mix.cut(image, [0, 0, 4, 4], 4)
    with pytest.raises(ValueError, match="pad_color"):
        mix.cut(image, [[0, 0, 4, 4]], 4, (0, 0, 256))
