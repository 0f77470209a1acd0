"""Pictures of patches, triplets, segmentations, confusions, colors and puzzles.

Each function takes arrays and returns one uint8 RGB array [height, width, 3], for TensorBoard or a
PNG file. The module needs only numpy and Pillow. Class ids without a color (for example VOID) are
drawn as a gray and black hatch.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_TILE = 96
"""Patches are enlarged to at least this many pixels, so that class names fit under them."""

_GAP = 6
_FRAME = 3
_FONT_SIZE = 14
_LINE = 20  # height of a line of text in pixels, its margins included
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)
_GRAY = (128, 128, 128)
_RIGHT, _WRONG = (0, 150, 0), (200, 0, 0)
_BLUE = (8, 48, 107)
_LONGEST_NAME = 160  # pixels of a class name beside a matrix
_MOST_NUMBERED = 40  # largest number of classes whose confusions are written as numbers


def color_map(labels, colors) -> np.ndarray:
    """Paint a label map.

    Args:
        labels: integer [H, W], class ids.
        colors: integer [K, 3], RGB 0..255, one row per class id.

    Returns:
        uint8 [H, W, 3]. Ids outside 0 .. K - 1 (for example VOID = 255) get a gray and black hatch.

    Raises:
        ValueError: if `labels` is no integer matrix, or `colors` is not [K, 3] in 0..255.

    Example:

    >>> color_map(np.array([[0, 1]]), [[255, 0, 0], [0, 0, 9]]).tolist()
    [[[255, 0, 0], [0, 0, 9]]]
    """
    labels, colors = np.asarray(labels), _checked_colors(colors)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "labels must be an integer map [height, width]. "
            f"Received dtype {labels.dtype} of shape {labels.shape}."
        )
    has_color = (labels >= 0) & (labels < len(colors))
    painted = colors[np.where(has_color, labels, 0)]
    return np.where(has_color[..., None], painted, _hatch(*labels.shape))


def overlay(image, labels, colors, opacity=0.5, clear: int | None = None) -> np.ndarray:
    """Paint a label map over its image.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: integer [H, W], class ids; ids without a color are hatched, see `color_map`.
        colors: integer [K, 3], RGB 0..255.
        opacity: weight of the colors, 0..1.
        clear: class id whose pixels keep the image, for example the background.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: if the arguments do not fit each other.

    Example:

    >>> overlay(np.zeros((1, 2, 3), "uint8"), [[0, 1]], [[0, 0, 0], [200, 0, 0]]).tolist()
    [[[0, 0, 0], [100, 0, 0]]]
    """
    image, labels = _checked_image(image), np.asarray(labels)
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"An image and its labels must have one size. Received {image.shape[:2]} and "
            f"{labels.shape}."
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be 0..1. Received {opacity}.")
    weight = round(256 * opacity)
    painted = color_map(labels, colors)
    mixed = (image.astype(np.uint16) * (256 - weight) + painted.astype(np.uint16) * weight) >> 8
    if clear is not None:
        mixed = np.where((labels == clear)[..., None], image, mixed)
    return mixed.astype(np.uint8)


def patch_gallery(patches, labels, class_names, colors, columns=10) -> np.ndarray:
    """Draw patches row by row, framed in the color of their class with its name under them.

    Args:
        patches: uint8 [N, S, S, 3], RGB, N >= 1. Small patches are enlarged by a whole factor.
        labels: integer [N], class ids.
        class_names: K names.
        colors: integer [K, 3], RGB 0..255.
        columns: patches per row, at least 1.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: if the arguments do not fit each other, or there is no patch.
    """
    patches, labels = _checked_patches(patches, labels)
    colors = _checked_colors(colors, class_names)
    tiles = [
        _patch_tile(patch, _class_name(label, class_names), _class_color(label, colors))
        for patch, label in zip(patches, labels, strict=True)
    ]
    rows = [_beside(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return _on_page(_below(rows))


def triplet_gallery(
    patches, labels, triplets, class_names, colors, num_rows: int = 8
) -> np.ndarray:
    """Draw one triplet per row: anchor, positive, negative, each with its class.

    Up to `num_rows` triplets are drawn, spread evenly over the batch, valid ones first. A triplet
    that is not valid has a hatched tile, "not used", instead of its negative.

    Args:
        patches: uint8 [N, S, S, 3], RGB, N >= 1.
        labels: integer [N], class ids.
        triplets: `mm_keras.matching.Triplets`, or four arrays (anchor, positive, negative, valid):
            integer [N] indices of patches, and bool [N].
        class_names: K names.
        colors: integer [K, 3], RGB 0..255.
        num_rows: largest number of triplets to draw, at least 1.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: if the arguments do not fit each other, or there is no patch.
    """
    patches, labels = _checked_patches(patches, labels)
    colors = _checked_colors(colors, class_names)
    anchor, positive, negative, valid = map(np.asarray, triplets)

    def tile(node):
        name, color = _class_name(labels[node], class_names), _class_color(labels[node], colors)
        return _patch_tile(patches[node], name, color)

    def row(i):
        last = tile(negative[i]) if valid[i] else _empty_tile(tile(anchor[i]), "not used")
        return [tile(anchor[i]), tile(positive[i]), last]

    rows = [row(i) for i in _spread(valid, num_rows)]
    return _on_page(_table(["anchor", "positive", "negative"], rows))


def segmentation_gallery(
    images, truths, predictions, colors, class_names, panel_size=320, captions=None
) -> np.ndarray:
    """Draw one image per row: image, truth, prediction. The color of each class stands below.

    Args:
        images: uint8 [H, W, 3] each, RGB, at least one; sizes may differ.
        truths: integer [H, W] each, class ids, VOID = 255 hatched.
        predictions: integer [H, W] each, class ids. To compare networks, {head of the column: such
            a list}.
        colors: integer [K, 3], RGB 0..255.
        class_names: K names.
        panel_size: longer side in pixels to which each picture is scaled (images bilinear, class
            ids by nearest neighbor).
        captions: a line of text under each row, or None.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: if the arguments do not fit each other, or there is no image.
    """
    colors = _checked_colors(colors, class_names)
    columns = predictions if isinstance(predictions, dict) else {"prediction": predictions}
    for maps in columns.values():
        if not len(images) == len(truths) == len(maps) >= 1:
            raise ValueError(
                "Expected as many images as truths and predictions, and at least one. "
                f"Received {len(images)}, {len(truths)} and {len(maps)}."
            )
    rows = [
        _segmentation_row(image, maps, colors, panel_size)
        for image, *maps in zip(images, truths, *columns.values(), strict=True)
    ]
    table = _table(["image", "truth", *columns], rows, captions)
    legend = _legend(class_names, colors, table.shape[1])
    return _on_page(_below([table, legend]))


def crop_gallery(images, labels, colors, class_names, columns=4, panel_size=240) -> np.ndarray:
    """Draw crops with their label maps under them, and the color of each class below.

    Args:
        images: uint8 [N, S, S, 3], RGB, N >= 1.
        labels: integer [N, S, S], class ids, VOID = 255 hatched.
        colors: integer [K, 3], RGB 0..255.
        class_names: K names.
        columns: crops per row, at least 1.
        panel_size: side in pixels to which each picture is scaled.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: if the arguments do not fit each other, or there is no image.
    """
    colors = _checked_colors(colors, class_names)
    if not len(images) == len(labels) >= 1:
        raise ValueError(
            "Expected as many images as label maps, and at least one. "
            f"Received {len(images)} and {len(labels)}."
        )
    pairs = [
        _below(_segmentation_row(image, [label], colors, panel_size))
        for image, label in zip(images, labels, strict=True)
    ]
    rows = [_beside(pairs[i : i + columns]) for i in range(0, len(pairs), columns)]
    table = _below(rows)
    return _on_page(_below([table, _legend(class_names, colors, table.shape[1])]))


def colorization_gallery(images, colorized, panel_size=320) -> np.ndarray:
    """Draw one image per row: original, gray input of the network, predicted colors.

    Args:
        images: uint8 [H, W, 3] each, RGB, at least one; sizes may differ.
        colorized: uint8 [H, W, 3] each, RGB.
        panel_size: longer side in pixels to which each picture is scaled (bilinear).

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: if the arguments do not fit each other, or there is no image.
    """
    if not len(images) == len(colorized) >= 1:
        raise ValueError(
            "Expected as many images as colorized ones, and at least one. "
            f"Received {len(images)} and {len(colorized)}."
        )
    rows = [
        _colorization_row(*panels, panel_size) for panels in zip(images, colorized, strict=True)
    ]
    return _on_page(_table(["original", "gray", "colorized"], rows))


def holes_gallery(inputs, filled, originals, panel_size=320) -> np.ndarray:
    """Draw one image per row: with its hole, filled by the network, original.

    Args:
        inputs: uint8 [H, W, 3] each, RGB, at least one; the hole has one color.
        filled, originals: images of the same sizes.
        panel_size: longer side in pixels to which each picture is scaled (bilinear).

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: if there is no image, or the numbers of images differ.
    """
    return _columns(("hole", "filled", "original"), (inputs, filled, originals), panel_size)


def samples_gallery(images, rebuilt, samples, panel_size=160) -> np.ndarray:
    """Draw one image per row: original, rebuilt from its code, and generated from a random code.

    Args:
        images: uint8 [H, W, 3] each, RGB, at least one.
        rebuilt, samples: as many pictures, of any sizes.
        panel_size: longer side in pixels to which each picture is scaled (bilinear).

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: if there is no image, or the numbers of images differ.
    """
    return _columns(("image", "rebuilt", "sample"), (images, rebuilt, samples), panel_size)


def jigsaw_gallery(tiles, truths, predictions, num_rows=4) -> np.ndarray:
    """Draw one puzzle per row: shuffled tiles, predicted arrangement, solution.

    Args:
        tiles: uint8 [N, 9, T, T, 3], RGB, N >= 1; slot i of a puzzle is tiles[:, i].
        truths: integer [N, 9], the true permutations: slot i holds grid cell truths[:, i], cells
            counted row by row.
        predictions: integer [N, 9], the predicted permutations.
        num_rows: largest number of puzzles to draw, at least 1.

    Returns:
        uint8 [height, width, 3]. Correct predictions have a green frame, wrong ones a red frame.

    Raises:
        ValueError: if the arguments do not fit each other, or there is no puzzle.
    """
    tiles, truths, predictions = map(np.asarray, (tiles, truths, predictions))
    _check_puzzles(tiles, truths, predictions)
    tiles = as_rgb(tiles)
    rows = [
        [
            _grid(puzzle),
            _framed(_grid(_put_back(puzzle, predicted)), (predicted == truth).all()),
            _grid(_put_back(puzzle, truth)),
        ]
        for puzzle, truth, predicted in zip(tiles, truths, predictions, strict=True)
    ]
    return _on_page(_table(["shuffled", "predicted", "solution"], rows[:num_rows]))


def confusion_picture(matrix, class_names) -> np.ndarray:
    """Draw a confusion matrix as a table: the predicted classes of each true class, as shares.

    Args:
        matrix: integer [K, K], counts, rows truth, columns prediction.
        class_names: K names.

    Returns:
        uint8 [height, width, 3]. A cell is white at 0 and dark blue at 1. With up to 40 classes it
        shows the share in whole percent, from 1 on. A class without truth has a hatched row.

    Raises:
        ValueError: if `matrix` is not [K, K] for K names, or K is 0.
    """
    matrix, num_names = np.asarray(matrix), len(class_names)
    if matrix.shape != (num_names, num_names) or not num_names:
        raise ValueError(
            "Expected a square matrix with a row for each class name, at least one. "
            f"Received shape {matrix.shape} and {num_names} names."
        )
    side = 2 * _LINE if num_names <= _MOST_NUMBERED else _LINE
    font = ImageFont.load_default(_FONT_SIZE)
    corner = "truth \\ predicted"
    head = 12 + int(max(font.getlength(text) for text in (corner, *class_names)))
    head = min(_LONGEST_NAME, head)
    corner = [_plain(head - _LINE, head), _text_line(corner, head, centered=False)]
    rows = [[np.vstack(corner), *(_upright(name, head, side) for name in class_names)]]
    for name, counts in zip(class_names, matrix, strict=True):
        cells = [_share_tile(count, counts.sum(), side) for count in counts]
        rows.append([_in_middle(_text_line(name, head, centered=False), side), *cells])
    return _on_page(np.vstack([np.hstack(row) for row in rows]))


def _checked_colors(colors, class_names=None):
    colors = np.asarray(colors)
    if colors.ndim != 2 or colors.shape[1] != 3 or not len(colors):
        raise ValueError(f"colors must be [num_classes, 3]. Received shape {colors.shape}.")
    if colors.min() < 0 or colors.max() > 255:
        raise ValueError(f"colors must lie in 0..255. Received {colors.min()} to {colors.max()}.")
    if class_names is not None and len(class_names) != len(colors):
        raise ValueError(
            "Expected one color per class name. "
            f"Received {len(class_names)} names and {len(colors)} colors."
        )
    return colors.astype(np.uint8)


def _checked_image(image):
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or not image.shape[-1]:
        raise ValueError(
            "An image must be uint8 [height, width, bands], RGB if there are three. "
            f"Received dtype {image.dtype} of shape {image.shape}."
        )
    return as_rgb(image)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image of any number of bands in a form that can be shown.

    Args:
        image: uint8 [..., bands].

    Returns:
        uint8 [..., 3]: the first three bands, or the first band as gray if there are fewer.

    Example:

    >>> as_rgb(np.array([[[7, 9]]], "uint8")).tolist()
    [[[7, 7, 7]]]
    """
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, axis=-1)


def _checked_patches(patches, labels):
    patches, labels = [_checked_image(patch) for patch in np.asarray(patches)], np.asarray(labels)
    if not patches or labels.shape != (len(patches),):
        raise ValueError(
            "Expected at least one patch and one label per patch. "
            f"Received {len(patches)} patches and labels of shape {labels.shape}."
        )
    return patches, labels


def _class_name(label, class_names):
    return class_names[label] if 0 <= label < len(class_names) else "void"


def _class_color(label, colors):
    return tuple(int(c) for c in colors[label]) if 0 <= label < len(colors) else _GRAY


def _spread(valid, num_rows):
    """Return up to `num_rows` indices: spread over the valid ones, then others if these are few."""
    good, other = np.flatnonzero(valid), np.flatnonzero(~valid.astype(bool))
    good = good[np.linspace(0, len(good) - 1, min(num_rows, len(good))).astype(int)]
    return [*good, *other[: num_rows - len(good)]]


def _segmentation_row(image, maps, colors, panel_size):
    """Return the pictures of the image, its truth and its predictions."""
    image = _checked_image(image)
    if {np.shape(labels) for labels in maps} != {image.shape[:2]}:
        shapes = [np.shape(labels) for labels in maps]
        raise ValueError(
            "An image, its truth and its predictions must have one size. "
            f"Received {', '.join(map(str, [image.shape[:2], *shapes]))}."
        )
    picture = _scaled_picture(image, panel_size)
    height, width = picture.shape[:2]
    # Class ids are picked before they are painted, so that the hatch keeps its scale.
    rows = (np.arange(height) * image.shape[0]) // height
    columns = (np.arange(width) * image.shape[1]) // width
    painted = [color_map(np.asarray(labels)[rows][:, columns], colors) for labels in maps]
    return [picture, *painted]


def _columns(heads, columns, panel_size):
    """Draw columns of equally many pictures on a page."""
    numbers = [len(column) for column in columns]
    if len(set(numbers)) > 1 or not numbers[0]:
        raise ValueError(
            "Expected equally many images of each kind, and at least one. Received "
            f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}."
        )
    rows = [
        [_scaled_picture(_checked_image(picture), panel_size) for picture in row]
        for row in zip(*columns, strict=True)
    ]
    return _on_page(_table(heads, rows))


def _colorization_row(image, colorized, panel_size):
    image, colorized = _checked_image(image), _checked_image(colorized)
    if image.shape != colorized.shape:
        raise ValueError(
            "An image and its colorized version must have one size. "
            f"Received {image.shape[:2]} and {colorized.shape[:2]}."
        )
    gray = np.round(image.mean(-1, keepdims=True)).astype(np.uint8).repeat(3, axis=-1)
    return [_scaled_picture(picture, panel_size) for picture in (image, gray, colorized)]


def _scaled_picture(image, panel_size):
    """Scale the longer side of a picture to `panel_size`, bilinear."""
    factor = panel_size / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _check_puzzles(tiles, truths, predictions):
    if tiles.ndim != 5 or tiles.shape[1] != 9 or not len(tiles):
        raise ValueError(
            f"tiles must be [N, 9, T, T, 3] with at least one puzzle. Received {tiles.shape}."
        )
    _checked_image(tiles[0, 0])
    for name, orders in (("truths", truths), ("predictions", predictions)):
        if orders.shape != tiles.shape[:2] or (np.sort(orders, axis=1) != np.arange(9)).any():
            raise ValueError(
                f"{name} must be a permutation of 0..8 for each of {len(tiles)} puzzles. "
                f"Received shape {orders.shape}: {orders.tolist()}."
            )


def _put_back(tiles, order):
    """Return the tiles by grid cell. Slot i holds the tile of cell order[i]."""
    return tiles[np.argsort(order)]


def _grid(tiles):
    """Arrange nine tiles in three rows, with gaps."""
    return _below([_beside(tiles[i : i + 3]) for i in (0, 3, 6)])


def _framed(picture, is_right):
    height, width = picture.shape[:2]
    framed = _plain(height + 2 * _FRAME, width + 2 * _FRAME, _RIGHT if is_right else _WRONG)
    framed[_FRAME : _FRAME + height, _FRAME : _FRAME + width] = picture
    return framed


def _hatch(height, width):
    """Draw diagonal black lines on gray, uint8 [height, width, 3], unlike any plain color."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % 8
    return np.where(diagonal[..., None] < 2, _INK, _GRAY).astype(np.uint8)


def _patch_tile(patch, name, color):
    """Draw a patch in a frame with a caption below."""
    factor = -(-MIN_TILE // min(patch.shape[:2]))
    patch = patch.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = patch.shape[:2]
    tile = _plain(height + _FRAME + _LINE, width + 2 * _FRAME, color)
    tile[_FRAME : _FRAME + height, _FRAME : _FRAME + width] = patch
    tile[-_LINE:] = _text_line(name, tile.shape[1], color)
    return tile


def _empty_tile(like, caption):
    tile = _hatch(*like.shape[:2])
    tile[-_LINE:] = _text_line(caption, tile.shape[1], _GRAY)
    return tile


def _text_line(text, width, color=_PAPER, centered=True):
    """Draw `text` on `color`, uint8 [_LINE, width, 3]. Too long text ends in an ellipsis."""
    font = ImageFont.load_default(_FONT_SIZE)
    image = Image.new("RGB", (width, _LINE), tuple(color))
    text = _fitted(text, font, width - 6)
    ink = _INK if np.dot(color, (0.299, 0.587, 0.114)) > 110 else _PAPER
    x, anchor = (width / 2, "mm") if centered else (4, "lm")
    ImageDraw.Draw(image).text((x, _LINE / 2), text, fill=ink, font=font, anchor=anchor)
    return np.asarray(image)


def _fitted(text, font, width):
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _upright(name, length, width):
    """Draw a name that reads upwards, [length, width, 3]."""
    return np.rot90(_in_middle(_text_line(name, length, centered=False), width))


def _in_middle(line, height):
    """Draw a line of text in the middle of a strip of `height` pixels."""
    above = (height - len(line)) // 2
    page = _plain(height, line.shape[1])
    page[above : above + len(line)] = line
    return page


def _share_tile(count, total, side):
    """Draw a cell of `side` pixels in the color of count / total, with its whole percent."""
    tile = _plain(side, side)
    if not total:
        tile[1:, 1:] = _hatch(side - 1, side - 1)
        return tile
    share = count / total
    color = tuple(round(p + (b - p) * share) for p, b in zip(_PAPER, _BLUE, strict=True))
    tile[1:, 1:] = color
    if side > _LINE and round(100 * share) >= 1:
        above = (side - _LINE) // 2
        tile[above : above + _LINE, 1:] = _text_line(str(round(100 * share)), side - 1, color)
    return tile


def _legend(class_names, colors, width):
    """Draw swatches with names, as many per line as fit into `width`, the hatch of void last."""
    names = [*class_names, "void"]
    swatches = [_plain(_LINE, _LINE, color) for color in colors] + [_hatch(_LINE, _LINE)]
    font = ImageFont.load_default(_FONT_SIZE)
    cell = min(width, _LINE + 12 + int(max(font.getlength(name) for name in names)))
    entries = [
        np.hstack([swatch, _text_line(name, cell - _LINE, centered=False)])
        for swatch, name in zip(swatches, names, strict=True)
    ]
    per_line = max(1, (width + _GAP) // (cell + _GAP))
    return _below([_beside(entries[i : i + per_line]) for i in range(0, len(entries), per_line)])


def _table(heads, rows, captions=None):
    """Draw rows of centered pictures in aligned columns, with heads, and captions under rows."""
    widths = [max(picture.shape[1] for picture in column) for column in zip(*rows, strict=True)]
    lines = [[_text_line(head, width) for head, width in zip(heads, widths, strict=True)], *rows]
    lines = [
        _beside([_centered(cell, width) for cell, width in zip(line, widths, strict=True)])
        for line in lines
    ]
    if captions is not None:
        texts = [_text_line(text, lines[0].shape[1], centered=False) for text in captions]
        under = zip(lines[1:], texts, strict=True)
        lines[1:] = [part for pair in under for part in pair]
    return _below(lines)


def _plain(height, width, color=_PAPER):
    return np.full((height, width, 3), color, np.uint8)


def _centered(picture, width):
    left = (width - picture.shape[1]) // 2
    page = _plain(picture.shape[0], width)
    page[:, left : left + picture.shape[1]] = picture
    return page


def _beside(pictures):
    """Arrange pictures from left to right with gaps, tops aligned."""
    return _below([picture.swapaxes(0, 1) for picture in pictures]).swapaxes(0, 1)


def _below(pictures):
    """Arrange pictures from top to bottom with gaps, left edges aligned."""
    height = sum(len(picture) for picture in pictures) + _GAP * (len(pictures) - 1)
    page = _plain(height, max(picture.shape[1] for picture in pictures))
    top = 0
    for picture in pictures:
        page[top : top + len(picture), : picture.shape[1]] = picture
        top += len(picture) + _GAP
    return page


def _on_page(picture):
    return np.pad(picture, ((_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255)
