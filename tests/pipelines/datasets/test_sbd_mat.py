"""SBD's .mat files, compared with files that scipy writes and reads."""

import numpy as np
import pytest

from pipelines.datasets import sbd_mat

scipy_io = pytest.importorskip("scipy.io")
scipy_sparse = pytest.importorskip("scipy.sparse")


def write(file, segmentation, name="GTcls", compressed=True, **more):
    boundaries = np.empty((3, 1), object)
    for k in range(3):
        boundaries[k, 0] = scipy_sparse.random(20, 30, 0.1, format="csc", random_state=k)
    content = {"Boundaries": boundaries, "Segmentation": segmentation, **more}
    content["CategoriesPresent"] = np.array([[9.0], [15.0]])
    scipy_io.savemat(file, {"other": np.eye(3), name: content}, do_compression=compressed)
    return file


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(20, 30), (1, 1), (3, 1), (1, 7), (375, 500)])
def test_read_masks_equal_masks_read_by_scipy(tmp_path, shape, compressed):
    pixels = np.random.default_rng(shape).integers(0, 21, shape, np.uint8)
    file = write(tmp_path / "a.mat", pixels, compressed=compressed)
    read = sbd_mat.read_segmentation(file)
    np.testing.assert_array_equal(read, pixels)
    assert read.dtype == np.uint8 and read.flags.c_contiguous
    oracle = scipy_io.loadmat(file)["GTcls"]["Segmentation"][0, 0]
    np.testing.assert_array_equal(read, oracle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "GTinst"}, "no variable GTcls"),
        ({"segmentation": np.zeros((4, 5))}, "not uint8"),
        ({"segmentation": np.zeros((4, 5, 2), np.uint8)}, "not uint8"),
    ],
)
def test_other_content_raises_an_error(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        sbd_mat.read_segmentation(
            write(tmp_path / "a.mat", **{"segmentation": np.eye(3, dtype=np.uint8)} | change)
        )


def test_a_struct_without_the_field_raises_an_error(tmp_path):
    scipy_io.savemat(tmp_path / "a.mat", {"GTcls": {"Seg": np.eye(3)}})
    with pytest.raises(ValueError, match=r"no GTcls\.Segmentation"):
        sbd_mat.read_segmentation(tmp_path / "a.mat")
    scipy_io.savemat(tmp_path / "a.mat", {"GTcls": np.eye(3)})
    with pytest.raises(ValueError, match="another form"):
        sbd_mat.read_segmentation(tmp_path / "a.mat")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_file_gives_a_mask_or_a_value_error(tmp_path, compressed):
    """The test cuts the file at many places and changes random bytes."""
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    file = write(tmp_path / "a.mat", pixels, compressed=compressed)
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:size] for size in range(0, len(content), 13)]
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.integers(len(content))] = rng.integers(256)
        damaged.append(bytes(changed))
    num_refused = 0
    for variant in damaged:
        file.write_bytes(variant)
        try:
            assert sbd_mat.read_segmentation(file).ndim == 2
        except ValueError:
            num_refused += 1
    assert num_refused > 50


def test_too_large_files_raise_an_error(tmp_path, monkeypatch):
    file = write(tmp_path / "a.mat", np.zeros((500, 500), np.uint8))
    monkeypatch.setattr(sbd_mat, "_MAX_UNPACKED_BYTES", 100_000)
    with pytest.raises(ValueError, match="unpacks to more than 100000 bytes"):
        sbd_mat.read_segmentation(file)
    monkeypatch.setattr(sbd_mat, "_MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100"):
        sbd_mat.read_segmentation(file)


def test_a_file_of_another_kind_raises_an_error(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"HDF")
    with pytest.raises(ValueError, match="no little-endian MATLAB 5 file"):
        sbd_mat.read_segmentation(tmp_path / "a.mat")
