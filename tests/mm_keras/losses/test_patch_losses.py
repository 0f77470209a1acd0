"""Losses on labelled vectors against golden values, plain loops and degenerate batches.

The golden values are ours in float64. `oracle_differences` in the file lists the three places where
pytorch-metric-learning 2.9.0 gives another value. The tests run on any backend.
"""

import functools
import itertools
import json
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from mm_keras import losses, matching
from mm_keras.losses.pixel_contrast import contrast_of_images

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[2] / "golden" / "patch_losses.json").read_text()
)
SETS = {name: case for name, case in GOLDEN["triplet_all_pairs"].items() if name != "note"}
HUBS = np.array(GOLDEN["proxies"]["W"])

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="uses a GradientTape"
)


def nodes(name):
    """Raw vectors and labels of a golden set."""
    case = SETS[name]
    if name != "hundred_sixty":
        return np.array(case["raw"], "float32"), np.array(case["labels"], "int32")
    i, j = np.arange(160)[:, None], np.arange(16)
    raw = (7 * i**2 + 3 * i * j + 11 * j**2 + 5 * i + 2 * j) % 23
    return raw.astype("float32"), np.minimum(i[:, 0] ** 2 % 13, 9).astype("int32")


def embedded(name):
    raw, labels = nodes(name)
    return losses.embed(raw), labels


def all_triplets(embeddings, labels, margin=2.1, scale="paper", num_classes=10):
    sums = losses.class_sums(embeddings, labels, num_classes)
    return losses.all_triplets(sums, margin, scale)


def gradient(function, raw):
    """Gradient of function(unit vectors) to the raw vectors."""
    import tensorflow as tf

    raw = tf.Variable(raw)
    with tf.GradientTape() as tape:
        loss = function(losses.embed(raw))
    return tape.gradient(loss, raw, unconnected_gradients="zero").numpy()


unit_hubs = losses.unit(HUBS.astype("float32"))
WITHOUT_HUBS = {
    "triplet_all": all_triplets,
    "triplet_all at 0.5": functools.partial(losses.all_triplets_hinge, margin=0.5),
    "triplet_semihard": losses.triplet_semihard,
    "supcon": losses.supcon,
    "multi_similarity": losses.multi_similarity,
}
LOSSES = WITHOUT_HUBS | {
    "normalized_softmax": lambda x, y: losses.normalized_softmax(x, unit_hubs, y),
    "cosface": lambda x, y: losses.normalized_softmax(x, unit_hubs, y, 1 / 64, 0.35),
    "proxy_anchor": lambda x, y: losses.proxy_anchor(x, unit_hubs, y),
}


# Golden values


@pytest.mark.parametrize("scale", losses.SCALES)
@pytest.mark.parametrize("name", sorted(SETS))
def test_the_closed_form_equals_the_golden_values_where_no_hinge_is_zero(name, scale):
    margins = [4.0] if name == "signed" else [2.1, 2.0]
    for margin in margins:
        if scale not in SETS[name].get(f"margin_{margin}", ()):
            continue
        expected = SETS[name][f"margin_{margin}"][scale]
        found = all_triplets(*embedded(name), margin, scale)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("scale", losses.SCALES)
@pytest.mark.parametrize("name", sorted(SETS))
def test_the_sorted_form_equals_the_golden_values_at_any_margin(name, scale):
    for margin in (4.0, 2.1, 0.5, 0.1):
        if scale not in SETS[name].get(f"margin_{margin}", ()):
            continue
        expected = SETS[name][f"margin_{margin}"][scale]
        found = losses.all_triplets_hinge(*embedded(name), margin, scale)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@tensorflow_only
@pytest.mark.parametrize("scale", losses.SCALES)
@pytest.mark.parametrize("name", ["five", "eight", "one_class"])
def test_gradients_of_both_forms_equal_the_golden_ones(name, scale):
    raw, labels = nodes(name)
    expected = SETS[name]["margin_2.1"][f"gradient_raw_{scale}"]
    for function in (all_triplets, losses.all_triplets_hinge):
        found = gradient(functools.partial(function, labels=labels, scale=scale), raw)
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["five", "eight", "all_single", "signed"])
@pytest.mark.parametrize("temperature", [0.1, 0.07, 0.5])
def test_supcon_equals_the_golden_values(name, temperature):
    expected = GOLDEN["supcon"][name][f"out_t{temperature}"]["mean_over_anchors_with_positive"]
    found = losses.supcon(*embedded(name), temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@tensorflow_only
@pytest.mark.parametrize("name", ["five", "eight", "all_single", "signed"])
def test_the_gradient_of_supcon_equals_the_golden_one(name):
    raw, labels = nodes(name)
    expected = GOLDEN["supcon"][name]["gradient_raw_out_t0.1"]
    found = gradient(lambda x: losses.supcon(x, labels, 0.1), raw)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_supcon_of_collapsed_orthogonal_classes_has_its_known_minimum():
    embeddings, labels = np.repeat(np.eye(5, dtype="float32"), 8, 0), np.repeat(np.arange(5), 8)
    expected = GOLDEN["supcon"]["collapsed_bound"]["out"]
    np.testing.assert_allclose(losses.supcon(embeddings, labels, 0.1), expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(GOLDEN["multi_similarity"]))
@pytest.mark.parametrize(("mining", "key"), [(None, "no_mining"), (0.1, "mined_eps0.1")])
def test_multi_similarity_equals_the_golden_values(name, mining, key):
    expected = GOLDEN["multi_similarity"][name][key]["mean"]
    found = losses.multi_similarity(*embedded(name), mining=mining)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["five", "eight"])
def test_losses_with_hubs_equal_the_golden_values(name):
    (embeddings, labels), expected = embedded(name), GOLDEN["proxies"][name]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4)
    softmax = functools.partial(losses.normalized_softmax, embeddings, unit_hubs, labels)
    close(softmax(0.05), expected["normalised_softmax_t0.05"]["mean"])
    close(softmax(1 / 64, 0.35), expected["cosface_m0.35_s64"]["mean"])
    close(softmax(1 / 16, 0.35), expected["cosface_m0.35_s16"])
    found = losses.proxy_anchor(embeddings, unit_hubs, labels, 1 / 32, 0.1)
    close(found, expected["proxy_anchor_alpha32_delta0.1"])


def test_losses_with_hubs_of_one_class_equal_the_golden_values():
    embeddings, labels = embedded("five")[0][:4], np.zeros(4, "int32")
    expected = GOLDEN["proxies"]["one_class_label0"]
    found = losses.proxy_anchor(embeddings, unit_hubs, labels)
    np.testing.assert_allclose(found, expected["proxy_anchor"], rtol=1e-5)
    found = losses.normalized_softmax(embeddings, unit_hubs, labels)
    np.testing.assert_allclose(found, expected["normalised_softmax"], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(GOLDEN["semihard"]))
@pytest.mark.parametrize("margin", [0.1, 0.2, 0.5])
def test_semihard_triplets_equal_the_golden_values(name, margin):
    expected = GOLDEN["semihard"][name][f"margin_{margin}"]["nearest_semihard_mean"]
    found = losses.triplet_semihard(*embedded(name), margin)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# Plain loops


def random_nodes(num_nodes=24, num_classes=5, size=8, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((num_nodes, size)).astype("float32")
    return np.asarray(losses.embed(raw)), rng.integers(0, num_classes, num_nodes).astype("int32")


@pytest.mark.parametrize("margin", [0.2, 1.0, 4.0])
def test_the_sorted_form_equals_the_mean_over_all_pairs_of_a_positive_and_a_negative(margin):
    x, labels = random_nodes()
    x, labels = np.concatenate([x, -x[:1]]), np.append(labels, 9)  # one class of one node
    distance = ((x[:, None] - x[None]) ** 2).sum(-1)
    per_anchor = []
    for i in range(len(labels)):
        positives = [p for p in range(len(labels)) if labels[p] == labels[i] and p != i] or [i]
        negatives = [n for n in range(len(labels)) if labels[n] != labels[i]]
        hinges = [
            max(0, margin + distance[i, p] - distance[i, n])
            for p, n in itertools.product(positives, negatives)
        ]
        per_anchor.append(np.mean(hinges))
    found = losses.all_triplets_hinge(x, labels, margin)
    np.testing.assert_allclose(found, np.mean(per_anchor), rtol=1e-5)


def test_equal_negatives_count_as_nearer_than_the_positive():
    """Then the farthest negative is taken: 0 < d(negative) - d(positive) is strict."""
    x = np.array([[1, 0], [0, 1], [0, 1], [-1, 0]], "float32")
    loss = losses.triplet_semihard(x[:3], np.array([0, 0, 1]), margin=0.2)
    # (0, 1): the negative at 2 is not beyond 2: 0.2. (1, 0): d(1, 2) = 0: 0.2 + 2.
    np.testing.assert_allclose(loss, (0.2 + 2.2) / 2, rtol=1e-6)
    loss = losses.triplet_semihard(x, np.array([0, 0, 1, 1]), margin=0.2)
    # (0, 1): 4 is beyond 2: 0. (1, 0): nothing is beyond 2, the farthest is 2: 0.2. Class 1 alike.
    np.testing.assert_allclose(loss, (0 + 0.2 + 0.2 + 0) / 4, atol=1e-6)


def test_the_expected_distances_are_means_over_all_pairs():
    x, labels = random_nodes()
    distance = ((x[:, None] - x[None]) ** 2).sum(-1)
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    assert same.any(1).all()
    different = labels[:, None] != labels
    found = losses.expected_distances(losses.class_sums(x, labels, 6))
    expected = [
        np.mean([d[m].mean() for d, m in zip(distance, mask, strict=True)])
        for mask in (same, different)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_class_sums_of_parts_add_up_to_the_whole():
    x, labels = random_nodes()
    whole = losses.class_sums(x, labels, 6)
    parts = [losses.class_sums(x[k], labels[k], 6) for k in (slice(0, 7), slice(7, None))]
    for value, *others in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(value, others[0] + others[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_closed_form_is_the_mean_over_20000_sampled_graphs():
    embeddings, labels = embedded("hundred_sixty")
    generator = keras.random.SeedGenerator(0)

    def draw(_):
        triplets = matching.class_connected(labels, generator)
        return losses.triplet_margin(embeddings, triplets)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        draw = tf.function(draw)
    values = np.array([float(draw(None)) for _ in range(20_000)])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - float(all_triplets(embeddings, labels))) < 3 * error < 1e-3


@tensorflow_only
@pytest.mark.slow
def test_the_gradient_of_the_closed_form_is_the_mean_over_20000_sampled_graphs():
    import tensorflow as tf

    raw, labels = nodes("hundred_sixty")
    generator, variable = keras.random.SeedGenerator(0), tf.Variable(raw)

    @tf.function
    def draw():
        with tf.GradientTape() as tape:
            triplets = matching.class_connected(labels, generator)
            loss = losses.triplet_margin(losses.embed(variable), triplets)
        return tape.gradient(loss, variable)

    number, total, squares = 20_000, 0.0, 0.0
    for _ in range(number):
        found = draw().numpy().astype("float64")
        total, squares = total + found, squares + np.square(found)
    mean = total / number
    error = np.sqrt(np.maximum(squares / number - np.square(mean), 1e-20) / number)
    distance = np.abs(mean - gradient(lambda x: all_triplets(x, labels), raw)) / error
    # By chance, 0.3 % of the components lie beyond three standard errors.
    assert np.mean(distance > 3) < 0.01 and distance.max() < 6


# Degenerate batches


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("labels", [[255] * 4, [1] * 4, [0, 1, 2, 3], [0, 0, 1, 255], [3]], ids=str)
def test_degenerate_batches_give_finite_losses_and_gradients(name, labels):
    raw = nodes("five")[0][: len(labels)]
    labels = np.array(labels, "int32")
    loss = float(LOSSES[name](losses.embed(raw), labels))
    assert np.isfinite(loss)
    is_idle = np.all(labels == 255) or (name in WITHOUT_HUBS and len(set(labels)) == 1)
    if is_idle:
        assert loss == 0
    if keras.backend.backend() == "tensorflow":
        found = gradient(lambda x: LOSSES[name](x, labels), raw)
        assert np.all(np.isfinite(found)) and np.all(found[labels == 255] == 0)
        if is_idle:
            assert np.all(found == 0)


@pytest.mark.parametrize("name", ["triplet_semihard", "supcon", "multi_similarity"])
def test_pair_losses_of_single_nodes_are_zero(name):
    assert LOSSES[name](*embedded("all_single")) == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_void_nodes_change_nothing(name):
    x, labels = random_nodes(num_classes=4, size=3)
    labels[5:8] = 255
    kept = labels != 255
    np.testing.assert_allclose(
        LOSSES[name](x, labels), LOSSES[name](x[kept], labels[kept]), rtol=1e-5
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_zero_vectors_and_equal_vectors_give_finite_gradients(name):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("uses a GradientTape")
    raw = np.array([[0, 0, 0], [3, 4, 0], [3, 4, 0], [3, 4, 0]], "float32")
    found = gradient(lambda x: LOSSES[name](x, np.array([0, 0, 1, 1])), raw)
    assert np.all(np.isfinite(found)) and np.all(found[0] == 0)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_half_precision_vectors_are_computed_in_float32(name):
    x, labels = random_nodes(num_classes=4, size=3)
    half = x.astype("float16")
    found = LOSSES[name](ops.convert_to_tensor(half), labels)
    np.testing.assert_allclose(found, LOSSES[name](half.astype("float32"), labels), rtol=1e-6)


def test_unknown_scales_are_rejected():
    with pytest.raises(ValueError, match="Unknown scale 'half'"):
        all_triplets(*embedded("five"), scale="half")
    with pytest.raises(ValueError, match="Unknown scale 'half'"):
        losses.all_triplets_hinge(*embedded("five"), scale="half")


# Forms of the embedding


def test_pooling_takes_the_mean_over_cells_and_the_grid_over_its_parts():
    maps = np.arange(2 * 3 * 3 * 2, dtype="float32").reshape(2, 3, 3, 2)
    np.testing.assert_allclose(losses.EMBEDDINGS["pool"](maps), maps.mean((1, 2)))
    found = losses.EMBEDDINGS["grid"](maps)
    parts = [maps[:, y : y + 2, x : x + 2].mean((1, 2)) for y in (0, 1) for x in (0, 1)]
    np.testing.assert_allclose(found, np.concatenate(parts, -1), rtol=1e-6)
    one_cell = losses.EMBEDDINGS["grid"](maps[:, :1, :1])
    np.testing.assert_allclose(one_cell, np.tile(maps[:, 0, 0], 4))


# Pixels

PIXELS = GOLDEN["pixel_contrast"]["small"]


def pixel_images():
    """The two golden images, both with six pixels: the second one is filled up with void."""
    first, second = (np.array(PIXELS[name], "float32") for name in ("image1", "image2"))
    second = np.concatenate([second, np.ones((2, 3), "float32")])
    labels = np.array([PIXELS["labels1"], [*PIXELS["labels2"], 255, 255]], "int32")
    return np.stack([np.asarray(losses.embed(image)) for image in (first, second)]), labels


@pytest.mark.parametrize("rule", ["self_is_positive", "self_left_out"])
def test_pixel_contrast_within_images_equals_the_golden_values(rule):
    embeddings, labels = pixel_images()
    for k, name in enumerate(("within_image1", "within_image2")):
        found = losses.pixel_contrast(
            embeddings[k : k + 1],
            labels[k : k + 1],
            across=False,
            with_self=rule == "self_is_positive",
        )
        np.testing.assert_allclose(found, PIXELS[rule][name], rtol=1e-4)


@pytest.mark.parametrize("rule", ["self_is_positive", "self_left_out"])
@pytest.mark.parametrize(("temperature", "key"), [(0.07, "cross"), (0.1, "cross_t0.1")])
def test_pixel_contrast_across_images_equals_the_golden_values(rule, temperature, key):
    with_self = rule == "self_is_positive"
    found = contrast_of_images(*pixel_images(), temperature, with_self=with_self)
    # The golden value is the mean over all anchors of both images. Without itself, the only pixel
    # of class 2 has no positive.
    num_anchors = [5, 4] if with_self else [5, 3]
    golden = PIXELS[rule][key]
    np.testing.assert_allclose(np.average(found, weights=num_anchors), golden, rtol=1e-4)
    mean = losses.pixel_contrast(*pixel_images(), temperature, with_self=with_self)
    np.testing.assert_allclose(mean, np.mean(found), rtol=1e-6)


@pytest.mark.parametrize("labels", [[255] * 4, [1] * 4, [0, 1, 2, 3], [0, 0, 1, 255]], ids=str)
def test_pixel_contrast_of_degenerate_images_is_finite(labels):
    raw, labels = nodes("five")[0][:4], np.array([labels], "int32")

    def loss(embeddings):
        return losses.pixel_contrast(embeddings[None], labels)

    has_pairs = len(set(labels[0])) in (2, 3)  # of one class, and of different classes
    assert (float(loss(losses.embed(raw))) > 0) is has_pairs
    if keras.backend.backend() == "tensorflow":
        assert np.all(np.isfinite(gradient(loss, raw)))
