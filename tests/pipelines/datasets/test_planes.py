"""Images of any number of bands as PNG files."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.datasets import planes


@pytest.mark.parametrize("num_bands", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
def test_an_image_is_decoded_as_it_was(size, num_bands):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, num_bands)).astype(np.uint8)
    decoded = planes.decode(planes.encode(pixels), num_bands)
    np.testing.assert_array_equal(decoded, pixels)


def test_the_number_of_bands_is_known_in_a_graph():
    spec = tf.TensorSpec([], tf.string)
    function = tf.function(lambda content: planes.decode(content, 4), input_signature=[spec])
    assert function.get_concrete_function().output_shapes == tf.TensorShape([None, None, 4])


def test_bytes_of_another_number_of_bands_are_refused():
    content = planes.encode(np.zeros((5, 7, 2), np.uint8))  # ten rows of gray
    with pytest.raises(tf.errors.InvalidArgumentError):
        planes.decode(content, 4)
