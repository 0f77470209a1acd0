"""Which layers of a network are found and synchronized."""

import keras

from mm_keras import layers


class Block(keras.layers.Layer):
    """A composite layer, as hub networks are built of."""

    def __init__(self):
        super().__init__()
        self.norms = [keras.layers.BatchNormalization(), layers.BatchNormalization()]

    def call(self, inputs):
        return self.norms[1](self.norms[0](inputs))


def _network():
    inputs = keras.Input((4, 4, 3))
    nested = keras.Sequential([keras.layers.BatchNormalization(), Block()])
    return keras.Model(inputs, Block()(nested(keras.layers.ReLU()(inputs))))


def test_batch_norm_inside_of_composite_layers_is_synchronized():
    network = _network()
    norms = [
        layer
        for layer in layers.inner_layers(network)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 5
    layers.synchronize(network, num_replicas=1)
    assert not any(norm.synchronized for norm in norms)
    layers.synchronize(network, num_replicas=2)
    assert all(norm.synchronized for norm in norms)
