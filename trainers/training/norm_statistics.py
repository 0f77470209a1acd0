"""Statistics of batch norm that belong to the final weights of a stage.

`mm_keras.layers.AccumulatedBatchNormalization` (AlexNet) averages over about 1,000 steps. After a
shorter schedule, most of its sums come from weights and batches that no longer matter.
"""

from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from mm_keras import layers
from trainers.devices.replicas import Replicas


def renewable(network: keras.Model) -> list[layers.AccumulatedBatchNormalization]:
    """Return the layers whose statistics `renew` computes; a frozen layer keeps its own."""
    return [
        layer
        for layer in layers.inner_layers(network)
        if isinstance(layer, layers.AccumulatedBatchNormalization) and layer.trainable
    ]


def renew(model: keras.Model, replicas: Replicas, batches: Iterable, between: Callable[[], None]):
    """Compute the statistics of all `renewable` layers from some batches alone.

    The model runs in training mode without updates. All other variables keep their values, apart
    from the states of random generators. Each replica renews its own sums, as in training.

    Args:
        model: `mm_keras.models.trainable.Trainable`.
        replicas: the replicas that trained it.
        batches: arguments of `replicas.run`, one for each pass.
        between: called after each pass.
    """
    chosen = renewable(model)
    own = {weight.path for layer in chosen for weight in layer.weights}
    others = [
        variable
        for variable in model.non_trainable_variables
        if variable.path not in own and variable.name != "seed_generator_state"
    ]

    def reset(_):
        for layer in chosen:
            layer.reset_statistics()

    def one_pass(batch):
        before = [tf.identity(variable) for variable in others]
        model.training_pass(batch)
        for variable, value in zip(others, before, strict=True):
            variable.assign(value)

    on_replicas = tf.function(lambda batch: replicas.run(one_pass, batch))
    tf.function(lambda: replicas.run(reset, None))()
    for batch in batches:
        on_replicas(batch)
        between()
