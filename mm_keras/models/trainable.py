"""What the TensorFlow train steps of all stages share: gradients, their health, the update."""

import keras
from keras import ops


class NonFinite(keras.metrics.Metric):
    """Counts the steps whose loss or gradients were not finite.

    Max-pooling on TensorFlow's CPU swallows NaN, so a loss can stay finite after the weights are
    lost: the norm of the gradients is watched too.
    """

    def __init__(self, name="non_finite", **kwargs):
        super().__init__(name=name, **kwargs)
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")

    def update_state(self, *values):
        finite = ops.all(ops.stack([ops.all(ops.isfinite(value)) for value in values]))
        self.count.assign_add(1.0 - ops.cast(finite, self.count.dtype))

    def result(self):
        return self.count + 0  # a tensor; under several replicas the sum of their counts


def unpack(data, keys):
    """The two tensors of a training batch: a dict with `keys`, or a pair.

    Raises:
        ValueError: anything else.
    """
    if isinstance(data, dict) and set(keys) <= set(data):
        return tuple(data[key] for key in keys)
    if isinstance(data, (list, tuple)) and len(data) == 2:
        return tuple(data)
    got = sorted(data) if isinstance(data, dict) else type(data).__name__
    raise ValueError(f"A batch must be a dict with {keys} or a pair of the two. Received {got}.")


def scaled(model, loss):
    """The loss whose gradients the optimizer wants; call it under the tape.

    Optimizers sum gradients over replicas, so their number divides the loss; under mixed precision
    the loss is scaled up.
    """
    import tensorflow as tf  # train steps run on TensorFlow; the library imports without it

    return model.optimizer.scale_loss(loss / tf.distribute.get_strategy().num_replicas_in_sync)


def update_weights(model, gradients):
    """Applies gradients of a `scaled` loss with respect to the model's trainable variables.

    Returns:
        float32 scalar, the global norm of the unscaled gradients, under several replicas of this
        one's. With a `LossScaleOptimizer` it is not finite in a step whose gradients overflowed;
        such a step leaves the weights alone.
    """
    import tensorflow as tf

    # One pass over each gradient: squares of all of them would be a second set of weights.
    halves = [tf.nn.l2_loss(tf.cast(gradient, "float32")) for gradient in gradients]
    norm = ops.sqrt(2 * sum(halves)) / scaled(model, ops.ones(()))
    if is_scaled(model):
        gradients = _overflow_everywhere(gradients, norm)
    model.optimizer.apply(gradients, model.trainable_variables)
    return norm


def is_scaled(model) -> bool:
    """Whether the optimizer scales the loss, as Keras' does under mixed_float16."""
    return isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def _overflow_everywhere(gradients, norm):
    """Makes an overflow on one replica one on all: Keras asks the first alone whether to skip."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients
    overflows = tf.cast(~tf.math.is_finite(norm), "float32")
    is_any = context.all_reduce(tf.distribute.ReduceOp.SUM, overflows) > 0
    return [tf.where(is_any, float("nan"), gradient) for gradient in gradients]


def gathered(values):
    """What all replicas hold, one after another, on each of them.

    An all-reduce over slots that are zero but for the replica's own: `all_gather` raises under
    MultiWorkerMirroredStrategy. A gradient flows back to the replica that a row came from, summed
    over the losses of all.

    Args:
        values: tensor [N, ...] of a known shape, the same on each replica.

    Returns:
        [num_replicas * N, ...]; on a single replica `values`.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    count, index = context.num_replicas_in_sync, context.replica_id_in_sync_group
    if count == 1:
        return values
    num_own, *shape = values.shape
    around = [[index * num_own, (count - 1 - index) * num_own], *([0, 0] for _ in shape)]
    slots = tf.reshape(tf.pad(values, around), [count * num_own, *shape])
    return context.all_reduce(tf.distribute.ReduceOp.SUM, slots)


def track_step(model, loss, gradient_norm):
    """Records loss, gradient norm and whether they are finite in the model's metrics."""
    for metric in model.metrics:
        if metric.name == "loss":  # the tracker that Keras makes in `compile`
            metric.update_state(loss)
    if not is_scaled(model):
        model.trackers["gradient_norm"].update_state(gradient_norm)
        model.non_finite.update_state(loss, gradient_norm)
        return
    # Under loss scaling an overflowing gradient is normal, and its step is skipped: the norm is the
    # mean of the others, and only the loss tells whether the weights are lost.
    is_finite = ops.isfinite(gradient_norm)
    norm = ops.where(is_finite, gradient_norm, 0.0)
    model.trackers["gradient_norm"].update_state(norm, sample_weight=ops.cast(is_finite, "float32"))
    model.non_finite.update_state(loss)


def counted(model, loss):
    """Passes a loss on. Where Keras' own step trains, on other backends than TensorFlow, counts it
    if it is not finite; the gradients are out of reach there, so gradient_norm stays 0.
    """
    if keras.backend.backend() != "tensorflow":
        model.non_finite.update_state(loss)
    return loss
