"""BiGAN: its losses and their gradients, published sizes, figures of collapse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, optimizers
from mm_keras.models.proxies import bigan

CROP = 32


def build(**arguments):
    keras.utils.set_random_seed(0)
    arguments = {"side": 16, "num_codes": 6, "channels": 4} | arguments
    model = bigan.Bigan(backbones.build("testing", "bigan"), CROP, **arguments)
    model.compile(
        optimizer=mm_keras.optimizers.LayerwiseAdamW(1e-3, beta_1=0.5, rate_multipliers={})
    )
    return model


def batch_of(number=4, seed=0, num_codes=6):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (number, CROP, CROP, 3)).astype("uint8"),
        "z": rng.uniform(-1, 1, (number, num_codes)).astype("float32"),
    }


def test_losses_are_the_published_ones(golden):
    case = golden("starts")["bigan_losses"]
    real, generated = np.array([case["logit_real"]]), np.array([case["logit_generated"]])
    np.testing.assert_allclose(bigan.pair_loss(real, generated), case["D"], rtol=1e-6)
    np.testing.assert_allclose(bigan.pair_loss(generated, real), case["E_and_G"], rtol=1e-6)
    model = build()
    outputs = model(batch_of(), training=True)
    model.batch_loss(batch_of(), None, outputs)
    for key in ("discriminator_loss", "encoder_loss"):
        found = model.trackers[key].result()
        np.testing.assert_allclose(found, case["at_start"], rtol=1e-6)


def test_the_rate_follows_the_published_schedule(golden):
    schedule = optimizers.HalfConstant(2e-4, num_updates=100)
    for epoch, rate in golden("starts")["bigan_lr"]["epoch_and_rate"]:
        np.testing.assert_allclose(schedule(epoch), rate, rtol=1e-4)


def test_the_networks_have_the_published_number_of_weights(golden):
    expected = golden("starts")["parameters"]

    def count(network, *names):
        return sum(int(np.prod(network.get_layer(name).kernel.shape)) for name in names)

    generator = bigan._generator(64, 200, 64)
    found = expected["bigan_generator_kernels"]
    assert count(generator, "fc") == found["fc"]
    for k in range(1, 5):
        assert count(generator, f"up{k}") == found[f"deconv{k}"]
    assert count(generator, *(f"codes_up{k}" for k in (1, 2, 3))) == found["z to biases"]
    discriminator = bigan._discriminator(64, 200, 64)
    found = expected["bigan_discriminator_kernels"]
    for k in range(1, 5):
        assert count(discriminator, f"conv{k}") == found[f"conv{k}"]
    assert count(discriminator, *(f"codes_conv{k}" for k in (2, 3, 4))) == found["z to biases"]
    assert count(discriminator, "score") == found["out"]


def test_the_code_reads_conv5_of_alexnet_at_the_published_size(golden):
    network = backbones.build("alexnet", "bigan", width=1 / 32)
    model = bigan.Bigan(network, 64, side=16, num_codes=3, channels=2)
    cells = golden("starts")["sizes"]["bigan 64"]["conv5"]
    assert model.tap.name == "conv5"
    assert model.code.kernel.shape == (cells * cells * model.tap.channels, 3)


def test_each_part_gets_the_gradient_of_its_own_loss_alone():
    model, batch = build(), batch_of()
    score = model.discriminator.get_layer("score")
    score.kernel.assign(keras.random.normal(score.kernel.shape, seed=1))  # zeros pass no gradient
    inputs = {key: tf.constant(value) for key, value in batch.items()}
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(inputs, training=True)
        total = model.batch_loss(inputs, None, outputs)
        pairs = (
            (model.small(inputs["image"]), model.encode(inputs["image"], training=True)),
            (model.generate(inputs["z"], training=True), inputs["z"]),
        )
        real, generated = (model.discriminator(pair, training=True) for pair in pairs)
        own = {
            "discriminator": bigan.pair_loss(real, generated),
            "others": bigan.pair_loss(generated, real),
        }
    discriminator = model.discriminator.trainable_variables
    others = [
        *model.backbone.trainable_variables,
        *model.code.trainable_variables,
        *model.generator.trainable_variables,
    ]
    assert len(discriminator) + len(others) == len(model.trainable_variables)
    for key, variables in (("discriminator", discriminator), ("others", others)):
        values = [variable.value for variable in variables]
        found, expected = tape.gradient(total, values), tape.gradient(own[key], values)
        for one, other in zip(found, expected, strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * scale + 1e-7)


def test_a_step_changes_all_parts_and_keeps_the_losses_finite():
    model = build()
    score = model.discriminator.get_layer("score")
    score.kernel.assign(keras.random.normal(score.kernel.shape, seed=1))
    before = [np.asarray(v) for v in model.trainable_variables]
    figures = model.train_step({key: tf.constant(value) for key, value in batch_of().items()})
    assert np.isfinite(figures["loss"]) and figures["non_finite"] == 0
    for variable, start in zip(model.trainable_variables, before, strict=True):
        has_norm_behind = variable.name == "bias" and start.size > 1
        assert has_norm_behind or np.any(np.asarray(variable) != start), variable.path


@pytest.mark.slow
def test_some_steps_change_all_parts_and_keep_the_losses_finite():
    model = build()
    before = [np.array(w) for w in model.get_weights()]
    history = model.fit(tf.data.Dataset.from_tensors(batch_of()).repeat(20), verbose=0).history
    assert history["non_finite"] == [0]
    names = ("discriminator", "generator", "code")
    after = model.get_weights()
    assert all(np.any(a != b) for a, b in zip(after, before, strict=True) if b.ndim > 1), names


class Fixed:
    """A model whose reconstructions and samples are given."""

    def __init__(self, rebuild, samples):
        self.encode, self.rebuild, self.samples = (lambda images: "codes"), rebuild, samples
        self.images = None

    def small(self, images):
        self.images = np.asarray(images, "float32") / 127.5 - 1
        return self.images

    def generate(self, codes):
        return self.rebuild(self.images) if isinstance(codes, str) else self.samples(self.images)


def test_reconstructions_that_ignore_the_image_have_ratio_one():
    batches = [batch_of(8)]
    constant = Fixed(lambda x: 0 * x + x.mean(axis=0), lambda x: x)
    np.testing.assert_allclose(bigan.evaluate(constant, batches)["reconstruction_ratio"], 1, 1e-5)
    exact = bigan.evaluate(Fixed(lambda x: x, lambda x: x), batches)
    assert exact["reconstruction_ratio"] == 0 and exact["other_image_ratio"] == 1
    np.testing.assert_allclose(exact["sample_deviation"], 4 * exact["collapsed_deviation"])


def test_the_activation_has_the_values_and_gradients_of_leaky_relu():
    x = tf.constant([-3.7, -1e-30, -0.0, 0.0, 1e-30, 2.5, np.inf, np.nan])
    results = []
    for function in (bigan._leaky_relu, lambda x: tf.nn.leaky_relu(x, 0.2)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        results.append([y, tape.gradient(y, x)])
    np.testing.assert_array_equal(*results)


def test_equal_samples_are_a_collapse():
    figures = bigan.evaluate(Fixed(lambda x: x, lambda x: 0 * x), [batch_of(8)])
    assert figures["sample_deviation"] == 0 < figures["collapsed_deviation"]


def test_wrong_sizes_and_batches_are_refused():
    with pytest.raises(ValueError, match="side must be a multiple of 16. Received 20"):
        build(side=20)
    network = backbones.build("alexnet_one_column", "torch", width=0.05)
    with pytest.raises(ValueError, match="Crops of 8 pixels leave no cell in conv5"):
        bigan.Bigan(network, 8)
    with pytest.raises(ValueError, match="at least two images"):
        bigan.evaluate(build(), [batch_of(1)])
    with pytest.raises(ValueError, match="no batch"):
        bigan.evaluate(build(), [])
