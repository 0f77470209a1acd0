"""Labelled input pipelines: element k is a pure function of (seed, k), exact to the pixel."""

import dataclasses
import itertools
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import datasets
from pipelines.batches import (
    NONE,
    Augmentation,
    Order,
    PatchSampling,
    Share,
    View,
    labelled,
)

VOID = datasets.VOID

PATCHES = {
    "num_images": 3,
    "patches_per_image": 4,
    "min_size": 8,
    "max_size": 24,
    "patch_size": 16,
    "crop": 32,
}
CROPS = {"num_images": 3, "crop": 20}


def record(cls, options):
    """Build a settings record from the options that it has."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in options.items() if name in names})


def patches(split, **options):
    records = [record(cls, options) for cls in (PatchSampling, View, Order)]
    return labelled.patches(split, *records, options.get("changes", NONE))


def crops(split, **options):
    records = [record(cls, options) for cls in (View, Order)]
    return labelled.crops(split, *records, options.get("changes", NONE))


def write_split(folder, images, labels):
    files = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        files.append((str(folder / f"image{i}.png"), str(folder / f"label{i}.png")))
        Image.fromarray(image).save(files[-1][0])
        Image.fromarray(label).save(files[-1][1])
    image_files, label_files = zip(*files, strict=True)
    return types.SimpleNamespace(image_files=image_files, label_files=label_files, num_bands=3)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Seven noisy images of several sizes with random labels."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 60, (7, 2))
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    labels = [rng.choice([0, 1, 2, VOID], size).astype(np.uint8) for size in sizes]
    return write_split(tmp_path_factory.mktemp("noise"), images, labels)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Seven images of 24 x 24, image i of color and label i throughout."""
    images = [np.full((24, 24, 3), i, np.uint8) for i in range(7)]
    return write_split(tmp_path_factory.mktemp("plain"), images, [x[..., 0] for x in images])


def arrays(dataset, num=None):
    return list(itertools.islice(dataset.as_numpy_iterator(), num))


def assert_equal(steps, others):
    assert len(steps) == len(others)
    for step, other in zip(steps, others, strict=True):
        assert step.keys() == other.keys()
        for key in step:
            np.testing.assert_array_equal(step[key], other[key])


@pytest.mark.parametrize("pipeline, options", [(patches, PATCHES), (crops, CROPS)])
@pytest.mark.parametrize("shorter_side", [pytest.param(None, marks=pytest.mark.slow), 16])
def test_a_resumed_pipeline_continues_the_same_sequence(split, pipeline, options, shorter_side):
    options = options | {"seed": 5, "shorter_side": shorter_side, "num_steps": 8}
    whole = arrays(pipeline(split, num_parallel=1, **options))
    assert len(whole) == 8
    for start_step, num_parallel in [(5, 4), (8, 4)]:
        resumed = pipeline(split, start_step=start_step, num_parallel=num_parallel, **options)
        assert_equal(arrays(resumed), whole[start_step:])


@pytest.mark.parametrize("pipeline, options", [(patches, PATCHES), (crops, CROPS)])
def test_shares_together_equal_the_whole_step(split, pipeline, options):
    options = options | {"seed": 5, "num_images": 4, "num_steps": 3, "num_parallel": 2}
    whole = arrays(pipeline(split, **options))
    shares = [arrays(pipeline(split, share=Share(k, 2), **options)) for k in range(2)]
    joined = [
        {key: np.concatenate([one[key], other[key]]) for key in one}
        for one, other in zip(*shares, strict=True)
    ]
    assert_equal(joined, whole)


CHANGES = Augmentation(scale=1.5, rotation=20.0, mix=0.4)


def test_an_augmented_pipeline_resumes_exactly_and_its_shares_equal_the_whole_step(split):
    options = CROPS | {"seed": 5, "num_images": 4, "num_steps": 4, "changes": CHANGES}
    whole = arrays(crops(split, num_parallel=1, **options))
    assert_equal(arrays(crops(split, start_step=2, num_parallel=4, **options)), whole[2:])
    second = arrays(crops(split, share=Share(1, 2), num_parallel=2, **options))
    halves = [{key: value[2:] for key, value in step.items()} for step in whole]
    assert_equal(second, halves)


def test_augmented_patches_resume_exactly_and_have_labels_of_their_classes(split):
    options = PATCHES | {"num_steps": 3, "changes": CHANGES}
    whole = arrays(patches(split, num_parallel=1, **options))
    assert_equal(arrays(patches(split, start_step=1, num_parallel=4, **options)), whole[1:])
    for step in whole:
        assert step["patches"].shape == (12, 16, 16, 3) and set(step["labels"]) <= {0, 1, 2}


def test_mixing_an_odd_number_of_images_per_replica_raises_an_error(split):
    options = CROPS | {"num_images": 6, "share": Share(0, 2), "changes": Augmentation(mix=0.3)}
    with pytest.raises(ValueError, match="even number of images, got 3"):
        crops(split, **options)


def test_images_that_cannot_be_augmented_are_counted(tmp_path):
    label = np.full((64, 64), VOID, np.uint8)
    label[20:26, 30:36] = 3
    split = write_split(tmp_path, [np.zeros((64, 64, 3), np.uint8)], [label])
    view, order = View(8), Order(num_images=5, num_steps=4)
    number = labelled.num_unaugmented(split, view, order, Augmentation(scale=1.5))
    assert 0 < number < 20
    # A crop that holds the whole image shows all its labels.
    assert labelled.num_unaugmented(split, View(128), order, Augmentation(aspect=1.1)) == 0
    with pytest.raises(ValueError, match="set num_steps"):
        labelled.num_unaugmented(split, view, Order(num_images=5), Augmentation(scale=1.5))


@pytest.mark.parametrize(("rule", "class_balanced"), [("paper", True), ("release", False)])
def test_patch_options_do_not_depend_on_earlier_steps(split, rule, class_balanced):
    options = PATCHES | {"rule": rule, "class_balanced": class_balanced, "background_label": 0}
    whole = arrays(patches(split, num_parallel=4, num_steps=4, **options))
    resumed = patches(split, start_step=2, num_steps=4, num_parallel=1, **options)
    assert_equal(arrays(resumed), whole[2:])


def test_without_num_steps_the_dataset_is_endless(split):
    endless = arrays(patches(split, start_step=4, **PATCHES), num=9)
    assert_equal(endless, arrays(patches(split, start_step=4, num_steps=13, **PATCHES)))


def test_different_seeds_and_steps_give_different_patches(split):
    def all_patches(seed):
        steps = arrays(patches(split, num_steps=6, seed=seed, **PATCHES))
        return np.concatenate([step["patches"] for step in steps])

    first, second = all_patches(0), all_patches(1)
    assert (first != second).any(axis=(1, 2, 3)).all()
    # An image comes back in the next epoch with other patches.
    assert len(np.unique(first.reshape(len(first), -1), axis=0)) == len(first)
    np.testing.assert_array_equal(first, all_patches(tf.constant([0, 0])))


def test_element_shapes_are_static(split):
    spec = patches(split, **PATCHES).element_spec
    assert spec["patches"] == tf.TensorSpec([12, 16, 16, 3], tf.uint8)
    assert spec["labels"] == tf.TensorSpec([12], tf.int32)
    assert spec["label_share"] == tf.TensorSpec([12], tf.float32)
    spec = crops(split, **CROPS).element_spec
    assert spec["image"] == tf.TensorSpec([3, 20, 20, 3], tf.uint8)
    assert spec["label"] == tf.TensorSpec([3, 20, 20], tf.uint8)


def test_each_epoch_shows_each_image_once(plain):
    # Seven steps of three images are three epochs of seven: epochs end within steps.
    steps = arrays(crops(plain, num_images=3, crop=8, num_steps=21))
    ids = np.concatenate([step["label"][:, 0, 0] for step in steps]).reshape(-1, 7)
    assert (np.sort(ids, axis=1) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in ids}) > 5


def test_a_step_may_hold_more_images_than_the_split(plain):
    (step,) = arrays(crops(plain, num_images=16, crop=8, num_steps=1))
    assert (np.bincount(step["label"][:, 0, 0]) >= 2).all()


def test_patches_of_one_image_are_adjacent(plain):
    for step in arrays(patches(plain, num_steps=5, **PATCHES)):
        ids = step["labels"].reshape(3, 4)
        assert (ids == ids[:, :1]).all() and len(np.unique(ids)) == 3


@pytest.mark.parametrize("crop", [20, 50])
def test_image_and_label_crops_are_aligned_and_padded(tmp_path, crop):
    rng = np.random.default_rng(1)
    labels = [rng.choice([0, 1, 2, VOID], size).astype(np.uint8) for size in [(30, 41), (47, 22)]]
    split = write_split(tmp_path, [np.stack([x, x + 1, 255 - x], -1) for x in labels], labels)
    options = {"num_images": 2, "crop": crop, "pad_color": (9, 8, 7), "num_steps": 20}
    for step in arrays(crops(split, **options)):
        x = step["label"]
        shown = np.stack([x, x + 1, 255 - x], -1)
        padded = (step["image"] == [9, 8, 7]).all(-1)
        assert (x[padded] == VOID).all()
        np.testing.assert_array_equal(step["image"][~padded], shown[~padded])
        sizes = sorted(padded.sum((1, 2)))
        assert sizes == sorted(
            crop**2 - min(h, crop) * min(w, crop) for h, w in [(30, 41), (47, 22)]
        )


def test_mirroring_can_be_disabled(tmp_path):
    ramp = np.tile(np.arange(12, dtype=np.uint8), (12, 1))
    split = write_split(tmp_path, [np.stack([ramp] * 3, -1)], [ramp])
    for mirror, slopes in [(False, {1}), (True, {1, -1})]:
        steps = arrays(crops(split, num_images=8, crop=8, mirror=mirror, num_steps=2))
        rows = np.concatenate([step["label"][:, 0].astype(int) for step in steps])
        assert set(np.diff(rows).ravel()) == slopes


def test_the_middle_pixel_of_a_patch_shows_its_label(tmp_path):
    """Without resizing, pixel (side / 2, side / 2) is the sampled one, mirrored or not."""
    rng = np.random.default_rng(2)
    labels = [rng.choice([0, 1, 2, 3, VOID], (40, 33)).astype(np.uint8) for _ in range(3)]
    images = [np.stack([x, x, x], -1) for x in labels]
    split = write_split(tmp_path, images, labels)
    options = PATCHES | {"min_size": 16, "max_size": 16, "patch_size": 16, "pad_color": (9, 9, 9)}
    for step in arrays(patches(split, num_steps=20, **options)):
        np.testing.assert_array_equal(step["patches"][:, 8, 8, 0], step["labels"])
        assert (step["labels"] != VOID).all()


def test_patches_show_padding_outside_the_canvas(plain):
    # Canvas and patch have the same size. A patch off the center shows padding there, although the
    # image continues.
    options = {"num_images": 7, "patches_per_image": 5, "crop": 16, "min_size": 16, "max_size": 16}
    (step,) = arrays(patches(plain, patch_size=16, pad_color=(99, 98, 97), num_steps=1, **options))
    padded = (step["patches"] == [99, 98, 97]).all(-1)
    own = (step["patches"] == step["labels"][:, None, None, None]).all(-1)
    assert (padded | own).all() and own.any((1, 2)).all()
    # Padding is made of whole rows and columns, and the mean patch lacks about a quarter of both.
    rows, columns = padded.all(2).sum(1), padded.all(1).sum(1)
    np.testing.assert_array_equal(own.sum((1, 2)), (16 - rows) * (16 - columns))
    assert 2 < rows.mean() < 6 and 2 < columns.mean() < 6


def test_each_crop_contains_a_labelled_pixel(tmp_path):
    label = np.full((64, 48), VOID, np.uint8)
    label[5, 40] = 3
    split = write_split(tmp_path, [np.zeros((64, 48, 3), np.uint8)], [label])
    for step in arrays(crops(split, num_images=4, crop=8, num_steps=20)):
        assert ((step["label"] == 3).sum((1, 2)) == 1).all()
    options = {"num_images": 4, "patches_per_image": 2, "min_size": 4, "max_size": 4, "crop": 8}
    for step in arrays(patches(split, num_steps=5, **options)):
        assert (step["labels"] == 3).all()


def test_an_all_void_label_map_raises_an_error_with_its_file_name(tmp_path):
    void = np.full((9, 9), VOID, np.uint8)
    split = write_split(tmp_path, [np.zeros((9, 9, 3), np.uint8)], [void])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"label0\.png"):
        arrays(crops(split, num_images=1, crop=4, num_steps=1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_images": 0}, "num_images .* got 0"),
        ({"crop": 0}, "crop .* got 0"),
        ({"shorter_side": 0}, "shorter_side .* got 0"),
        ({"pad_color": (1, 2)}, "pad_color"),
        ({"start_step": -1}, "start_step .* -1 to"),
        ({"start_step": 7, "num_steps": 6}, "7 to 6"),
    ],
)
@pytest.mark.parametrize("pipeline, options", [(patches, PATCHES), (crops, CROPS)])
def test_wrong_arguments_raise_an_error_with_their_name(split, pipeline, options, change, message):
    with pytest.raises(ValueError, match=message):
        pipeline(split, **(options | change))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rule": "papr"}, "Did you mean 'paper'"),
        ({"patches_per_image": 0}, "patches_per_image"),
        ({"patch_size": 0}, "patch_size"),
        ({"min_size": 26}, "26 > 24"),
        ({"background_share": 2}, "background_share"),
    ],
)
def test_wrong_patch_settings_raise_an_error_with_their_name(split, change, message):
    with pytest.raises(ValueError, match=message):
        patches(split, **(PATCHES | change))


def test_splits_without_matching_files_raise_an_error():
    with pytest.raises(ValueError, match="no images"):
        crops(types.SimpleNamespace(image_files=(), label_files=(), num_bands=3), **CROPS)
    with pytest.raises(ValueError, match="1 image files and 2 label files"):
        crops(
            types.SimpleNamespace(image_files=("a",), label_files=("b", "c"), num_bands=3), **CROPS
        )


def test_jpeg_images_are_read(tmp_path):
    label = np.full((24, 30), 2, np.uint8)
    Image.fromarray(np.full((24, 30, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(label).save(tmp_path / "a.png")
    split = types.SimpleNamespace(
        image_files=(str(tmp_path / "a.jpg"),), label_files=(str(tmp_path / "a.png"),), num_bands=3
    )
    (step,) = arrays(crops(split, num_images=2, crop=20, num_steps=1))
    assert abs(step["image"].astype(int) - 90).max() <= 2 and (step["label"] == 2).all()


def op_names(dataset):
    """Names of all ops in a dataset's graph and in the functions that it maps."""
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("pipeline, options", [(patches, PATCHES), (crops, CROPS)])
def test_the_graph_contains_no_python_functions(split, pipeline, options):
    names = op_names(pipeline(split, **options))
    assert "ReadFile" in names  # the mapped functions were searched
    assert not {name for name in names if "PyFunc" in name}


@pytest.fixture(scope="module")
def street_scenes(real_data):
    """The first training images of CamVid, and the set of their class ids."""
    folder = real_data / "camvid"
    images = sorted((folder / "images" / "train").glob("*.jpg"))[:4]
    masks = [folder / "masks" / "train" / f"{image.stem}.png" for image in images]
    ids = set().union(*(np.unique(np.asarray(Image.open(mask))) for mask in masks))
    files = types.SimpleNamespace(
        image_files=[str(x) for x in images],
        label_files=[str(x) for x in masks],
        num_bands=3,
    )
    return files, ids - {VOID}


@pytest.mark.parametrize("rule", ["paper", "release"])
def test_patches_of_real_images_have_labels_of_their_classes(street_scenes, rule):
    split, ids = street_scenes
    options = {"num_images": 4, "patches_per_image": 10, "min_size": 64, "max_size": 256}
    options |= {"crop": 512, "shorter_side": 512, "rule": rule, "num_steps": 2}
    for step in arrays(patches(split, **options)):
        assert step["patches"].shape == (40, 128, 128, 3)
        assert set(step["labels"]) <= ids
        assert step["patches"].std(axis=(1, 2, 3)).max() > 10


def test_the_middle_pixel_shows_its_label_in_images_smaller_than_the_canvas(tmp_path):
    rng = np.random.default_rng(3)
    labels = [rng.choice([0, 1, 2, 3, VOID], (21, 33)).astype(np.uint8) for _ in range(3)]
    split = write_split(tmp_path, [np.stack([x, x, x], -1) for x in labels], labels)
    options = PATCHES | {"min_size": 16, "max_size": 16, "crop": 60, "pad_color": (9, 9, 9)}
    for step in arrays(patches(split, num_steps=10, **options)):
        np.testing.assert_array_equal(step["patches"][:, 8, 8, 0], step["labels"])
