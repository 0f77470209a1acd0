"""The references of the benchmark compute the algorithms that they are compared as."""

import numpy as np
import pytest
from PIL import Image

from trainers.benchmarks import peers

LABELS = [0, 0, 1, 1, 1, 2, 0, 1]


def test_the_loop_connects_the_nodes_of_each_class():
    rng = np.random.default_rng(0)
    for _ in range(50):
        triplets = peers.graph_triplets(LABELS, rng)
        assert [anchor for anchor, _, _ in triplets] == list(range(8))
        for anchor, positive, negative in triplets:
            assert LABELS[positive] == LABELS[anchor] != LABELS[negative]
            assert (positive == anchor) == (anchor == 5)  # the only node of its class
        component = {0}
        for _ in LABELS:
            edges = [(a, p) for a, p, _ in triplets if {a, p} & component]
            component |= {node for edge in edges for node in edge}
        assert component == {0, 1, 6}  # the positive edges of a class connect it


def test_the_loop_has_no_negatives_for_a_single_class():
    assert {t[2] for t in peers.graph_triplets([3, 3, 3], np.random.default_rng(0))} == {-1}


def test_opencv_cuts_patches_around_their_labels(tmp_path):
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 3, (4, 5)), np.ones((20, 20))).astype(np.uint8)
    Image.fromarray(np.stack([40 * label] * 3, -1)).save(tmp_path / "a.png")
    Image.fromarray(label).save(tmp_path / "b.png")
    files = (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    patches, labels = peers.opencv_patches(*files, rng, 10, (8, 8), 120, 8)
    assert patches.shape == (10, 8, 8, 3) and patches.dtype == np.float32
    centers = patches[:, 4, 4] + peers._MEAN
    np.testing.assert_allclose(centers, np.stack([40 * labels] * 3, -1), atol=1e-4)
    assert (labels[:9] > 0).all() and labels[9] == 0


def test_the_torch_step_updates_the_kernels(monkeypatch):
    torch = pytest.importorskip("torch")
    make, made = torch.optim.SGD, []
    monkeypatch.setattr(
        torch.optim, "SGD", lambda *args, **options: made.append(make(*args, **options)) or made[0]
    )
    step = peers.torch_step(((4, 4), (8,)), num_patches=2, side=8)
    weights = made[0].param_groups[0]["params"]
    kernels = [weight for weight in weights if weight.ndim == 4]
    before = [kernel.detach().clone() for kernel in kernels]
    step()
    assert [kernel.shape[:2] for kernel in kernels] == [(4, 3), (4, 4), (8, 4)]
    assert not any(torch.equal(*pair) for pair in zip(before, kernels, strict=True))
