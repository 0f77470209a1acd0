"""SGD and step schedule as in Caffe, the basis of the M&M paper's results."""

from collections.abc import Sequence

import keras


@keras.saving.register_keras_serializable("mm_keras")
class CoupledSGD(keras.optimizers.SGD):
    """SGD with momentum, coupled L2 decay and one pair of multipliers per kind of variable.

        v <- momentum * v + rate * rate_multiplier * (gradient + decay * decay_multiplier * w)
        w <- w - v

    The decay passes through the momentum. Keras' own `weight_decay` is decoupled and gives other
    weights. The rate is inside v, so a drop of the rate does not rescale the accumulated momentum.
    The multipliers of rate and decay are 1 and 1 for weights, 2 and 0 for biases, and 1 and 0 for
    scale and shift of batch norm (released solver_graph.prototxt and train_graph.prototxt).

    Args:
        learning_rate: float or schedule.
        momentum: float, 0.9 in both stages of the paper.
        decay: float, L2 decay, 5e-4 in both stages of the paper.
        bias_rate_multiplier: float, factor of the learning rate for biases.
        **kwargs: as for `keras.optimizers.SGD`, without `weight_decay`.

    Raises:
        ValueError: if `weight_decay` is given.

    Example: a bias has twice the rate and no decay.

    >>> import numpy as np
    >>> bias = keras.Variable(np.ones(1), name="bias")
    >>> optimizer = CoupledSGD(learning_rate=0.1)
    >>> optimizer.apply([keras.ops.ones(1)], [bias])
    >>> print(keras.ops.convert_to_numpy(bias))
    [0.8]
    """

    def __init__(
        self, learning_rate=0.01, momentum=0.9, decay=5e-4, bias_rate_multiplier=2.0, **kwargs
    ):
        if kwargs.get("weight_decay"):
            raise ValueError(
                "CoupledSGD has its own coupled L2 decay. Received weight_decay="
                f"{kwargs['weight_decay']}. Pass decay=... instead."
            )
        super().__init__(learning_rate=learning_rate, momentum=float(momentum), **kwargs)
        self.decay = decay
        self.bias_rate_multiplier = bias_rate_multiplier
        self._multipliers = []

    def build(self, variables):
        if not self.built:
            # By name here, by index in update_step: TensorFlow passes a bare tf.Variable there.
            self._multipliers = [self._multipliers_of(variable.name) for variable in variables]
        super().build(variables)

    def _multipliers_of(self, name: str) -> tuple[float, float]:
        if name == "bias":
            return self.bias_rate_multiplier, 0.0
        if name in ("gamma", "beta"):
            return 1.0, 0.0
        return 1.0, 1.0

    def update_step(self, gradient, variable, learning_rate):
        rate, decay = self._multipliers[self._get_variable_index(variable)]
        if self.decay and decay:
            gradient = gradient + self.decay * decay * keras.ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate * rate)

    def get_config(self):
        config = super().get_config()
        config.update(decay=self.decay, bias_rate_multiplier=self.bias_rate_multiplier)
        return config


def step_schedule(learning_rate: float, drops: Sequence[int], factor: float = 0.1):
    """Return a learning rate that is multiplied by `factor` at each update index of `drops`.

    Source: Caffe's "multistep" policy.

    Updates are counted from 0, so with `drops=[6000]` update number 6001 is the first at the lower
    rate.

    Args:
        learning_rate: rate of the first update.
        drops: ascending update indices. Without drops the rate is constant.
        factor: 0.1 in both stages of the paper.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`, or `learning_rate` itself without
        drops.

    Raises:
        ValueError: if the drops are not ascending, or one is below 1.

    Example:

    >>> schedule = step_schedule(0.01, drops=[6000])
    >>> [round(float(schedule(update)), 4) for update in (0, 5999, 6000)]
    [0.01, 0.01, 0.001]
    """
    if list(drops) != sorted(set(drops)) or any(drop < 1 for drop in drops):
        raise ValueError(f"drops must be ascending update indices from 1 on. Received {drops}.")
    if not drops:
        return learning_rate
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries=[drop - 1 for drop in drops],  # Keras' boundary is the last index before
        values=[learning_rate * factor**k for k in range(len(drops) + 1)],
    )
