"""Chunked passes: the very step of a whole pass, with memory for a chunk."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, losses, matching

RATE = 0.1

_PEAK = """
import pathlib, sys
import numpy as np
import tensorflow as tf
import mm_keras
from mm_keras import backbones

def mebibytes(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

num_nodes, chunk = int(sys.argv[1]), int(sys.argv[2]) or None
model = mm_keras.MixAndMatch(backbones.build("vgg16", width=1 / 8), chunk=chunk)
model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
model.optimizer.build(model.trainable_variables)
patches = np.random.default_rng(0).integers(0, 256, (num_nodes, 32, 32, 3)).astype("uint8")
batch = tf.constant(patches), tf.constant(np.arange(num_nodes, dtype="int32") % 21)
step = tf.function(model.train_step)
before = mebibytes("VmRSS")
for _ in range(2):
    step(batch)
print(mebibytes("VmHWM") - before)
"""


def _batch(num_nodes=24, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_nodes).astype("int32")
    return rng.integers(0, 256, (num_nodes, 16, 16, 3)).astype("uint8"), labels


def _testing():
    return backbones.build("testing")


def _frozen():
    backbone = _testing()
    for layer in backbone.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    return backbone


def _plain():
    """No batch norm, hence nothing that joins the patches of a batch."""
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs / 255)
    return keras.Model(inputs, keras.layers.Conv2D(6, 3, strides=2)(features))


def _noisy():
    """Batch norm, dropout and noise: all that a second pass could see otherwise."""
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.GaussianNoise(0.1, seed=1)(inputs / 255)
    features = keras.layers.Conv2D(8, 3, strides=2)(features)
    features = keras.layers.BatchNormalization(momentum=0.9)(features)
    features = keras.layers.Dropout(0.3, seed=2)(features)
    return keras.Model(inputs, keras.layers.Conv2D(6, 3, strides=2)(features))


def _model(network, chunk=None, **arguments):
    keras.utils.set_random_seed(0)
    model = mm_keras.MixAndMatch(network(), seed=5, chunk=chunk, **arguments)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(RATE), jit_compile=False)
    return model


def _assert_same_weights(model, twin, atol=1e-5):
    for ours, theirs in zip(model.variables, twin.variables, strict=True):
        ours, theirs = ours.numpy(), theirs.numpy()
        scale = max(1, np.abs(theirs).max())
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=atol)


@pytest.mark.parametrize("network, chunk", [(_frozen, 8), (_plain, 1), (_plain, 24)])
def test_a_chunked_step_equals_the_plain_step_with_frozen_statistics(network, chunk):
    model, twin = _model(network, chunk), _model(network)
    step = tf.function(model.train_step)
    for k in range(3):
        batch = tuple(map(tf.constant, _batch(seed=k)))
        figures, expected = step(batch), twin.train_step(batch)
        for name in expected:
            np.testing.assert_allclose(figures[name], expected[name], atol=1e-5, err_msg=name)
    assert expected["gradient_norm"] > 1e-2
    _assert_same_weights(model, twin)


@pytest.mark.parametrize("network, in_graph", [(_testing, True), (_noisy, True), (_noisy, False)])
def test_each_chunk_is_computed_alike_in_both_rounds(network, in_graph):
    """Against all chunks in one tape: batch statistics, masks and noise per chunk, the running
    statistics updated once by each."""
    model, twin = _model(network, chunk=6), _model(network)
    step = tf.function(model.train_step) if in_graph else model.train_step
    for k in range(2):
        patches, labels = map(tf.constant, _batch(seed=k))
        with tf.GradientTape() as tape:
            chunks = [twin(patches[i : i + 6], training=True) for i in range(0, 24, 6)]
            triplets = matching.class_connected(labels, twin.seed_generator)
            loss = losses.triplet_margin(tf.concat(chunks, 0), triplets)
        weights = twin.trainable_variables
        twin.optimizer.apply(tape.gradient(loss, weights), weights)
        np.testing.assert_allclose(step((patches, labels))["loss"], loss, atol=1e-5)
        model.reset_metrics()
    _assert_same_weights(model, twin)


def _graph(num_nodes, chunk):
    # The connected graph's bisection has a round more for each doubling of the nodes.
    model = _model(_testing, chunk, matching=matching.random_triplets)
    specs = (
        tf.TensorSpec([num_nodes, 16, 16, 3], tf.uint8),
        tf.TensorSpec([num_nodes], tf.int32),
    )
    step = tf.function(model.train_step).get_concrete_function(specs)
    return step.graph.as_graph_def(add_shapes=True)


def _nodes(graph):
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def _largest_batch_of_maps(graph):
    """The largest leading length of the float maps [B, h, w, C] anywhere in a graph."""
    shapes = [
        [dim.size for dim in shape.dim]
        for node in _nodes(graph)
        if node.attr["T"].type == tf.float32.as_datatype_enum
        for shape in node.attr["_output_shapes"].list.shape
    ]
    return max(shape[0] for shape in shapes if len(shape) == 4 and shape[1] == shape[2] == 16)


def test_activations_cover_one_chunk_and_the_graph_does_not_grow():
    small, large = _graph(32, chunk=8), _graph(256, chunk=8)
    assert len(_nodes(small)) == len(_nodes(large))
    assert _largest_batch_of_maps(small) == _largest_batch_of_maps(large) == 8
    assert _largest_batch_of_maps(_graph(32, chunk=None)) == 32


def _peak(num_nodes, chunk=0):
    """Memory of a step in a process of its own, MiB above the loaded program."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(num_nodes), str(chunk)],
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_thousands_of_nodes_need_only_the_memory_of_a_small_batch():
    small, whole, parts = _peak(160), _peak(4096), _peak(4096, chunk=128)
    assert parts < 2 * small and whole > 6 * small, (small, whole, parts)


@pytest.mark.slow
def test_fit_and_mixed_precision_work_in_chunks():
    patches, labels = _batch()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        whole = _model(_frozen, None).fit(patches, labels, batch_size=24, verbose=0).history
        parts = _model(_frozen, 8).fit(patches, labels, batch_size=24, verbose=0).history
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert whole["gradient_norm"][0] > 0
    np.testing.assert_allclose(parts["gradient_norm"], whole["gradient_norm"], rtol=0.02)


def test_chunks_that_do_not_divide_the_batch_are_rejected():
    with pytest.raises(ValueError, match="chunk=7 and 24 patches"):
        _model(_testing, 7).train_step(_batch())
    with pytest.raises(ValueError, match="chunk must be at least 1, or None. Received 0"):
        _model(_testing, 0)
    with pytest.raises(ValueError, match="Unknown graph 'globe'"):
        _model(_testing, graph="globe")
