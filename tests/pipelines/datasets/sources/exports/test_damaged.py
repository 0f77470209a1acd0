"""Damaged and partial exports: one clear error, or a count in a message."""

import json
import shutil
import unicodedata
import zipfile

import pytest
from PIL import Image

from pipelines import datasets

POLYGON = [[10, 10, 40, 10, 40, 40, 10, 40]]


def edited(file, change):
    """Apply `change` to the document of a JSON file."""
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def only(folder, pattern):
    return next(folder.rglob(pattern))


def test_a_missing_image_is_counted(sample, read):
    root = sample("coco_datumaro")
    only(root, "s0_field.jpg").unlink()
    export = read(root)
    assert export.counts == {"image that is not here": ("s0_field.jpg",)}
    assert len(export.pictures) == 4 and len(export.bare) == 1


def test_without_any_image_the_folder_of_images_is_asked_for(sample):
    root = sample("cvat_xml")
    moved = root.parent / "elsewhere"
    shutil.move(root / "images", moved)
    with pytest.raises(datasets.DatasetError, match="argument images"):
        datasets.plan("folder", root)
    plan = datasets.plan("folder", root, reading=datasets.Reading(images=moved))
    assert sum(map(len, plan.splits.values())) == 1


def test_annotations_of_unknown_categories_and_images_are_counted(sample, read):
    root = sample("coco_datumaro")

    def change(document):
        document["annotations"][0]["category_id"] = 77
        document["annotations"][1]["image_id"] = {"no": "id"}
        document["annotations"][2]["segmentation"] = [[1, 2, 3, 4]]
        document["annotations"][3]["segmentation"] = [POLYGON[0], [0, 0], "x"]

    edited(only(root, "*.json"), change)
    counts = read(root).counts
    assert counts["annotation of an unknown category"] == (
        "annotation 1 in instances_default.json",
    )
    assert len(counts["annotation of an image that the file does not list"]) == 1
    assert len(counts["annotation without an outline of three points"]) == 1


def test_annotations_of_another_size_are_refused_with_both_sizes(sample):
    root = sample("coco_datumaro")
    edited(only(root, "*.json"), lambda d: d["images"][0].update(width=99, height=10**6))
    plan = datasets.plan("folder", root)
    images = [plan.read(item) for items in plan.splits.values() for item in items]
    faults = [text for image in images for _, text in image.found]
    assert len(faults) == 1 and "image 72x96, annotation 1000000x99" in faults[0]


@pytest.mark.parametrize(
    "prefix", ["C:\\Users\\me\\photos\\", "/home/me/photos/", "https://host/x/", "../../up/"]
)
def test_absolute_paths_of_other_machines_are_found_by_name(sample, read, prefix):
    root = sample("labelme_json")
    for file in root.glob("*.json"):
        edited(file, lambda d: d.update(imagePath=prefix + d["imagePath"], imageData=None))
    export = read(root)
    assert len(export.pictures) == 3 and not export.counts
    assert all(root in picture.image.parents for picture in export.pictures)


def test_names_of_other_case_unicode_form_and_ending_are_found(sample, read):
    root = sample("coco_datumaro")
    composed = unicodedata.normalize("NFC", "fe\u0301lix")
    only(root, "s0_field.jpg").rename(only(root, "s0_field.jpg").with_name(f"{composed}.jpg"))
    only(root, "s1_field.jpg").rename(only(root, "s1_field.jpg").with_name("S1_FIELD.JPG"))
    with Image.open(only(root, "s2_field.jpg")) as image:
        image.save(only(root, "s2_field.jpg").with_suffix(".png"))
    only(root, "s2_field.jpg").unlink()
    decomposed = unicodedata.normalize("NFD", composed)
    edited(only(root, "*.json"), lambda d: d["images"][0].update(file_name=f"{decomposed}.jpg"))
    assert len(read(root).pictures) == 5


def test_an_empty_labelme_file_is_an_image_of_background_only(sample, read):
    root = sample("labelme_json")
    edited(only(root, "2011_000003.json"), lambda d: d.update(shapes=[]))
    export = read(root)
    assert len(export.pictures) == 3
    only(root, "2011_000006.json").unlink()
    assert [picture.id for picture in read(root).bare] == ["2011_000006"]


def test_damaged_labelme_files_and_shapes_are_counted(sample, read):
    root = sample("labelme_json")
    only(root, "2011_000003.json").write_text("{")
    shapes = [{"label": "bus", "points": [["a", 1], [2, 3], [4, 5]]}, {"label": None}, 7, {}]
    edited(only(root, "2011_000006.json"), lambda d: d.update(shapes=shapes))
    counts = read(root).counts
    assert set(counts) == {
        "JSON file that cannot be read",
        "shape that is damaged, or has too few points",
        "shape without a label",
    }


def test_unknown_labels_and_damaged_numbers_of_cvat_are_counted(sample, read):
    root = sample("cvat_xml")
    file = root / "annotations.xml"
    text = (
        file.read_text().replace('label="dog"', 'label="wolf"').replace('xtl="179.94"', 'xtl="x"')
    )
    file.write_text(text.replace('rle="37,', 'rle="99999,'))
    counts = read(root).counts
    assert len(counts["shape of the label 'wolf', which the file does not list"]) == 3
    assert len(counts["shape that is damaged, or has too few points"]) == 2


def test_label_studio_without_sizes_and_with_two_annotations_is_counted(sample, read):
    root = sample("labelstudio_polygon_json")

    def change(document):
        results = document[0]["annotations"][0]["result"]
        results[0]["original_width"] = None
        results[1]["value"]["polygonlabels"] = ["stem", "leaf"]
        again = json.loads(json.dumps(document[1]["annotations"][0]))
        document[1]["annotations"].append(again | {"created_at": "2030", "was_cancelled": False})

    edited(only(root, "*.json"), change)
    counts = read(root).counts
    assert len(counts["region that is damaged, or has too few points or no size"]) == 1
    assert len(counts["further label of a region; its first label counts"]) == 1
    assert len(counts["further annotation of a task"]) == 1


def test_lines_of_yolo_that_are_no_outline_are_counted(sample, read):
    root = sample("yolo_seg_roboflow")
    only(root, "s0_field.txt").write_text(
        "0 0.1 0.1 0.9 0.1\n9 0 0 1 0 1 1\n0 0 0 1 nan 1 1\n1 a\n0 1\n"
    )
    only(root, "s1_field.jpg").unlink()
    counts = read(root).counts
    assert len(counts["line of an unknown class"]) == 1
    assert len(counts["line without an outline of three points"]) == 1
    assert counts["image that is not here"] == ("valid/s1_field.jpg",)


def test_damaged_objects_of_supervisely_are_counted(sample, read):
    root = sample("supervisely")

    def change(document):
        document["objects"][0]["points"]["exterior"] = [[1, 2]]
        document["objects"][1]["bitmap"]["data"] = "eJwrSS0uAQAEXQHB"
        document["objects"].append({"geometryType": "cuboid_3d"})

    edited(only(root, "s0_field.jpg.json"), change)
    only(root, "s1_field.jpg.json").write_text("[]")
    counts = read(root).counts
    assert len(counts["object that is damaged, or has too few points"]) == 2
    assert len(counts["object of type cuboid_3d, which is not read"]) == 1
    assert counts["annotation file that is damaged"] == ("s1_field.jpg.json",)


def test_masks_and_images_without_a_partner_are_counted(sample, read):
    root = sample("cvat_segmentation_mask")
    (root / "JPEGImages" / "s0_field.jpg").unlink()
    export = read(root)
    assert export.counts == {"mask without an image": ("SegmentationClass/s0_field.png",)}
    assert [picture.id for picture in export.bare] == ["s5_field"]
    assert len(read(root, unannotated="skip").pictures) == 4


def test_masks_of_other_images_are_refused(sample):
    root = sample("suffix_binary")
    for k, file in enumerate(sorted((root / "masks").iterdir())):
        file.rename(file.with_name(f"other{k}_mask.png"))
    with pytest.raises(datasets.DatasetError, match="6 masks have no image of their name"):
        datasets.load("folder", root)


def test_a_color_that_is_not_in_the_table_is_refused(sample):
    root = sample("cvat_segmentation_mask")
    with Image.open(root / "SegmentationClass" / "s0_field.png") as mask:
        changed = mask.convert("RGB")
    changed.putpixel((0, 0), (1, 2, 3))
    changed.save(root / "SegmentationClass" / "s0_field.png")
    with pytest.raises(datasets.DatasetError, match=r"\(1, 2, 3\) in 1 pixels, closest is"):
        datasets.load("folder", root)


def test_two_tools_in_one_folder_are_a_question(sample, samples):
    root = sample("coco_datumaro")
    shutil.copy(samples / "cvat_xml" / "export" / "annotations.xml", root)
    with pytest.raises(datasets.DatasetError, match="several formats.*COCO.*CVAT XML.*data_dir"):
        datasets.plan("folder", root)
    plan = datasets.plan("folder", root / "annotations" / "instances_default.json")
    assert "COCO instances" in plan.messages[0]


def test_a_structure_that_no_tool_writes_gives_one_sentence(sample):
    root = sample("via")
    (root / "via_region_data.json").write_text(
        json.dumps({"_via_img_metadata": [1, 2], "_via_attributes": 3})
    )
    with pytest.raises(datasets.DatasetError, match="its structure is unexpected"):
        datasets.plan("folder", root)


def test_a_zip_file_gives_the_same_as_its_folder(sample, tmp_path):
    root = sample("cvat_camvid")
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root.parent))
    plans = [datasets.plan("folder", path) for path in (root, tmp_path / "export.zip")]
    names = [[item.id for items in plan.splits.values() for item in items] for plan in plans]
    assert names[0] == names[1] and plans[0].spec.class_names == plans[1].spec.class_names


def test_a_video_is_refused_by_name(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(datasets.DatasetError, match="this is a video"):
        datasets.plan("folder", tmp_path)


@pytest.mark.parametrize("with_classes", [False, True])
def test_a_table_of_boxes_is_refused_by_name(tmp_path, with_classes):
    (tmp_path / "train.csv").write_text('image_id,"xmin",ymin,xmax,ymax\na,1,2,3,4\n')
    if with_classes:
        (tmp_path / "classes.txt").write_text("ground\nfield\n")
    with pytest.raises(
        datasets.DatasetError, match="train.csv: this is a table of boxes. Segmentation"
    ):
        datasets.plan("folder", tmp_path)


def test_run_lengths_of_another_size_name_their_picture(sample):
    root = sample("coco_rle")

    def change(document):
        for image in document["images"]:
            image["height"] = image["width"] = None
        for annotation in document["annotations"]:
            if isinstance(annotation["segmentation"], dict):
                annotation["segmentation"]["size"] = [1, 1]

    edited(only(root, "*.json"), change)
    with pytest.raises(datasets.DatasetError, match=r"\w+: run lengths for 1x1 in an image of"):
        datasets.load("folder", root)
