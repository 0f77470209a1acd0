"""The stages on a small random DINOv2 and a SegFormer of KerasHub, from preset folders."""

import json

import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from trainers import config
from trainers.runs import stage_scope
from trainers.stages import find
from trainers.training import networks

pytestmark = pytest.mark.slow  # KerasHub imports all of its models

SETTINGS = {
    "data.dataset": "folder",
    "network.init": "pretrained",
    "mm.steps": 1,
    "mm.drops": "",
    "mm.num_images": 2,
    "mm.patch_size": 30,
    "mm.min_size": 8,
    "mm.max_size": 16,
    "mm.crop": 30,
    "segment.steps": 2,
    "segment.drops": "",
    "segment.num_images": 2,
    "segment.crop": 30,
    "segment.stddev": 0.1,
    "segment.frozen": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keras_hub = pytest.importorskip("keras_hub")
    place = tmp_path_factory.mktemp("preset") / "dinov2_tiny"
    network = keras_hub.models.DINOV2Backbone(
        patch_size=14,
        num_layers=2,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        num_register_tokens=4,
        antialias_in_interpolation=True,
        image_shape=(70, 70, 3),
        position_embedding_shape=(70, 70, 3),
    )
    network.save_to_preset(place)
    return place


@pytest.fixture(scope="module")
def segformer_folder(tmp_path_factory):
    keras_hub = pytest.importorskip("keras_hub")
    place = tmp_path_factory.mktemp("preset") / "segformer_tiny"
    encoder = keras_hub.models.MiTBackbone(
        num_layers=3,
        layerwise_depths=[1, 1, 1],
        hidden_dims=[8, 12, 16],
        layerwise_num_heads=[1, 1, 2],
        layerwise_sr_ratios=[4, 2, 1],
        layerwise_patch_sizes=[7, 3, 3],
        layerwise_strides=[4, 2, 2],
        max_drop_path_rate=0.1,
        image_shape=(64, 64, 3),
    )
    keras_hub.models.SegFormerBackbone(encoder, 8).save_to_preset(place)
    return place


@pytest.fixture
def experiment(folder, tiny_data):
    places = {"data.data_dir": str(tiny_data), "network.backbone": f"kerashub/{folder}"}
    return config.changed(config.Experiment(), SETTINGS | places)


@pytest.mark.parametrize("loss", ["triplet", "supcon"])  # embeddings flatten and pool
def test_a_transformer_passes_through_all_stages(experiment, make_runtime, tmp_path, loss):
    experiment = config.replace(experiment, "mm.loss", loss)
    networks.check(experiment)
    runtime = make_runtime(tmp_path)
    for stage in ("mm", "segment", "evaluate", "export"):
        stage_scope.run_stage(find(stage), experiment, runtime)
    results = json.loads((tmp_path / "evaluate" / "results.json").read_text())
    assert 0 <= results["miou"] <= 1
    tuned, fine_tuned = networks.backbone(experiment), networks.segmenter(experiment, 3)
    tuned.load_weights(tmp_path / "mm" / "backbone.weights.h5")
    fine_tuned.load_weights(tmp_path / "segment" / "segmenter.weights.h5")
    for before, after in zip(tuned.weights, fine_tuned.backbone.weights, strict=True):
        np.testing.assert_array_equal(before, after)  # segment.frozen
    (model,) = tmp_path.glob("export/**/saved_model.pb")
    serve = tf.saved_model.load(str(model.parent)).signatures["serving_default"]
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 31, 3)).astype("uint8")
    expected = mm_keras.Predictor(fine_tuned).predict(images)
    np.testing.assert_array_equal(serve(images=tf.constant(images))["class_ids"], expected[0])


def test_a_segformer_passes_through_all_stages(
    experiment, segformer_folder, make_runtime, tmp_path
):
    changes = {"network.backbone": f"kerashub/{segformer_folder}", "segment.head": "unet"}
    changes |= {"segment.frozen": False, "segment.optimizer": "adamw", "segment.layer_decay": 0.75}
    experiment = config.changed(experiment, changes)
    networks.check(experiment)
    runtime = make_runtime(tmp_path)
    for stage in ("mm", "segment", "evaluate", "export"):
        stage_scope.run_stage(find(stage), experiment, runtime)
    fine_tuned = networks.segmenter(experiment, 3)
    fine_tuned.load_weights(tmp_path / "segment" / "segmenter.weights.h5")
    (model,) = tmp_path.glob("export/**/saved_model.pb")
    serve = tf.saved_model.load(str(model.parent)).signatures["serving_default"]
    for size in ((9, 31), (1, 2), (70, 41)):
        images = np.random.default_rng(0).integers(0, 256, (1, *size, 3)).astype("uint8")
        expected = mm_keras.Predictor(fine_tuned).predict(images)
        np.testing.assert_array_equal(serve(images=tf.constant(images))["class_ids"], expected[0])


def test_later_stages_need_the_settings_of_the_folder_alone(experiment, folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    moved = config.replace(experiment, "network.backbone", f"kerashub/{tmp_path}")
    shapes = [w.shape for w in networks.backbone(moved).weights]
    assert shapes == [w.shape for w in networks.backbone(experiment, load=True).weights]
    with pytest.raises(config.ConfigError, match="has no weights. Expected model.weights.h5"):
        networks.backbone(moved, load=True)


def test_a_folder_of_another_model_is_refused_before_the_first_stage(experiment, folder):
    changes = {"network.backbone": "kerashub/dinov2_small", "network.init_weights": str(folder)}
    with pytest.raises(config.ConfigError, match="is another network than dinov2_small"):
        networks.check(config.changed(experiment, changes))
