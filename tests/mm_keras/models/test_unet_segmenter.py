"""The U-Net: sizes with every kind of backbone, skips, learning, and its way through Predictor."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.models import unet_segmenter


def _model(backbone="testing", num_classes=3, **arguments):
    keras.utils.set_random_seed(0)
    return mm_keras.UnetSegmenter(backbones.build(backbone), num_classes, **arguments)


def _batch(height=32, width=40):
    """Images whose left half is dark and of class 0, whose right half is bright and of class 1."""
    images = np.zeros((4, height, width, 3), "uint8")
    images[:, :, width // 2 :] = 200
    labels = (images[..., 0] > 100).astype("uint8")
    labels[:, :2] = 255
    return images, labels


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 23), (64, 33)])
def test_logits_cover_every_second_or_every_pixel(stride, size):
    logits = _model(output_stride=stride)(np.zeros((2, *size, 3), "uint8"))
    assert logits.dtype == "float32"
    assert tuple(logits.shape) == (2, -(-size[0] // stride), -(-size[1] // stride), 3)


@pytest.mark.parametrize("side", [63, 64, 67, 71, 79])
def test_poolings_that_round_differently_fit(side):
    keras.utils.set_random_seed(0)
    backbone = backbones.build("alexnet", width=0.04)
    logits = mm_keras.UnetSegmenter(backbone, 3)(np.zeros((1, side, side + 9, 3), "uint8"))
    assert tuple(logits.shape) == (1, -(-side // 2), -(-(side + 9) // 2), 3)


def test_the_decoder_joins_the_last_tap_of_each_stride():
    spec = backbones.build("vgg16", width=0.05).spec
    names = ["pool5", "conv5_3", "conv4_3", "conv3_3", "conv2_2", "conv1_2"]
    assert list(unet_segmenter.decoder(spec, output_stride=1).input) == names
    assert list(unet_segmenter.decoder(spec, output_stride=2).input) == names[:-1]


def test_cells_are_repeated_and_the_last_one_fills_a_missing_row():
    coarse = np.arange(4.0).reshape(1, 2, 2, 1)
    fine = np.zeros((1, 5, 3, 7))
    result = unet_segmenter.EnlargeLike(2)([coarse, fine])
    expected = [[0, 0, 1], [0, 0, 1], [2, 2, 3], [2, 2, 3], [2, 2, 3]]
    np.testing.assert_array_equal(np.array(result)[0, :, :, 0], expected)


def test_the_segmenter_learns_and_ignores_void_pixels():
    images, labels = _batch()
    model = _model(num_classes=2)
    model.compile(optimizer=mm_keras.optimizers.LayerwiseAdamW(0.01), jit_compile=False)
    history = model.fit(images, labels, epochs=30, verbose=0).history
    assert history["pixel_accuracy"][-1] > 0.99
    changed = np.where(labels == 255, 255, labels)
    changed[:, :2] = 255
    loss = float(model.compute_loss(None, changed, model(images)))
    assert loss == pytest.approx(float(model.compute_loss(None, labels, model(images))))


def test_a_predictor_gives_probabilities_at_the_image_size():
    prediction = mm_keras.Predictor(_model()).predict(tf.zeros([1, 41, 35, 3], tf.uint8))
    assert prediction.class_ids.shape == (1, 41, 35)


def test_the_gradient_reaches_the_first_convolution():
    images, labels = _batch()
    model = _model(num_classes=2)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(None, labels, model(images, training=True))
    first = model.backbone.get_layer("conv1_1").kernel
    assert np.abs(tape.gradient(loss, first.value)).max() > 0


@pytest.mark.parametrize("stride, side", [(2, 7), (8, 31), (8, 33), (32, 20)])
def test_the_label_of_a_cell_is_that_of_its_center_pixel(stride, side):
    labels = np.random.default_rng(0).integers(0, 9, (2, side, side + 3)).astype("uint8")
    size = (-(-side // stride), (side + 3) // stride)
    found = np.array(unet_segmenter.labels_of_cells(labels, stride, size))
    assert found.shape == (2, *size)
    for (image, row, column), label in np.ndenumerate(found):
        y, x = (min(k * stride + stride // 2, n - 1) for k, n in ((row, side), (column, side + 3)))
        assert label == labels[image, y, x]


def test_deep_supervision_adds_the_losses_of_the_coarse_maps():
    images, labels = _batch()
    model = _model("vgg16", num_classes=2, deep_supervision=0.4)
    outputs = model(images, training=True)
    assert list(outputs) == ["finest", "32", "16", "8"]
    plain = model.pixel_loss(labels[:, ::2, ::2], outputs["finest"])
    coarse = [
        model.pixel_loss(
            unet_segmenter.labels_of_cells(labels, s, (-(-32 // s), -(-40 // s))), outputs[str(s)]
        )
        for s in (8, 16, 32)
    ]
    found = model.batch_loss(images, labels, outputs)
    assert float(found) == pytest.approx(float(plain + 0.4 * sum(coarse)), rel=1e-5)
    assert model(images).shape == (4, 16, 20, 2)


def test_a_batch_of_void_has_no_loss_under_deep_supervision():
    images, _ = _batch()
    model = _model(num_classes=2, deep_supervision=1.0)
    labels = np.full((4, 32, 40), 255, "uint8")
    assert float(model.batch_loss(images, labels, model(images, training=True))) == 0


def test_all_weights_learn_under_deep_supervision():
    images, labels = _batch()
    model = _model(num_classes=2, deep_supervision=0.5)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(None, labels, model(images, training=True))
    assert all(
        g is not None for g in tape.gradient(loss, [v.value for v in model.trainable_variables])
    )


@pytest.mark.parametrize(
    "arguments", [{"output_stride": 4}, {"num_classes": 0}, {"deep_supervision": -1}]
)
def test_impossible_arguments_are_rejected(arguments):
    with pytest.raises(ValueError, match="Received"):
        _model(**arguments)


def test_hubs_of_pooled_features_score_the_cells_of_the_embedding():
    model = _model("alexnet", deep_supervision=0.4)
    channels = model.backbone.spec.embedding.channels
    hubs = keras.layers.Dense(3, bias_initializer="ones")
    hubs.build((None, channels))
    model.score_by(hubs)
    cells = np.random.default_rng(0).normal(size=(2, 5, 4, channels)).astype("float32")
    scores = keras.ops.convert_to_numpy(model.coarsest_score(cells))
    expected = keras.ops.convert_to_numpy(hubs(cells.mean((1, 2))))
    np.testing.assert_allclose(scores.mean((1, 2)), expected, atol=1e-4)


def test_hubs_that_do_not_fit_are_refused():
    hubs = keras.layers.Dense(4)
    hubs.build((None, 7))
    with pytest.raises(ValueError, match="deep_supervision above 0 .received 0.0"):
        _model("alexnet").score_by(hubs)
    with pytest.raises(ValueError, match=r"channels of the embedding, classes\). Received \(7, 4"):
        _model("alexnet", deep_supervision=0.4).score_by(hubs)
