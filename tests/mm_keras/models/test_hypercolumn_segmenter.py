"""The hypercolumn segmenter: dense equals sparse, points, void, memory, precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.models.context import hypercolumn_context, hypercolumn_context_taps
from mm_keras.models.dense import dense_map
from mm_keras.models.points import labels_at


def _model(num_classes=5, **arguments):
    keras.utils.set_random_seed(0)
    model = mm_keras.HypercolumnSegmenter(backbones.build("testing"), num_classes, **arguments)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    return model


def _with_random_head(model):
    """The score layer starts at zero, where any two ways of computing it agree."""
    rng = np.random.default_rng(0)
    for variable in (*model.hypercolumn.weights, *model.score.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return model


def _images(height=46, width=41, batch=2):
    return np.random.default_rng(1).integers(0, 256, (batch, height, width, 3)).astype("uint8")


def test_hypercolumn_has_as_many_channels_as_published(golden):
    for pixels, expected in zip(
        ("gray", "bgr"), golden("network")["hypercolumn_channels"], strict=True
    ):
        spec = backbones.build("vgg16", pixels).spec
        taps = [(tap.name, tap.stride, tap.channels) for tap in spec.taps]
        assert sum(tap[-1] for tap in (*taps, *hypercolumn_context_taps(spec))) == expected


def test_context_has_as_many_weights_as_published():
    network = hypercolumn_context(backbones.build("vgg16").spec)
    counts = {layer.name: layer.count_params() for layer in network.layers}
    assert counts["fc6"] == 102_764_544 and counts["fc7"] == 16_781_312
    assert counts["conv_add1"] == 37_749_760 and counts["conv_add2"] == 9_438_208


def test_context_maps_have_caffe_sizes(golden):
    for sizes in golden("network")["vgg16_sizes"]:
        spec = backbones.build("vgg16", width=0.01).spec
        side = sizes["pool5"]
        shapes = hypercolumn_context(spec).compute_output_shape(
            (1, side, side, spec.embedding.channels)
        )
        assert shapes["fc6"][1] == sizes["fc6"]
        assert shapes["pool_add1"][1] == sizes["pool_add1"]
        assert shapes["pool_add2"][1] == sizes["pool_add2"]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(46, 41), (8, 64), (1, 1)])
def test_dense_equals_gather_then_dense(stride, size, monkeypatch):
    """Same taps, same points: project, interpolate and sum against gather, concatenate and
    multiply.
    """
    monkeypatch.setattr("mm_keras.models.dense.POINTS_PER_BAND", 100)  # several bands
    model = _with_random_head(_model(output_stride=stride))
    images = _images(*size)
    maps = model.feature_maps(images)
    rows, columns = np.mgrid[0 : size[0] : stride, 0 : size[1] : stride]
    points = np.stack([rows, columns], -1).reshape(1, -1, 2).repeat(2, 0).astype("int32")
    gathered = [
        mm_keras.layers.gather_points(maps[name], points, tap_stride)
        for name, tap_stride, _ in model.hypercolumn.taps
    ]
    kernel = np.concatenate(
        [model.hypercolumn.kernels[name] for name, _, _ in model.hypercolumn.taps]
    )
    hidden = np.maximum(np.concatenate(gathered, -1) @ kernel + model.hypercolumn.bias.numpy(), 0)
    expected = hidden @ model.score.kernel.numpy() + model.score.bias.numpy()
    dense = model(images).numpy()
    np.testing.assert_allclose(
        dense.reshape(expected.shape), expected, atol=1e-4 * np.abs(expected).max()
    )
    np.testing.assert_allclose(
        model.point_logits(maps, points), expected, atol=1e-4 * np.abs(expected).max()
    )


def test_dense_inference_never_builds_the_hypercolumn_of_the_image():
    """Counted for VGG-16 at 512 x 512, stride 2: 14,467 channels of it would take 3.8 GB."""
    spec = backbones.build("vgg16").spec
    taps = [(tap.name, tap.stride, tap.channels) for tap in spec.taps]
    layer = mm_keras.layers.Hypercolumn([*taps, *hypercolumn_context_taps(spec)], 1024)
    layer.build()
    maps = {
        name: tf.TensorSpec([1, -(-512 // stride), -(-512 // stride), channels])
        for name, stride, channels in layer.taps
    }
    hidden = []

    def dense(maps):
        shared = [x for x in tf.nest.flatten(layer.prepare(maps, (256, 256), 2)) if tf.is_tensor(x)]
        dense_map(layer, maps, (512, 512), 2, lambda x: hidden.append(x) or x[..., :21])
        return shared

    shared = tf.function(dense).get_concrete_function(maps).structured_outputs
    assert sum(4 * tensor.shape.num_elements() for tensor in shared) < 200 * 2**20
    assert all(4 * tensor.shape.num_elements() < 10 * 2**20 for tensor in hidden)


def test_dense_works_in_graph_mode_at_any_size():
    model = _with_random_head(_model())
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    function = tf.function(lambda images: model(images, training=False), input_signature=signature)
    for size in ((33, 20), (7, 90)):
        images = _images(*size)
        np.testing.assert_allclose(function(images), model(images), atol=1e-4)


def test_points_keep_off_the_border_and_cover_the_rest():
    points = _model(num_points=20000).draw_points(np.zeros((1, 512, 256, 3), "uint8"))[0].numpy()
    assert points.min(0).tolist() == [96, 48] and points.max(0).tolist() == [415, 207]
    np.testing.assert_allclose(points.mean(0), [255.5, 127.5], atol=3)


def test_points_without_a_border_cover_the_whole_crop():
    model = _model(num_points=100000, point_border=0.0)
    points = model.draw_points(np.zeros((1, 96, 40, 3), "uint8"))[0].numpy()
    assert points.min(0).tolist() == [0, 0] and points.max(0).tolist() == [95, 39]
    assert len(np.unique(points, axis=0)) == 96 * 40
    with pytest.raises(ValueError, match="point_border must be at least 0 .* Received 0.5"):
        _model(point_border=0.5)


def test_points_are_new_at_each_step_and_read_their_own_labels():
    model = _model(num_points=16)
    images = _images(32, 32)
    first, second = (model(images, training=True)["points"].numpy() for _ in range(2))
    assert np.any(first != second)
    labels = np.random.default_rng(0).integers(0, 256, (2, 32, 32)).astype("uint8")
    expected = [[labels[b, y, x] for y, x in first[b]] for b in range(2)]
    np.testing.assert_array_equal(labels_at(labels, first), expected)


def test_an_all_void_batch_has_loss_zero():
    images = _images(32, 32)
    figures = _model().train_step({"image": images, "label": np.full((2, 32, 32), 255, "uint8")})
    assert figures["loss"] == 0 and figures["non_finite"] == 0


def test_input_scale_is_a_factor_of_the_pixels_tap_alone():
    images = _images()
    plain, scaled = _model().feature_maps(images), _model(input_scale=0.25).feature_maps(images)
    np.testing.assert_array_equal(scaled["input"], 0.25 * plain["input"])
    for name in plain.keys() - {"input"}:
        np.testing.assert_array_equal(scaled[name], plain[name])
    with pytest.raises(ValueError, match="input_scale must be positive. Received 0"):
        _model(input_scale=0)


@pytest.mark.slow
def test_training_finds_colors():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (4, 4, 4)), 8, 1), 8, 2)
    images = rng.integers(0, 60, (4, 32, 32, 3))
    images[np.arange(3) == labels[..., None]] += 150
    model = _model(num_classes=3, stddev=1e-2, dropout=0.0)
    step = tf.function(model.train_step)
    batch = (images.astype("uint8"), labels.astype("uint8"))
    losses = [float(step(batch)["loss"]) for _ in range(60) if model.reset_metrics() is None]
    assert losses[-1] < 0.4 * losses[0]
    prediction = np.argmax(model(batch[0]), -1)
    assert np.mean(prediction == labels[:, ::2, ::2]) > 0.8


def test_fit_and_evaluate_report_the_metrics():
    model, images = _model(), _images(32, 32)
    labels = np.random.default_rng(0).integers(0, 5, (2, 32, 32)).astype("uint8")
    dataset = tf.data.Dataset.from_tensors({"image": images, "label": labels})
    assert {"loss", "pixel_accuracy", "gradient_norm"} <= set(model.fit(dataset, verbose=0).history)
    figures = model.evaluate(images, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(figures["loss"], np.log(5), atol=0.1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_step_and_inference_are_finite(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = _model()
        figures = model.train_step((_images(32, 32), np.zeros((2, 32, 32), "uint8")))
        logits = model(_images(32, 32))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(figures["loss"]) and logits.dtype == "float32"


def test_weights_survive_saving(tmp_path):
    model, images = _with_random_head(_model()), _images()
    model.save_weights(tmp_path / "a.weights.h5")
    keras.utils.set_random_seed(9)
    other = mm_keras.HypercolumnSegmenter(backbones.build("testing"), 5)
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(other(images), model(images))


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"num_points": 0}, {"output_stride": 4}])
def test_arguments_out_of_range_are_rejected(arguments):
    with pytest.raises(ValueError, match="must be.*Received"):
        _model(**arguments)


def test_balanced_points_draw_rare_classes_and_keep_off_the_border():
    model = _model(balanced_points=True, num_points=20, point_border=0.25)
    labels = np.zeros((2, 40, 40), "uint8")
    labels[:, 20, 20:24], labels[:, :5] = 1, 2
    maps = model.feature_maps(_images(40, 40))
    drawn, logits = model.paired(labels, maps)
    assert logits.shape == (2, 20, 5)
    counts = np.bincount(np.ravel(drawn), minlength=3)
    assert counts[1] == 8 and counts[2] == 0  # all pixels of class 1, none near the border


def test_a_step_with_balanced_points_has_finite_losses_with_and_without_labels():
    model = _model(balanced_points=True, num_points=20, point_border=0.0)
    labels = np.full((2, 46, 41), 255, "uint8")
    figures = model.train_step((_images(), labels))
    assert figures["loss"] == 0 and figures["non_finite"] == 0
    labels[:, 3] = 2
    model.reset_metrics()
    figures = model.train_step((_images(), labels))
    assert float(figures["loss"]) == pytest.approx(np.log(5)) and figures["non_finite"] == 0
