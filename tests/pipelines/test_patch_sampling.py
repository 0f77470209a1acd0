"""Settings of the Mix step: bounds, messages and the split into foreground and background."""

import pytest

from pipelines.patch_sampling import PatchSampling


@pytest.mark.parametrize(
    "num, share, background_label, expected",
    [
        # released code: max(1, floor(num / 10)) background, the others foreground
        (9, 0.1, 0, (8, 1)),
        (10, 0.1, 0, (9, 1)),
        (20, 0.1, 0, (18, 2)),
        (40, 0.1, 0, (36, 4)),
        (1, 0.1, 0, (1, 0)),
        (2, 1.0, 0, (1, 1)),
        (10, 0.1, None, (10, 0)),
        (10, 0.0, 0, (10, 0)),
        (30, 0.25, 0, (23, 7)),
    ],
)
def test_quotas_follow_the_released_code(num, share, background_label, expected):
    options = {"background_label": background_label, "background_share": share}
    settings = PatchSampling(num, min_size=64, max_size=128, **options)
    assert settings.quotas == expected


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rule": "papr"}, "Did you mean 'paper'"),
        ({"patches_per_image": 0}, "patches_per_image .* got 0"),
        ({"patch_size": 0}, "patch_size .* got 0"),
        ({"min_size": 65}, "even"),
        ({"max_size": 127}, "even"),
        ({"min_size": 0}, "at least 2"),
        ({"min_size": 130}, "130 > 128"),
        ({"background_share": 1.5}, "background_share .* 1.5"),
        ({"background_share": -0.1}, "background_share"),
        ({"min_share": 1.1}, "min_share .* 1.1"),
        ({"min_share": -0.1}, "min_share"),
        ({"background_label": 255}, "background_label"),
        ({"background_label": -1}, "background_label .* got -1"),
    ],
)
def test_wrong_settings_raise_an_error_with_their_name(change, message):
    options = {"patches_per_image": 4, "min_size": 64, "max_size": 128}
    with pytest.raises(ValueError, match=message):
        PatchSampling(**(options | change))


@pytest.mark.parametrize(
    "change",
    [
        {"patches_per_image": 1},
        {"patch_size": 1},
        {"min_size": 2},
        {"min_size": 128},
        {"background_share": 0},
        {"background_share": 1},
        {"min_share": 0},
        {"min_share": 1},
        {"background_label": 0},
        {"background_label": 254},
    ],
)
def test_settings_at_their_bounds_are_accepted(change):
    options = {"patches_per_image": 4, "min_size": 64, "max_size": 128}
    PatchSampling(**(options | change))
