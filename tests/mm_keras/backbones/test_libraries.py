"""Networks of other libraries by name: their pixels, their sizes, their errors."""

import inspect
import pathlib
import sys
import urllib.error

import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils

from mm_keras import backbones, layers
from mm_keras.backbones import libraries

FAMILIES = {
    inspect.getmodule(function).__name__: inspect.getmodule(function)
    for name, function in inspect.getmembers(keras.applications, inspect.isfunction)
    if name in libraries.Applications().names()
}


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_equal_preprocess_input(family):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype("uint8")
    preprocess = FAMILIES[family].preprocess_input
    pixels = libraries.pixels_of(preprocess)
    adapted = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean)(images)
    np.testing.assert_allclose(adapted, preprocess(images.astype("float32")), atol=2e-5)


def test_all_families_are_compared():
    assert {"keras.src.applications.resnet", "keras.src.applications.mobilenet_v3"} < set(FAMILIES)


@pytest.mark.parametrize(
    ("family", "color", "pad_color"),
    [
        ("resnet", "bgr", (123, 116, 103)),  # caffe: its means 123.68, 116.779, 103.939
        ("mobilenet", "rgb", (127, 127, 127)),  # tf: -1..1
        ("densenet", "rgb", (123, 116, 103)),  # torch: 255 x (0.485, 0.456, 0.406)
        ("convnext", "rgb", (127, 127, 127)),  # scales by itself
    ],
)
def test_the_pad_color_is_the_mean_color(family, color, pad_color):
    module = FAMILIES[f"keras.src.applications.{family}"]
    pixels = libraries.pixels_of(module.preprocess_input)
    assert (pixels.color, pixels.pad_color) == (color, pad_color)


@pytest.mark.parametrize(
    "preprocess",
    [
        lambda images: images / 255 + np.roll(images, 1, axis=-1),
        lambda images: np.roll(images, 1, axis=-1),
        lambda images: (images / 255) ** 2,
        lambda images: 0 * images,
    ],
)
def test_preprocessing_that_is_no_scale_and_shift_is_rejected(preprocess):
    with pytest.raises(ValueError, match="not a scale and a shift of each channel"):
        libraries.pixels_of(preprocess)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keras/ResNet50", "Unknown library 'keras'.*applications, kerascv, kerashub"),
        ("applications/resnet50", "Unknown network 'resnet50'.*Did you mean 'ResNet50'"),
        ("applications/ResNet51", "known: ConvNeXtBase, .*Did you mean 'ResNet50"),
        ("applications/", "Unknown network ''"),
        ("applications/NASNetMobile", "one fixed size"),
        ("kerascv/ResNetBackbone", "Unknown network.*of KerasCV.*Did you mean 'ResNet"),
        ("kerascv/resnet50", "Unknown network.*Did you mean .*'ResNet50Backbone'"),
        ("ResNet50", "Unknown backbone 'ResNet50'.*Did you mean 'applications/ResNet50'"),
    ],
)
def test_unknown_names_are_rejected(name, message):
    with pytest.raises(ValueError, match=message):
        backbones.check(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.5}, "width must be 1 for applications/ResNet50"),
        ({"pixels": "gray"}, "pixels must be 'own' or None.*Received 'gray'"),
        ({"weights": "coco"}, "weights must be None or 'imagenet'.*Received 'coco'"),
    ],
)
def test_arguments_of_no_wrapped_network_are_rejected(arguments, message):
    backbones.check("applications/ResNet50", pixels="own")
    with pytest.raises(ValueError, match=message):
        backbones.build("applications/ResNet50", **arguments)


def test_missing_weights_are_rejected():
    with pytest.raises(ValueError, match="weights must be None for kerascv/ResNet18Backbone"):
        backbones.check("kerascv/ResNet18Backbone", weights="imagenet")
    with pytest.raises(ValueError, match="built with random weights"):
        backbones.check("testing", weights="imagenet")


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("kerascv/ResNet18Backbone", "keras_cv", "pip install keras-cv"),
        ("kerashub/resnet_18_imagenet", "keras_hub", r"pip install 'mm-keras\[hub\]'"),
    ],
)
def test_a_library_that_is_not_installed_is_named(name, module, command, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"not installed: {command}"):
        backbones.build(name)


def test_checking_a_name_imports_nothing(monkeypatch):
    def refuse(module):
        raise AssertionError(f"imported {module}")

    monkeypatch.setattr("importlib.import_module", refuse)
    backbones.check("kerascv/ResNet50Backbone")
    backbones.check("applications/ResNet50")


def _no_network(url, *_):
    raise urllib.error.URLError("no network")


def test_settings_of_a_hub_report_a_failed_download(monkeypatch):
    monkeypatch.setattr(file_utils, "urlretrieve", _no_network)
    with pytest.raises(ValueError, match="from a hub, which failed .*no network.*ResNet18Backbone"):
        backbones.build("kerascv/EfficientNetV1B0Backbone")


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def test_a_failed_download_names_file_and_place(keras_home, monkeypatch):
    monkeypatch.setattr(file_utils, "urlretrieve", _no_network)
    with pytest.raises(ValueError) as caught:
        backbones.build("applications/MobileNet", weights="imagenet")
    filename = "mobilenet_1_0_224_tf_no_top.h5"
    assert f"put it at {keras_home / 'models' / filename}." in str(caught.value)
    assert "no network" in str(caught.value) and f"/{filename} on another" in str(caught.value)


def test_downloaded_weights_are_loaded(keras_home, monkeypatch):
    source = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )

    def download(url, path, *_):
        import h5py

        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, source)
        assert pathlib.Path(path).parent == keras_home / "models"

    monkeypatch.setattr(file_utils, "urlretrieve", download)
    backbone = backbones.build("applications/MobileNet", weights="imagenet")
    ours = backbone.get_layer("network").get_layer("conv_pw_13").kernel
    np.testing.assert_array_equal(ours, source.get_layer("conv_pw_13").kernel)
    momentum = backbone.get_layer("network").get_layer("conv1_bn").momentum
    assert momentum == 0.9 < source.get_layer("conv1_bn").momentum


def _published_counts(module, names):
    """{name: number of weights} from the metadata that a library ships with its presets."""
    classes = libraries._backbone_classes(module).values()
    presets = {name: preset for kind in classes for name, preset in kind.presets.items()}
    counts = {name: presets[names[name]]["metadata"].get("params") for name in names}
    return {name: count for name, count in counts.items() if count}


def _own_count(prefix, name):
    return libraries.network(f"{prefix}/{name}")[0].count_params()


def _kerascv_preset(name):
    """ResNet50V2Backbone -> resnet50_v2."""
    name = name.removesuffix("Backbone").lower()
    return name.removesuffix("v2") + "_v2" if name.endswith("v2") else name


def test_a_kerascv_network_has_as_many_weights_as_published():
    keras_cv = pytest.importorskip("keras_cv")
    names = {name: _kerascv_preset(name) for name in ("ResNet18Backbone", "ResNet18V2Backbone")}
    published = _published_counts(keras_cv, names)
    assert published == {name: _own_count("kerascv", name) for name in names}


@pytest.mark.slow
def test_all_kerascv_networks_have_as_many_weights_as_published():
    keras_cv = pytest.importorskip("keras_cv")
    settings = libraries.LIBRARIES["kerascv"].settings
    names = {name: _kerascv_preset(name) for name in settings if name.startswith("ResNet")}
    published = _published_counts(keras_cv, names)
    assert len(published) == 10
    assert published == {name: _own_count("kerascv", name) for name in published}
    assert _own_count("kerascv", "VGG16Backbone") == 14_714_688
    assert _own_count("kerascv", "DenseNet121Backbone") == 7_037_504  # as KerasHub publishes


@pytest.mark.slow
def test_all_kerashub_networks_have_as_many_weights_as_published():
    keras_hub = pytest.importorskip("keras_hub")
    names = {name: name for name in libraries.LIBRARIES["kerashub"].settings}
    # The second version's metadata repeat the first one's numbers.
    published = {
        name: count
        for name, count in _published_counts(keras_hub, names).items()
        if "v2" not in name
    }
    assert len(published) == 11
    assert published == {name: _own_count("kerashub", name) for name in published}
