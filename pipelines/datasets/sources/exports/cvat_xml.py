"""CVAT for images and CVAT for video: one XML file with shapes, in z order."""

import pathlib
from xml.etree import ElementTree

from pipelines.datasets.sources.exports import drafts, run_lengths, shapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import Tree, read_xml
from pipelines.datasets.spec import Request

NAME = "CVAT XML"
_WITHOUT_AREA = ("polyline", "points", "skeleton", "cuboid", "tag")
_SHAPES = ("polygon", "box", "ellipse", "mask")


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the XML files whose root is `annotations` with images or tracks."""
    return [file for file in tree.ending(".xml") if _root_of(file) == "annotations"]


def _root_of(file: pathlib.Path) -> str:
    """Return the name of the root element, or "" if the file is no XML."""
    try:
        for _, element in ElementTree.iterparse(file, events=("start",)):
            return element.tag
    except (ElementTree.ParseError, OSError, ValueError):
        pass
    return ""


def read(tree: Tree, request: Request) -> forms.Export:
    """Read the XML files of an export. Labels without a shape of an area stay in the class list."""
    sources = find(tree)
    roots = {file: read_xml(file) for file in sources}
    names, colors = _labels(roots.values())
    if not names:
        names = sorted({s.get("label", "") for r in roots.values() for s in r.iter(*_SHAPES)})
    unlabelled = request.reading.unlabelled
    origin = f"the labels of {sources[0].name}"
    classes = forms.shape_classes(names, origin, unlabelled, colors)
    skipped = forms.Skipped()
    found = [d for f, root in roots.items() for d in _drafts(f, root, classes, skipped)]
    is_video = any(root.find("track") is not None for root in roots.values())
    return drafts.export(
        found,
        tree,
        request.reading,
        skipped,
        format=f"{NAME} for video" if is_video else NAME,
        classes=classes,
        sources=tuple(sources),
        messages=("Where shapes overlap, the higher z_order is on top, then the later shape.",),
    )


def _labels(roots) -> tuple[list[str], list[tuple]]:
    """Return names and colors of the labels; a label of type skeleton is no class."""
    found = {}
    for root in roots:
        for label in root.findall("meta//label"):
            name, kind = label.findtext("name"), label.findtext("type")
            is_part = label.find("parent") is not None
            if name and kind not in ("skeleton", "points", "polyline", "tag") and not is_part:
                found.setdefault(name, _color(label.findtext("color") or ""))
    colors = list(found.values())
    return list(found), colors if all(colors) else []


def _color(text: str) -> tuple[int, int, int] | None:
    try:
        return (
            tuple(bytes.fromhex(text.strip().lstrip("#")))[:3] if len(text.strip()) == 7 else None
        )
    except ValueError:
        return None


def _drafts(file, root, classes, skipped) -> list[drafts.Draft]:
    found = [_of_image(file, image, classes, skipped) for image in root.iter("image")]
    return found + _of_tracks(file, root, classes, skipped)


def _of_image(file, image, classes, skipped) -> drafts.Draft:
    name, subset = image.get("name", ""), image.get("subset")
    painted = [(_order(element), element.get("label"), element) for element in image]
    painted.sort(key=lambda entry: entry[0])
    return drafts.Draft(
        name=name,
        annotation=file,
        shapes=_painted(painted, name, classes, skipped),
        split=subset,
        near=subset or "",
        size=_size(image),
    )


def _of_tracks(file, root, classes, skipped) -> list[drafts.Draft]:
    """Return a draft for each frame in which a track is not `outside`."""
    frames: dict[int, list] = {}
    for track in root.iter("track"):
        for element in track:
            frame = element.get("frame", "")
            if frame.isdecimal() and element.get("outside") != "1":
                entry = (_order(element), track.get("label"), element)
                frames.setdefault(int(frame), []).append(entry)
    size = _size(root.find("meta//original_size"))
    found = []
    for frame, entries in sorted(frames.items()):
        entries.sort(key=lambda entry: entry[0])
        name = f"frame_{frame:06d}"
        shapes_ = _painted(entries, name, classes, skipped)
        found.append(drafts.Draft(name, file, shapes_, size=size))
    return found


def _painted(entries, name, classes, skipped) -> list | None:
    """Return (class id, shape) of the entries; None if nothing with an area was drawn at all."""
    painted, num_drawn = [], 0
    for _, label_name, element in entries:
        where = f"{element.tag} of {name}"
        if element.tag in _WITHOUT_AREA:
            skipped.add("line, point or skeleton, which has no area", where)
            continue
        if element.tag not in _SHAPES:
            continue
        num_drawn += 1
        label = classes.id_of(label_name)
        shape = None if label is None else _shape(element)
        if label is None:
            skipped.add(f"shape of the label {label_name!r}, which the file does not list", where)
        elif shape is None:
            skipped.add("shape that is damaged, or has too few points", where)
        else:
            painted.append((label, shape))
    return painted if num_drawn else None


def _order(element) -> int:
    try:
        return int(element.get("z_order", "0"))
    except ValueError:
        return 0


def _size(element) -> tuple[int, int] | None:
    if element is None:
        return None
    sides = [element.get(n) or element.findtext(n) or "" for n in ("height", "width")]
    return tuple(map(int, sides)) if all(s.isdecimal() and int(s) for s in sides) else None


def _shape(element) -> shapes.Shape | None:
    try:
        return _MAKERS[element.tag](element)
    except (TypeError, ValueError, OverflowError):
        return None


def _polygon(element) -> shapes.Polygon | None:
    points = shapes.pairs([p.split(",") for p in element.get("points", "").split(";") if p])
    return shapes.Polygon((points,)) if points else None


def _box(element) -> shapes.Polygon | None:
    x0, y0, x1, y1 = _numbers(element, "xtl", "ytl", "xbr", "ybr")
    return shapes.rectangle(x0, y0, x1, y1, float(element.get("rotation", "0")))


def _ellipse(element) -> shapes.Ellipse:
    cx, cy, rx, ry = _numbers(element, "cx", "cy", "rx", "ry")
    return shapes.Ellipse((cx, cy), (rx, ry), float(element.get("rotation", "0")))


def _mask(element) -> shapes.Bitmap:
    left, top, width, height = (int(n) for n in _numbers(element, "left", "top", "width", "height"))
    covered = run_lengths.cvat(element.get("rle", ""), (height, width))
    return shapes.Bitmap(top, left, covered)


def _numbers(element, *names: str) -> list[float]:
    numbers = [float(element.get(name)) for name in names]
    if not all(abs(number) < 1e6 for number in numbers):
        raise ValueError(f"numbers out of range: {numbers}")
    return numbers


_MAKERS = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}


def is_voc(tree: Tree, child: str) -> bool:
    """Return whether XML files have the root `annotation` of PASCAL VOC and LabelMe, and a child.

    Args:
        tree: the files of the export.
        child: tag below the objects, "bndbox" or "polygon".
    """
    sample = [file for file in tree.ending(".xml") if _root_of(file) == "annotation"][:3]
    return any(next(read_xml(file).iter(child), None) is not None for file in sample)
