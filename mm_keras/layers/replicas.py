"""Batch statistics over all replicas of a distribution strategy."""

import keras

from mm_keras.layers.caffe import AccumulatedBatchNormalization


def inner_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Return all layers of a network, including layers of nested models and composite layers."""
    # Keras has no public method that enters composite layers.
    return network._flatten_layers(include_self=False)


def synchronize(network: keras.Model, num_replicas: int):
    """Make all batch norm layers use the joint batch of all replicas (SyncBN).

    Call it before training under `tf.distribute` on TensorFlow. With one replica it changes
    nothing. Statistics are computed from sums over replicas of values and squares: E[x^2] -
    E[x]^2.

    Args:
        network: the function changes its layers, including nested ones, in place.
        num_replicas: number of replicas of the strategy.
    """
    if num_replicas == 1:
        return
    for layer in inner_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        elif isinstance(layer, AccumulatedBatchNormalization):
            layer.num_replicas = num_replicas
