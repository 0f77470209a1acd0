"""Layouts of weights in published files and in our layers, and the conversion between them.

A `Slot` describes the arrays that a layer needs. Arrays of a file have roles: "weight" and "bias"
of a convolution, a dense layer or the affine part of batch norm; "mean", "variance" and "factor" of
statistics; "0", "1", ... of Keras' own files.
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np

from mm_keras import layers
from mm_keras.backbones import more_bands
from mm_keras.backbones.spec import Pixels
from mm_keras.weights.files import WeightsError

Shapes = tuple[tuple[int, ...], ...]
Arrays = dict[str, np.ndarray]

BLOB_ROLES = {
    1: ("weight",),
    2: ("weight", "bias"),
    3: ("mean", "variance", "factor"),  # "BatchNorm", caffe/src/caffe/layers/batch_norm_layer.cpp
    4: ("weight", "bias", "mean", "variance"),  # "BN" of the M&M release, bn_layer.cpp
}
"""{number of Caffe's blobs of a layer: their roles}."""

TENSOR_ROLES = {
    "weight": "weight",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "variance",
}

EPSILON = 1e-5  # of batch norm in Caffe, in torch and here


@dataclasses.dataclass(frozen=True)
class Slot:
    """The arrays that a layer needs from a file.

    Attributes:
        shapes: {role: shapes that fit}.
        convert: function({role: float32 array}) -> [(variable of the layer, its new value)].
        optional: roles that may be absent.
    """

    shapes: dict[str, Shapes]
    convert: Callable[[Arrays], list]
    optional: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class PixelChange:
    """The map from the pixels q of a network to the pixels p that weights expect.

    p = matrix q + offset. For bands, the matrix gives the kernels of `more_bands`.

    Attributes:
        matrix: float64 [channels of p, channels of q].
        offset: float64 [channels of p].
    """

    matrix: np.ndarray
    offset: np.ndarray

    @classmethod
    def between(cls, expected: Pixels, given: Pixels) -> "PixelChange":
        """Return the change from expected to given pixels, see `mm_keras.weights.loading`."""
        if given.of_color is not None and given.num_bands > 1:
            colors = cls.between(expected, given.of_color)
            return cls(colors.matrix @ more_bands.shares(given), colors.offset)
        to_expected, expected_shift = _affine(expected)
        to_given, given_shift = _affine(given)
        if given.color == "gray" or given.num_bands == 1:
            # The image is taken as gray: one value v in all three channels.
            matrix = to_expected.sum(axis=1, keepdims=True) / to_given.sum()
        else:
            matrix = to_expected @ np.linalg.inv(to_given)
        return cls(matrix, expected_shift - matrix @ given_shift)

    def apply(self, kernel, bias):
        """Return kernel [..., channels of q, out] and bias [out], float32, for q instead of p."""
        kernel = kernel.astype("float64")
        rewritten = np.einsum("...po,pq->...qo", kernel, self.matrix)
        window = kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=0)
        return rewritten.astype("float32"), (bias + self.offset @ window).astype("float32")


def _affine(pixels: Pixels):
    """Return A and a with `InputAdapter`'s pixels = A x + a; float64 [c, n] and [c].

    x is the pixel in RGB, in Lab for "lab", and L for "lightness". A single band has [1, 1] and
    [1].
    """
    if pixels.num_bands == 1:
        return np.array([pixels.scale]), -np.array(pixels.mean)
    scale, mean = (np.broadcast_to(np.float64(x), 3) for x in (pixels.scale, pixels.mean))
    matrix = np.diag(scale)
    if pixels.color == "lightness":
        return matrix[:1, :1], -mean[:1]
    if pixels.color == "bgr":
        matrix = matrix[:, ::-1]
    if pixels.color != "gray":
        return matrix, -mean
    weight = layers.InputAdapter.GRAY_WEIGHT
    return weight * matrix.sum(axis=0, keepdims=True), -weight * mean.sum(keepdims=True)


def slot(layer, change: PixelChange | None = None) -> Slot | None:
    """Return the slot of `layer` for a file of Caffe or torch, None for other kinds of layers.

    Args:
        layer: a built layer.
        change: for layers that read pixels, the difference between the file's pixels and the
            network's.
    """
    if isinstance(layer, layers.Hypercolumn):
        return _hypercolumn(layer, change)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
        return _kernel(layer, change)
    if isinstance(layer, keras.layers.BatchNormalization):
        return _batch_norm(layer)
    if isinstance(layer, layers.AccumulatedBatchNormalization):
        return _accumulated(layer)
    return None


def is_batch_norm(layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization | layers.AccumulatedBatchNormalization)


def keras_slot(layer, change: PixelChange | None = None) -> Slot:
    """Return the slot of `layer` for Keras' own file: its variables in order.

    Args:
        layer: a built layer.
        change: for a convolution that reads pixels, see `slot`.
    """
    shapes = {str(k): (tuple(v.shape),) for k, v in enumerate(layer.weights)}
    if change is not None:
        *window, _, num_outputs = layer.kernel.shape
        shapes["0"] = ((*window, len(change.matrix), num_outputs),)

    def convert(arrays):
        if change is not None:
            arrays = arrays | dict(zip("01", change.apply(arrays["0"], arrays["1"]), strict=True))
        return [(variable, arrays[str(k)]) for k, variable in enumerate(layer.weights)]

    return Slot(shapes, convert)


def _vector(length) -> Shapes:
    """Return the shapes of a vector. In old files every blob has four axes."""
    return ((length,), (1, length), (1, 1, 1, length), (1, length, 1, 1))


def _matrices(num_outputs, num_inputs) -> Shapes:
    """Return the shapes of a fully connected layer's weights in Caffe, torch and old Caffe."""
    return ((num_outputs, num_inputs), (1, 1, num_outputs, num_inputs))


def _kernel(layer, change):
    """Return the slot of a convolution (out, in, height, width), flattened or not, or of a dense
    layer (out, in).
    """
    *size, num_inputs, num_outputs = layer.kernel.shape
    if change is not None:
        num_inputs = len(change.matrix)
    window = tuple(size) or (1, 1)
    shapes = (
        (num_outputs, num_inputs, *window),
        *_matrices(num_outputs, num_inputs * math.prod(window)),
    )

    def convert(arrays):
        kernel = arrays["weight"].reshape(num_outputs, num_inputs, *window).transpose(2, 3, 1, 0)
        bias = arrays["bias"].reshape(-1)
        if change is not None:
            kernel, bias = change.apply(kernel, bias)
        return [(layer.kernel, kernel.reshape(layer.kernel.shape)), (layer.bias, bias)]

    return Slot({"weight": tuple(dict.fromkeys(shapes)), "bias": _vector(num_outputs)}, convert)


def _hypercolumn(layer, change):
    """Return the slot of the release's ip_column, (units, all channels), split by tap."""
    channels = [count for _, _, count in layer.taps]
    if change is not None:
        channels[0] = len(change.matrix)

    def convert(arrays):
        kernel = arrays["weight"].reshape(layer.units, sum(channels)).T
        kernels = np.split(kernel, np.cumsum(channels)[:-1])
        bias = arrays["bias"].reshape(-1)
        if change is not None:
            kernels[0], bias = change.apply(kernels[0], bias)
        variables = [layer.kernels[name] for name, _, _ in layer.taps]
        return [*zip(variables, kernels, strict=True), (layer.bias, bias)]

    weight = _matrices(layer.units, sum(channels))
    return Slot({"weight": weight, "bias": _vector(layer.units)}, convert)


def _batch_norm(layer):
    def convert(arrays):
        slope, bias, mean, variance = statistics(arrays, layer.moving_mean.shape[0])
        values = [(layer.moving_mean, mean), (layer.moving_variance, variance)]
        affine = [(layer.gamma, slope), (layer.beta, bias)]
        return values + [(variable, value) for variable, value in affine if variable is not None]

    return _statistics_slot(layer.moving_mean.shape[0], convert)


def _accumulated(layer):
    length = layer.accumulated_mean.shape[0]

    def convert(arrays):
        mean = arrays.get("mean", np.zeros(length, "float32"))
        variance = arrays.get("variance", np.ones(length, "float32"))
        factor = arrays.get("factor", np.ones(1, "float32"))
        statistics(arrays, length)  # checks them
        return [
            (layer.accumulated_mean, mean.reshape(-1)),
            (layer.accumulated_variance, variance.reshape(-1)),
            (layer.factor, factor.reshape(-1)),
        ]

    slot = _statistics_slot(length, convert)
    plain = {role: slot.shapes[role] for role in ("mean", "variance", "factor")}
    return Slot(plain, convert, slot.optional)


def _statistics_slot(length, convert):
    shapes = dict.fromkeys(("mean", "variance", "weight", "bias"), _vector(length))
    return Slot(
        shapes | {"factor": ((), *_vector(1))}, convert, frozenset({"factor", "weight", "bias"})
    )


def statistics(arrays: Arrays, length: int):
    """Return slope, bias, mean and variance of a batch norm, float32 [length] each.

    Absent arrays are replaced by the values of the identity.

    Raises:
        WeightsError: if the factor is not positive, or a variance is negative.
    """
    factor = float(arrays.get("factor", np.ones(1)).reshape(()))
    if not factor > 0:
        raise WeightsError(
            f"the factor of its statistics is {factor:g}, expected a positive one: they were never "
            "accumulated"
        )
    mean = arrays.get("mean", np.zeros(length, "float32")).reshape(-1) / np.float32(factor)
    variance = arrays.get("variance", np.ones(length, "float32")).reshape(-1) / np.float32(factor)
    if variance.min() < 0:
        raise WeightsError(f"it has a variance of {variance.min():g}")
    slope = arrays.get("weight", np.ones(length, "float32")).reshape(-1)
    bias = arrays.get("bias", np.zeros(length, "float32")).reshape(-1)
    return slope, bias, mean, variance


def folding(inner: Slot, layer) -> Slot:
    """Return the slot of a convolution or dense layer with the batch norm after it folded in.

    Roles of the batch norm begin with "norm_". The kernel is multiplied by slope / sigma, with
    sigma = sqrt(EPSILON + variance). The bias becomes (bias - mean) slope / sigma plus the norm's
    bias.
    """
    length = layer.bias.shape[0]
    norm = _statistics_slot(length, convert=None)

    def convert(arrays):
        (kernel, weights), (bias, offsets) = inner.convert(arrays)
        slope, shift, mean, variance = statistics(
            {role.removeprefix("norm_"): a for role, a in arrays.items() if role in shapes}, length
        )
        scale = slope / np.sqrt(np.float32(EPSILON) + variance)
        return [(kernel, weights * scale), (bias, (offsets - mean) * scale + shift)]

    shapes = {f"norm_{role}": fit for role, fit in norm.shapes.items()}
    return Slot(
        inner.shapes | shapes,
        convert,
        inner.optional | frozenset(f"norm_{role}" for role in norm.optional),
    )
