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
