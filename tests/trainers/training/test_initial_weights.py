"""The source of the first weights (file, proxy stage, ImageNet, random) and its log line."""

import dataclasses
import io
import types

import numpy as np
import pytest
import rich.console
import tensorflow as tf

from mm_keras import backbones
from mm_keras.backbones import libraries
from mm_keras.weights import sources
from trainers import config
from trainers.runs import runtime
from trainers.training import initial_weights, networks


@pytest.fixture
def run(tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=1000)
    return runtime.Runtime(tmp_path, dataset=None, console=console)


def _experiment(**network):
    experiment = config.replace(config.Experiment(), "network.backbone", "testing")
    for key, value in network.items():
        experiment = config.replace(experiment, f"network.{key}", value)
    return experiment


def _log(run):
    return run.console.file.getvalue()


def _kernel(body):
    return body.get_layer("conv1_1").get_weights()[0]


def _saved(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    body = networks.backbone(_experiment(init="colorization"))
    body.set_weights([np.full(w.shape, value, w.dtype) for w in body.get_weights()])
    body.save_weights(path)
    return path


def test_random_weights_follow_the_seed(run):
    body = initial_weights.backbone(_experiment(), run)
    assert "init: random weights, seed 0" in _log(run)
    np.testing.assert_array_equal(_kernel(body), _kernel(networks.backbone(_experiment())))
    other = config.replace(_experiment(), "seed", 1)
    assert not np.array_equal(_kernel(body), _kernel(initial_weights.backbone(other, run)))


@pytest.mark.parametrize("variant", ["", "naive"])
def test_both_variants_use_the_weights_of_the_proxy_stage(run, variant):
    _saved(run.folder("proxy") / "backbone.weights.h5", 0.5)
    run.variant = variant
    body = initial_weights.backbone(_experiment(init="colorization"), run)
    assert "init: colorization, from the proxy stage" in _log(run)
    assert np.all(_kernel(body) == 0.5)


def test_a_file_is_preferred_to_the_proxy_stage(run, tmp_path):
    _saved(run.folder("proxy") / "backbone.weights.h5", 0.5)
    file = _saved(tmp_path / "mine.weights.h5", 0.25)
    experiment = _experiment(init="colorization", init_weights=str(file))
    assert config.proxy_task(experiment) is None
    assert np.all(_kernel(initial_weights.backbone(experiment, run)) == 0.25)
    assert "colorization from mine.weights.h5" in _log(run)


def test_the_error_of_a_missing_proxy_stage_names_the_stage(run):
    with pytest.raises(runtime.WorkdirError, match="--stage=proxy first"):
        initial_weights.backbone(_experiment(init="jigsaw"), run)


def test_the_error_for_weights_of_another_width_names_the_width(run, tmp_path):
    file = _saved(tmp_path / "mine.weights.h5", 0.25)
    experiment = _experiment(init="colorization", init_weights=str(file), width=0.5)
    with pytest.raises(config.ConfigError, match=r"conv1_1(?s:.*)width 0.5(?s:.*)network.width=1"):
        initial_weights.backbone(experiment, run)


def _alexnet_file(path, more=()):
    """A plain AlexNet of width 1/32, as Caffe stores it."""
    body = backbones.build("alexnet", width=1 / 32)
    blobs = dict(more)
    for k in range(1, 6):
        kernel, bias = body.get_layer(f"conv{k}").get_weights()
        blobs[f"conv{k}"] = [kernel.transpose(3, 2, 0, 1), bias + k]
    np.savez(path, **{f"{name}.{k}": a for name, both in blobs.items() for k, a in enumerate(both)})
    return path


def test_the_init_names_the_work_of_a_file_without_marks(run, tmp_path):
    file = _alexnet_file(tmp_path / "a.npz")
    keys = {"backbone": "alexnet", "width": 1 / 32, "init_weights": str(file)}
    for init, source in (
        ("imagenet", "caffe"),
        ("context_encoder", "pathak_context_encoder"),
        ("bigan", "donahue_bigan"),
    ):
        initial_weights.backbone(_experiment(init=init, **keys), run)
        assert f"init: {init} from a.npz ({source})" in _log(run)
    with pytest.raises(config.ConfigError, match=r"is of source .* expected larsson"):
        initial_weights.backbone(_experiment(init="colorization", **keys), run)
    with pytest.raises(config.ConfigError, match=r"(?s)could be any of .*init_source"):
        initial_weights.backbone(_experiment(init="random", **keys), run)
    keys |= {"init": "random", "init_source": "pathak_video"}
    initial_weights.backbone(_experiment(**keys), run)
    assert "init: random from a.npz (pathak_video)" in _log(run)


def test_a_file_of_one_work_is_refused_as_the_start_of_another(run, tmp_path):
    scales = {"data_lab": [np.ones((3, 1, 1, 1), "f4"), np.zeros(3, "f4")]}
    file = _alexnet_file(tmp_path / "a.npz", scales)
    keys = {"backbone": "alexnet", "width": 1 / 32, "init_weights": str(file)}
    initial_weights.backbone(_experiment(init="split_brain", **keys), run)
    assert "init: split_brain from a.npz (zhang_split_brain)" in _log(run)
    for init in set(initial_weights.SOURCES) - {"split_brain"}:
        with pytest.raises(config.ConfigError, match="is of source zhang_split_brain, expected"):
            initial_weights.backbone(_experiment(init=init, **keys), run)
    with pytest.raises(config.ConfigError, match="No change of the kernel can replace Lab"):
        initial_weights.backbone(_experiment(init="random", **keys), run)


def test_every_source_is_the_source_of_an_init_or_of_any_start():
    named = {*initial_weights.ANY_START, "pathak_video"}
    assert named.union(*initial_weights.SOURCES.values()) == set(sources.SOURCES)


@pytest.fixture
def requested(monkeypatch):
    """The calls of `backbones.build`, which builds a cheap network with all weights 0.5."""
    calls = []

    def build(name, **arguments):
        calls.append({key: arguments[key] for key in ("weights", "folder", "load")})
        body = backbones.BACKBONES["testing"](pixels=backbones.PIXELS["bgr"])
        body.spec = dataclasses.replace(body.spec, license="license of X")
        if arguments["load"]:
            body.set_weights([np.full(w.shape, 0.5, w.dtype) for w in body.get_weights()])
        return body

    monkeypatch.setattr(networks, "backbones", types.SimpleNamespace(build=build))
    return calls


@pytest.mark.parametrize("init", ["imagenet", "pretrained"])
def test_published_weights_of_a_wrapped_network_are_loaded(run, requested, init):
    experiment = _experiment(backbone="applications/ResNet50", init=init)
    body = initial_weights.backbone(experiment, run)
    assert requested == [{"weights": init, "folder": None, "load": True}]
    assert np.all(_kernel(body) == 0.5)
    assert f"init: {init}, Keras' own weights of applications/ResNet50" in _log(run)


def test_weights_of_a_preset_folder_are_loaded_and_their_license_is_named(run, requested):
    experiment = _experiment(
        backbone="kerashub/dinov3", init="pretrained", init_weights="my/folder"
    )
    initial_weights.backbone(experiment, run)
    assert requested == [{"weights": "pretrained", "folder": "my/folder", "load": True}]
    expected = "init: pretrained, weights of kerashub/dinov3 from my/folder; their license is the "
    assert expected + "license of X" in _log(run)


def test_a_failed_download_is_a_config_error(run, monkeypatch):
    def fail(*_):
        raise ValueError("ImageNet weights could not be downloaded")

    monkeypatch.setattr(libraries, "network", fail)
    with pytest.raises(config.ConfigError, match="could not be downloaded"):
        initial_weights.backbone(_experiment(backbone="vgg16", init="imagenet"), run)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["identity", "data"])
def test_batch_norm_of_imagenet_weights_follows_the_settings(
    make_runtime, tmp_path, monkeypatch, batch_norm
):
    monkeypatch.setattr(initial_weights.imagenet, "load", lambda body: "loaded")
    run = make_runtime(tmp_path)
    run.console = rich.console.Console(file=io.StringIO(), width=1000)
    experiment = _experiment(backbone="vgg16", init="imagenet", width=0.05, batch_norm=batch_norm)
    experiment = config.replace(experiment, "mm.crop", 32)
    body = initial_weights.backbone(experiment, run)
    norm = body.get_layer("batch_conv1_1")
    is_set = batch_norm == "data"
    assert np.any(norm.beta.numpy() != 0) == is_set == np.any(norm.moving_mean.numpy() != 0)
    assert ("; 13 batch norms set from 16 training images" in _log(run)) == is_set
    images = run.dataset.train.image_files
    pixels = np.stack([tf.io.decode_image(tf.io.read_file(file)) for file in images])
    plain = networks.backbone(experiment)  # the same random weights, batch norm as the identity
    name = body.spec.embedding.name
    np.testing.assert_allclose(body(pixels)[name], plain(pixels)[name], rtol=1e-2, atol=1e-2)


def _small(**network):
    return config.changed(_experiment(**network), {"mm.crop": 24, "data.shorter_side": 24})


@pytest.mark.parametrize("filters", ["kmeans", "pca", "random"])
def test_filters_come_from_the_training_images(make_runtime, tmp_path, filters):
    run = make_runtime(tmp_path)
    run.console = rich.console.Console(file=io.StringIO(), width=1000)
    experiment = _small(init="kmeans", filters=filters)
    body = initial_weights.backbone(experiment, run)
    text = f"init: {filters} filters of 3 layers from 2 images without labels; channels of a layer"
    assert text in _log(run) and "0% after" in _log(run)
    assert np.any(_kernel(body) != _kernel(networks.backbone(experiment)))
    np.testing.assert_array_equal(_kernel(initial_weights.backbone(experiment, run)), _kernel(body))


def test_any_start_can_be_rescaled(make_runtime, tmp_path):
    run = make_runtime(tmp_path)
    run.console = rich.console.Console(file=io.StringIO(), width=1000)
    body = initial_weights.backbone(_small(rescale=True), run)
    assert "init: random weights, seed 0" in _log(run)
    assert "init: 3 layers rescaled; channels of a layer" in _log(run)
    plain = _kernel(networks.backbone(_experiment()))
    factors = _kernel(body) / plain
    np.testing.assert_allclose(factors, factors.mean(), rtol=1e-4)
    assert abs(factors.mean() - 1) > 1e-3


def test_networks_that_rescaling_does_not_cover_are_refused(make_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(initial_weights.data_dependent.data_dependent, "rescale", lambda *_: [])
    with pytest.raises(config.ConfigError, match="network.rescale=true does not cover testing"):
        initial_weights.backbone(_small(rescale=True), make_runtime(tmp_path))


def test_equal_training_images_are_a_config_error(make_runtime, tmp_path, monkeypatch):
    crops = np.zeros((2, 24, 24, 3), "uint8")
    monkeypatch.setattr(initial_weights.data_dependent, "_crops", lambda *_: crops)
    with pytest.raises(config.ConfigError, match="zero or not finite|pixels .* are equal"):
        initial_weights.backbone(_small(init="kmeans"), make_runtime(tmp_path))
