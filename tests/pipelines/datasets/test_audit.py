"""The audit: a sound data set has no findings, and each planted fault gives exactly one."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets import audit

SIZE = (40, 48)
CLASSES = ("ground", "thing", "stuff")
SPLITS = {"train": "abcd", "val": "ef"}


def mask_file(root, name="a"):
    return root / "masks" / ("train" if name in SPLITS["train"] else "val") / f"{name}.png"


def image_file(root, name="a"):
    return root / "images" / ("train" if name in SPLITS["train"] else "val") / f"{name}.png"


def values(name):
    """A mask with each class and void."""
    rng = np.random.default_rng([*name.encode()])
    pixels = rng.integers(0, 3, SIZE).astype(np.uint8)
    pixels[0] = 255
    return pixels


def photo(name):
    return np.random.default_rng([*name.encode(), 1]).integers(0, 256, (*SIZE, 3), np.uint8)


def write_mask(root, name, pixels):
    Image.fromarray(pixels).save(mask_file(root, name))


def write_all_masks(root, change):
    for name in "abcdef":
        write_mask(root, name, change(values(name)))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    for split, names in SPLITS.items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for name in names:
            Image.fromarray(photo(name)).save(image_file(root, name))
            write_mask(root, name, values(name))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def examine(root, **options):
    return audit.examine(datasets.plan("folder", root, **options), num_workers=2)


def test_a_sound_data_set_has_no_findings(root):
    ticks = []
    result = audit.examine(
        datasets.plan("folder", root), num_pictures=2, progress=lambda: ticks.append(1)
    )
    assert result.findings == () and result.num_errors == 0 and len(ticks) == 6
    assert [split.name for split in result.splits] == ["train", "val"]
    for split in result.splits:
        masks = np.array([values(name) for name in SPLITS[split.name]])
        assert split.class_pixels.tolist() == [(masks == k).sum() for k in range(3)]
        assert split.class_images.tolist() == [len(masks)] * 3
        assert split.void_pixels == (masks == 255).sum()
        assert split.void_share == (masks == 255).mean()
        assert split.smallest == split.largest == SIZE
    pictures = result.splits[0].pictures
    assert [picture.id for picture in pictures] == ["a", "c"]
    np.testing.assert_array_equal(pictures[1].pixels, photo("c"))
    np.testing.assert_array_equal(pictures[1].labels, values("c"))


# The planted faults. Each takes the data set's folder.


def image_without_mask(root):
    mask_file(root).unlink()


def mask_without_image(root):
    image_file(root).unlink()


def name_on_list_without_image(root):
    (root / "train.txt").write_text("a\nb\nc\nd\nnowhere\n")


def unknown_ending(root):
    (root / "masks" / "train" / "notes.md").write_text("")


def two_files_of_one_name(root):
    Image.fromarray(photo("a")).save(image_file(root).with_suffix(".bmp"))


def different_sizes(root):
    write_mask(root, "a", values("a")[:-1])


def mirrored_by_exif(root):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(photo("a")).save(image_file(root), exif=exif)


def sixteen_bit_image(root):
    Image.fromarray(photo("a")[..., 0].astype(np.uint16) * 200).save(image_file(root))


def truncated_image(root):
    content = image_file(root).read_bytes()
    image_file(root).write_bytes(content[: len(content) // 2])


def truncated_mask(root):
    content = mask_file(root).read_bytes()
    mask_file(root).write_bytes(content[: len(content) // 2])


def text_instead_of_an_image(root):
    image_file(root).write_text("<html>404</html>")


def broken_link(root):
    image_file(root).unlink()
    image_file(root).symlink_to("nowhere")


def fifo(root):
    mask_file(root).unlink()
    os.mkfifo(mask_file(root))


def transparent_image(root):
    alpha = np.full((*SIZE, 1), 9, np.uint8)
    Image.fromarray(np.concatenate([photo("a"), alpha], -1)).save(image_file(root))


def jpeg_mask(root):
    Image.fromarray(values("a")).save(mask_file(root), format="JPEG")


def transparent_mask(root):
    mask = Image.fromarray(values("a")).convert("LA")
    mask.putalpha(100)
    mask.save(mask_file(root))


def colors_without_a_table(root):
    colors = np.array(datasets.voc_colors(256), np.uint8)
    write_mask(root, "a", colors[values("a")])


def unknown_color(root):
    (root / "colors.txt").write_text("ground 10 0 0\nthing 0 10 0\nstuff 0 0 10\nvoid 0 0 0\n")
    colors = np.zeros((256, 3), np.uint8)
    colors[:3] = np.eye(3) * 10
    write_all_masks(root, lambda pixels: colors[pixels])
    colors[2] = (0, 0, 11)
    write_mask(root, "a", colors[values("a")])


def label_ids_of_cityscapes(root):
    (root / "classes.txt").write_text("\n".join(f"class{k}" for k in range(19)))
    write_all_masks(root, lambda pixels: np.where(pixels == 2, 26, pixels).astype(np.uint8))


def binary_masks(root):
    write_all_masks(root, lambda pixels: np.where(pixels > 0, 255, 0).astype(np.uint8))


def ids_from_one(root):
    write_all_masks(root, lambda pixels: np.where(pixels < 3, pixels + 1, 0).astype(np.uint8))


def palette_turned_gray(root):
    grays = np.array(Image.fromarray(np.array([datasets.voc_colors(256)], np.uint8)).convert("L"))
    write_all_masks(root, lambda pixels: grays[0][pixels])


def interpolated_mask(root):
    small = Image.fromarray(values("a") % 255 * 60).resize((24, 20))
    small.resize(SIZE[::-1], Image.Resampling.BILINEAR).save(mask_file(root))


def void_of_another_value(root):
    write_all_masks(root, lambda pixels: np.where(pixels == 255, 254, pixels).astype(np.uint8))


def instance_ids(root):
    (root / "classes.txt").write_text("\n".join(f"class{k}" for k in range(19)))
    write_all_masks(root, lambda pixels: np.where(pixels == 2, np.uint16(26001), pixels))


def void_everywhere(root):
    write_mask(root, "a", np.full(SIZE, 255, np.uint8))


def training_without_labels(root):
    for name in SPLITS["train"]:
        write_mask(root, name, np.full(SIZE, 255, np.uint8))


def mostly_void(root):
    def hide(pixels):
        pixels[:30] = 255
        return pixels

    for name in SPLITS["val"]:
        write_mask(root, name, hide(values(name)))


def absent_class(root):
    for name in SPLITS["val"]:
        write_mask(root, name, np.where(values(name) == 2, 1, values(name)))


def rare_class(root):
    for name in SPLITS["train"]:
        mask = np.where(values(name) == 2, 1, values(name))
        mask[1, 1] = 2
        write_mask(root, name, mask)


def image_in_both_splits(root):
    Image.fromarray(photo("a")).save(image_file(root, "e"), compress_level=1)  # other bytes


def image_twice_in_a_split(root):
    shutil.copy(image_file(root, "a"), image_file(root, "b"))
    shutil.copy(mask_file(root, "a"), mask_file(root, "b"))


def image_twice_with_two_masks(root):
    shutil.copy(image_file(root, "a"), image_file(root, "b"))


def class_called_void(root):
    (root / "classes.txt").write_text("ground\nthing\nUnlabelled\n")


def palette_with_moved_colors(root):
    (root / "colors.txt").write_text("ground 10 0 0\nthing 0 10 0\nstuff 0 0 10\n")
    mask = Image.frombytes("P", SIZE[::-1], values("a").tobytes())
    mask.putpalette([0, 0, 10, 10, 0, 0, 0, 10, 0] + [0] * 759)
    mask.save(mask_file(root))


def empty_split(root):
    for kind in ("images", "masks"):
        shutil.rmtree(root / kind / "val")
        (root / kind / "val").mkdir()


def tiny_image(root):
    Image.fromarray(photo("a")[:20]).save(image_file(root))
    write_mask(root, "a", values("a")[:20])


# Fault: (is an error, problem of the finding, part of a listed name, part of the fix).
PLANTED = {
    image_without_mask: (True, "image without a mask", "train/a.png", "add the mask"),
    mask_without_image: (True, "mask without an image", "train/a.png", "remove the mask"),
    name_on_list_without_image: (
        True,
        "name on a list",
        "nowhere",
        "remove the name from the list",
    ),
    unknown_ending: (True, "unknown kind", "notes.md", "move them"),
    two_files_of_one_name: (True, "two files of one name", "a.png", "rename"),
    different_sizes: (True, "different size", "(40x48 and 39x48)", "nearest neighbor"),
    mirrored_by_exif: (False, "EXIF data turn or mirror", "a.png", "remove the EXIF"),
    sixteen_bit_image: (True, "more than 8 bits per value", "a.png", "save it as 8 bits"),
    truncated_image: (True, "damaged", "images/train/a.png", "max_unreadable=1"),
    truncated_mask: (True, "damaged", "masks/train/a.png", "max_unreadable=1"),
    text_instead_of_an_image: (True, "damaged", "not an image", "Restore or remove"),
    broken_link: (True, "cannot be read", "link to a missing file", "Restore or remove"),
    fifo: (True, "cannot be read", "not a regular file", "Restore or remove"),
    transparent_image: (False, "alpha band that is not opaque", "a.png", "label them as void"),
    jpeg_mask: (True, "lossy compression", "masks/train/a.png", "as PNG"),
    transparent_mask: (True, "half transparent", "masks/train/a.png", "hard brush"),
    colors_without_a_table: (True, "holds colors", "masks/train/a.png", "colors.txt"),
    unknown_color: (True, "closest is 'stuff' (0, 0, 10)", "masks/train/a.png", "colors.txt"),
    label_ids_of_cityscapes: (True, "26 seen", "masks/val/f.png", "labelTrainIds"),
    binary_masks: (True, "a binary mask?", "masks/val/f.png", "name two classes only"),
    ids_from_one: (True, "3 seen", "masks/val/f.png", "void_value=0"),
    palette_turned_gray: (True, "38 to 220 seen", "masks/val/f.png", "was converted to gray"),
    interpolated_mask: (True, "outside the classes", "masks/train/a.png", "interpolation"),
    void_of_another_value: (True, "254 seen", "masks/val/f.png", "void_value=254"),
    instance_ids: (True, "26001 seen", "masks/val/f.png", "instanceIds"),
    void_everywhere: (False, "void everywhere", "masks/train/a.png", "label them"),
    training_without_labels: (True, "without any labelled pixel", "'train'", "check the masks"),
    mostly_void: (False, "more than half", "'val' (75% void)", "give them a class"),
    absent_class: (False, "without any pixel in split 'val'", "stuff", "eval_split"),
    rare_class: (False, "less than 0.5% of the labelled pixels", "stuff (0.05%)", "rare_share"),
    image_in_both_splits: (True, "in both splits", "val/e.png", "from one of the splits"),
    image_twice_in_a_split: (False, "more than once, pixel by pixel", "b.png", "all but one"),
    image_twice_with_two_masks: (False, "different masks", "b.png", "At most one"),
    class_called_void: (False, "name means void", "'Unlabelled'", "the argument void_value"),
    palette_with_moved_colors: (False, "colors belong to other classes", "a.png", "RGB"),
    empty_split: (True, "split without any pair", "'val'", "eval_split"),
    tiny_image: (False, "less than 32 pixels", "images/train/a.png", "larger"),
}


def test_a_class_that_shrinking_removes_is_named(root):
    label = np.zeros(SIZE, np.uint8)
    label[8:32, 8:32] = 1
    label[:, 41] = 2  # one pixel wide
    write_all_masks(root, lambda _: label)
    result = audit.examine(datasets.plan("folder", root), num_workers=2, shorter_side=10)
    (finding,) = result.findings
    assert "shorter side of 10 pixels" in finding.kind.problem and not finding.is_error
    assert len(finding.names) == 1 and finding.names[0].startswith("stuff (its masks shrunk")
    assert result.shrunk.iou[1] > 0.7 > 0.5 > result.shrunk.iou[2]
    for side in (40, None):
        result = audit.examine(datasets.plan("folder", root), shorter_side=side)
        assert result.findings == () and result.shrunk is None


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.__name__)
def test_each_planted_fault_gives_exactly_one_finding(root, fault):
    is_error, problem, name, fix = PLANTED[fault]
    fault(root)
    findings = examine(root).findings
    assert len(findings) == 1, findings
    assert problem in findings[0].kind.problem and fix in findings[0].kind.fix
    assert any(name in text for text in findings[0].names)
    assert findings[0].is_error == is_error
    if (
        is_error and "both splits" not in problem
    ):  # load reads images one by one and does not compare pixels
        with pytest.raises(datasets.DatasetError):
            datasets.load("folder", root)


def test_all_faults_are_reported_in_one_audit(root):
    image_without_mask(root)
    write_mask(root, "b", values("b")[:-1])
    Image.fromarray(values("c")).save(mask_file(root, "c"), format="JPEG")
    image_file(root, "d").write_bytes(b"no")
    write_mask(root, "d", np.where(values("d") == 2, 7, values("d")).astype(np.uint8))
    write_mask(root, "e", np.full(SIZE, 255, np.uint8))
    result = examine(root)
    kinds = [finding.kind.problem for finding in result.findings]
    errors = ("without a mask", "different size", "JPEG", "damaged", "7 seen")
    for problem in (*errors, "everywhere"):
        assert sum(problem in kind for kind in kinds) == 1, problem
    assert [finding.is_error for finding in result.findings] == [True] * 5 + [False]
    assert result.num_errors == 5
    assert result.splits[0].num_images == 3 and result.splits[0].num_sound == 0


def test_an_image_turned_by_its_exif_data_has_no_findings(root):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(photo("a").transpose(1, 0, 2)).save(image_file(root), exif=exif)
    result = examine(root)
    assert result.findings == () and "1 images were turned by their EXIF" in result.messages[0]
    np.testing.assert_array_equal(result.splits[0].pictures[0].pixels.shape[:2], SIZE)


def test_binary_masks_of_two_classes_are_counted_as_classes(root):
    (root / "classes.txt").write_text("ground\nthing\n")
    binary_masks(root)
    result = examine(root)
    assert result.findings == () and "255 = 'thing'" in result.messages[0]
    assert result.splits[0].void_pixels == 0
    assert result.splits[0].class_pixels.tolist() == [
        sum((values(name) == 0).sum() for name in "abcd"),
        sum((values(name) > 0).sum() for name in "abcd"),
    ]


def test_masks_with_different_palettes_give_one_finding_or_are_decoded(root):
    first, second = [0, 0, 0, 10, 0, 0, 0, 10, 0], [0, 10, 0, 0, 0, 0, 10, 0, 0]
    for name in "abcdef":
        index = values(name) % 255 if name == "a" else (values(name) % 255 + 1) % 3
        mask = Image.frombytes("P", SIZE[::-1], index.astype(np.uint8).tobytes())
        mask.putpalette(first if name == "a" else second)
        mask.save(mask_file(root, name))
    (finding,) = examine(root).findings
    assert finding.is_error and "palettes of the masks differ" in finding.kind.problem
    assert "a.png (0 = (0, 0, 0)" in finding.names[0]
    (root / "colors.txt").write_text("ground 0 0 0\nthing 10 0 0\nstuff 0 10 0\n")
    result = examine(root)
    assert result.findings == () and "decoded by their colors" in result.messages[0]
    counts = [sum((values(name) % 255 == k).sum() for name in "abcd") for k in range(3)]
    assert result.splits[0].class_pixels.tolist() == counts


def test_tolerated_damage_is_a_warning(root):
    truncated_image(root)
    plan = datasets.plan("folder", root)
    assert [f.is_error for f in audit.examine(plan, max_unreadable=1).findings] == [False]


def test_void_value_fixes_masks_with_another_void_value(root):
    ids_from_one(root)
    assert examine(root, void_value=0).findings == ()
    void_of_another_value(root)
    assert examine(root, void_value=254).findings == ()


def test_an_absent_first_class_gets_advice_on_void_value(root):
    write_all_masks(root, lambda pixels: np.where(pixels == 0, 1, pixels).astype(np.uint8))
    for finding in examine(root).findings:
        assert finding.names == ("ground",)
        assert "void_value=0" in finding.kind.fix


def test_an_evaluation_split_without_labels_is_a_warning(root):
    for name in SPLITS["val"]:
        write_mask(root, name, np.full(SIZE, 255, np.uint8))
    (finding,) = examine(root).findings
    assert "without any labelled pixel" in finding.kind.problem and not finding.is_error
    assert datasets.load("folder", root).messages[0].startswith("Split 'val' has no labels")


def test_one_split_for_training_and_evaluation_is_a_warning(root):
    findings = examine(root, eval_split="train").findings
    assert [f.kind.problem for f in findings] == ["split that is both trained on and measured on"]


def test_a_test_split_without_masks_has_no_findings(root):
    shutil.move(root / "images" / "val", root / "images" / "test")
    shutil.rmtree(root / "masks" / "val")
    result = examine(root, eval_split="test")
    assert result.findings == ()
    test = result.splits[-1]
    assert test.name == "test" and not test.has_masks and test.num_sound == 2


def test_texture_scenes_have_no_errors():
    plan = datasets.plan("texture_scenes")
    few = {split: items[:12] for split, items in plan.splits.items()}
    plan.splits.update(few)
    result = audit.examine(plan, num_pictures=1)
    assert result.num_errors == 0
    assert result.splits[0].num_sound == 12
    assert result.splits[0].class_images[0] == 12


def test_an_error_in_a_reading_thread_is_raised(root, monkeypatch):
    plan = datasets.plan("folder", root)

    def fail(item):
        raise KeyError(item)

    object.__setattr__(plan, "read", fail)
    with pytest.raises(KeyError):
        audit.examine(plan)


# Real data


def counted(split, class_names):
    """Return the split's counts in the format of the data's stats.json."""

    def by_name(numbers):
        return {n: int(k) for n, k in zip(class_names, numbers, strict=True) if k}

    pixels = by_name(split.class_pixels) | {"void(255)": split.void_pixels}
    images = by_name(split.class_images)
    return {"images": split.num_sound, "images_with": images, "pixels": pixels}


def expected(stats):
    images = {name: count for name, count in stats["images_with"].items() if name != "void(255)"}
    return stats | {"images_with": images}


def test_camvid_has_one_rare_class_and_the_counts_of_its_statistics(real_data):
    result = audit.examine(datasets.plan("camvid", real_data))
    assert [finding.names for finding in result.findings] == [("bicyclist (0.30%)",)]
    stats = json.loads((real_data / "camvid" / "stats.json").read_text())
    for split in result.splits:
        assert counted(split, result.spec.class_names) == expected(stats[split.name])


def test_the_only_findings_on_voc_are_absent_and_rare_classes(real_data):
    result = audit.examine(datasets.plan("voc_sbd", real_data, train_split="train"))
    stats = json.loads((real_data / "VOCdevkit" / "VOC2012" / "stats.json").read_text())
    absent = {}
    for split in result.splits:
        assert counted(split, result.spec.class_names) == expected(stats[split.name])
        there = stats[split.name]["pixels"]
        absent[split.name] = tuple(name for name in result.spec.class_names if name not in there)
    found = {f.kind.problem: f.names for f in result.findings}
    rare = found.pop("class with less than 0.5% of the labelled pixels of split 'train'")
    assert len(rare) == 6 and "pottedplant (0.34%)" in rare
    assert found == {
        f"class without any pixel in split '{split}'": names for split, names in absent.items()
    }
    assert not any(finding.is_error for finding in result.findings)
