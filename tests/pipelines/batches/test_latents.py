"""Image crops with random codes: ranges, resume, wrong arguments."""

import numpy as np
import pytest
from PIL import Image

from pipelines.batches import Order, View, latents


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), "uint8")).save(folder / f"{k}.png")
    return sorted(str(file) for file in folder.iterdir())


def _arrays(files, num_codes=500, **order):
    order = Order(**({"num_images": 2, "num_steps": 3} | order))
    view = View(crop=16, enlarge=True)
    return list(latents.batches(files, view, order, num_codes).as_numpy_iterator())


def test_codes_are_uniform_in_minus_one_to_one_and_differ(files):
    batches = _arrays(files)
    codes = np.concatenate([batch["z"] for batch in batches])
    assert codes.shape == (6, 500) and codes.dtype == np.float32
    assert -1 <= codes.min() < -0.99 and 0.99 < codes.max() < 1
    np.testing.assert_allclose(codes.std(), 3**-0.5, rtol=0.03)
    assert len(np.unique(codes[:, 0])) == 6
    assert batches[0]["image"].shape == (2, 16, 16, 3)


def test_a_later_start_continues_the_sequence(files):
    for one, other in zip(_arrays(files)[1:], _arrays(files, start_step=1), strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_code_without_values_is_refused(files):
    with pytest.raises(ValueError, match="num_codes"):
        _arrays(files, num_codes=0)
