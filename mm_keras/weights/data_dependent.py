"""Initial weights from images without labels: all channels of a layer vary alike, and all layers
learn at one rate.

Source: Krähenbühl, Doersch, Donahue and Darrell, "Data-dependent initializations of convolutional
neural networks", ICLR 2016, and their released magic_init.py.

The within-layer step visits the layers from the input up. A layer gets filters, and then factors
and biases that give each channel mean 0.1 and standard deviation 1 on the images. Batch norms get
gain 1, offset 0.1 and the statistics of the images.

The between-layer step makes the change rates of all layers equal: the root mean square of a
kernel's gradient over the root mean square of the kernel. Behind batch norm the scale of a kernel
does not change the network, and the factors have a closed form. A chain of layers without batch
norm is rescaled in passes, as in the release.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from mm_keras import layers
from mm_keras.backbones.spec import Backbone
from mm_keras.weights import filters

BIAS = 0.1
"""Mean of each channel. Source: magic_init.py, option -b."""

NUM_PASSES = 10
"""Largest number of passes of the between-layer step. Source: magic_init.py."""

NUM_IMAGES_OF_RATES = 8
"""Images of one backward pass, which bounds the memory. Source: ours."""

_KERNELS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_NORMS = (keras.layers.BatchNormalization, layers.AccumulatedBatchNormalization)


class Unit(NamedTuple):
    """A layer with a kernel, and the batch norm of its output.

    Attributes:
        layer: a convolution, a depthwise convolution or a dense layer.
        norm: the batch norm that reads its output, or None.
    """

    layer: keras.layers.Layer
    norm: keras.layers.Layer | None


class Spread(NamedTuple):
    """The differences that the two steps remove; 0 and 0 for a network without differences.

    Attributes:
        channels: coefficient of variation of the standard deviations of a layer's channels, for the
            layer where it is largest.
        rates: coefficient of variation of the change rates of the layers.
    """

    channels: float
    rates: float


def initialize(
    network: keras.Model, images: np.ndarray, directions: str = "kmeans", seed: int = 0
) -> list[Unit]:
    """Set all kernels, biases and batch norms of a network from images.

    Layers of other kinds keep their weights. Networks with branches and with layers that have no
    batch norm get the within-layer step alone.

    Args:
        network: a backbone, or a model of one output; the function changes it in place.
        images: uint8 or float [N, H, W, 3], at least two, as the network takes them.
        directions: "kmeans", "pca" or "random", see `mm_keras.weights.filters`.
        seed: of filters and gradients.

    Returns:
        The layers that were set, in the order of calls.

    Raises:
        ValueError: the network has no convolution, `directions` is unknown, all pixels are equal,
            or a channel does not vary over the images.
    """
    if np.all(images == images[:1, :1, :1]):
        raise ValueError(f"All pixels of the {len(images)} images are equal. Use other images.")
    rng = np.random.default_rng(seed)
    visit = functools.partial(_fit, directions=directions, rng=rng)
    units = _visited(network, images, visit, _set_norm)
    if not any(isinstance(unit.layer, keras.layers.Conv2D) for unit in units):
        raise ValueError(
            f"{network.name} has no convolution, so its filters cannot come from windows of images."
        )
    _equalize(network, images, units, _gaussian(rng))
    return units


def rescale(network: keras.Model, images: np.ndarray, seed: int = 0) -> list[Unit]:
    """Make the change rates of all layers equal, and keep the filters (option -cs of the release).

    Behind batch norm the network computes the same as before.

    Args:
        network: see `initialize`.
        images: see `initialize`.
        seed: of the gradients.

    Returns:
        The layers that were rescaled. The list is empty for a network with branches that has layers
        without batch norm, which the method does not cover.
    """
    units = _visited(network, images)
    is_done = _equalize(network, images, units, _gaussian(np.random.default_rng(seed)))
    return units if is_done else []


def spread(network: keras.Model, images: np.ndarray, seed: int = 0) -> Spread:
    """Measure the differences between channels and between layers, in training mode.

    Args:
        network: see `initialize`. Its weights do not change.
        images: see `initialize`.
        seed: of the gradients.
    """
    deviations = {}

    def measure(layer, call, inputs):
        deviations[layer.name] = _moments(_linear(layer, call, inputs))[1]
        return call(inputs)

    with _kept(network):
        units = _visited(network, images, measure, training=True)
    rates, _ = change_rates(network, images, units, _gaussian(np.random.default_rng(seed)))
    return Spread(max(map(_variation, deviations.values())), _variation(rates))


def change_rates(
    network: keras.Model, images: np.ndarray, units: list[Unit], top: Callable
) -> tuple[np.ndarray, float]:
    """Return the change rate of each layer for a gradient at the network's top.

    Args:
        network: see `initialize`. It runs in training mode. Its weights do not change.
        images: see `initialize`. A pass takes `NUM_IMAGES_OF_RATES` of them.
        units: the layers.
        top: function(shape) -> gradient of the network's output, one for each pass.

    Returns:
        (float64 [number of units], mean over channels of the output's standard deviation).

    Raises:
        ValueError: a rate is not finite, or a kernel has no gradient.
    """
    kernels = [unit.layer.kernel.value for unit in units]
    squares, deviations = [], []
    with _kept(network):
        for start in range(0, len(images), NUM_IMAGES_OF_RATES):
            part = images[start : start + NUM_IMAGES_OF_RATES]
            gradients, output = _gradients(network, part, kernels, top)
            squares.append([_mean_square(gradient) for gradient in gradients])
            deviations.append(_moments(output)[1].mean())
    sizes = np.array([_mean_square(kernel) for kernel in kernels])
    rates = np.sqrt(np.mean(squares, axis=0) / sizes)
    _check_rates(network, units, rates)
    return rates, float(np.mean(deviations))


def _gradients(network, images, kernels, top):
    import tensorflow as tf  # the library imports without it

    # Under a strategy of several replicas, the first replica's copy is the one that is read.
    copies = tf.distribute.get_strategy().experimental_local_results
    kernels = [copies(kernel)[0] for kernel in kernels]
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        output = _output(network, network(images, training=True))
        total = ops.sum(output * ops.cast(top(output.shape), output.dtype))
    return tape.gradient(total, kernels, unconnected_gradients="zero"), output


def _check_rates(network, units, rates):
    is_usable = np.isfinite(rates) & (rates > 0)
    if not np.all(is_usable):
        names = [
            unit.layer.name for unit, usable in zip(units, is_usable, strict=True) if not usable
        ]
        raise ValueError(
            f"The gradients of {', '.join(names)} in {network.name} are zero or not finite, so "
            "their change rates cannot be made equal. Check the weights and the images."
        )


def equalize_chain(
    network: keras.Model, images: np.ndarray, units: list[Unit], top: Callable
) -> list[dict]:
    """Rescale a chain of layers without batch norm until all change rates are equal.

    A layer of a large rate gets larger weights. The output's deviation goes to 1. The release
    compares log(rate) / log(target), which fails for targets near 1; here the difference counts.

    Args:
        network: see `initialize`; the function changes it in place.
        images, units, top: see `change_rates`.

    Returns:
        One entry for each pass: {"rates", "target", "deviation"} before it.
    """
    sizes, passes = {}, []
    _visited(network, images, functools.partial(_measure_input, sizes=sizes))
    for _ in range(NUM_PASSES + 1):
        rates, deviation = change_rates(network, images, units, top)
        target = np.exp(np.log(rates).mean()) * deviation ** (1 / len(units))
        passes.append({"rates": rates, "target": float(target), "deviation": deviation})
        if np.all(np.abs(np.log(rates / target)) < 0.01) or len(passes) > NUM_PASSES:
            break
        factors = dict(
            zip((unit.layer.name for unit in units), np.sqrt(rates / target), strict=True)
        )
        _visited(network, images, functools.partial(_rescale_layer, sizes=sizes, factors=factors))
    return passes


def _equalize(network, images, units, top) -> bool:
    """Make the change rates equal, and return whether the network allows it."""
    if units and all(unit.norm for unit in units):
        rates, _ = change_rates(network, images, units, top)
        for unit, factor in zip(units, closed_form(rates), strict=True):
            _scale(unit, factor)
        return True
    is_chain = not any(unit.norm for unit in units) and _is_chain(network, units)
    if is_chain:
        equalize_chain(network, images, units, top)
    return is_chain


def closed_form(rates: np.ndarray) -> np.ndarray:
    """Return the factors of kernels behind batch norm that make all change rates equal.

    A factor s divides the rate of its layer by s^2 and changes no other rate.

    Args:
        rates: float [number of layers].

    >>> closed_form(np.array([4.0, 1.0])).round(3)
    array([1.414, 0.707])
    """
    return np.sqrt(rates / np.exp(np.log(rates).mean()))


def _visited(network, images, visit=None, visit_norm=None, training=False) -> list[Unit]:
    """Run the network, replace the calls of its layers, and return the layers in order of calls.

    Args:
        visit: function(layer, call, inputs) -> outputs, for layers with kernels, once for each.
        visit_norm: function(layer, inputs), called before a batch norm.
        training: argument of the network.
    """
    found, outputs = {}, []

    def on_kernel(layer, call, inputs, *args, **kwargs):
        is_first = layer not in found
        result = visit(layer, call, inputs) if visit and is_first else call(inputs, *args, **kwargs)
        found.setdefault(layer, None)
        outputs.append((weakref.ref(result), layer))
        return result

    def on_norm(norm, call, inputs, *args, **kwargs):
        producers = [layer for output, layer in outputs if output() is inputs]
        found.update(dict.fromkeys(producers, norm))
        if visit_norm:
            visit_norm(norm, inputs)
        return call(inputs, *args, **kwargs)

    calls = {}
    for layer in layers.inner_layers(network):
        if isinstance(layer, _KERNELS):
            calls[layer] = on_kernel
        elif isinstance(layer, _NORMS):
            calls[layer] = on_norm
    with _replaced_calls(calls):
        network(images, training=training)
    return [Unit(layer, norm) for layer, norm in found.items()]


@contextlib.contextmanager
def _replaced_calls(replacements: dict) -> Iterator[None]:
    """Replace the `call` of layers inside the block. Keras has no other place between two layers.

    Args:
        replacements: {layer: function(layer, call, *args, **kwargs)}.
    """
    for layer, function in replacements.items():
        layer.call = functools.partial(function, layer, layer.call)
    try:
        yield
    finally:
        for layer in replacements:
            del layer.call


@contextlib.contextmanager
def _kept(network) -> Iterator[None]:
    """Restore the variables after the block that a call in training mode changes."""
    before = [ops.copy(variable) for variable in network.non_trainable_variables]
    try:
        yield
    finally:
        for variable, value in zip(network.non_trainable_variables, before, strict=True):
            variable.assign(value)


def _fit(layer, call, inputs, directions, rng):
    """Set the layer's weights for these inputs, and return its outputs."""
    values = ops.convert_to_numpy(inputs)
    kernel = filters.kernel(layer, values, directions, rng)
    layer.kernel.assign(kernel)
    if layer.use_bias:
        layer.bias.assign(ops.zeros_like(layer.bias))
    mean, deviation = _moments(_linear(layer, call, inputs))
    if not np.all(deviation > 1e-6 * np.abs(kernel).max()):
        raise ValueError(
            f"{int(np.sum(~(deviation > 0)))} of {len(deviation)} channels of {layer.name} do not "
            "vary over the images, so they cannot be scaled. Use other or more images."
        )
    layer.kernel.assign(kernel / deviation.reshape(_channel_axes(layer)))
    if layer.use_bias:
        layer.bias.assign(BIAS - mean / deviation)
    return call(inputs)


def _set_norm(norm, inputs):
    """Set a batch norm to the statistics of its inputs, with gain 1 and offset 0.1."""
    mean, deviation = _moments(inputs)
    if isinstance(norm, layers.AccumulatedBatchNormalization):
        _set_accumulated(norm, mean, deviation**2)
        return
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(deviation**2)
    if norm.scale:
        norm.gamma.assign(ops.ones_like(norm.gamma))
    if norm.center:
        norm.beta.assign(ops.full_like(norm.beta, BIAS))


def _scale(unit: Unit, factor: float):
    """Scale kernel and bias, and the statistics of the batch norm alike."""
    layer, norm = unit
    layer.kernel.assign(layer.kernel * factor)
    if layer.use_bias:
        layer.bias.assign(layer.bias * factor)
    if norm is None:
        return
    if isinstance(norm, layers.AccumulatedBatchNormalization):
        mean, variance = norm.statistics()
        _set_accumulated(norm, mean * factor, variance * factor**2)
        return
    norm.moving_mean.assign(norm.moving_mean * factor)
    norm.moving_variance.assign(norm.moving_variance * factor**2)


def _set_accumulated(norm, mean, variance):
    norm.accumulated_mean.assign(mean)
    norm.accumulated_variance.assign(variance)
    norm.factor.assign(ops.ones_like(norm.factor))


def _measure_input(layer, call, inputs, sizes):
    sizes[layer.name] = _mean_size(inputs)
    return call(inputs)


def _rescale_layer(layer, call, inputs, sizes, factors):
    """Let the bias follow the size of the inputs, then scale kernel and bias."""
    size = _mean_size(inputs)
    layer.kernel.assign(layer.kernel * factors[layer.name])
    if layer.use_bias:
        layer.bias.assign(layer.bias * (size / sizes[layer.name] * factors[layer.name]))
    sizes[layer.name] = size
    return call(inputs)


def _linear(layer, call, inputs):
    """Return the outputs of a layer before its activation."""
    activation, layer.activation = layer.activation, None
    try:
        return call(inputs)
    finally:
        layer.activation = activation


def _channel_axes(layer):
    """Return the shape in which one value per channel divides the kernel."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return layer.kernel.shape[2:]
    return (-1,)


def _is_chain(network, units) -> bool:
    """Return whether each layer reads the output of one other, and no output is read twice."""
    graph = list(_graph(network))
    inputs = [layer.input for layer in graph]
    return (
        all(isinstance(tensor, keras.KerasTensor) for tensor in inputs)
        and len({id(tensor) for tensor in inputs}) == len(inputs)
        and {unit.layer for unit in units} <= set(graph)
    )


def _graph(network):
    """Yield the layers of a functional model and of the models inside it."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _graph(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _output(network, outputs):
    return outputs[network.spec.embedding.name] if isinstance(network, Backbone) else outputs


def _gaussian(rng):
    return lambda shape: rng.normal(size=tuple(shape))


def _moments(values):
    """Return mean and standard deviation of each channel, float64 [C] each."""
    axes = list(range(len(values.shape) - 1))
    mean, variance = ops.moments(_at_least_float32(values), axes=axes)
    mean, variance = (ops.convert_to_numpy(x).astype("float64") for x in (mean, variance))
    return mean, np.sqrt(np.maximum(variance, 0))


def _at_least_float32(values):
    dtype = keras.backend.standardize_dtype(values.dtype)
    return values if dtype == "float64" else ops.cast(values, "float32")


def _mean_size(values):
    return float(ops.mean(ops.abs(_at_least_float32(values))))


def _mean_square(values):
    return float(ops.mean(ops.square(_at_least_float32(values))))


def _variation(values):
    """Return the coefficient of variation of positive numbers."""
    return float(np.std(values) / np.mean(values))
