"""Statistics of batch norm that are computed anew after the last step."""

import io
import types

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from trainers import config
from trainers.runs import runtime
from trainers.training import loop, norm_statistics

STEPS, PASSES = 4, 3


def _batch(step):
    rng = np.random.default_rng(step)
    patches = rng.integers(0, 256, (6, 32, 32, 3)).astype("uint8")
    return {"patches": tf.constant(patches), "labels": tf.range(6) % 3}


def _data(start_step, share):
    return [_batch(step) for step in range(start_step, STEPS + PASSES)]


def _model(backbone="alexnet"):
    keras.utils.set_random_seed(0)
    network = backbones.build(backbone, width=0.05 if backbone == "alexnet" else 1.0)
    model = mm_keras.MixAndMatch(network, seed=1)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    return model


def _run(folder, passes=PASSES, model=None, data=_data):
    model = model or _model()
    console = rich.console.Console(file=io.StringIO(), width=200)
    run = runtime.Runtime(folder, dataset=None, console=console)
    settings = config.Optimization(
        steps=STEPS, checkpoint_every=2, log_every=2, statistics_steps=passes
    )
    loop.Loop(run, loop.Schedule("mm", settings), model, data).run()
    return model, console.file.getvalue()


def _values(model):
    return {variable.path: variable.numpy() for variable in model.backbone.variables}


def _statistics(values):
    return {path: v for path, v in values.items() if "accumulated" in path or "factor" in path}


def test_statistics_are_the_ones_of_the_final_weights(tmp_path):
    model, text = _run(tmp_path)
    expected = _model()
    expected.set_weights(model.get_weights())
    for layer in norm_statistics.renewable(expected):
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    for step in range(STEPS, STEPS + PASSES):
        expected.backbone(_batch(step)["patches"], training=True)
    ours, theirs = _statistics(_values(model)), _statistics(_values(expected))
    assert len(ours) == 15
    for path, values in theirs.items():
        np.testing.assert_allclose(ours[path], values, rtol=1e-4, atol=1e-5, err_msg=path)
    assert "mm: statistics of batch norm computed from 3 batches" in text


def test_the_passes_change_statistics_alone(tmp_path):
    renewed, kept = (_values(_run(tmp_path / str(n), n)[0]) for n in (PASSES, 0))
    stale = _statistics(kept)
    for path, values in kept.items():
        assert np.array_equal(renewed[path], values) == (path not in stale), path


@pytest.mark.slow
def test_a_run_killed_in_the_passes_ends_with_the_same_statistics(tmp_path):
    unbroken = _values(_run(tmp_path / "a")[0])
    with pytest.raises(RuntimeError):  # StopIteration inside a generator
        _run(tmp_path / "b", data=lambda *arguments: _data(*arguments)[:-1])
    continued = _values(_run(tmp_path / "b")[0])
    for path, values in unbroken.items():
        np.testing.assert_array_equal(continued[path], values, err_msg=path)


def test_networks_with_ordinary_batch_norm_need_no_passes(tmp_path):
    assert norm_statistics.renewable(_model("testing")) == []
    _, text = _run(tmp_path, model=_model("testing"), data=lambda *a: _data(*a)[:-PASSES])
    assert "statistics" not in text


def test_ordinary_and_frozen_layers_keep_their_statistics():
    inputs = keras.Input((8, 8, 3))
    features = mm_keras.layers.AccumulatedBatchNormalization(name="frozen")(inputs)
    features = mm_keras.layers.BatchNormalization(name="ordinary")(features)
    features = mm_keras.layers.AccumulatedBatchNormalization(name="caffe")(features)
    network = keras.Model(inputs, features)
    for layer in network.layers[1:]:
        layer.set_weights([weight + 2 for weight in layer.get_weights()])
    network.get_layer("frozen").trainable = False
    before = {layer.name: layer.get_weights() for layer in network.layers}
    model = mm_keras.MixAndMatch(network)
    replicas = types.SimpleNamespace(run=lambda function, batch: function(batch))
    patches = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    batch = {"patches": tf.constant(patches), "labels": tf.range(4)}
    norm_statistics.renew(model, replicas, [batch, batch], lambda: None)
    for name in ("frozen", "ordinary"):
        for old, new in zip(before[name], network.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert network.get_layer("caffe").get_weights()[-1] == pytest.approx(1.999)
