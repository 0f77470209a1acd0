"""Order of images, learning rates, and equality with Keras' own training step."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("jax")
from trainers import config  # noqa: E402
from trainers.device_studies import loops  # noqa: E402

ROOT = pathlib.Path(__file__).parents[3]


def test_each_epoch_shows_each_image_once():
    order = loops.image_order(5, 12, seed=3)
    assert order.dtype == np.int32 and len(order) == 12
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert (order != loops.image_order(5, 12, seed=4)).any()


def test_a_training_beyond_the_capacity_is_refused():
    with pytest.raises(config.ConfigError, match="at most 16384 steps. Received 16385"):
        loops._padded(np.zeros(16385), loops._CAPACITY)


_EQUAL = """
import sys
sys.modules["tensorflow"] = None
import dataclasses
import jax.numpy as jnp
import keras
import numpy as np
import mm_keras
from trainers import config
from trainers.device_studies.loops import Loop, learning_rates
from trainers.training import optimization

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (4, 32, 32, 3)).astype("float32")
maps = rng.integers(0, 3, (4, 32, 32)).astype("int32")
for name in ("sgd", "adamw"):
    settings = dataclasses.replace(
        config.Experiment().segment,
        steps=6, drops=(4,), optimizer=name, learning_rate=0.003, num_images=4, clip=1.0,
    )
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        body = mm_keras.backbones.build("testing")
        models.append(mm_keras.UnetSegmenter(body, 3))
    theirs, ours = models
    theirs.compile(optimizer=optimization.optimizer(theirs, settings))
    losses = [theirs.train_on_batch(images, maps) for _ in range(6)]
    loop = Loop(ours, settings, lambda key, scenes, index: (jnp.array(images), jnp.array(maps)))
    loop.load([np.array(v) for v in ours.variables], 0)
    from trainers.device_studies.scenes import Scenes
    scenes = Scenes(jnp.zeros((4, 1, 1, 3)), jnp.zeros((4, 1, 1)), jnp.ones((4, 2)))
    found = loop.train(scenes, settings, 0)
    for one, other in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4, err_msg=one.path)
    statistics = [v for v in ours.non_trainable_variables if "moving" in v.name]
    assert statistics
    for one, other in zip(
        ours.non_trainable_variables, theirs.non_trainable_variables, strict=True
    ):
        if "moving" in one.name:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3, err_msg=one.path)
    np.testing.assert_allclose(learning_rates(settings)[[0, 3, 4, 5]], [3e-3, 3e-3, 3e-4, 3e-4])
    assert found[-1] < found[0]
"""


@pytest.mark.slow
def test_the_loop_gives_the_weights_of_single_steps():
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", _EQUAL], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]


_COSTS = """
import sys
sys.modules["tensorflow"] = None
from trainers import config
from trainers.config import presets
from trainers.device_studies import costs
e = config.resolve(presets.experiment("tuned"), 180)
print(costs.count(e, 11))
"""


@pytest.mark.slow
def test_steps_cost_as_many_multiply_adds_as_on_tensorflow():
    from trainers.config import presets
    from trainers.studies import step_cost

    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _COSTS],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    theirs = step_cost.count(config.resolve(presets.experiment("tuned"), 180), 11)
    assert done.stdout.strip() == str(theirs), done.stderr[-2000:]
    assert dataclasses.astuple(theirs)[0] > 1e9
