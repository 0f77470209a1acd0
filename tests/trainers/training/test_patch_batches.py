"""Settings of the mix step are checked before any stage runs."""

import dataclasses

import pytest

from trainers import config
from trainers.training import patch_batches


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_size": 33}, "Stage mm: Patch sizes must be even .* got 33 to 256"),
        ({"min_size": 300}, "Stage mm: min_size must not exceed max_size, got 300 > 256"),
    ],
)
def test_wrong_patch_sizes_are_refused(changes, message):
    settings = config.Experiment().mm
    patch_batches.check(settings, None)
    with pytest.raises(config.ConfigError, match=message):
        patch_batches.check(dataclasses.replace(settings, **changes), None)
