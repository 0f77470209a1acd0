"""The fully convolutional segmenter: sizes, loss, steps, saving, and its way through Predictor."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, layers
from mm_keras.models.context import fcn_context


def _model(num_classes=5, pixels="bgr", rate=0.01, **arguments):
    keras.utils.set_random_seed(0)
    backbone = backbones.build("alexnet", pixels, width=0.04)
    model = mm_keras.FcnSegmenter(backbone, num_classes, **arguments)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(rate), jit_compile=False)
    return model


def _images(height=46, width=41, batch=2):
    return np.random.default_rng(1).integers(0, 256, (batch, height, width, 3)).astype("uint8")


def _trained(**arguments):
    """A model with statistics of batch norm, and with scores of the order of 1."""
    model = _model(**arguments)
    for _ in range(2):
        model.train_step((_images(100, 100, 4), np.zeros((4, 100, 100), "uint8")))
    kernel = model.score.kernel
    kernel.assign(np.random.default_rng(0).normal(scale=0.05, size=kernel.shape))
    return model


def test_the_segmenter_has_as_many_weights_as_published():
    context = fcn_context(backbones.build("alexnet").spec)
    counts = {layer.name: layer.count_params() for layer in context.layers}
    assert counts["fc6"] == 37_752_832 and counts["fc7"] == 16_781_312
    score = keras.layers.Conv2D(21, 1)
    score.build((None, None, None, 4096))
    assert score.count_params() == 86_037


@pytest.mark.parametrize("pixels", ["bgr", "jigsaw"])
def test_score_maps_have_caffe_sizes(golden, pixels):
    model = _model(pixels=pixels)
    for sizes in golden("alexnet")["sizes"][pixels]:
        pool5 = model.backbone.compute_output_shape((1, sizes["input"], sizes["input"], 3))["pool5"]
        shapes = model.context.compute_output_shape(pool5)
        assert (shapes["fc6"][1], shapes["fc7"][1]) == (sizes["fc6"], sizes["fc7"])


def test_initial_weights_follow_the_release():
    model = _model()
    for name, stddev in (("fc6", 0.005), ("fc7", 0.005)):
        layer = model.context.get_layer(name)
        np.testing.assert_allclose(layer.kernel.numpy().std(), stddev, rtol=0.02)
        np.testing.assert_allclose(layer.bias, 0.1)
    np.testing.assert_allclose(model.score.kernel.numpy().std(), 0.01, rtol=0.1)
    np.testing.assert_array_equal(model.score.bias, np.zeros(5))


def test_logits_are_interpolated_scores_of_fc7():
    """Written out with TensorFlow's own ops, after two steps of training."""
    model, images = _trained(), _images(100, 83)
    features = model.backbone(images)["pool5"]
    features = tf.pad(features, [[0, 0], [3, 3], [3, 3], [0, 0]])
    for name in ("fc6", "fc7"):
        layer, norm = model.context.get_layer(name), model.context.get_layer(f"batch_{name}")
        features = tf.nn.conv2d(features, layer.kernel.value, 1, "VALID") + layer.bias.value
        mean = norm.accumulated_mean.numpy() / norm.factor.numpy()
        variance = norm.accumulated_variance.numpy() / norm.factor.numpy()
        features = tf.nn.relu((features - mean) / np.sqrt(variance + 1e-5))
    scores = features @ model.score.kernel.value[0, 0] + model.score.bias.value
    assert scores.shape == (2, 4, 3, 5)
    logits = model(images)
    scale = np.abs(logits).max()
    np.testing.assert_allclose(logits, layers.resize_aligned(scores, (100, 83)), atol=1e-4 * scale)
    np.testing.assert_allclose(logits[:, 0, 0], scores[:, 0, 0], atol=1e-4 * scale)
    np.testing.assert_allclose(logits[:, -1, -1], scores[:, -1, -1], atol=1e-4 * scale)
    np.testing.assert_allclose(logits[:, 33, 0], scores[:, 1, 0], atol=1e-4 * scale)
    assert np.std(scores) > 0.01 * scale


def test_images_of_any_size_work_in_graph_mode():
    model = _trained()
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    function = tf.function(lambda images: model(images, training=False), input_signature=signature)
    for size in ((1, 1), (33, 20), (7, 90)):
        images = _images(*size)
        assert function(images).shape == (2, *size, 5)
        np.testing.assert_allclose(function(images), model(images), atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (33, 52)])
def test_a_training_step_works_at_any_size(size):
    figures = _model().train_step((_images(*size), np.zeros((2, *size), "uint8")))
    assert np.isfinite(figures["loss"]) and figures["non_finite"] == 0


def test_the_loss_is_the_mean_over_the_labelled_pixels():
    model, images = _trained(), _images()
    labels = np.random.default_rng(0).integers(0, 5, (2, 46, 41)).astype("uint8")
    labels[:, :20] = 255
    logits = model(images)
    loss = float(model.compute_loss(images, labels, logits))
    log_probability = np.log(keras.ops.softmax(logits)).reshape(-1, 5)
    pairs = zip(log_probability, labels.ravel(), strict=True)
    picked = [row[label] for row, label in pairs if label < 255]
    np.testing.assert_allclose(loss, -np.mean(picked), rtol=1e-5)
    expected = np.mean(np.argmax(logits, -1)[labels < 255] == labels[labels < 255])
    model.reset_metrics()
    model.compute_loss(images, labels, logits)
    np.testing.assert_allclose(model.trackers["pixel_accuracy"].result(), expected, rtol=1e-5)


def test_an_all_void_batch_has_loss_zero():
    figures = _model().train_step({"image": _images(), "label": np.full((2, 46, 41), 255, "uint8")})
    assert figures["loss"] == 0 and figures["non_finite"] == 0


@pytest.mark.slow
def test_training_finds_colors():
    """One color a class, in the left or the right half of the image."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, (6, 1, 2)), 48, 2).repeat(64, 1)
    images = rng.integers(0, 60, (6, 64, 96, 3))
    images[np.arange(3) == labels[..., None]] += 150
    batch = (images.astype("uint8"), labels.astype("uint8"))
    model = _model(num_classes=3, dropout=0.0, rate=0.05)
    step = tf.function(model.train_step)
    losses = [float(step(batch)["loss"]) for _ in range(60) if model.reset_metrics() is None]
    assert losses[-1] < 0.4 * losses[0]
    assert np.mean(np.argmax(model(batch[0]), -1) == batch[1]) > 0.8


def test_fit_and_evaluate_report_the_metrics():
    model, images = _model(), _images(64, 64)
    labels = np.random.default_rng(0).integers(0, 5, (2, 64, 64)).astype("uint8")
    dataset = tf.data.Dataset.from_tensors({"image": images, "label": labels})
    assert {"loss", "pixel_accuracy", "gradient_norm"} <= set(model.fit(dataset, verbose=0).history)
    figures = model.evaluate(images, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(figures["loss"], np.log(5), atol=0.2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_step_and_inference_are_finite(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = _model()
        figures = model.train_step((_images(64, 64), np.zeros((2, 64, 64), "uint8")))
        logits = model(_images(64, 64))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(figures["loss"]) and logits.dtype == "float32"
    assert np.all(np.isfinite(logits))


def test_dropout_masks_differ_between_layers_and_steps_and_follow_the_seed():
    def masks(seed):
        context = fcn_context(_model().backbone.spec, seed=seed)
        ones = np.ones((1, 2, 2, context.get_layer("fc6").filters), "float32")
        drops = [context.get_layer(f"drop_{name}") for name in ("fc6", "fc7", "fc6")]
        return [drop(ones, training=True).numpy() > 0 for drop in drops]

    first, second, third = masks(seed=3)
    assert np.any(first != second) and np.any(first != third)
    np.testing.assert_array_equal(masks(seed=3), [first, second, third])
    assert np.any(masks(seed=8)[0] != first)


def test_weights_survive_saving(tmp_path):
    model, images = _trained(), _images()
    model.save_weights(tmp_path / "a.weights.h5")
    keras.utils.set_random_seed(9)
    other = mm_keras.FcnSegmenter(backbones.build("alexnet", width=0.04), 5)
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(other(images), model(images))


@pytest.mark.parametrize("protocol", [pytest.param("native", marks=pytest.mark.slow), "pascal"])
def test_live_and_saved_predictions_agree(tmp_path, protocol):
    predictor, images = mm_keras.Predictor(_trained(), protocol), _images(40, 56)
    predictor.export(tmp_path / "model")
    saved = tf.saved_model.load(tmp_path / "model")
    prediction = predictor.predict(images)
    served = saved.signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_array_equal(served["class_ids"], prediction.class_ids)
    np.testing.assert_allclose(served["probability"], prediction.probability, atol=1e-5)
    if protocol == "native":
        probabilities = keras.ops.softmax(predictor.models[0](images))
        np.testing.assert_allclose(predictor.probabilities(images), probabilities, atol=1e-3)


def test_arguments_out_of_range_are_rejected():
    with pytest.raises(ValueError, match="num_classes must be at least 1. Received 0"):
        _model(num_classes=0)
    spec = backbones.build("testing").spec
    bare = backbones.BackboneSpec("bare", spec.pixels, spec.taps, spec.embedding)
    with pytest.raises(ValueError, match=r"'bare' has context_units \(\)"):
        fcn_context(bare)
