"""The library on KERAS_BACKEND=jax, where TensorFlow cannot be imported."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import mm_keras

ROOT = pathlib.Path(__file__).parents[2]

_FIT = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
import keras
import mm_keras

rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)
backbone = mm_keras.backbones.build("testing")
labels = np.arange(24, dtype="int32") % 3
patches = rng.integers(0, 60, (24, 16, 16, 3))
patches[np.arange(24), :, :, labels] += 150
model = mm_keras.MixAndMatch(backbone)
model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01))
first, *_, last = model.fit(patches, labels, batch_size=24, epochs=15, verbose=0).history["loss"]
assert last < 0.8 * first < 3.5, (first, last)
assert model.history.history["non_finite"][-1] == 0
lost = model.fit(np.full(patches.shape, np.nan, "float32"), labels, batch_size=24, verbose=0)
assert lost.history["non_finite"] == [1]
from mm_keras.models import objective
loss = objective.build("softmax+supcon+triplet_all+triplet", 3, projection=(8, 4))
backbone = mm_keras.backbones.build("testing")
model = mm_keras.MixAndMatch(backbone, objective=loss, num_classes=3)
model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01))
first, *_, last = model.fit(patches, labels, batch_size=24, epochs=15, verbose=0).history["loss"]
assert last < 0.8 * first, (first, last)
backbone = mm_keras.backbones.build("testing")
before = backbone.get_layer("conv1_1").kernel.numpy()
segmenter = mm_keras.HypercolumnSegmenter(backbone, 3)
segmenter.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01))
images = rng.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
maps = rng.integers(0, 3, (2, 32, 32)).astype("uint8")
history = segmenter.fit(images, maps, verbose=0).history
assert np.isfinite(history["loss"][0])
assert np.any(before != backbone.get_layer("conv1_1").kernel.numpy())
assert segmenter.predict(images, verbose=0).shape == (2, 16, 16, 3)
"""

_FIT_ALEXNET = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
import keras
import mm_keras

rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)
backbone = mm_keras.backbones.build("alexnet", "jigsaw", width=0.04)
segmenter = mm_keras.FcnSegmenter(backbone, 3)
segmenter.load_weights(sys.argv[1])
theirs = np.load(sys.argv[2])
np.testing.assert_allclose(segmenter(theirs["images"]), theirs["logits"], atol=1e-3)
labels = np.arange(12, dtype="int32") % 3
patches = rng.integers(0, 60, (12, 64, 64, 3))
patches[np.arange(12), :, :, labels] += 150
model = mm_keras.MixAndMatch(backbone)
model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01))
first, *_, last = model.fit(patches, labels, batch_size=12, epochs=15, verbose=0).history["loss"]
assert last < 0.8 * first < 3.5, (first, last)
batch_norm = backbone.get_layer("batch_conv5")
factor = (1 - 0.999**17) / (1 - 0.999)  # two steps of theirs and 15 of ours
np.testing.assert_allclose(batch_norm.factor, [factor], rtol=1e-5)
before = backbone.get_layer("conv2").kernel.numpy()
segmenter.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01))
images = rng.integers(0, 256, (2, 70, 65, 3)).astype("uint8")
history = segmenter.fit(images, np.ones((2, 70, 65), "uint8"), verbose=0).history
assert np.isfinite(history["loss"][0])
assert np.any(before != backbone.get_layer("conv2").kernel.numpy())
assert segmenter.predict(images, verbose=0).shape == (2, 70, 65, 3)
"""


def _run(*command):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_both_models_fit_without_tensorflow():
    _run("-c", _FIT)


@pytest.mark.slow
def test_alexnet_and_its_segmenter_fit_without_tensorflow(tmp_path):
    """And first give TensorFlow's logits from TensorFlow's weights."""
    backbone = mm_keras.backbones.build("alexnet", "jigsaw", width=0.04)
    segmenter = mm_keras.FcnSegmenter(backbone, 3)
    segmenter.score.kernel.assign(100 * segmenter.score.kernel)
    images = np.random.default_rng(0).integers(0, 256, (2, 70, 65, 3)).astype("uint8")
    for _ in range(2):
        segmenter(images, training=True)  # gathers statistics
    weights, figures = tmp_path / "a.weights.h5", tmp_path / "a.npz"
    segmenter.save_weights(weights)
    logits = segmenter(images).numpy()
    assert np.ptp(logits) > 0.1
    np.savez(figures, images=images, logits=logits)
    _run("-c", _FIT_ALEXNET, str(weights), str(figures))


@pytest.mark.slow
def test_matching_and_losses_pass_their_tests_on_jax():
    """Tests that count samples run only on TensorFlow, to save time."""
    modules = ("tests/mm_keras/test_matching.py", "tests/mm_keras/losses")
    slow = ("distribution", "uniform", "statistics", "component", "connects")
    selected = " and ".join(f"not {word}" for word in slow)
    assert " passed" in _run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected, *modules
    )


_JIGSAW = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
import keras
import mm_keras
from mm_keras.models.proxies import jigsaw

rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)
backbone = mm_keras.backbones.build("testing", width=0.25)
model = jigsaw.Jigsaw(backbone, 5, tile=16, initialization="he")
model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01))
tiles = rng.integers(0, 256, (10, 9, 16, 16, 3)).astype("uint8")
labels = np.arange(10, dtype="int32") % 5
before = backbone.get_layer("conv1_1").kernel.numpy()
history = model.fit(tiles, labels, batch_size=10, epochs=20, verbose=0).history
assert set(history) == {"loss", "accuracy", "gradient_norm", "non_finite"}
assert history["loss"][-1] < 0.7 * history["loss"][0] < 3, history["loss"]
assert np.any(before != backbone.get_layer("conv1_1").kernel.numpy())
figures = jigsaw.evaluate(model, [{"tiles": tiles, "permutation": labels}])
assert figures["num_puzzles"] == 10 and figures["accuracy"] > 0.3, figures
"""


@pytest.mark.slow
def test_jigsaw_fits_without_tensorflow():
    _run("-c", _JIGSAW)
