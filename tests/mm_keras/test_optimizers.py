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
def test_schedule(golden, name, drops):
    schedule = optimizers.step_schedule(0.01, drops)
    for update, rate in golden("optimizer")["lr"][name].items():
        np.testing.assert_allclose(schedule(int(update)), rate, rtol=1e-6)


def test_schedule_without_drops_is_the_rate():
    assert optimizers.step_schedule(0.1, []) == 0.1


@pytest.mark.parametrize("drops", [[20, 10], [10, 10], [0]])
def test_schedule_refuses_disorder(drops):
    with pytest.raises(ValueError, match="ascending"):
        optimizers.step_schedule(0.1, drops)


def test_decoupled_decay_is_refused():
    with pytest.raises(ValueError, match="decay="):
        optimizers.CoupledSGD(weight_decay=1e-4)


def test_config_round_trip():
    optimizer = optimizers.CoupledSGD(0.5, decay=0.25, bias_rate_multiplier=3.0)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert (copy.decay, copy.bias_rate_multiplier, copy.momentum) == (0.25, 3.0, 0.9)
