"""Batch statistics over all replicas of a distribution strategy."""

import keras

from mm_keras.layers.caffe import AccumulatedBatchNormalization


def inner_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """All layers of a network, those inside of nested models and of composite layers included."""
    # No public way enters composite layers.
    return network._flatten_layers(include_self=False)


def synchronize(network: keras.Model, num_replicas: int):
    """Makes the batch norm of a network, nested ones included, normalize by the joint batch of all
    replicas (SyncBN), and keep its statistics.

    For `tf.distribute` on TensorFlow, before the network is trained; with one replica nothing is
    changed. Statistics are sums over replicas of values and squares: E[x^2] - E[x]^2.

    Args:
        network: its layers are changed in place.
        num_replicas: of the strategy that it is trained under.
    """
    if num_replicas == 1:
        return
    for layer in inner_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        elif isinstance(layer, AccumulatedBatchNormalization):
            layer.num_replicas = num_replicas
