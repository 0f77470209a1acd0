"""The LiteRT model: built-in operators, classes of the predictor, its table of classes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.inference import ClassTable, litert_export

TABLE = ClassTable(tuple("abcd"), tuple((k, k, k) for k in range(4)), (0, 1, 2, 9))


@pytest.mark.slow  # the conversion takes ten seconds
def test_the_interpreter_gives_the_classes_of_the_predictor(tmp_path):
    keras.utils.set_random_seed(0)
    model = mm_keras.HypercolumnSegmenter(backbones.build("testing"), 4, output_stride=2)
    rng = np.random.default_rng(0)
    for variable in (*model.hypercolumn.weights, *model.score.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    predictor = mm_keras.Predictor(model, shorter_side=30, flip=True)
    litert_export.save(predictor, tmp_path / "model.tflite", (40, 56), TABLE)
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    outputs = {d["dtype"]: d["index"] for d in interpreter.get_output_details()}
    num_equal = 0
    for _ in range(20):
        images = rng.integers(0, 256, (1, 40, 56, 3)).astype("uint8")
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
        interpreter.invoke()
        class_ids = interpreter.get_tensor(outputs[np.int32])
        num_equal += np.sum(class_ids == predictor.predict(images).class_ids)
    assert num_equal >= 0.999 * 20 * 40 * 56
    assert litert_export.read_classes(tmp_path / "model.tflite") == TABLE


def test_a_file_without_a_table_is_named(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    with pytest.raises(ValueError, match="model.tflite holds no classes.json"):
        litert_export.read_classes(tmp_path / "model.tflite")
