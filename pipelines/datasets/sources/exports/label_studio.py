"""Label Studio: JSON and JSON_MIN with polygons, rectangles, ellipses and brush regions."""

import pathlib
from collections.abc import Iterable

from pipelines.datasets.sources.exports import drafts, json_kinds, pictures, shapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import Request

NAME = "Label Studio JSON"
MIN_NAME = "Label Studio JSON_MIN"
_LABELS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels")
_WITHOUT_AREA = ("keypointlabels", "vectorlabels")


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the files of either form."""
    found = json_kinds.kinds(tree)
    return [*found.get(NAME, []), *found.get(MIN_NAME, [])]


def read(tree: Tree, request: Request) -> forms.Export:
    """Read the tasks of an export.

    The list of classes is in the labelling configuration, which no export holds, so classes are
    sorted by name. Cancelled annotations are skipped. Of several annotations of a task, the ground
    truth counts, else the newest.
    """
    sources = find(tree)
    skipped = forms.Skipped()
    tasks = [
        (file, task, _results(task, skipped))
        for file in sources
        for task in tree.json(file)
        if isinstance(task, dict)
    ]
    names = sorted({n for *_, results in tasks for r in results or () for n in _label(r)[:1]})
    unlabelled = request.reading.unlabelled
    classes = forms.shape_classes(names, "the labels that occur, sorted", unlabelled)
    found = [_draft(*task, classes, skipped) for task in tasks]
    return drafts.export(
        found,
        tree,
        request.reading,
        skipped,
        format=MIN_NAME if json_kinds.kinds(tree).get(MIN_NAME) else NAME,
        classes=classes,
        sources=tuple(sources),
        messages=(drafts.LATER_ON_TOP,),
    )


def _results(task: dict, skipped: forms.Skipped) -> list[dict] | None:
    """Return the regions of a task; None if it has no annotation."""
    if "annotation_id" in task:
        return None if task["annotation_id"] is None else _min_results(task)
    listed = task.get("annotations", task.get("completions"))
    listed = [a for a in listed if isinstance(a, dict)] if isinstance(listed, list) else []
    valid = [a for a in listed if not (a.get("was_cancelled") or a.get("skipped"))]
    if not valid:
        return None
    chosen = max(valid, key=lambda a: (bool(a.get("ground_truth")), str(a.get("created_at"))))
    for _ in valid[1:]:
        skipped.add("further annotation of a task", f"task {task.get('id')}")
    results = chosen.get("result")
    return [r for r in results if isinstance(r, dict)] if isinstance(results, list) else []


def _min_results(task: dict) -> list[dict]:
    """Return the regions of a task of JSON_MIN in the form of JSON: values are under any key."""
    lists = [value for value in task.values() if isinstance(value, list)]
    values = [v for listed in lists for v in listed if isinstance(v, dict)]
    sizes = ("original_width", "original_height")
    return [{"value": v, **{k: v.get(k) for k in sizes}} for v in values if _label({"value": v})]


def _label(result: dict) -> list[str]:
    """Return the labels of a region; empty for relations, choices and texts."""
    value = result.get("value")
    value = value if isinstance(value, dict) else {}
    listed = next((value[key] for key in (*_LABELS, *_WITHOUT_AREA) if value.get(key)), [])
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _draft(file, task, results, classes, skipped) -> drafts.Draft:
    size, painted = None, []
    for result in results or ():
        where = f"region {result.get('id', '')} of task {task.get('id')}"
        labels = _label(result)
        if not labels:
            continue
        if len(labels) > 1:
            skipped.add("further label of a region; its first label counts", where)
        size = drafts.size_of(result, "original_height", "original_width")
        if result.get("image_rotation"):
            skipped.add("region of a picture that was turned in Label Studio", where)
        elif any(key in result["value"] for key in _WITHOUT_AREA):
            skipped.add("point or line, which has no area", where)
        elif size is None or (shape := _shape(result["value"], size)) is None:
            skipped.add("region that is damaged, or has too few points or no size", where)
        else:
            painted.append((classes.id_of(labels[0]), shape))
    shapes_ = None if results is None else painted
    return drafts.Draft(_image_name(task), file, shapes_, size=size)


def _image_name(task: dict) -> str:
    """Return the first value of a task's data that looks like a picture; else its upload's name."""
    data = task.get("data")
    values = list((data if isinstance(data, dict) else task).values())
    texts = [v for v in (*values, task.get("file_upload")) if isinstance(v, str)]
    names = [text for text in texts if _is_picture(text)]
    return next(iter(names), next(iter(texts), ""))


def _is_picture(text: str) -> bool:
    path = text.partition("?")[0] if "?d=" not in text else text
    return pictures.is_picture(pathlib.PurePosixPath(path))


def _shape(value: dict, size: tuple[int, int]) -> shapes.Shape | None:
    """Return the shape of a value whose numbers are percent of width and height."""
    height, width = size
    if value.get("format") == "rle":
        code = value.get("rle")
        return shapes.BrushRuns(code, size) if isinstance(code, list) else None
    if "points" in value:
        points = shapes.pairs(value["points"])
        ring = tuple((x * width / 100, y * height / 100) for x, y in points)
        return shapes.Polygon((ring,)) if ring else None
    if "radiusX" in value:
        numbers = _numbers(value, ("x", "y", "radiusX", "radiusY"), size)
        turn = _number(value.get("rotation", 0))
        return numbers and shapes.Ellipse(tuple(numbers[:2]), tuple(numbers[2:]), turn)
    numbers = _numbers(value, ("x", "y", "width", "height"), size)
    if numbers is None:
        return None
    x, y, w, h = numbers
    return shapes.rectangle(x, y, x + w, y + h, _number(value.get("rotation", 0)), about=(x, y))


def _numbers(value: dict, keys: Iterable[str], size: tuple[int, int]) -> list[float] | None:
    sides = (size[1], size[0], size[1], size[0])
    listed = [value.get(key) for key in keys]
    if not all(isinstance(n, int | float) and abs(n) < 1e4 for n in listed):
        return None
    return [number * side / 100 for number, side in zip(listed, sides, strict=True)]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e6 else 0.0
