"""The base class of all models with a training step."""

from collections.abc import Iterable

import keras
from keras import ops


class NonFinite(keras.metrics.Metric):
    """Count the steps whose loss or gradients are not finite.

    Max pooling on TensorFlow's CPU drops NaN, so a loss can stay finite after the weights are lost.
    Therefore the metric also gets the norm of the gradients.
    """

    def __init__(self, name: str = "non_finite", **kwargs):
        super().__init__(name=name, **kwargs)
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")

    def update_state(self, *values):
        """Count one step if any entry of the float tensors is not finite."""
        finite = ops.all(ops.stack([ops.all(ops.isfinite(value)) for value in values]))
        self.count.assign_add(1.0 - ops.cast(finite, self.count.dtype))

    def result(self):
        """Return the count, float32 scalar; under several replicas the sum of their counts."""
        return self.count + 0  # a tensor


class WholePass:
    """Run one forward and one backward pass over all inputs at once.

    Args:
        model: `Trainable`.
        inputs: the argument of its `call`.
    """

    def __init__(self, model: "Trainable", inputs):
        self.model, self.inputs = model, inputs

    def outputs(self, tape):
        """Return the model's outputs in training mode. `tape` records them."""
        return self.model(self.inputs, training=True)

    def gradients(self, tape, loss):
        """Return the gradients of a recorded loss, one for each trainable variable."""
        return tape.gradient(loss, self.model.trainable_variables)


class Trainable(keras.Model):
    """Base class of models with one training step for all.

    A subclass sets `batch_keys` and implements `call` and `batch_loss`. It may override
    `forward_pass` and `joint_batch`.

    On TensorFlow, `train_step` is a custom step. It scales the loss, works under `tf.distribute`
    with several replicas and counts the steps that are not finite. On other backends, Keras' own
    step calls `compute_loss`.

    Args:
        name: name of the model.
        trackers: names of the `keras.metrics.Mean` metrics, or metrics. `gradient_norm` must be
            one of them.

    Attributes:
        batch_keys: keys of a batch. Two keys name inputs and targets. With more keys, the model
            gets the whole dict as its inputs and there are no separate targets.
        has_targets: whether two keys are inputs and targets; else the model gets the whole dict.
        tracked_keys: further keys whose mean is a metric of the same name. A batch may lack them.
            TensorFlow only.
        trackers: {name: metric}.
        non_finite: `NonFinite`.

    Example: a model that fits the mean of its inputs.

    >>> import keras
    >>> class Mean(Trainable):
    ...     batch_keys = ("values", "target")
    ...
    ...     def __init__(self):
    ...         super().__init__("mean", ["gradient_norm"])
    ...         self.dense = keras.layers.Dense(1)
    ...
    ...     def call(self, values, training=False):
    ...         return self.dense(values)
    ...
    ...     def batch_loss(self, values, target, outputs):
    ...         return ops.mean(ops.square(outputs[:, 0] - target))
    >>> model = Mean()
    >>> model.compile(optimizer="sgd")
    >>> history = model.fit(ops.ones((4, 2)), ops.zeros(4), verbose=0)
    >>> sorted(history.history)
    ['gradient_norm', 'loss', 'non_finite']
    """

    batch_keys: tuple[str, ...] = ()
    has_targets: bool = True
    tracked_keys: tuple[str, ...] = ()

    def __init__(self, name: str, trackers: Iterable[str | keras.metrics.Metric]):
        super().__init__(name=name)
        metrics = [keras.metrics.Mean(name=t) if isinstance(t, str) else t for t in trackers]
        self.trackers = {metric.name: metric for metric in metrics}
        self.non_finite = NonFinite()

    def train_step(self, *args):
        """Run one training step on a batch and return the metrics, {name: value}."""
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*args)
        import tensorflow as tf  # the library imports without it

        inputs, targets = self._unpack(*args)
        network = self.forward_pass(inputs)
        with tf.GradientTape() as tape:
            outputs, targets = self.joint_batch(network.outputs(tape), targets)
            loss = self.compute_loss(inputs, targets, outputs)
            scaled_loss = self._scale(loss)
        gradients = network.gradients(tape, scaled_loss)
        gradient_norm = self._update_weights(gradients)
        self._track_step(loss, gradient_norm)
        self._track_values(*args)
        return self.get_metrics_result()

    def training_pass(self, data):
        """Run the network on a batch in training mode, without a loss. TensorFlow only.

        No weight changes, but the running statistics of batch norm do.

        Args:
            data: a batch, as `train_step` takes it.

        Returns:
            The outputs of the network.
        """
        import tensorflow as tf  # the library imports without it

        inputs, _ = self._unpack(data)
        with tf.GradientTape() as tape:
            return self.forward_pass(inputs).outputs(tape)

    def forward_pass(self, inputs):
        """Return the pass that computes outputs and gradients. Override it to save memory."""
        return WholePass(self, inputs)

    def joint_batch(self, outputs, targets):
        """Return the outputs and targets of the loss, by default the replica's own.

        Override it to gather them from all replicas (`gather_from_replicas`). Keras' own step and
        `evaluate` do not call it.
        """
        return outputs, targets

    def batch_loss(self, inputs, targets, outputs):
        """Return the loss of a batch, float32 scalar, and update the trackers.

        Args:
            inputs: the inputs of the batch.
            targets: the targets of the batch, None if the model has none.
            outputs: the return value of `call`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement batch_loss.")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return `batch_loss`, for this step, for Keras' own steps and for `evaluate`.

        On other backends than TensorFlow it also counts a loss that is not finite. Keras' own step
        does not expose gradients, so gradient_norm stays 0 there.
        """
        loss = self.batch_loss(x, y, y_pred)
        if keras.backend.backend() != "tensorflow":
            self.non_finite.update_state(loss)
        return loss

    def _unpack(self, data):
        """Return (inputs, targets) of a dict with `batch_keys`, or of a pair."""
        keys, has_pairs = self.batch_keys, self.has_targets and len(self.batch_keys) == 2
        if isinstance(data, dict) and set(keys) <= set(data):
            batch = {key: data[key] for key in keys}
            return tuple(batch.values()) if has_pairs else (batch, None)
        if has_pairs and isinstance(data, (list, tuple)) and len(data) == 2:
            return tuple(data)
        got = sorted(data) if isinstance(data, dict) else type(data).__name__
        pair = " or a pair of the two" if has_pairs else ""
        raise ValueError(f"A batch must be a dict with {keys}{pair}. Received {got}.")

    def _scale(self, loss):
        """Return the loss whose gradients the optimizer expects. Call it under the tape.

        Optimizers sum gradients over replicas, so the loss is divided by the number of replicas.
        Under mixed precision the optimizer scales the loss up.
        """
        import tensorflow as tf

        return self.optimizer.scale_loss(loss / tf.distribute.get_strategy().num_replicas_in_sync)

    def _update_weights(self, gradients):
        """Apply gradients of a scaled loss to the trainable variables.

        Returns:
            float32 scalar, the global norm of the unscaled gradients of this replica. With a
            `LossScaleOptimizer` it is not finite in a step whose gradients overflowed. Such a step
            does not change the weights.
        """
        import tensorflow as tf

        # One pass over each gradient: squares of all of them would be a second set of weights.
        halves = [tf.nn.l2_loss(tf.cast(gradient, "float32")) for gradient in gradients]
        norm = ops.sqrt(2 * sum(halves)) / self._scale(ops.ones(()))
        if is_scaled(self):
            gradients = _overflow_everywhere(gradients, norm)
        self.optimizer.apply(gradients, self.trainable_variables)
        return norm

    def _track_step(self, loss, gradient_norm):
        """Record loss, gradient norm and whether they are finite."""
        for metric in self.metrics:
            if metric.name == "loss":  # the tracker that Keras makes in `compile`
                metric.update_state(loss)
        if not is_scaled(self):
            self.trackers["gradient_norm"].update_state(gradient_norm)
            self.non_finite.update_state(loss, gradient_norm)
            return
        # Under loss scaling an overflow of the gradient is normal and its step is skipped. So the
        # norm is the mean over the other steps, and only the loss shows whether weights are lost.
        is_finite = ops.isfinite(gradient_norm)
        norm = ops.where(is_finite, gradient_norm, 0.0)
        weight = ops.cast(is_finite, "float32")
        self.trackers["gradient_norm"].update_state(norm, sample_weight=weight)
        self.non_finite.update_state(loss)

    def _track_values(self, data):
        for key in self.tracked_keys:
            if isinstance(data, dict) and key in data:
                self.trackers[key].update_state(data[key])


def is_scaled(model: keras.Model) -> bool:
    """Return whether the optimizer scales the loss, as Keras' does under mixed_float16."""
    return isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def gather_from_replicas(values):
    """Concatenate the tensors of all replicas, in the order of the replicas, on each replica.

    The function all-reduces slots that are zero except for the replica's own, because `all_gather`
    raises under MultiWorkerMirroredStrategy. A row's gradient flows back to its replica, summed
    over the losses of all replicas.

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


def sum_over_replicas(values):
    """Return the sums of tensors over all replicas, on each replica.

    Gradients flow back to all replicas, summed over their losses.

    Args:
        values: NamedTuple of tensors.

    Returns:
        A NamedTuple of the same type; on a single replica `values`.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    return type(values)(*(context.all_reduce(tf.distribute.ReduceOp.SUM, v) for v in values))


def _overflow_everywhere(gradients, norm):
    """Make an overflow on one replica an overflow on all: Keras asks only the first whether to
    skip.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients
    overflows = tf.cast(~tf.math.is_finite(norm), "float32")
    is_any = context.all_reduce(tf.distribute.ReduceOp.SUM, overflows) > 0
    return [tf.where(is_any, float("nan"), gradient) for gradient in gradients]
