"""SGD as Caffe defines it, which the M&M paper's numbers rest on, and its step schedule."""

from collections.abc import Sequence

import keras


@keras.saving.register_keras_serializable("mm_keras")
class CoupledSGD(keras.optimizers.SGD):
    """SGD with momentum, coupled L2 decay and one pair of multipliers per kind of variable.

    v <- momentum * v + rate * rate_multiplier * (gradient + decay * decay_multiplier * w);  w <- w
    - v

    The decay goes through the momentum. Keras' own `weight_decay` is the decoupled kind, which
    gives other weights. The rate is inside v, so a drop of the rate does not rescale the momentum
    already gathered. Multipliers (released solver_graph.prototxt and train_graph.prototxt): weights
    1 and 1, biases 2 and 0, batch norm's scale and shift 1 and 0.

    Args:
        learning_rate: float or schedule.
        momentum: float, 0.9 in both stages.
        decay: float, L2 decay, 5e-4 in both stages.
        bias_rate_multiplier: float, factor of the learning rate for biases.
        **kwargs: as for `keras.optimizers.SGD`; `weight_decay` must stay unset.
    """

    def __init__(
        self, learning_rate=0.01, momentum=0.9, decay=5e-4, bias_rate_multiplier=2.0, **kwargs
    ):
        if kwargs.get("weight_decay"):
            raise ValueError(
                "CoupledSGD has its own coupled L2 decay: pass decay=..., not weight_decay="
                f"{kwargs['weight_decay']}."
            )
        super().__init__(learning_rate=learning_rate, momentum=float(momentum), **kwargs)
        self.decay = decay
        self.bias_rate_multiplier = bias_rate_multiplier
        self._multipliers = []

    def build(self, variables):
        if not self.built:
            # By name here, by index in update_step: TensorFlow hands a bare tf.Variable to the
            # latter.
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
    """Learning rate that is multiplied by `factor` at each update index of `drops` (Caffe's
    "multistep" policy).

    Updates are counted from 0, so with `drops=[6000]` update number 6001 is the first at the lower
    rate.

    Args:
        learning_rate: rate of the first update.
        drops: ascending update indices; none gives a constant rate.
        factor: 0.1 in both stages of the paper.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`, or `learning_rate` itself without
        drops.
    """
    if list(drops) != sorted(set(drops)) or any(drop < 1 for drop in drops):
        raise ValueError(f"drops must be ascending update indices from 1 on. Received {drops}.")
    if not drops:
        return learning_rate
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries=[drop - 1 for drop in drops],  # Keras' boundary is the last index before
        values=[learning_rate * factor**k for k in range(len(drops) + 1)],
    )
