"""Optimizers of the stages: the chosen method and schedule, XLA, and the moving average."""

import types

import keras
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, optimizers
from mm_keras.models.proxies import bigan
from trainers import config
from trainers.runs import stage_scope
from trainers.training import optimization


def _optimizer(**values):
    settings = config.changed(
        config.Experiment(), {f"segment.{key}": value for key, value in values.items()}
    ).segment
    model = mm_keras.UnetSegmenter(backbones.build("testing"), 3)
    optimization.compile_model(model, settings)
    return model.optimizer, model


def test_the_default_is_the_papers_method():
    optimizer, _ = _optimizer(steps=100, drops=(50,))
    assert type(optimizer) is optimizers.CoupledSGD
    assert not optimizer.use_ema and optimizer.global_clipnorm is None


def test_adamw_follows_half_a_cosine_after_its_warmup():
    optimizer, _ = _optimizer(
        optimizer="adamw", schedule="cosine", steps=100, warmup=0.1, learning_rate=0.2, decay=0.3
    )
    assert type(optimizer) is optimizers.LayerwiseAdamW and optimizer.decay == 0.3
    rates = [float(optimizer._learning_rate(step)) for step in (0, 10, 55, 100)]
    assert rates == pytest.approx([0.02, 0.2, 0.1, 0.0], abs=1e-6)


def test_the_polynomial_has_the_power_of_deeplab():
    optimizer, _ = _optimizer(schedule="poly", steps=100, learning_rate=1.0)
    assert float(optimizer._learning_rate(50)) == pytest.approx(0.5**0.9)


def test_the_backbone_has_its_own_rate():
    optimizer, model = _optimizer(optimizer="adamw", backbone_rate=0.1)
    rates = optimizer.rate_multipliers
    assert set(rates) == {variable.path for variable in model.backbone.trainable_variables}
    assert set(rates.values()) == {0.1}


def test_rates_fall_from_block_to_block():
    optimizer, model = _optimizer(optimizer="adamw", backbone_rate=0.5, layer_decay=0.8)
    first, second, third = model.backbone.blocks
    rates = optimizer.rate_multipliers
    for block, rate in ((first, 0.5 * 0.64), (second, 0.5 * 0.8), (third, 0.5)):
        assert [rates[v.path] for v in block] == pytest.approx([rate] * len(block))
    assert set(rates) == {variable.path for variable in model.backbone.trainable_variables}


def test_rates_of_twelve_blocks_equal_the_published_recipe():
    """LightlyTrain: block i of 12 has 0.8 ** (11 - i), the embeddings as the first block."""
    blocks = [[types.SimpleNamespace(path=f"block{k}/kernel")] for k in range(12)]
    variables = [variable for block in blocks for variable in block]
    body = types.SimpleNamespace(blocks=blocks, trainable_variables=variables)
    rates = list(optimization._rates(body, 1.0, 0.8).values())
    assert rates == pytest.approx([0.8 ** (11 - k) for k in range(12)])
    assert (rates[0], rates[-1]) == (pytest.approx(0.08589934592), 1.0)


def test_gradients_are_clipped_and_weights_averaged_where_asked():
    optimizer, _ = _optimizer(clip=2.0, ema=0.9)
    assert optimizer.global_clipnorm == 2.0
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9


@pytest.mark.parametrize("is_asked", [False, True])
def test_xla_compiles_the_step_only_where_jit_compile_is_set(is_asked):
    experiment = config.replace(config.Experiment(), "segment.jit_compile", is_asked)
    stage_scope.set_up(experiment)
    model = mm_keras.MixAndMatch(backbones.build("testing"))
    optimization.compile_model(model, experiment.segment)
    assert model.jit_compile is is_asked
    optimization.compile_model(model, experiment.mm)
    assert not model.jit_compile


def test_xla_is_refused_with_several_replicas(monkeypatch):
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    model = mm_keras.MixAndMatch(backbones.build("testing"))
    with pytest.raises(config.ConfigError, match="single replica. Received 2 replicas"):
        optimization.compile_model(model, config.Tune(jit_compile=True))


def test_bigan_has_adams_published_rate_of_decay_and_schedule():
    settings = config.changed(config.Experiment(), {"bigan.steps": 100}).bigan
    keras.utils.set_random_seed(0)
    model = bigan.Bigan(backbones.build("testing", "bigan"), 32, side=16, num_codes=2, channels=2)
    optimization.compile_model(model, settings)
    assert model.optimizer.beta_1 == 0.5
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 49, 99)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-6], rel=1e-5)
