"""Export of a `Predictor` as a SavedModel that runs with TensorFlow alone. Needs TensorFlow."""

import os

import tensorflow as tf

IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
ENCODED = tf.TensorSpec([None], tf.string, name="encoded")
IMAGES_OF_ONE_SIZE = tf.TensorSpec([None, None, 3], tf.uint8)


def save(predictor, path: str | os.PathLike):
    """Write a SavedModel with the signatures of `signatures`.

    Args:
        predictor: `mm_keras.Predictor`.
        path: the folder of the SavedModel.
    """
    module = tf.Module()
    module.network_variables = [
        variable.value for model in predictor.models for variable in model.variables
    ]
    tf.saved_model.save(module, os.fspath(path), signatures=signatures(predictor))


def signatures(predictor) -> dict:
    """Return the signatures of the SavedModel, {name: `tf.function`}.

    `serving_default` takes images, uint8 [B, H, W, 3]. `serve_encoded` takes encoded, string [B],
    the JPEG or PNG bytes of images of one size. Both return class_ids, int32 [B, H, W], and
    probability, float32 [B, H, W]. `serve_probabilities` takes images and returns probabilities,
    float32 [B, H, W, num_classes].
    """

    def serve(images):
        return predictor.predict(images)._asdict()

    def serve_encoded(encoded):
        return serve(tf.map_fn(_decode, encoded, fn_output_signature=IMAGES_OF_ONE_SIZE))

    def serve_probabilities(images):
        return {"probabilities": predictor.probabilities(images)}

    return {
        "serving_default": tf.function(serve, input_signature=[IMAGES]),
        "serve_encoded": tf.function(serve_encoded, input_signature=[ENCODED]),
        "serve_probabilities": tf.function(serve_probabilities, input_signature=[IMAGES]),
    }


def _decode(encoded):
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)
