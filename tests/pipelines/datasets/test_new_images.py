"""New images: which files an input leads to, and their names."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import headers, new_images
from pipelines.datasets.spec import DatasetError, PixelWindow


@pytest.fixture
def photos(tmp_path):
    for name in ("a.jpg", "b.PNG", "deep/a.jpg", "@eaDir/a.jpg", "out/a.jpg"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file)
    (tmp_path / "notes.txt").write_text("text")
    return tmp_path


def _names(inputs, skipped=()):
    return [source.name for source in new_images.find(map(str, inputs), skipped)]


def test_a_folder_gives_the_images_below_it_with_relative_names(photos):
    assert _names([photos], [photos / "out"]) == ["a", "b", "deep/a"]


def test_a_pattern_is_relative_to_its_fixed_part(photos):
    assert _names([photos / "*.jpg"]) == ["a"]
    assert _names([photos / "**" / "a.jpg"]) == ["a", "deep/a", "out/a"]


def test_a_file_is_found_once(photos):
    assert _names([photos / "a.jpg", photos / "a.jpg", photos / "*.jpg"]) == ["a"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(photos):
    (photos / "a.jpg").rename(photos / "a[1].jpg")
    assert _names([photos / "a[1].jpg"]) == ["a[1]"]


def test_images_that_differ_in_their_ending_keep_it(photos):
    (photos / "b.PNG").rename(photos / "a.PNG")
    assert _names([photos / "a.jpg", photos / "a.PNG"]) == ["a.jpg", "a.PNG"]


def test_two_images_of_one_name_are_refused(photos):
    with pytest.raises(DatasetError, match="have one name, 'a.jpg'"):
        _names([photos / "a.jpg", photos / "deep"])


@pytest.mark.parametrize("name", ["missing", "*.gif", "empty"])
def test_an_input_without_images_is_named(photos, name):
    (photos / "empty").mkdir()
    with pytest.raises(DatasetError, match="leads to no image"):
        _names([photos / name])


def test_a_link_to_the_folder_above_ends(photos):
    (photos / "deep" / "up").symlink_to(photos)
    assert _names([photos / "deep"]) == ["a"]


def test_the_problem_of_a_missing_file_is_named():
    with pytest.raises(DatasetError, match="no such file"):
        new_images.read(pathlib.Path("missing.png"))


@pytest.mark.parametrize("big", [False, True])
def test_a_geotiff_that_pillow_cannot_read_keeps_its_place(tmp_path, big):
    tifffile = pytest.importorskip("tifffile")
    pixels = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(5, 6, 4)
    place = (0.0, 0.0, 0.0, 5e5, 5e6, 0.0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        bigtiff=big,
        photometric="minisblack",
        planarconfig="contig",
        extratags=[(33922, "d", 6, place, True)],
    )
    window = PixelWindow(4, (0, 1, 2, 3), (0.0,) * 4, (255.0,) * 4)
    image = new_images.read(tmp_path / "a.tif", window)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.geo_tags == ((33922, 12, place),)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0" + bytes(4), b"MM\0*" + b"\xff" * 40])
def test_tags_of_a_damaged_tiff_are_empty(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert headers.tiff_tags(tmp_path / "a.tif", (33922,)) == ()
