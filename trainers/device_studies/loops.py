"""Training loops that run on the accelerator as a whole, compiled once for many runs."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import random

from trainers import config
from trainers.training import optimization

LOGGED = 16
"""Losses of a training that are returned, each the mean of a part of the steps."""


class Loop:
    """A model, its optimizer, and the compiled loop over the steps.

    The loop is compiled once. Number of steps, learning rates, order of the images and random
    numbers are arguments.

    Args:
        model: `mm_keras.models.trainable.Trainable`.
        settings: settings of the stage; optimizer, momentum and decay are compiled.
        batch: function(key, scenes, index int32 [B]) -> (inputs, targets).
    """

    def __init__(self, model: keras.Model, settings: config.Optimization, batch: Callable):
        self.model, self._batch = model, batch
        # The loop sets the rate of each step, so the optimizer gets no schedule.
        constant = dataclasses.replace(settings, schedule="drops", drops=())
        self.optimizer = optimization.optimizer(model, constant)
        self.optimizer.build(model.trainable_variables)
        self._rate = _position(self.optimizer.variables, self.optimizer._learning_rate)
        self._others = [v for v in model.variables if not _is_in(v, model.trainable_variables)]
        self._run = jax.jit(self._all_steps)

    def load(self, weights: list[np.ndarray], seed: int) -> None:
        """Set all variables of the model, and start its random generators from a seed."""
        for variable, value in zip(self.model.variables, weights, strict=True):
            is_state = variable.name == "seed_generator_state"
            variable.assign(np.array([seed, 0], "uint32") if is_state else value)

    def train(self, scenes, settings: config.Optimization, seed: int) -> list[float]:
        """Train the model from its present variables, and leave the result in them.

        Args:
            scenes: the images, arrays on the device.
            settings: steps, images of a step, and the learning rates.
            seed: of the order of the images, and of the crops.

        Returns:
            Mean losses of `LOGGED` equal parts of the training.
        """
        number, num_images = settings.steps, settings.num_images
        order = image_order(len(scenes.labels), number * num_images, seed)
        state = (
            [v.value for v in self.model.trainable_variables],
            [v.value for v in self._others],
            [jnp.zeros_like(v.value) for v in self.optimizer.variables],
        )
        (trainable, others, slots), losses = self._run(
            state,
            scenes,
            random.key(seed % 2**31),
            jnp.asarray(_padded(learning_rates(settings), _CAPACITY)),
            jnp.asarray(_padded(order.reshape(number, num_images), _CAPACITY)),
            number,
        )
        if self.optimizer.use_ema:
            averages = self.optimizer._model_variables_moving_average
            places = [_position(self.optimizer.variables, average) for average in averages]
            trainable = [slots[place] for place in places]
        self._assign(trainable, others)
        parts = np.array_split(np.array(losses)[:number], min(LOGGED, number))
        return [float(part.mean()) for part in parts]

    def _assign(self, trainable, others):
        for variable, value in zip(self.model.trainable_variables, trainable, strict=True):
            variable.assign(value)
        for variable, value in zip(self._others, others, strict=True):
            variable.assign(value)

    def _all_steps(self, state, scenes, key, rates, order, num_steps):
        def step(k, carried):
            state, losses = carried
            inputs, targets = self._batch(random.fold_in(key, k), scenes, order[k])
            state, loss = self._step(state, inputs, targets, rates[k])
            return state, losses.at[k].set(loss)

        return jax.lax.fori_loop(0, num_steps, step, (state, jnp.zeros(_CAPACITY)))

    def _step(self, state, inputs, targets, rate):
        trainable, others, slots = state

        def loss_of(trainable):
            known = [
                *zip(self.model.trainable_variables, trainable, strict=True),
                *zip(self._others, others, strict=True),
            ]
            with keras.StatelessScope(state_mapping=known) as scope:
                outputs = self.model(inputs, training=True)
                loss = self.model.batch_loss(inputs, targets, outputs)
            changed = [scope.get_current_value(variable) for variable in self._others]
            return loss, changed

        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        slots = [rate if k == self._rate else slot for k, slot in enumerate(slots)]
        trainable, slots = self.optimizer.stateless_apply(slots, gradients, trainable)
        return (trainable, others, slots), loss


_CAPACITY = 16384  # steps of the longest training


def _padded(values, length):
    if len(values) > length:
        raise config.ConfigError(
            f"A training of a device study has at most {length} steps. Received {len(values)}."
        )
    return np.pad(values, [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1))


def image_order(num_files: int, number: int, seed: int) -> np.ndarray:
    """Return which images are shown, int32 [number]: one permutation after the other.

    >>> sorted(image_order(3, 6, seed=0)[:3].tolist())
    [0, 1, 2]
    """
    generator = np.random.default_rng(seed)
    epochs = [generator.permutation(num_files) for _ in range(-(-number // num_files))]
    return np.concatenate([*epochs, []])[:number].astype(np.int32)


def learning_rates(settings: config.Optimization) -> np.ndarray:
    """Return the learning rate of each step, float32 [steps]."""
    schedule = optimization.schedule(settings)
    if not callable(schedule):
        return np.full(settings.steps, schedule, np.float32)
    return np.array(jax.vmap(schedule)(jnp.arange(settings.steps)), np.float32)


def _position(variables, wanted) -> int:
    return next(k for k, variable in enumerate(variables) if variable is wanted)


def _is_in(variable, variables):
    return any(variable is other for other in variables)
