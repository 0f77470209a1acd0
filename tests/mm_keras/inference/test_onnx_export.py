"""The ONNX model in onnxruntime: classes of the predictor at any size, and its metadata."""

import keras
import numpy as np
import pytest

import mm_keras
from mm_keras import backbones
from mm_keras.inference import ClassTable

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
onnx_export = pytest.importorskip("mm_keras.inference.onnx_export")

TABLE = ClassTable(tuple("abcd"), tuple((k, k, k) for k in range(4)), (0, 1, 2, 9))


def _segmenter(seed=0):
    keras.utils.set_random_seed(seed)
    model = mm_keras.HypercolumnSegmenter(backbones.build("testing"), 4, output_stride=2)
    rng = np.random.default_rng(seed)
    for variable in (*model.hypercolumn.weights, *model.score.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return model


@pytest.mark.slow  # the conversion takes 10 to 60 seconds
@pytest.mark.parametrize(
    "options", [{}, {"shorter_side": 30, "flip": True}], ids=["native", "shrunk and mirrored"]
)
def test_onnxruntime_gives_the_classes_of_the_predictor(options, tmp_path):
    predictor = mm_keras.Predictor(_segmenter(), **options)
    onnx_export.save(predictor, tmp_path / "model.onnx", TABLE)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(1)
    for number in range(20):
        size = [(40, 56), (33, 71), (96, 64)][number % 3]
        images = rng.integers(0, 256, (1, *size, 3)).astype("uint8")
        class_ids, probability = session.run(["class_ids", "probability"], {"images": images})
        expected = predictor.predict(images)
        np.testing.assert_array_equal(class_ids, expected.class_ids)
        np.testing.assert_allclose(probability, expected.probability, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert onnx_export.read_classes(metadata) == TABLE


def test_metadata_without_classes_are_refused():
    with pytest.raises(ValueError, match="Expected metadata 'classes'. Received 'other'"):
        onnx_export.read_classes({"other": "x"})
