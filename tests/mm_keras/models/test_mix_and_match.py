"""The tuning model: its step, its metrics, precision, and the ways to train it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, losses, matching


def _batch(num_nodes=24, num_classes=3, seed=0):
    """Patches whose class is a color, so that tuning has something to find."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_nodes).astype("int32")
    patches = rng.integers(0, 100, (num_nodes, 16, 16, 3))
    patches[np.arange(num_nodes), :, :, labels] += 100
    return patches.astype("uint8"), labels


def _model(rate=0.01, **arguments):
    keras.utils.set_random_seed(0)
    model = mm_keras.MixAndMatch(backbones.build("testing"), **arguments)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(rate), jit_compile=False)
    return model


def test_embeddings_are_unit_vectors_of_the_last_pooling():
    embeddings = _model()(_batch()[0])
    assert embeddings.shape == (24, 2 * 2 * 16) and embeddings.dtype == "float32"
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_step_takes_the_gradient_of_equation_1():
    """One step of train_step equals the same step written out."""
    patches, labels = _batch()
    model, twin = _model(seed=5), _model(seed=5)
    triplets = matching.class_connected(labels, keras.random.SeedGenerator(5))
    with tf.GradientTape() as tape:
        loss = losses.triplet_margin(twin(patches, training=True), triplets)
    gradients = tape.gradient(loss, twin.trainable_variables)
    twin.optimizer.apply(gradients, twin.trainable_variables)
    metrics = model.train_step({"patches": patches, "labels": labels})
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    for ours, theirs in zip(model.variables, twin.variables, strict=True):
        if "seed_generator" not in ours.path:
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6, err_msg=ours.path)


def test_tuning_separates_classes():
    patches, labels = _batch(48)
    model = _model()
    step = tf.function(model.train_step)
    for _ in range(40):
        metrics = step({"patches": patches, "labels": labels})
        model.reset_metrics() if _ < 39 else None
    assert metrics["loss"] < 1.0 < 2.1  # 2.1 is an uninformative embedding
    assert metrics["negative_distance"] > 1.2 > metrics["positive_distance"]


def test_fit_takes_dicts_and_pairs():
    patches, labels = _batch()
    as_dict = tf.data.Dataset.from_tensors({"patches": patches, "labels": labels})
    by_dict = _model().fit(as_dict, verbose=0).history
    by_pair = _model().fit(patches, labels, batch_size=24, shuffle=False, verbose=0).history
    assert by_dict == by_pair
    assert {"loss", "positive_distance", "effective_rank", "non_finite"} <= set(by_dict)


def test_the_label_shares_of_the_patches_are_averaged_over_steps():
    patches, labels = _batch()
    batch = {"patches": patches, "labels": labels}
    model = _model()
    for share in (0.25, 0.75):
        batch["label_share"] = np.full(24, share, "float32")
        metrics = model.train_step(batch)
    np.testing.assert_allclose(metrics["label_share"], 0.5)


def test_evaluate_reports_the_loss_without_training():
    patches, labels = _batch()
    model = _model()
    before = [variable.numpy() for variable in model.trainable_variables]
    figures = model.evaluate(patches, labels, batch_size=24, verbose=0, return_dict=True)
    assert 0 < figures["loss"] < 4.1
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_one_class_gives_no_loss_and_no_gradient():
    patches, _ = _batch()
    metrics = _model().train_step((patches, np.zeros(24, "int32")))
    assert metrics["loss"] == 0 and metrics["gradient_norm"] == 0 and metrics["non_finite"] == 0


def test_steps_that_are_not_finite_are_counted_although_pooling_drops_nan():
    patches, labels = _batch()
    model = _model()
    model.backbone.get_layer("conv1_1").bias.assign(np.full(4, np.nan))
    assert model.train_step((patches, labels))["non_finite"] == 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_steps_are_finite(policy):
    patches, labels = _batch()
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = _model(rate=1e-3)
        figures = model.train_step((patches, labels))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    full = _model(rate=1e-3).train_step((patches, labels))
    assert model.backbone.get_layer("conv1_1").compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(figures["loss"], full["loss"], rtol=0.02)
    np.testing.assert_allclose(figures["gradient_norm"], full["gradient_norm"], rtol=0.1)
    assert figures["non_finite"] == 0


def test_an_overflow_under_loss_scaling_is_skipped_not_reported():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = _model()
        model.optimizer.build(model.trainable_variables)
        model.optimizer.dynamic_scale.assign(2.0**40)
        before = model.backbone.get_layer("conv1_1").kernel.numpy()
        figures = model.train_step(_batch())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert figures["non_finite"] == 0
    assert float(model.optimizer.dynamic_scale) == 2.0**39
    np.testing.assert_array_equal(model.backbone.get_layer("conv1_1").kernel.numpy(), before)


def test_any_keras_model_can_be_tuned():
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(inputs / 255)
    model = mm_keras.MixAndMatch(keras.Model(inputs, outputs))
    model.compile(optimizer="adam")
    patches, labels = _batch()
    assert np.isfinite(model.fit(patches, labels, batch_size=24, verbose=0).history["loss"][0])


def test_a_batch_of_another_form_is_rejected():
    with pytest.raises(ValueError, match="patches.*labels"):
        _model().train_step({"image": 0, "label": 0})
