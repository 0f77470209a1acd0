"""CIE Lab colors of sRGB pixels. Source of the constants: scikit-image, which Zhang et al. use."""

import numpy as np
from keras import ops

_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, two degrees


def rgb_to_lab(images):
    """Return the Lab colors of RGB pixels.

    Lightness L is 0..100, and no linear map of red, green and blue: the best one has an error of
    4.3. The colors of sRGB have a in -86..98 and b in -108..94. Grays have up to 0.005, since the
    constants are rounded.

    Args:
        images: uint8 or float [..., 3], RGB in 0..255.

    Returns:
        float32 [..., 3].

    Example:

    >>> rgb_to_lab(np.array([255, 0, 0], "uint8")).numpy().round(2)
    array([53.24, 80.09, 67.2 ], dtype=float32)
    """
    xyz = ops.matmul(_linear(images), _constant(_TO_XYZ.T / _WHITE))
    roots = ops.where(xyz > 0.008856, _power(xyz, 1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = (roots[..., k] for k in range(3))
    return ops.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_to_rgb(lab):
    """Return the RGB pixels of Lab colors; colors outside of sRGB are clipped channel by channel.

    Args:
        lab: float [..., 3].

    Returns:
        float32 [..., 3] in 0..255.

    Example:

    >>> lab_to_rgb(np.array([53.2406, 80.0923, 67.2028])).numpy().round(1) + 0
    array([255.,   0.,   0.], dtype=float32)
    """
    lab = ops.cast(lab, "float32")
    y = (lab[..., 0] + 16) / 116
    x = lab[..., 1] / 500 + y
    z = ops.maximum(y - lab[..., 2] / 200, 0.0)
    roots = ops.stack([x, y, z], axis=-1)
    xyz = ops.where(roots > 0.2068966, roots**3, (roots - 16 / 116) / 7.787)
    linear = ops.matmul(xyz, _constant(np.linalg.inv(_TO_XYZ.T / _WHITE)))
    return 255 * ops.clip(_gamma(linear), 0.0, 1.0)


def gray_of_same_lightness(images):
    """Return gray images in which each pixel keeps its lightness L.

    Args:
        images: uint8 or float [..., 3], RGB in 0..255.

    Returns:
        float32 [..., 3] in 0..255, three equal channels.

    Example:

    >>> gray_of_same_lightness(np.array([255, 0, 0], "uint8")).numpy().round(1)
    array([127.1, 127.1, 127.1], dtype=float32)
    """
    luminance = ops.matmul(_linear(images), _constant(_TO_XYZ[1][:, None]))
    gray = 255 * _gamma(luminance)
    return ops.concatenate([gray] * 3, axis=-1)


def _linear(images):
    colors = ops.cast(images, "float32") / 255
    return ops.where(colors > 0.04045, _power((colors + 0.055) / 1.055, 2.4), colors / 12.92)


def _gamma(linear):
    return ops.where(linear > 0.0031308, 1.055 * _power(linear, 1 / 2.4) - 0.055, 12.92 * linear)


def _power(values, exponent):
    """Return powers of the positive values; the others are not used, and need a finite gradient."""
    return ops.power(ops.maximum(values, 1e-6), exponent)


def _constant(matrix):
    return ops.convert_to_tensor(matrix, "float32")
