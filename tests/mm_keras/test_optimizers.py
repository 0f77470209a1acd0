"""Caffe's SGD and step schedule against golden values."""

import keras
import numpy as np
import pytest

from mm_keras import optimizers


@pytest.mark.parametrize(("case", "name"), [(0, "kernel"), (1, "bias"), (2, "gamma")])
def test_updates_follow_caffe(golden, case, name):
    case = golden("optimizer")["sgd"][case]
    variable = keras.Variable(case["w0"], name=name)
    optimizer = optimizers.CoupledSGD(momentum=case["momentum"], decay=case["weight_decay"])
    optimizer.build([variable])
    for gradient, rate, (weight, velocity) in zip(
        case["grads"], case["lr"], case["w_and_velocity"], strict=True
    ):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        np.testing.assert_allclose(variable.numpy(), weight, rtol=1e-6)
        np.testing.assert_allclose(-optimizer.momentums[0].numpy(), velocity, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "drops"), [("graph", [6000]), ("segmentation", [24000, 36000, 40000])]
)
def test_the_schedule_has_the_golden_rates(golden, name, drops):
    schedule = optimizers.step_schedule(0.01, drops)
    for update, rate in golden("optimizer")["lr"][name].items():
        np.testing.assert_allclose(schedule(int(update)), rate, rtol=1e-6)


def test_a_schedule_without_drops_is_the_rate():
    assert optimizers.step_schedule(0.1, []) == 0.1


def test_the_first_drop_may_be_update_one():
    schedule = optimizers.step_schedule(0.1, [1])
    np.testing.assert_allclose([schedule(update) for update in (0, 1, 2)], [0.1, 0.01, 0.01])


def test_the_factor_applies_at_each_drop():
    schedule = optimizers.step_schedule(1.0, [2, 4], factor=0.5)
    rates = [float(schedule(update)) for update in range(6)]
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.parametrize("drops", [[20, 10], [10, 10], [0]])
def test_drops_out_of_order_or_below_one_are_rejected(drops):
    with pytest.raises(ValueError, match="ascending"):
        optimizers.step_schedule(0.1, drops)


def test_decoupled_weight_decay_is_rejected():
    with pytest.raises(ValueError, match="decay="):
        optimizers.CoupledSGD(weight_decay=1e-4)


def test_the_defaults_are_the_papers_settings():
    optimizer = optimizers.CoupledSGD()
    np.testing.assert_allclose(float(optimizer.learning_rate), 0.01)
    assert (optimizer.decay, optimizer.momentum) == (5e-4, 0.9)
    assert optimizer.bias_rate_multiplier == 2.0


def test_the_optimizer_survives_serialization():
    optimizer = optimizers.CoupledSGD(0.5, decay=0.25, bias_rate_multiplier=3.0)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert (copy.decay, copy.bias_rate_multiplier, copy.momentum) == (0.25, 3.0, 0.9)


def _adamw_step(multipliers=None, decay=0.1, name="kernel"):
    """Return a weight of 1 after one step with gradient 1 and rate 0.01."""
    weight = keras.Variable(np.ones(1), name=name)
    optimizer = optimizers.LayerwiseAdamW(0.01, decay, multipliers)
    optimizer.apply([keras.ops.ones(1)], [weight])
    return float(keras.ops.convert_to_numpy(weight)[0])


def test_the_first_adamw_step_is_the_rate_and_the_decay():
    assert _adamw_step() == pytest.approx((1 - 0.01 * 0.1) - 0.01, abs=1e-6)


@pytest.mark.parametrize("name", ["bias", "gamma", "beta"])
def test_adamw_does_not_decay_biases_and_scales(name):
    assert _adamw_step(name=name) == pytest.approx(0.99, abs=1e-6)


def test_a_multiplier_scales_the_rate_of_one_variable():
    assert _adamw_step({"kernel": 0.5}, decay=0) == pytest.approx(0.995, abs=1e-6)
    assert _adamw_step({"other": 0.5}, decay=0) == pytest.approx(0.99, abs=1e-6)
    assert _adamw_step({"kernel": 0.0}, decay=0) == 1


def test_adamw_survives_serialization():
    optimizer = optimizers.LayerwiseAdamW(0.5, 0.25, {"kernel": 0.1})
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert (copy.decay, copy.rate_multipliers) == (0.25, {"kernel": 0.1})


def test_smooth_decay_rises_linearly_and_ends_at_zero():
    schedule = optimizers.SmoothDecay(2.0, num_updates=10, warmup=4)
    rates = [float(schedule(update)) for update in range(11)]
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True) and rates[10] == 0
    assert rates[7] == pytest.approx(1.0)  # half of the way of half a cosine


def test_a_polynomial_of_power_one_is_a_line():
    schedule = optimizers.SmoothDecay(1.0, num_updates=4, power=1.0)
    np.testing.assert_allclose([float(schedule(k)) for k in range(6)], [1, 0.75, 0.5, 0.25, 0, 0])


@pytest.mark.parametrize(
    "arguments",
    [{"num_updates": 0}, {"num_updates": 4, "warmup": 4}, {"num_updates": 4, "power": 0}],
)
def test_impossible_smooth_decays_are_rejected(arguments):
    with pytest.raises(ValueError, match="Received"):
        optimizers.SmoothDecay(1.0, **arguments)


def test_smooth_decay_survives_serialization():
    schedule = optimizers.SmoothDecay(1.0, num_updates=10, warmup=2, power=0.9)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(copy(k)) for k in range(11)] == [float(schedule(k)) for k in range(11)]
