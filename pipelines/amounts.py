"""Amounts of the random changes of training images, without the code that makes them."""

import dataclasses

from pipelines.datasets.spec import suggest


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The amounts and probabilities of all changes. The defaults change nothing.

    A factor f stands for a draw between 1 / f and f, uniform in the logarithm. An amount a of a
    color change stands for a factor, uniform in 1 - a..1 + a.

    Attributes:
        scale: float, at least 1, factor of the size.
        aspect: float, at least 1, factor of width / height at constant area.
        rotation: float in 0..180, largest angle in degrees, to both sides.
        rotation_share: float in 0..1, probability of a rotation.
        quarter_turns: bool, add 0, 90, 180 or 270 degrees, for images without an upright direction.
        color_share: float in 0..1, probability of the next four changes, made together.
        brightness: float in 0..1, amount.
        contrast: float in 0..1, amount, around the mean gray level of the crop.
        saturation: float in 0..1, amount, around the gray level of the pixel.
        hue: float in 0..0.5, largest turn of the color circle, to both sides.
        gray_share: float in 0..1, probability of a gray image.
        blur: float in 0..8, largest standard deviation of a Gaussian in pixels of the crop.
        blur_share: float in 0..1, probability of a blur.
        noise: float in 0..255, largest standard deviation of Gaussian noise in gray levels.
        noise_share: float in 0..1, probability of noise.
        cutout: float in 0..1, largest share of the crop that one box erases. The box shows the pad
            color, and its labels become void: nobody can see what was there.
        cutout_share: float in 0..1, probability of a cutout.
        mix: float in 0..1, largest share of the crop that two images of a step exchange (CutMix).
        mix_share: float in 0..1, probability that two images exchange a box.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> Augmentation(scale=2.0).changes_geometry
        True
        >>> Augmentation(scale=0.5)
        Traceback (most recent call last):
        ValueError: scale must lie in 1..16, got 0.5.
    """

    scale: float = 1.0
    aspect: float = 1.0
    rotation: float = 0.0
    rotation_share: float = 1.0
    quarter_turns: bool = False
    color_share: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray_share: float = 0.0
    blur: float = 0.0
    blur_share: float = 1.0
    noise: float = 0.0
    noise_share: float = 1.0
    cutout: float = 0.0
    cutout_share: float = 1.0
    mix: float = 0.0
    mix_share: float = 1.0

    def __post_init__(self):
        for name, (lowest, highest) in BOUNDS.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"{name} must lie in {lowest:g}..{highest:g}, got {value}.")

    @property
    def changes_geometry(self) -> bool:
        """Whether size, shape or direction of an image can change."""
        return (
            self.scale > 1
            or self.aspect > 1
            or self.quarter_turns
            or self.rotation * self.rotation_share > 0
        )

    @property
    def changes_colors(self) -> bool:
        """Whether brightness, contrast, saturation or hue of an image can change."""
        amounts = (self.brightness, self.contrast, self.saturation, self.hue)
        return self.gray_share > 0 or self.color_share * max(amounts) > 0

    @property
    def mixes_images(self) -> bool:
        """Whether two images of a step can exchange a box."""
        return self.mix * self.mix_share > 0

    @property
    def changes_nothing(self) -> bool:
        """Whether every image by itself stays as it is."""
        others = (
            self.blur * self.blur_share,
            self.noise * self.noise_share,
            self.cutout * self.cutout_share,
        )
        return not (self.changes_geometry or self.changes_colors or any(others))


_SHARE = (0.0, 1.0)
BOUNDS = {
    "scale": (1.0, 16.0),
    "aspect": (1.0, 4.0),
    "rotation": (0.0, 180.0),
    "rotation_share": _SHARE,
    "color_share": _SHARE,
    "brightness": _SHARE,
    "contrast": _SHARE,
    "saturation": _SHARE,
    "hue": (0.0, 0.5),
    "gray_share": _SHARE,
    "blur": (0.0, 8.0),
    "blur_share": _SHARE,
    "noise": (0.0, 255.0),
    "noise_share": _SHARE,
    "cutout": _SHARE,
    "cutout_share": _SHARE,
    "mix": _SHARE,
    "mix_share": _SHARE,
}
"""(lowest, highest) value of each number of `Augmentation`."""

NONE = Augmentation()
"""No augmentation beyond the mirror and the crop of `views.View`."""

STRENGTHS = {
    "none": NONE,
    "light": Augmentation(
        scale=1.41, aspect=1.1, color_share=0.5, brightness=0.2, contrast=0.2, saturation=0.2
    ),
    "strong": Augmentation(
        scale=2.0,
        aspect=1.2,
        rotation=10.0,
        rotation_share=0.3,
        color_share=0.8,
        brightness=0.25,
        contrast=0.25,
        saturation=0.25,
        hue=0.03,
        gray_share=0.1,
        blur=1.0,
        blur_share=0.2,
        noise=8.0,
        noise_share=0.2,
    ),
}
"""Named sets of amounts.

"strong" has the scale 0.5..2 of mmsegmentation, lightly-train and UniMatch V2, and the rotation of
EfficientSeg (VIPriors 2020, 200 images). Its colors and blur lie within the ranges in use there.
The noise, and "light" as about half of "strong", are ours.
"""


def of_strength(name: str, **changes: float) -> Augmentation:
    """Return a named augmentation with some of its numbers replaced.

    Args:
        name: a key of `STRENGTHS`.
        changes: fields of `Augmentation`. A value of None keeps the number of the strength.

    Raises:
        ValueError: if the name is unknown or a value is out of range.

    Example:
        >>> of_strength("strong", rotation=45.0, hue=None).rotation
        45.0
        >>> of_strength("storng")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: Unknown augmentation 'storng': ... Did you mean 'strong'?
    """
    if name not in STRENGTHS:
        hint = suggest(str(name), STRENGTHS)
        raise ValueError(f"Unknown augmentation {name!r}: expected one of {[*STRENGTHS]}.{hint}")
    given = {key: value for key, value in changes.items() if value is not None}
    return dataclasses.replace(STRENGTHS[name], **given)


def check_at_least_one(**sizes: int) -> None:
    """Raise a ValueError that names the first of `sizes` below 1.

    Example:
        >>> check_at_least_one(crop=3, tile=0)
        Traceback (most recent call last):
        ValueError: tile must be at least 1, got 0.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
