"""Networks for images of any number of bands, from networks for color images.

The first convolution is rewritten. For images of k bands, band b gets the kernel of the color b mod
3, in the order red, green, blue, times 3 / k. A single band gets the sum of the three kernels. Both
libraries in common use have this rule: timm (`adapt_input_conv` in models/_manipulate.py) and
segmentation_models_pytorch (`patch_first_conv` in encoders/_utils.py). The kernel of a gray network
is divided by k, so that k equal bands give its response to the gray image. This rule is ours.
"""

import copy

import keras
import numpy as np

from mm_keras import layers
from mm_keras.backbones.spec import Pixels


def shares(pixels: Pixels) -> np.ndarray:
    """Return the factors that turn the kernel for color images into a kernel for bands.

    Args:
        pixels: the result of `Pixels.of_bands` for another number than three.

    Returns:
        float64 [channels of the color network, num_bands]: the kernel of a band is the sum of the
        kernels of the channels, with the factors of its column.

    Example:

    >>> from mm_keras.backbones.spec import PIXELS
    >>> shares(PIXELS["torch"].of_bands(4)).tolist()  # red, green, blue, red again
    [[0.75, 0.0, 0.0, 0.75], [0.0, 0.75, 0.0, 0.0], [0.0, 0.0, 0.75, 0.0]]
    >>> shares(PIXELS["bgr"].of_bands(1)).tolist()
    [[1.0], [1.0], [1.0]]
    """
    count, color = pixels.num_bands, pixels.of_color.color
    if color == "gray":
        return np.full((1, count), 1 / count)
    if count == 1:
        return np.ones((3, 1))
    found = 3 / count * (np.arange(3)[:, None] == np.arange(count) % 3)
    return found[::-1] if color == "bgr" else found


def of_bands(
    name: str, network: keras.Model, pixels: Pixels, num_bands: int
) -> tuple[keras.Model, Pixels]:
    """Rebuild a network of keras.applications for images of another number of bands.

    Args:
        name: name of the backbone, "applications/ResNet50" and the like.
        network: functional model from prepared color images.
        pixels: the pixels that it expects.
        num_bands: the number of bands.

    Returns:
        The network with the same weights and a rewritten first convolution, and its pixels.

    Raises:
        ValueError: if the network is of another library, normalizes three colors by itself, or
            the number is out of range.
    """
    changed = pixels.of_bands(num_bands)
    if not name.startswith("applications/"):
        raise ValueError(f"{name} takes three bands. Received {num_bands}. {_ADVICE}")
    if any(isinstance(layer, keras.layers.Normalization) for layer in layers.inner_layers(network)):
        raise ValueError(
            f"{name} normalizes red, green and blue inside of the network. Received {num_bands} "
            f"bands. {_ADVICE}"
        )
    wide = keras.Model.from_config(_config(network, num_bands))
    factors = shares(changed)
    for variable, value in zip(wide.weights, network.get_weights(), strict=True):
        if variable.shape != value.shape:
            value = np.einsum("...co,cb->...bo", value, factors)
        variable.assign(value)
    return wide, changed


_ADVICE = (
    "Use vgg16, alexnet, applications/ResNet50 or another network of keras.applications, or choose "
    "three bands."
)


def _config(network, num_bands) -> dict:
    """Return the config of a functional model whose input has another number of bands."""
    config = copy.deepcopy(network.get_config())
    for layer in config["layers"]:
        layer.pop("build_config", None)  # it has the shapes of color images
        if layer["class_name"] == "InputLayer":
            batch_shape = layer["config"]["batch_shape"]
            layer["config"]["batch_shape"] = (*batch_shape[:-1], num_bands)
    return config
