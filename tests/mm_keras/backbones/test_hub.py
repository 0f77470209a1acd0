"""Networks of KerasHub with weights of a preset folder, and the outputs of published models.

KerasHub imports all of its models, so these tests are slow. They are skipped where it is missing.
"""

import functools
import json
import shutil
import zlib

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from mm_keras import backbones, layers
from mm_keras.backbones import hub, libraries

pytestmark = pytest.mark.slow

TINY = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "intermediate_dim": 64}
VIT = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "mlp_dim": 64, "patch_size": 16}
MIT = {
    "num_layers": 3,
    "layerwise_depths": [1, 2, 1],
    "hidden_dims": [8, 16, 24],
    "layerwise_num_heads": [1, 2, 3],
    "layerwise_sr_ratios": [4, 2, 1],
    "layerwise_patch_sizes": [7, 3, 3],
    "layerwise_strides": [4, 2, 2],
    "max_drop_path_rate": 0.1,
}
SMALL_RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 16],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
    "block_type": "basic_block",
}
NETWORKS = {
    "DINOV2Backbone": TINY
    | {"patch_size": 14, "position_embedding_shape": (70, 70, 3), "image_shape": (70, 70, 3)},
    "DINOV3Backbone": TINY | {"patch_size": 16, "image_shape": (48, 32, 3)},
    "ViTBackbone": VIT | {"image_shape": (48, 32, 3)},
    "ResNetBackbone": SMALL_RESNET | {"image_shape": (None, None, 3)},
    "MiTBackbone": MIT | {"image_shape": (64, 64, 3)},
}
CONVERTER = {"config": {"scale": [0.01, 0.02, 0.03], "offset": [-1.0, -2.0, -3.0]}}


@pytest.fixture(scope="module")
def keras_hub():
    return pytest.importorskip("keras_hub")


@pytest.fixture(scope="module")
def folders(keras_hub, tmp_path_factory):
    """{class: preset folder with random weights}."""
    place = tmp_path_factory.mktemp("presets")
    for seed, (name, arguments) in enumerate(NETWORKS.items()):
        keras.utils.set_random_seed(seed)
        network = getattr(keras_hub.models, name)(**arguments)
        rng = np.random.default_rng(seed)
        network.set_weights([rng.normal(0, 0.2, w.shape) for w in network.get_weights()])
        if name == "ResNetBackbone":  # variances are positive
            network.set_weights([np.abs(w) + 0.1 for w in network.get_weights()])
        network.save_to_preset(place / name)
        if name == "MiTBackbone":
            keras_hub.models.SegFormerBackbone(network, 8).save_to_preset(place / "SegFormer")
    (place / "ResNetBackbone" / "image_converter.json").write_text(json.dumps(CONVERTER))
    return {name: place / name for name in (*NETWORKS, "SegFormer")}


def _images(height, width):
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype("uint8")


@pytest.mark.parametrize("name", ["DINOV2Backbone", "DINOV3Backbone", "ViTBackbone"])
def test_a_transformer_computes_its_keras_hub_network(keras_hub, folders, name):
    body = backbones.build(f"kerashub/{folders[name]}", weights="pretrained")
    network = keras_hub.models.Backbone.from_preset(str(folders[name]))
    (shape,) = keras.tree.map_structure(lambda x: x.shape, network.inputs)
    images, pixels = _images(*shape[1:3]), body.spec.pixels
    prepared = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean)(images)
    is_dict = isinstance(network.input, dict)
    expected = network(dict.fromkeys(network.input, prepared) if is_dict else prepared)
    outputs = body(images)["block2"]
    count = outputs.shape[1] * outputs.shape[2]
    flat = np.reshape(outputs, (2, count, -1))
    np.testing.assert_allclose(flat, np.array(expected)[:, -count:], atol=1e-5)


@pytest.mark.parametrize("name", ["MiTBackbone", "SegFormer"])
def test_a_mix_transformer_computes_its_keras_hub_network(keras_hub, folders, monkeypatch, name):
    body = backbones.build(f"kerashub/{folders[name]}", weights="pretrained")
    network = keras_hub.models.Backbone.from_preset(str(folders["MiTBackbone"]))
    images, pixels = _images(64, 64), body.spec.pixels
    prepared = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean)(images)
    exact = functools.partial(keras.ops.nn.gelu, approximate=False)  # KerasHub approximates it
    monkeypatch.setattr(keras.ops.nn, "gelu", lambda x: exact(x))
    expected = keras.Model(network.inputs, network.pyramid_outputs)(prepared)
    outputs = body(images)
    assert [tap.name for tap in body.spec.taps] == ["stride4", "stride8", "stride16"]
    for tap, value in zip(body.spec.taps, expected.values(), strict=True):
        np.testing.assert_allclose(outputs[tap.name], value, atol=1e-5)
    assert "non-commercial" in body.spec.license


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_encoder": None}, "image_encoder must be a MiTBackbone. Received None"),
        ({"projection_filters": 1 << 20}, "projection_filters must be 1 to 16384. Received 104857"),
    ],
)
def test_a_damaged_segformer_is_rejected(folders, tmp_path, change, message):
    folder = shutil.copytree(folders["SegFormer"], tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config["config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"config.json: {message}"):
        backbones.build(f"kerashub/{folder}")


def test_a_convolutional_network_has_the_pixels_of_its_folder(folders):
    name = f"kerashub/{folders['ResNetBackbone']}"
    body = backbones.build(name, weights="pretrained")
    assert body.spec.pixels.mean == (1.0, 2.0, 3.0) and body.spec.pad_color == (100, 100, 100)
    plain = backbones.build(name, weights="pretrained", load=False)
    assert plain.spec == body.spec
    assert np.any(plain.get_weights()[0] != body.get_weights()[0])


def test_a_convolutional_network_without_pixels_is_rejected(folders, tmp_path):
    folder = shutil.copytree(folders["ResNetBackbone"], tmp_path / "a")
    (folder / "image_converter.json").unlink()
    backbones.build(f"kerashub/{folder}")  # random weights take any pixels
    with pytest.raises(ValueError, match="pixels that its weights expect are unknown"):
        backbones.build(f"kerashub/{folder}", weights="pretrained")


def _weights(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(0, 0.2, shape).astype("float32")


def _of_hugging_face(model, folder, **changes):
    """Return the backbone of a folder of Hugging Face that this function writes."""
    (folder / "config.json").write_text(json.dumps(model["config"] | changes))
    tensors = {name: _weights(name, shape) for name, shape in model["shapes"].items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    pixels = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return backbones.build(f"kerashub/{folder}", weights="pretrained")


def test_a_mix_transformer_equals_the_model_of_transformers(keras_hub, golden, tmp_path):
    """All stages, at sides that are no multiples of the strides."""
    model = golden("transformers")["models"]["segformer"]
    body = _of_hugging_face(model, tmp_path)
    for size, expected in model["outputs"].items():
        height, width = map(int, size.split("x"))
        images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3))
        outputs = body(images)
        for tap, values in zip(body.spec.taps, expected, strict=True):
            cells = np.array(outputs[tap.name]).reshape(-1, tap.channels)
            np.testing.assert_allclose(cells[::7, ::5].reshape(-1), values, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "config.json: .* hidden_act must be 'gelu'. Received 'relu'"),
        ({"mlp_ratios": [2, 2, 2]}, "config.json: .* mlp_ratios must be 4. Received"),
        ({"hidden_sizes": [8, 16, 32]}, "model.safetensors: .* gives the shape .* Expected"),
        ({"depths": [1, 2, 2]}, "model.safetensors: .* it has no array 'segformer.encoder.block.2"),
    ],
)
def test_a_segformer_with_other_settings_is_rejected(keras_hub, golden, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        _of_hugging_face(golden("transformers")["models"]["segformer"], tmp_path, **changes)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers", "dinov3_vit", "vit"])
def test_outputs_equal_the_models_of_transformers(keras_hub, golden, tmp_path, kind):
    """Golden values of tests/programs/golden_transformers.py, at the table's size and another."""
    model = golden("transformers")["models"][kind]
    body = _of_hugging_face(model, tmp_path)
    for size, expected in model["outputs"].items():
        height, width = map(int, size.split("x"))
        images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3))
        patches = np.array(body(images)["block2"]).reshape(-1, 32)
        np.testing.assert_allclose(patches[::3, ::5].reshape(-1), expected, atol=1e-4)


def _truncate(folder):
    path = folder / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:2000])


def _without_a_layer(folder):
    with h5py.File(folder / "model.weights.h5", "a") as file:
        del file["layers/dinov2_encoder/layers/dinov2_layer_1"]


def _of_another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    config["config"]["hidden_dim"] = 64
    (folder / "config.json").write_text(json.dumps(config))


def _with_unknown_setting(folder):
    config = json.loads((folder / "config.json").read_text())
    config["config"]["num_wheels"] = 4
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "model.weights.h5: does not fit DINOV2Backbone, or is damaged"),
        (_without_a_layer, "model.weights.h5: "),
        (_of_another_width, "model.weights.h5: does not fit DINOV2Backbone, or is damaged"),
        (_with_unknown_setting, "config.json: DINOV2Backbone has no setting 'num_wheels'"),
        (lambda folder: (folder / "model.weights.h5").unlink(), "has no weights. Expected model.w"),
        (lambda folder: (folder / "config.json").write_text("{}"), "another kind of network"),
    ],
)
def test_damaged_folders_give_one_error(folders, tmp_path, damage, message):
    folder = shutil.copytree(folders["DINOV2Backbone"], tmp_path / "a")
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        backbones.build("kerashub/mine", weights="pretrained", folder=str(folder))
    assert str(folder) in str(caught.value)


def test_a_folder_of_another_model_than_the_name_is_rejected(keras_hub, folders):
    with pytest.raises(
        ValueError, match="is the preset of DINOV3Backbone. dinov2_small is of DINO"
    ):
        backbones.check("kerashub/dinov2_small", folder=str(folders["DINOV3Backbone"]))
    with pytest.raises(ValueError, match="another network than dinov2_small: .* Expected 12"):
        backbones.check("kerashub/dinov2_small", folder=str(folders["DINOV2Backbone"]))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dinov2_small", {}, "num_layers is 2. Expected 12"),
        ("dinov2_with_registers_small", {"num_hidden_layers": 12}, "hidden_dim is 32. Expected 3"),
        (
            "dinov2_with_registers_small",
            {"num_hidden_layers": 12, "hidden_size": 384, "num_attention_heads": 6},
            "num_register_tokens is 0. Expected 4",
        ),
        ("mit_b0_ade20k_512", {}, "is the preset of DINOV2Backbone. mit_b0_ade20k_512 is of MiT"),
    ],
)
def test_a_folder_of_hugging_face_is_compared_with_the_name(
    keras_hub, golden, tmp_path, name, changes, message
):
    config = golden("transformers")["models"]["dinov2"]["config"] | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        backbones.check(f"kerashub/{name}", folder=str(tmp_path))


def test_files_of_a_published_preset_are_fetched_and_loaded(keras_hub, folders, monkeypatch):
    from keras_hub.src.utils import preset_utils

    fetched = []

    def get_file(preset, name):
        fetched.append((preset, name))
        path = folders["ViTBackbone"] / name
        if not path.exists():
            raise FileNotFoundError(name)
        return str(path)

    monkeypatch.setattr(preset_utils, "get_file", get_file)
    name = "vit_base_patch16_224_imagenet"
    body = backbones.build(f"kerashub/{name}", weights="pretrained")
    files = ["config.json", "image_converter.json", "model.weights.h5"]
    assert fetched == [(name, file) for file in files]
    same = backbones.build(f"kerashub/{folders['ViTBackbone']}", weights="pretrained")
    for ours, theirs in zip(body.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert body.spec.license == ""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no network"),
        FileNotFoundError("`config.json` is not accessible. If this model is gated, accept its"),
        ValueError("401 Client Error"),
    ],
)
def test_unreachable_and_gated_presets_give_one_error(keras_hub, monkeypatch, error):
    from keras_hub.src.utils import preset_utils

    def get_file(*_):
        raise error

    monkeypatch.setattr(preset_utils, "get_file", get_file)
    with pytest.raises(ValueError, match="preset dinov2_small from a hub, which failed") as caught:
        backbones.build("kerashub/dinov2_small", weights="pretrained")
    assert str(error) in str(caught.value) and "Accept its license there" in str(caught.value)


def test_the_published_sizes_have_the_published_numbers_of_weights(keras_hub):
    settings = libraries.LIBRARIES["kerashub"].settings
    published = keras_hub.models.DINOV2Backbone.presets
    mix = keras_hub.models.MiTBackbone.presets
    assert {*published, *mix} <= set(settings)
    classifier = 10 * (256 + 1)  # KerasHub counts one of ten classes that the preset does not have
    for name, more in (
        ("dinov2_small", 0),
        ("dinov2_with_registers_small", 0),
        ("mit_b0_ade20k_512", classifier),
    ):
        network, _ = libraries.LIBRARIES["kerashub"].build(hub.Request(name))
        assert network.count_params() + more == (published | mix)[name]["metadata"]["params"]


def test_dinov3_names_its_license(folders):
    body = backbones.build(f"kerashub/{folders['DINOV3Backbone']}")
    assert body.spec.license == "DINOv3 License of Meta"
