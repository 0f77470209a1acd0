"""Sizes of a backbone's maps, for heads that fix the size of their images."""

from mm_keras.backbones.spec import Backbone


def of_crop(backbone: Backbone, name: str, crop: int) -> tuple[int, int, int]:
    """Return (height, width, channels) of a map of a color crop.

    Args:
        backbone: the network.
        name: name of the map.
        crop: side of the crop in pixels.

    Raises:
        ValueError: the crop leaves no cell in the map.

    Example:

    >>> from mm_keras import backbones
    >>> of_crop(backbones.build("testing"), "conv1_1", 24)[:2]
    (24, 24)
    """
    try:
        shape = backbone.compute_output_shape((None, crop, crop, 3))[name][1:]
    except ValueError:  # a window larger than its map
        shape = (0, 0)
    if not all(shape):
        raise ValueError(
            f"Crops of {crop} pixels leave no cell in {name} of backbone {backbone.spec.name!r}. "
            "Use larger crops."
        )
    return shape
