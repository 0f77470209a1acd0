"""Networks of other than three bands: the rewritten first convolution, by hand-computed values."""

import keras
import numpy as np
import pytest

from mm_keras import backbones, layers, weights
from mm_keras.backbones import MAX_BANDS, PIXELS, more_bands
from mm_keras.backbones.libraries import RAW

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3)).astype("uint8")


def toy(preprocessing=None):
    """A functional network of one 1 x 1 convolution with the kernels 10, 20 and 30."""
    inputs = keras.Input((None, None, 3))
    features = inputs if preprocessing is None else preprocessing(inputs)
    features = keras.layers.Conv2D(1, 1, strides=2, name="first")(features)
    network = keras.Model(inputs, features)
    network.get_layer("first").set_weights(
        [np.array([[[[10.0], [20.0], [30.0]]]]), np.array([7.0])]
    )
    return network


@pytest.mark.parametrize(
    "num_bands, expected",
    [
        (1, [60.0]),
        (2, [15.0, 30.0]),
        (4, [7.5, 15.0, 22.5, 7.5]),
        (6, [5.0, 10.0, 15.0, 5.0, 10.0, 15.0]),
    ],
)
def test_bands_get_the_kernels_of_the_colors_in_turn(num_bands, expected):
    # timm, adapt_input_conv: 10, 20, 30, 10, ... times 3 / k; one band gets the sum.
    wide, pixels = more_bands.of_bands("applications/Toy", toy(), RAW, num_bands)
    kernel, bias = wide.get_layer("first").get_weights()
    np.testing.assert_allclose(kernel[0, 0, :, 0], expected)
    assert bias == [7.0] and pixels.num_bands == num_bands and pixels.of_color == RAW


def test_bands_start_with_red_where_the_network_starts_with_blue():
    pixels = backbones.Pixels("bgr", 1.0, (1.0, 2.0, 3.0), (3, 2, 1))
    wide, changed = more_bands.of_bands("applications/Toy", toy(), pixels, 4)
    kernel, _ = wide.get_layer("first").get_weights()
    np.testing.assert_allclose(kernel[0, 0, :, 0], [22.5, 15.0, 7.5, 22.5])
    assert changed.mean == (3.0, 2.0, 1.0, 3.0) and changed.pad_color == (3, 2, 1, 3)


def test_a_network_that_normalizes_colors_by_itself_is_refused():
    network = toy(keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="normalizes red, green and blue inside.*ResNet50"):
        more_bands.of_bands("applications/Toy", network, RAW, 4)


def test_a_network_of_another_library_is_refused():
    with pytest.raises(ValueError, match="kerashub/x takes three bands. Received 5"):
        more_bands.of_bands("kerashub/x", toy(), RAW, 5)


@pytest.mark.parametrize("num_bands", [0, MAX_BANDS + 1])
def test_the_number_of_bands_is_bounded(num_bands):
    with pytest.raises(ValueError, match=f"1 to 64 bands. Received {num_bands}"):
        backbones.build("testing", num_bands=num_bands)


@pytest.mark.parametrize("pixels", ["lab", "lightness"])
def test_pixels_computed_from_colors_are_refused(pixels):
    with pytest.raises(ValueError, match="computed from red, green and blue. Received 2 bands"):
        backbones.build("testing", pixels=pixels, num_bands=2)


def test_three_bands_are_the_color_network():
    body = backbones.build("testing", num_bands=3)
    assert body.spec.pixels == PIXELS["bgr"] and body.spec.num_bands == 3


@pytest.mark.parametrize("num_bands", [1, 2, 4, MAX_BANDS])
@pytest.mark.parametrize("name", ["testing", "vgg16", "alexnet"])
def test_a_network_takes_images_of_its_bands(name, num_bands):
    body = backbones.build(name, num_bands=num_bands, width=0.1)
    maps = body(np.zeros((1, 64, 64, num_bands), "uint8"))
    assert maps["input"].shape == (1, 64, 64, num_bands)
    assert maps[body.spec.embedding.name].shape[-1] == body.spec.embedding.channels
    assert len(body.spec.pad_color) == num_bands


def test_the_pad_color_is_zero_for_the_network():
    body = backbones.build("testing", pixels="jigsaw", num_bands=4)
    image = np.broadcast_to(np.array(body.spec.pad_color, "uint8"), (1, 8, 8, 4))
    np.testing.assert_allclose(body(image)["input"], 0.0)


@pytest.fixture
def color_file(tmp_path):
    """A color network and the file of its weights."""
    keras.utils.set_random_seed(0)
    body = backbones.build("testing")
    body.save_weights(tmp_path / "color.weights.h5")
    return body, tmp_path / "color.weights.h5"


def inside(body, image, tap="conv1_1"):
    return keras.ops.convert_to_numpy(body(image)[tap])[:, 1:-1, 1:-1]


def test_two_copies_of_an_image_give_the_responses_of_the_color_network(color_file):
    color, file = color_file
    body = backbones.build("testing", num_bands=6)
    report = weights.load(body, file)
    assert "conv1_1 rewritten from bgr pixels to 6 bands" in str(report)
    doubled = np.concatenate([IMAGE, IMAGE], axis=-1)
    np.testing.assert_allclose(inside(body, doubled), inside(color, IMAGE), atol=1e-3)


def test_a_single_band_gives_the_responses_to_the_gray_image(color_file):
    color, file = color_file
    body = backbones.build("testing", num_bands=1)
    weights.load(body, file)
    gray = IMAGE[..., :1]
    expected = inside(color, gray.repeat(3, axis=-1))
    np.testing.assert_allclose(inside(body, gray), expected, atol=1e-3)


def test_equal_bands_give_the_responses_of_a_gray_network(tmp_path):
    gray = backbones.build("testing", pixels="gray")
    gray.save_weights(tmp_path / "gray.weights.h5")
    body = backbones.build("testing", pixels="gray", num_bands=5)
    weights.load(body, tmp_path / "gray.weights.h5")
    image = IMAGE[..., :1]
    expected = inside(gray, image.repeat(3, axis=-1))
    np.testing.assert_allclose(inside(body, image.repeat(5, axis=-1)), expected, atol=1e-3)


def test_the_weights_of_a_network_of_bands_load_as_they_are(tmp_path):
    body, other = (backbones.build("testing", num_bands=4) for _ in range(2))
    body.save_weights(tmp_path / "four.weights.h5")
    report = weights.load(other, tmp_path / "four.weights.h5")
    assert not report.notes
    for one, two in zip(body.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_weights_of_other_bands_are_refused(tmp_path):
    backbones.build("testing", num_bands=4).save_weights(tmp_path / "four.weights.h5")
    with pytest.raises(weights.WeightsError, match="conv1_1 .*expected"):
        weights.load(backbones.build("testing", num_bands=5), tmp_path / "four.weights.h5")


def test_a_file_of_torch_is_rewritten_for_bands(tmp_path):
    # Band 4 of k = 4 has the kernel of red times 3 / 4, in torchvision's order RGB and scale.
    torch_pixels = PIXELS["torch"]
    body = backbones.build("alexnet_one_column", pixels="torch", num_bands=4, width=0.05)
    channels = body.get_layer("conv1").kernel.shape[-1]
    kernel = np.random.default_rng(1).normal(size=(channels, 3, 11, 11)).astype("float32")
    change = weights.layouts.PixelChange.between(torch_pixels, body.spec.pixels)
    slot = weights.layouts.slot(body.get_layer("conv1"), change)
    (_, found), (_, bias) = slot.convert({"weight": kernel, "bias": np.ones(channels, "float32")})
    for band, color in enumerate((0, 1, 2, 0)):
        expected = 0.75 * kernel[:, color].transpose(1, 2, 0)
        np.testing.assert_allclose(found[:, :, band], expected, rtol=1e-6)
    np.testing.assert_array_equal(bias, 1.0)


def test_bands_are_scaled_and_shifted_in_their_own_order():
    adapter = layers.InputAdapter("bands", scale=(1.0, 0.5), mean=(10.0, 20.0))
    pixels = np.array([[[[30, 100]]]], "uint8")
    np.testing.assert_allclose(adapter(pixels)[0, 0, 0], [20.0, 30.0])
    assert adapter.compute_output_shape((None, 5, 5, 2)) == (None, 5, 5, 2)
    again = layers.InputAdapter.from_config(adapter.get_config())
    np.testing.assert_allclose(again(pixels), adapter(pixels))
    with pytest.raises(ValueError, match="mean must be one number or 2"):
        layers.InputAdapter("bands", scale=(1.0, 0.5), mean=(1.0, 2.0, 3.0))
