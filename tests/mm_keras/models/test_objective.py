"""Objectives of the tuning model: sums of losses, heads, precision, chunks, degenerate batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import losses, matching
from mm_keras.models import objective

EACH = "+".join(objective.TERMS)


def _batch(num_nodes=12, seed=0):
    """Patches whose class is a color."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_nodes, dtype="int32") % 3
    patches = rng.integers(0, 100, (num_nodes, 16, 16, 3))
    patches[np.arange(num_nodes), :, :, labels] += 100
    return patches.astype("uint8"), labels


def _network():
    """A network without batch norm, so that nothing joins the patches but the loss."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs / 255)
    return keras.Model(inputs, keras.layers.Conv2D(6, 3, strides=2, activation="relu")(features))


def _model(loss, rate=0.01, embedding="pool", chunk=None, **arguments):
    model = mm_keras.MixAndMatch(
        _network(),
        objective=objective.build(loss, 3, **arguments),
        embedding=embedding,
        num_classes=3,
        chunk=chunk,
    )
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(rate, decay=0.0), jit_compile=False)
    return model


def test_a_sum_of_losses_is_the_sum_of_their_values():
    patches, labels = _batch()
    names = list(objective.TERMS)
    found = objective.build(EACH, 3, seed=4)
    features = _model("softmax")(patches)
    total, _ = found(features, labels)
    alone = [objective.build(name, 3, seed=4)(features, labels)[0] for name in names]
    np.testing.assert_allclose(total, np.sum(alone), rtol=1e-5)
    assert np.all(np.array(alone) > 0), dict(zip(names, alone, strict=True))


def test_triplets_of_an_objective_equal_the_triplets_of_the_model():
    patches, labels = _batch()
    ours = _model("triplet", embedding="flatten", seed=5)
    theirs = mm_keras.MixAndMatch(_network(), seed=5)
    theirs.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01, decay=0.0))
    figures, expected = ours.train_step((patches, labels)), theirs.train_step((patches, labels))
    np.testing.assert_allclose(figures["loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(figures["gradient_norm"], expected["gradient_norm"], rtol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "supcon", "proxy_anchor"])
def test_an_objective_learns_classes(loss):
    batch = tuple(map(tf.constant, _batch(24)))
    model = _model(loss, rate=0.05, projection=(8, 4) if loss == "supcon" else ())
    step = tf.function(model.train_step)
    first = float(step(batch)["loss"])
    for _ in range(30):
        model.reset_metrics()
        last = step(batch)
    floor = np.log(24 / 3 - 1) if loss == "supcon" else 0  # its minimum
    assert float(last["loss"]) - floor < 0.6 * (first - floor)
    assert last["negative_distance"] > last["positive_distance"]


def test_heads_are_trained_and_saved_but_are_no_part_of_the_backbone():
    patches, labels = _batch()
    model = _model("softmax+proxy_anchor", projection=(8, 4))
    model.build(patches.shape)
    names = {variable.path for variable in model.trainable_variables}
    heads = names - {variable.path for variable in model.backbone.variables}
    assert {path.split("/")[-2] for path in heads} == {
        "projection_1",
        "projection_2",
        "hubs",
        "proxy_anchor",
    }
    before = {v.path: v.numpy() for v in model.trainable_variables}
    model.train_step((patches, labels))
    changed = {v.path for v in model.trainable_variables if np.any(v.numpy() != before[v.path])}
    assert changed == names == {v.path for v in model.variables} & names


def test_a_step_in_chunks_equals_the_whole_step():
    batch = tuple(map(tf.constant, _batch()))
    whole, parts = (
        _model("softmax+supcon", rate=0.1, chunk=chunk, projection=(8, 4)) for chunk in (None, 4)
    )
    for _ in range(2):
        expected, found = whole.train_step(batch), parts.train_step(batch)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)
    for ours, theirs in zip(parts.variables, whole.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=ours.path)


@pytest.mark.parametrize(
    ("policy", "loss"), [("mixed_float16", "softmax+supcon"), ("mixed_bfloat16", EACH)]
)
def test_mixed_precision_gives_nearly_the_same_step(policy, loss):
    batch = tuple(map(tf.constant, _batch()))
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = _model(loss, rate=1e-3)
        if policy == "mixed_float16":  # Keras' first scale, 32768, lets this gradient overflow
            model.build(batch[0].shape)
            model.optimizer.build(model.trainable_variables)
            model.optimizer.dynamic_scale.assign(64.0)
        figures = model.train_step(batch)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = _model(loss, rate=1e-3).train_step(batch)
    assert model.backbone.layers[-1].compute_dtype == policy.removeprefix("mixed_")
    assert figures["non_finite"] == 0
    np.testing.assert_allclose(figures["loss"], expected["loss"], rtol=0.05)
    np.testing.assert_allclose(figures["gradient_norm"], expected["gradient_norm"], rtol=0.25)


@pytest.mark.parametrize("labels", [[255] * 12, [1] * 12, [0, 1, 2] + [255] * 9], ids=str)
def test_degenerate_batches_change_no_weight_to_nan(labels):
    patches, labels = _batch()[0], np.array(labels, "int32")
    model = _model(EACH)
    figures = model.train_step((patches, labels))
    assert figures["non_finite"] == 0
    assert all(np.all(np.isfinite(v.numpy())) for v in model.trainable_variables)
    if np.all(labels == losses.VOID):
        # The triplets of the paper match every node; with one label no triplet is valid.
        assert figures["loss"] == 0 and figures["gradient_norm"] == 0


def test_the_closed_form_is_used_only_where_no_hinge_is_zero():
    def term(margin, projection=()):
        settings = objective.TripletSettings(margin=margin)
        built = objective.build("triplet_all", 3, projection=projection, triplets=settings)
        return type(built.terms[0])

    assert term(2.1) is term(4.0, (8,)) is objective.AllTriplets
    assert term(1.9) is term(2.1, (8,)) is objective.OfPairs


def test_hubs_of_classes_without_a_patch_stay_finite():
    patches, labels = _batch()
    model = _model("softmax+normalized_softmax+proxy_anchor")
    for _ in range(3):
        figures = model.train_step((patches, labels % 2))
    assert figures["non_finite"] == 0 and np.isfinite(figures["loss"])


def test_unusable_arguments_are_refused():
    with pytest.raises(ValueError, match="Unknown loss 'hinge'; expected one of triplet, trip"):
        objective.build("softmax+hinge", 3)
    with pytest.raises(ValueError, match="Unknown embedding 'sum'; expected one of flatten, pool"):
        mm_keras.MixAndMatch(_network(), embedding="sum")
    with pytest.raises(ValueError, match="needs num_classes"):
        mm_keras.MixAndMatch(_network(), objective=objective.build("softmax", 3))


def test_empty_features_are_refused():
    with pytest.raises(ValueError, match="needs features of a known size above 0. Received"):
        objective.build("supcon", 3, projection=(8, 4)).build((None, 0))


def test_random_triplets_can_be_part_of_a_sum():
    patches, labels = _batch()
    settings = objective.TripletSettings(matching.random_triplets, margin=1.0)
    built = objective.build("triplet+softmax", 3, triplets=settings)
    assert np.isfinite(built(_model("softmax")(patches), labels)[0])
