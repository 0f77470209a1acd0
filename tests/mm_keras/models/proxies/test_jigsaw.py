"""The jigsaw network: its shape, its input, its training step, and learning."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.backbones import Backbone, BackboneSpec, Pixels, Tap
from mm_keras.models.proxies import jigsaw
from pipelines.batches import Order, permutations, unlabelled
from pipelines.batches import jigsaw as inputs

ORDERS = np.random.default_rng(7).permuted(np.tile(np.arange(9), (6, 1)), axis=1)

MEAN_COLOR = (122.67892, 116.66877, 104.00699)


def puzzles(num=6, tile=16, seed=0):
    """Puzzle i shows grid cell c as a bar at height c, shuffled by permutation i of `ORDERS`."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 40, (num, 9, tile, tile, 3))
    labels = np.arange(num, dtype="int32") % len(ORDERS)
    for puzzle, slot in np.ndindex(num, 9):
        cell = ORDERS[labels[puzzle], slot]
        tiles[puzzle, slot, cell : cell + 4] += 150
    return tiles.astype("uint8"), labels


def model(rate=0.01, pixels="bgr", **arguments):
    keras.utils.set_random_seed(0)
    arguments = {"tile": 16, "initialization": "he"} | arguments
    made = jigsaw.Jigsaw(backbones.build("testing", pixels, 0.25), 6, **arguments)
    made.compile(optimizer=mm_keras.optimizers.CoupledSGD(rate), jit_compile=False)
    return made


def tiny_backbone(pixels, width):
    """One convolution from 64 pixels to 3 x 3 x 256, the size of the published branch's pool5."""
    images = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(256, 1, strides=22, padding="same", name="conv")(images)
    tap = Tap("pool5", 22, 256)
    return Backbone(images, {"pool5": features}, BackboneSpec("tiny", pixels, (tap,), tap, width))


def test_layers_have_the_published_sizes():
    made = jigsaw.Jigsaw(tiny_backbone(backbones.PIXELS["bgr"], 1 / 8), 1000)
    kernels = {w.path.split("/")[-2]: w.shape for w in made.weights if w.name == "kernel"}
    kernels.pop("conv")
    assert kernels == {"fc6": (2304, 128), "fc7": (9 * 128, 512), "fc8": (512, 1000)}
    biases = [int(np.prod(w.shape)) for w in made.weights if w.name == "bias"]
    assert sorted(biases) == [128, 256, 512, 1000]


@pytest.mark.parametrize("initialization, bias", [("release", 1), ("he", 0)])
def test_initial_values_follow_the_release(initialization, bias):
    made = jigsaw.Jigsaw(backbones.build("testing", width=0.25), 100, initialization=initialization)
    for block, layer in ((made.branch, "fc6"), (made.joint, "fc7")):
        kernel = block.get_layer(layer).kernel.numpy()
        stddev = 0.005 if initialization == "release" else np.sqrt(2 / len(kernel))
        assert kernel.std() == pytest.approx(stddev, rel=0.02) and abs(kernel.mean()) < 1e-3
        assert (block.get_layer(layer).bias.numpy() == bias).all()
    assert made.fc8.kernel.numpy().std() == pytest.approx(0.01, rel=0.02)
    assert (made.fc8.bias.numpy() == 0).all()


@pytest.mark.parametrize("tile, cells", [(16, 2), (20, 3)])
def test_an_embedding_of_any_size_is_flattened(tile, cells):
    made = model(tile=tile)
    fc6 = made.branch.get_layer("fc6")
    assert fc6.kernel.shape[0] == cells**2 * made.backbone.spec.embedding.channels
    assert made(puzzles(2, tile)[0]).shape == (2, 6)


def test_logits_equal_the_layers_written_out():
    """Tile by tile through the backbone, then plain matrix products."""
    made, (tiles, _) = model(), puzzles(3)

    def dense(values, layer):
        return values @ layer.kernel.numpy() + layer.bias.numpy()

    features = []
    for puzzle in tiles:
        branch = []
        for one in puzzle.astype("float32"):
            one = 50 * (one - one.mean((0, 1))) / one.std((0, 1)) + [
                122.67892,
                116.66877,
                104.00699,
            ]
            maps = made.backbone(one[None].astype("float32"))["pool3"].numpy()
            branch.append(np.maximum(dense(maps.ravel(), made.branch.get_layer("fc6")), 0))
        features.append(np.concatenate(branch))
    hidden = np.maximum(dense(np.stack(features), made.joint.get_layer("fc7")), 0)
    logits = made(tiles)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, dense(hidden, made.fc8), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pixels", ["bgr", "gray"])
@pytest.mark.parametrize("normalization", ["mean_and_std", "mean", "joint"])
def test_the_network_sees_tiles_of_mean_zero(pixels, normalization):
    made = model(pixels=pixels, normalization=normalization)
    seen = made.backbone(made.network_tiles(puzzles()[0]))["input"].numpy()
    assert seen.shape == (54, 16, 16, 1 if pixels == "gray" else 3)
    scale = made.backbone.spec.pixels.scale
    axes = (1, 2, 3) if normalization == "joint" else (1, 2)
    np.testing.assert_allclose(seen.mean(axes), 0, atol=2e-3 * scale)
    if normalization != "mean":
        np.testing.assert_allclose(seen.std(axes), 50 * scale, rtol=1e-3)


def test_without_normalization_the_network_sees_pixels():
    made, (tiles, _) = model(normalization="none"), puzzles()
    np.testing.assert_array_equal(made.network_tiles(tiles), tiles.reshape(54, 16, 16, 3))


@pytest.mark.parametrize("normalization", ["mean_and_std", "joint"])
def test_normalized_tiles_have_the_stated_spread(normalization):
    rng = np.random.default_rng(0)
    tiles = rng.normal(100, [[[[20]]], [[[1.5]]], [[[60]]]], (3, 12, 12, 3)) * [0.5, 1, 1.2]
    axes = (1, 2, 3) if normalization == "joint" else (1, 2)
    normalized = jigsaw.normalize_tiles(tiles * 2, normalization, spread=7).numpy()
    np.testing.assert_allclose(normalized.mean(axes), 0, atol=1e-3)
    np.testing.assert_allclose(normalized.std(axes), 7, rtol=1e-4)


def test_normalization_removes_brightness_contrast_and_color():
    tiles = puzzles()[0][0].astype("float32")
    changed = tiles * [0.5, 0.7, 0.9] + [10, 60, 5]
    first, second = (jigsaw.normalize_tiles(x.astype("float32")) for x in (tiles, changed))
    np.testing.assert_allclose(first, second, atol=1e-2)
    only_mean = jigsaw.normalize_tiles(tiles, "mean").numpy()
    np.testing.assert_allclose(only_mean, tiles - tiles.mean((1, 2), keepdims=True), atol=1e-3)


def test_a_flat_tile_is_zero_and_its_noise_stays_small():
    tiles = np.full((2, 8, 8, 3), 200, "uint8")
    tiles[1, 3, 3] = 201
    normalized = jigsaw.normalize_tiles(tiles).numpy()
    assert (normalized[0] == 0).all()
    assert np.abs(normalized[1]).max() <= 50


@pytest.mark.parametrize(
    "pixels, expected",
    [
        (backbones.PIXELS["bgr"], MEAN_COLOR),
        (backbones.PIXELS["gray"], (114.444, 114.444, 114.444)),
        (Pixels("rgb", (0.1, 0.2, 0.5), (1.0, 2.0, 3.0), (0, 0, 0)), (10, 10, 6)),
    ],
)
def test_the_mean_color_becomes_zero(pixels, expected):
    np.testing.assert_allclose(jigsaw.mean_color(pixels), expected, rtol=1e-5)


def test_step_takes_the_gradient_of_the_cross_entropy():
    tiles, labels = puzzles()
    ours, twin = model(dropout=0), model(dropout=0)
    with tf.GradientTape() as tape:
        logits = twin(tiles, training=True)
        chosen = tf.gather(tf.nn.log_softmax(logits), labels, batch_dims=1)
        loss = -tf.reduce_mean(chosen)
    gradients = tape.gradient(loss, twin.trainable_variables)
    twin.optimizer.apply(gradients, twin.trainable_variables)
    metrics = ours.train_step({"tiles": tiles, "permutation": labels})
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(np.argmax(logits, 1) == labels))
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    for one, other in zip(ours.trainable_variables, twin.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6, err_msg=one.path)
    assert metrics["non_finite"] == 0


def test_batch_norm_sees_all_tiles_of_the_batch():
    made, (tiles, labels) = model(), puzzles()
    adapter, conv, norm = (
        made.backbone.get_layer(name) for name in ("input_adapter", "conv1_1", "batch_conv1_1")
    )
    seen = conv(adapter(made.network_tiles(tiles))).numpy()
    made.train_step((tiles, labels))
    assert len(seen) == 54
    np.testing.assert_allclose(norm.moving_mean, 0.1 * seen.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * seen.var((0, 1, 2)), rtol=1e-3)


@pytest.mark.slow
def test_a_tiny_network_overfits_a_few_puzzles():
    tiles, labels = puzzles(12)
    made = model(rate=0.01)
    step = tf.function(made.train_step)
    for _ in range(40):
        made.reset_metrics()
        metrics = step({"tiles": tiles, "permutation": labels})
    assert metrics["accuracy"] > 0.9 and metrics["loss"] < 0.5
    assert jigsaw.evaluate(made, [{"tiles": tiles, "permutation": labels}])["accuracy"] == 1


@pytest.mark.slow
def test_fit_takes_dicts_and_pairs():
    tiles, labels = puzzles()
    as_dict = tf.data.Dataset.from_tensors({"tiles": tiles, "permutation": labels})
    by_dict = model().fit(as_dict, verbose=0).history
    by_pair = model().fit(tiles, labels, batch_size=6, shuffle=False, verbose=0).history
    assert by_dict == by_pair
    assert set(by_dict) == {"loss", "accuracy", "gradient_norm", "non_finite"}


def test_evaluate_counts_puzzles_and_does_not_change_the_model():
    made, (tiles, labels) = model(), puzzles(10)
    made.train_step((tiles, labels))
    before = {name: float(value) for name, value in made.get_metrics_result().items()}
    weights = [variable.numpy() for variable in made.variables]
    parts = [slice(0, 6), slice(6, 10)]
    figures = jigsaw.evaluate(made, [{"tiles": tiles[p], "permutation": labels[p]} for p in parts])
    logits = made(tiles).numpy().astype("float64")
    chances = np.exp(logits)[np.arange(10), labels] / np.exp(logits).sum(1)
    assert figures["num_puzzles"] == 10
    assert figures["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert figures["loss"] == pytest.approx(-np.log(chances).mean(), rel=1e-4)
    assert {name: float(value) for name, value in made.get_metrics_result().items()} == before
    for variable, value in zip(made.variables, weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_evaluate_without_a_puzzle_raises_an_error():
    with pytest.raises(ValueError, match="no batch"):
        jigsaw.evaluate(model(), [])


def test_a_step_that_is_not_finite_is_counted():
    made = model()
    made.backbone.get_layer("conv1_1").bias.assign(np.full(1, np.nan))
    assert made.train_step(puzzles())["non_finite"] == 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_steps_are_finite(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        made = model(rate=1e-3, dropout=0)
        figures = made.train_step(puzzles())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    full = model(rate=1e-3, dropout=0).train_step(puzzles())
    assert made.branch.get_layer("fc6").compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(figures["loss"], full["loss"], rtol=0.02)
    np.testing.assert_allclose(figures["gradient_norm"], full["gradient_norm"], rtol=0.1)
    assert figures["non_finite"] == 0


@pytest.mark.slow
def test_slim_vgg_learns_on_real_images(real_data):
    """Held-out accuracy after 120 steps, one minute, above twice the chance of 1/9."""
    files = sorted(str(file) for file in (real_data / "unlabelled" / "voc160").glob("*.jpg"))
    if not files:
        pytest.skip("no unlabelled/voc160 in MM_TEST_DATA")
    train, held_out = unlabelled.divide(files)
    keras.utils.set_random_seed(0)
    backbone = backbones.build("vgg16", width=0.25)
    made = jigsaw.Jigsaw(backbone, 9, tile=24, dropout=0, initialization="he")
    made.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    settings = (
        permutations.permutation_set(9, "minimum"),
        inputs.Puzzle(shorter_side=88, cell=28, tile=24),
    )
    step = tf.function(made.train_step)
    for batch in inputs.batches(train, *settings, Order(num_images=32, num_steps=120)):
        step(batch)
    order = Order(num_images=40, num_steps=7, seed=1)
    puzzles_of_held_out = inputs.batches(held_out, *settings, order)
    assert jigsaw.evaluate(made, puzzles_of_held_out)["accuracy"] > 2 / 9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_permutations": 1}, "num_permutations=1"),
        ({"tile": 0}, "tile=0"),
        ({"normalization": "std"}, "mean_and_std.*'std'"),
        ({"spread": 0}, "spread.* 0"),
        ({"initialization": "paper"}, "release.*he.*'paper'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    backbone = backbones.build("testing", width=0.25)
    with pytest.raises(ValueError, match=message):
        jigsaw.Jigsaw(backbone, **({"num_permutations": 6, "tile": 16} | arguments))


def test_a_batch_of_another_form_is_rejected():
    with pytest.raises(ValueError, match="tiles.*permutation"):
        model().train_step({"patches": 0, "labels": 0})
