"""Optimizers and schedules: SGD with drops as in Caffe, and AdamW with smooth decay."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops


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


@keras.saving.register_keras_serializable("mm_keras")
class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW with a factor on the learning rate of each variable.

    Kernels have weight decay, biases and the scale and shift of batch norm have none.

    Args:
        learning_rate: float or schedule.
        decay: float, decoupled weight decay; each step subtracts rate * decay * weight.
        rate_multipliers: {path of a variable: factor of its learning rate}; 1 for all others.
        **kwargs: as for `keras.optimizers.AdamW`, without `weight_decay`.

    Raises:
        ValueError: if `weight_decay` is given.

    Example: one kernel learns at a tenth of the rate.

    >>> optimizer = LayerwiseAdamW(1e-3, rate_multipliers={"conv1_1/kernel": 0.1})
    """

    def __init__(
        self,
        learning_rate=1e-3,
        decay=1e-2,
        rate_multipliers: Mapping[str, float] | None = None,
        **kwargs,
    ):
        if kwargs.get("weight_decay"):
            raise ValueError(
                f"Pass decay=... instead of weight_decay. Received {kwargs['weight_decay']}."
            )
        super().__init__(learning_rate=learning_rate, **{**kwargs, "weight_decay": float(decay)})
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.decay, self.rate_multipliers = decay, dict(rate_multipliers or {})
        self._multipliers = []

    def build(self, variables):
        if not self.built:
            # By path here, by index in update_step: TensorFlow passes a bare tf.Variable there.
            self._multipliers = [self.rate_multipliers.get(v.path, 1.0) for v in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        multiplier = self._multipliers[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * multiplier)

    def get_config(self):
        config = super().get_config()
        del config["weight_decay"]
        config.update(decay=self.decay, rate_multipliers=self.rate_multipliers)
        return config


@keras.saving.register_keras_serializable("mm_keras")
class HalfConstant(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is constant for half of the updates, then falls exponentially.

    Source: Donahue et al. 2017, train_gan.py; each epoch there is an update here.

    Args:
        learning_rate: the rate of the first half.
        num_updates: updates of the whole schedule, at least 1.
        last: factor of the rate in the last update, 0.01 in the source.

    Example:

    >>> schedule = HalfConstant(1.0, num_updates=100)
    >>> [round(float(schedule(update)), 4) for update in (0, 49, 74, 99)]
    [1.0, 1.0, 0.1, 0.01]
    """

    def __init__(self, learning_rate: float, num_updates: int, last: float = 0.01):
        self.learning_rate, self.num_updates, self.last = learning_rate, num_updates, last

    def __call__(self, step):
        """Return the rate of update `step`, counted from 0."""
        half = self.num_updates / 2
        done = ops.clip((ops.cast(step, "float32") + 1 - half) / half, 0.0, 1.0)
        return self.learning_rate * ops.power(self.last, done)

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "num_updates": self.num_updates,
            "last": self.last,
        }


@keras.saving.register_keras_serializable("mm_keras")
class SmoothDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly, then falls to 0 at the last update.

    Args:
        learning_rate: the largest rate.
        num_updates: updates of the whole schedule, at least 1.
        warmup: updates of the linear rise. Update k of them has (k + 1) / warmup of the rate.
        power: None for half a cosine (Loshchilov and Hutter 2017), else the power of a polynomial;
            0.9 in DeepLab (Chen et al. 2018).

    Raises:
        ValueError: if num_updates is below 1, warmup is not in 0 .. num_updates - 1, or power is
            not positive.

    Example:

    >>> schedule = SmoothDecay(1.0, num_updates=12, warmup=2)
    >>> [round(float(schedule(update)), 2) for update in (0, 1, 2, 7, 12)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(
        self, learning_rate: float, num_updates: int, warmup: int = 0, power: float | None = None
    ):
        if num_updates < 1 or not 0 <= warmup < num_updates:
            raise ValueError(
                "A schedule needs at least one update, and fewer updates of warm-up. Received "
                f"num_updates={num_updates}, warmup={warmup}."
            )
        if power is not None and power <= 0:
            raise ValueError(f"power must be positive. Received {power}.")
        self.learning_rate, self.num_updates = learning_rate, num_updates
        self.warmup, self.power = warmup, power

    def __call__(self, step):
        """Return the rate of update `step`, counted from 0."""
        step = ops.cast(step, "float32")
        rise = (step + 1) / max(self.warmup, 1)
        done = ops.clip((step - self.warmup) / (self.num_updates - self.warmup), 0.0, 1.0)
        is_cosine = self.power is None
        fall = 0.5 * (1 + ops.cos(np.pi * done)) if is_cosine else (1 - done) ** self.power
        return self.learning_rate * ops.where(step < self.warmup, rise, fall)

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "num_updates": self.num_updates,
            "warmup": self.warmup,
            "power": self.power,
        }
