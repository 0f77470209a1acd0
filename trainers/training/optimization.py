"""Optimizers and schedules of the stages that train, from their settings."""

import keras

from mm_keras import optimizers
from trainers import config

POWER = 0.9
"""Power of the polynomial schedule. Source: DeepLab (Chen et al. 2018)."""


def compile_model(model: keras.Model, settings: config.Optimization):
    """Compile a model with its optimizer; under mixed_float16 Keras adds loss scaling.

    Args:
        model: the model.
        settings: settings of the stage.

    Raises:
        config.ConfigError: `jit_compile` with several replicas.
    """
    import tensorflow as tf  # the optimizers do without it

    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if settings.jit_compile and num_replicas > 1:
        raise config.ConfigError(
            f"jit_compile=true needs a single replica. Received {num_replicas} replicas. XLA "
            "cannot compile the communication between replicas. Set jit_compile=false."
        )
    model.compile(optimizer=optimizer(model, settings), jit_compile=settings.jit_compile)


def optimizer(model: keras.Model, settings: config.Optimization) -> keras.Optimizer:
    """Return the optimizer of a stage for the variables of a model with a backbone."""
    further = {"global_clipnorm": settings.clip} if settings.clip else {}
    if ema := getattr(settings, "ema", 0):
        further |= {"use_ema": True, "ema_momentum": ema}
    if settings.optimizer == "sgd":
        return optimizers.CoupledSGD(
            schedule(settings), momentum=settings.momentum, decay=settings.decay, **further
        )
    if beta := getattr(settings, "beta_1", 0):
        further |= {"beta_1": beta}
    rates = _rates(model.backbone, settings.backbone_rate, settings.layer_decay)
    return optimizers.LayerwiseAdamW(
        schedule(settings), decay=settings.decay, rate_multipliers=rates, **further
    )


def _rates(backbone, rate, layer_decay) -> dict[str, float]:
    """Return {path of a variable: factor of its learning rate} of a backbone.

    The last block has `rate`, each block before it `layer_decay` of the next one. The layers before
    the first block learn with it, the norm after the last one too (BEiT, Bao et al. 2022, in the
    form of LightlyTrain).
    """
    rates = {variable.path: rate for variable in backbone.trainable_variables}
    if layer_decay < 1:
        for k, block in enumerate(reversed(backbone.blocks)):
            rates |= {variable.path: rate * layer_decay**k for variable in block}
    return rates


def schedule(
    settings: config.Optimization,
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of each update of a stage: one rate, or a function of its index."""
    if settings.schedule == "drops":
        return optimizers.step_schedule(settings.learning_rate, settings.drops)
    if settings.schedule == "half_constant":
        return optimizers.HalfConstant(settings.learning_rate, max(settings.steps, 1))
    return optimizers.SmoothDecay(
        settings.learning_rate,
        max(settings.steps, 1),
        warmup=int(settings.warmup * settings.steps),
        power=POWER if settings.schedule == "poly" else None,
    )
