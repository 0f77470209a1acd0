"""The cost of the losses of stage mm in the benchmark."""

import pytest

from mm_keras.models import objective
from trainers.benchmarks import cpu, patch_losses
from trainers.benchmarks.targets import LINES


def test_every_loss_of_patches_has_a_line_at_every_size():
    assert {*objective.TERMS} | {patch_losses.SMALL_MARGIN} == {*patch_losses.NAMES}
    keys = {line.key for line in LINES if line.group == "losses"}
    assert keys == {
        patch_losses.key(name, nodes) for name in patch_losses.NAMES for nodes in patch_losses.NODES
    }


@pytest.mark.slow
def test_each_loss_is_timed_and_the_smallest_batch_is_compared_with_a_step():
    scale = cpu.Scale(backbone="testing", patches=4, patch_size=16, rounds=1)
    measured = patch_losses.measure(scale, nodes=(8, 16))
    assert set(measured) == {
        patch_losses.key(name, nodes) for name in patch_losses.NAMES for nodes in (8, 16)
    }
    assert all(figure.figure > 0 for figure in measured.values())
    assert all((figure.peer is None) == key.endswith("_16") for key, figure in measured.items())
