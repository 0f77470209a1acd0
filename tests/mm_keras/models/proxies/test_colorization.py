"""The colorization model: its input, its loss, its metrics, and decoded colors."""

import colorsys
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.models.context import hypercolumn_context_taps
from mm_keras.models.proxies import colorization
from pipelines.batches import Order, View
from pipelines.batches import colorization as pipeline

ROOT = pathlib.Path(__file__).parents[4]


def build(pixels="gray", **arguments):
    keras.utils.set_random_seed(0)
    model = colorization.Colorization(backbones.build("testing", pixels), **arguments)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    return model


def images(height=33, width=26, batch=2):
    return np.random.default_rng(1).integers(0, 256, (batch, height, width, 3)).astype("uint8")


def hue_and_chroma(pixels):
    """By the standard library's HSV, on float [..., 3] in 0..1."""
    hue = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in pixels.reshape(-1, 3)])
    return hue.reshape(pixels.shape[:-1]), np.ptp(pixels, axis=-1)


def batch_of(pictures, num_points=12, soft=False, num_bins=32):
    """A batch as the pipeline makes it, in numpy."""
    rng = np.random.default_rng(2)
    batch, height, width, _ = pictures.shape
    points = rng.integers(0, (height, width), (batch, num_points, 2)).astype("int32")
    colors = pictures[np.arange(batch)[:, None], points[..., 0], points[..., 1]] / 255
    hue, chroma = hue_and_chroma(colors)
    bins = [np.minimum((v * num_bins).astype("int32"), num_bins - 1) for v in (hue, chroma)]
    if soft:
        bins = [0.5 * np.eye(num_bins, dtype="float32")[b] + 0.5 / num_bins for b in bins]
    return {
        "image": pictures,
        "points": points,
        "hue": bins[0],
        "chroma": bins[1],
        "chroma_value": chroma.astype("float32"),
        "lightness": colors.mean(-1).astype("float32"),
    }


def randomized(model):
    """Heads that start at 1e-4 would hide differences."""
    rng = np.random.default_rng(0)
    for variable in (*model.hypercolumn.weights, *model.hue.weights, *model.chroma.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return model


def test_hypercolumn_has_as_many_channels_as_published():
    network = backbones.build("vgg16", "gray")
    taps = [(tap.name, tap.stride, tap.channels) for tap in network.spec.taps]
    context = hypercolumn_context_taps(network.spec, added=False)
    # 12,417 channels in 2016 with the gray input, one fewer in 2017.
    assert sum(tap[-1] for tap in (*taps, *context)) == 12417
    names = [name for name, *_ in build().hypercolumn.taps]
    assert "input" not in names and names[-2:] == ["fc6", "fc7"]
    assert build(input_tap=True).hypercolumn.taps[0] == ("input", 1, 1)


@pytest.mark.parametrize("pixels", ["gray", "bgr"])
def test_the_network_never_sees_color(pixels):
    model = randomized(build(pixels))
    batch = batch_of(images())
    for training in (False, True):
        expected = model(batch, training=training)
        for order in ([1, 2, 0], [2, 1, 0]):
            other = model({**batch, "image": batch["image"][..., order]}, training=training)
            if not training:  # dropout draws anew
                np.testing.assert_array_equal(other["hue"], expected["hue"])
                np.testing.assert_array_equal(other["chroma"], expected["chroma"])
    maps = [model.feature_maps(batch["image"][..., order]) for order in ([0, 1, 2], [2, 0, 1])]
    for name in maps[0]:
        np.testing.assert_array_equal(maps[0][name], maps[1][name])
    brighter = model({**batch, "image": batch["image"] // 2})
    assert np.any(brighter["hue"] != model(batch)["hue"])


def test_point_weights_equal_the_golden_values(golden):
    for case in golden("colorization")["pixels"]:
        lightness = case["lightness_mean"]
        published = colorization.point_weights(case["chroma"], lightness, "2016")
        np.testing.assert_allclose(published["hue"], case["hue_weight_5x_chroma"], atol=1e-6)
        np.testing.assert_allclose(published["chroma"], case["chroma_loss_weight"], atol=1e-6)
        assert colorization.point_weights(case["chroma"], lightness, "2017")["chroma"] == 1


@pytest.mark.parametrize("formulation", ["2017", "2016"])
@pytest.mark.parametrize("soft", [False, True])
def test_loss_equals_a_loop_over_points(formulation, soft):
    model = randomized(build(formulation=formulation, decay=1e-2))
    batch = batch_of(images(), soft=soft)
    logits = {name: np.float64(value) for name, value in model(batch).items()}
    total, weighted = 0.0, {"hue": [], "chroma": []}
    for b, p in np.ndindex(2, 12):
        light, chroma = batch["lightness"][b, p], batch["chroma_value"][b, p]
        weights = {"hue": 5 * chroma, "chroma": 1.0}
        if formulation == "2016":
            weights["chroma"] = min(1, 3 * min(light, 1 - light))
        for name, weight in weights.items():
            log_p = logits[name][b, p] - np.log(np.exp(logits[name][b, p]).sum())
            q = batch[name][b, p] if soft else np.eye(32)[batch[name][b, p]]
            divergence = sum(x * (np.log(x) - y) for x, y in zip(q, log_p, strict=True) if x)
            total += weight * divergence / 24
            weighted[name].append((weight, -(q * log_p).sum(), q))
    if formulation == "2017":
        matrices = [*model.hypercolumn.kernels.values(), model.hue.kernel, model.chroma.kernel]
        total += 1e-2 / 2 * sum(np.sum(np.square(matrix)) for matrix in matrices)
    loss = model.compute_loss(batch, y_pred=model(batch))
    np.testing.assert_allclose(loss, total, rtol=1e-4)
    figures = model.get_metrics_result()
    for name, rows in weighted.items():
        weights, values, targets = (np.array(column) for column in zip(*rows, strict=True))
        expected = np.average(values, weights=weights)
        np.testing.assert_allclose(figures[f"{name}_cross_entropy"], expected, rtol=1e-4)
        mean = np.average(targets, axis=0, weights=weights)
        expected = -sum(p * np.log(p) for p in mean if p)
        np.testing.assert_allclose(figures[f"{name}_entropy"], expected, rtol=1e-4)


def test_entropy_of_the_mean_is_the_least_of_constants():
    metric = colorization.ConstantCrossEntropy(4)
    assert metric.result() == 0
    rng = np.random.default_rng(0)
    targets, weights = rng.dirichlet(np.ones(4), 50), rng.uniform(size=50)
    metric.update_state(targets[:20], weights[:20])
    metric.update_state(targets[20:], weights[20:])
    constants = rng.dirichlet(np.ones(4), 300)
    costs = -np.average(targets @ np.log(constants).T, axis=0, weights=weights)
    assert metric.result() < costs.min() < metric.result() + 0.05
    metric.reset_state()
    assert metric.result() == 0


def test_gray_images_have_no_hue_loss_and_finite_gradients():
    for value in (0, 255, 90):
        figures = build().train_step(batch_of(np.full((2, 16, 16, 3), value, "uint8")))
        assert figures["hue_cross_entropy"] == 0 and figures["hue_entropy"] == 0
        assert figures["non_finite"] == 0 and np.isfinite(figures["loss"])


def test_one_step_equals_gradient_descent_by_hand():
    model, other = build(dropout=0.0), build(dropout=0.0)
    batch = batch_of(images(16, 16))
    with tf.GradientTape() as tape:
        loss = other.compute_loss(batch, y_pred=other(batch, training=True))
    gradients = tape.gradient(loss, other.trainable_variables)
    other.optimizer.apply(gradients, other.trainable_variables)
    figures = model.train_step(batch)
    np.testing.assert_allclose(figures["loss"], loss, rtol=1e-6)
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
    np.testing.assert_allclose(figures["gradient_norm"], norm, rtol=1e-5)
    assert any(np.any(a != b) for a, b in zip(build().weights, model.weights, strict=True))
    for a, b in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_training_finds_the_color_of_dark_and_bright():
    """Dark is blue, bright is orange: lightness determines the color."""
    rng = np.random.default_rng(0)
    dark = np.repeat(np.repeat(rng.integers(0, 2, (4, 4, 4)), 8, 1), 8, 2)[..., None]
    pictures = np.where(dark, [10, 20, 90], [250, 160, 40]).astype("uint8")
    model = build(stddev=1e-2, dropout=0.0)
    step, batch = tf.function(model.train_step), batch_of(pictures, num_points=64)
    figures = [step(batch) for _ in range(80) if model.reset_metrics() is None]
    assert figures[-1]["hue_cross_entropy"] < 0.4 * figures[-1]["hue_entropy"] < 0.3
    found = colorization.evaluate(model, [batch], colorization.mean_distributions([batch]))
    assert found["hue_cross_entropy"] < 0.8 * found["hue_mean_cross_entropy"]
    painted = model.colorize(pictures, output_stride=1).numpy().astype(int)
    assert np.mean((painted[..., 2] > painted[..., 0]) == dark[..., 0]) > 0.8


def test_evaluation_equals_a_plain_count():
    model, first, second = (
        randomized(build()),
        batch_of(images()),
        batch_of(images(20, 20, batch=3)),
    )
    means = colorization.mean_distributions([first])
    counts = 1 + sum(
        5 * c * np.eye(32)[h]
        for c, h in zip(first["chroma_value"].ravel(), first["hue"].ravel(), strict=True)
    )
    np.testing.assert_allclose(means["hue"], counts / counts.sum(), rtol=1e-5)
    figures = colorization.evaluate(model, [first, second], means)
    costs, weights = {"hue": [], "chroma": []}, []
    for batch in (first, second):
        weights.append(batch["chroma_value"].ravel())
        for name, logits in model(batch).items():
            log_p = np.log(tf.nn.softmax(logits))
            for place in np.ndindex(batch[name].shape):
                k = batch[name][place]
                costs[name].append((-log_p[place][k], -np.log(means[name][k])))
    weights = {"hue": np.concatenate(weights), "chroma": None}
    for name, values in costs.items():
        expected = np.average(values, axis=0, weights=weights[name])
        found = [figures[f"{name}_cross_entropy"], figures[f"{name}_mean_cross_entropy"]]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_evaluation_without_color_raises_an_error():
    batch = batch_of(np.full((1, 8, 8, 3), 9, "uint8"))
    means = colorization.mean_distributions([batch])
    with pytest.raises(ValueError, match="No point has any color"):
        colorization.evaluate(build(), [batch], means)


@pytest.mark.parametrize("num_bins", [32, 512])
def test_decoding_the_true_bins_restores_the_colors(num_bins):
    rng = np.random.default_rng(0)
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T
    colors = np.concatenate([rng.uniform(size=(2000, 3)), corners, [[0.2, 0.2, 0.2]]])
    hue, chroma = hue_and_chroma(colors)
    one_hot = [
        np.eye(num_bins)[np.minimum((value * num_bins).astype(int), num_bins - 1)]
        for value in (hue, chroma)
    ]
    vectors = np.array(colorization.decode(*one_hot))
    found_chroma = np.hypot(*vectors.T)
    np.testing.assert_allclose(found_chroma, chroma, atol=0.5 / num_bins + 1e-6)
    painted = np.array(colorization.paint(vectors, colors.mean(-1).astype("float32")), int)
    # Half a bin of chroma, half a bin of hue (six times the full range), and rounding.
    width = 255 * (0.5 + 3) / num_bins + 1
    assert np.abs(painted - 255 * colors).max() < width


def test_decoding_takes_the_median_and_the_circular_mean_and_fades():
    bins = np.eye(32)
    # Hues on both sides of red: their mean is red, not cyan.
    around_red = (bins[0] + bins[31]) / 2
    vector = np.array(colorization.decode(around_red, bins[20]))
    np.testing.assert_allclose(vector, [20.5 / 32, 0], atol=1e-5)
    skewed = 0.45 * bins[2] + 0.1 * bins[3] + 0.45 * bins[31]
    assert np.hypot(*colorization.decode(bins[4], skewed)) == pytest.approx(3.5 / 32, abs=1e-6)
    # Opposite hues cancel; hues a right angle apart have a mean of length sqrt(1/2).
    assert np.hypot(*colorization.decode((bins[0] + bins[16]) / 2, bins[31])) < 1e-5
    faded = np.hypot(*colorization.decode((bins[0] + bins[8]) / 2, bins[31]))
    assert faded == pytest.approx(31.5 / 32 * np.sqrt(0.5) / 0.96, abs=1e-5)


def test_painting_keeps_lightness_and_clips():
    vectors = np.array([[0.4, 0.0], [0.0, 0.3], [0.9, 0.0], [0.0, 0.0]], "float32")
    painted = np.array(colorization.paint(vectors, np.array([0.5, 0.4, 1.0, 0.25], "float32")))
    np.testing.assert_allclose(painted[:2].mean(-1) / 255, [0.5, 0.4], atol=0.01)
    assert painted[2, 0] == 255 and painted.dtype == np.uint8
    assert painted[3].tolist() == [64, 64, 64]


@pytest.mark.parametrize("size", [(33, 26), (8, 60), (1, 1)])
def test_colorize_equals_decoding_pixel_by_pixel(size, monkeypatch):
    monkeypatch.setattr("mm_keras.models.dense.POINTS_PER_BAND", 100)
    model, pictures = randomized(build()), images(*size)
    points = np.stack(np.mgrid[: size[0], : size[1]], -1).reshape(1, -1, 2).repeat(2, 0)
    logits = model({"image": pictures, "points": points.astype("int32")})
    vectors = colorization.decode(*(tf.nn.softmax(logits[name]) for name in ("hue", "chroma")))
    lightness = pictures.reshape(2, -1, 3).mean(-1).astype("float32") / 255
    expected = np.array(colorization.paint(vectors, lightness), int).reshape(pictures.shape)
    found = model.colorize(pictures, output_stride=1).numpy()
    assert found.dtype == np.uint8
    # The dense hypercolumn is clamped a ten-thousandth of a cell before its end, as the sparse one.
    assert np.quantile(np.abs(found - expected), 0.99) <= 1


@pytest.mark.parametrize("output_stride", [1, 4])
def test_colorize_works_in_graph_mode_at_any_size(output_stride):
    model = randomized(build("bgr"))
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    paint = tf.function(lambda x: model.colorize(x, output_stride), input_signature=signature)
    for size in ((33, 20), (7, 41)):
        pictures = images(*size)
        found, gray = paint(pictures).numpy(), pictures.mean(-1)
        assert found.shape == pictures.shape
        eager = model.colorize(pictures, output_stride).numpy()
        assert np.abs(found.astype(int) - eager).max() <= 1
        inside = (found.min(-1) > 0) & (found.max(-1) < 255)
        assert np.abs(found.mean(-1) - gray)[inside].max() <= 1


def test_backbones_without_fc6_and_with_coarse_taps_only_work():
    """Wrapped networks have no context_units, and their finest tap may have stride 4."""
    pixels = backbones.PIXELS["bgr"]
    inputs = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(6, 4, 4, padding="same", name="stem")(inputs)
    tap = backbones.Tap("stem", 4, 6)
    spec = backbones.BackboneSpec("coarse", pixels, (tap,), tap, hypercolumn_units=8)
    model = colorization.Colorization(backbones.Backbone(inputs, {"stem": features}, spec))
    assert model.context is None and [name for name, *_ in model.hypercolumn.taps] == ["stem"]
    assert model(batch_of(images()))["hue"].shape == (2, 12, 32)
    assert model.colorize(images(), output_stride=2).shape == (2, 33, 26, 3)


def test_fit_and_evaluate_work_and_a_wrong_batch_is_rejected():
    model, batch = build(), batch_of(images(16, 16))
    dataset = tf.data.Dataset.from_tensors(batch).repeat(3)
    history = model.fit(dataset, verbose=0).history
    assert {"loss", "hue_cross_entropy", "chroma_entropy", "gradient_norm"} <= set(history)
    figures = model.evaluate(dataset, verbose=0, return_dict=True)
    assert np.isfinite(figures["loss"])
    with pytest.raises(ValueError, match="dict with"):
        model.train_step({"image": batch["image"]})


@pytest.mark.parametrize("targets", ["pixel", "histogram"])
def test_the_model_trains_on_batches_of_the_pipeline(tmp_path, targets):
    for i, picture in enumerate(images(20, 24, batch=3)):
        keras.utils.save_img(tmp_path / f"{i}.png", picture, scale=False)
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    points = pipeline.Points(num_points=8, num_bins=8, targets=targets)
    dataset = pipeline.batches(files, points, View(16), Order(num_images=2, num_steps=2))
    assert set(dataset.element_spec) == set(colorization.KEYS)
    model = build(formulation="2016" if targets == "histogram" else "2017", num_bins=8)
    for batch in dataset:
        figures = model.train_step(batch)
    assert np.isfinite(figures["loss"]) and 0 < figures["hue_entropy"] <= np.log(8) + 1e-6
    figures = colorization.evaluate(model, dataset, colorization.mean_distributions(dataset, 8))
    assert all(0 < value < 4 for value in figures.values())


def test_weights_survive_saving(tmp_path):
    model, batch = randomized(build()), batch_of(images())
    model.save_weights(tmp_path / "a.weights.h5")
    model.backbone.save_weights(tmp_path / "backbone.weights.h5")
    keras.utils.set_random_seed(9)
    other = colorization.Colorization(backbones.build("testing", "gray"))
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(other(batch)["hue"], model(batch)["hue"])
    backbone = backbones.build("testing", "gray")
    backbone.load_weights(tmp_path / "backbone.weights.h5")
    kernels = [b.get_layer("conv1_1").kernel for b in (backbone, model.backbone)]
    np.testing.assert_array_equal(*kernels)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_precision_step_is_finite(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = build()
        figures = model.train_step(batch_of(images(16, 16)))
        painted = model.colorize(images(16, 16))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(figures["loss"]) and painted.dtype == "uint8"


@pytest.mark.parametrize("arguments", [{"formulation": "2018"}, {"num_bins": 0}])
def test_arguments_out_of_range_are_rejected(arguments):
    with pytest.raises(ValueError, match="colorization; expected|must be at least 1. Received 0"):
        build(**arguments)


_ON_JAX = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
import keras
import mm_keras
from mm_keras.models.proxies import colorization

rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)
backbone = mm_keras.backbones.build("testing", "gray")
image = rng.integers(0, 256, (2, 16, 16, 3)).astype("uint8")
batch = {
    "image": image,
    "points": rng.integers(0, 16, (2, 6, 2)).astype("int32"),
    "hue": rng.integers(0, 32, (2, 6)).astype("int32"),
    "chroma": rng.integers(0, 32, (2, 6)).astype("int32"),
    "chroma_value": rng.uniform(size=(2, 6)).astype("float32"),
    "lightness": rng.uniform(size=(2, 6)).astype("float32"),
}
model = colorization.Colorization(backbone)
model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01))
"""

_FIT = """
before = backbone.get_layer("conv1_1").kernel.numpy()
history = model.fit(batch, batch_size=2, verbose=0).history
assert np.isfinite(history["loss"]).all() and history["hue_entropy"][0] > 0, history
assert np.any(before != backbone.get_layer("conv1_1").kernel.numpy())
"""

_LOOK = """
figures = colorization.evaluate(model, [batch], colorization.mean_distributions([batch]))
assert abs(figures["hue_cross_entropy"] - np.log(32)) < 0.5, figures
painted = np.asarray(model.colorize(image))
assert painted.shape == image.shape and painted.dtype == "uint8"
"""


@pytest.mark.parametrize("code", [pytest.param(_FIT, id="fit"), pytest.param(_LOOK, id="look")])
@pytest.mark.slow
def test_the_model_works_on_jax_without_tensorflow(code):
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _ON_JAX + code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
