"""The settings of the Mix step (M&M paper, Mix), without the code that draws patches."""

import dataclasses

from pipelines.amounts import check_at_least_one
from pipelines.datasets.spec import VOID, suggest

RULES = ("paper", "release")
"""The rules that reject overlapping boxes."""

CANDIDATES_PER_PATCH = 5
"""Boxes drawn for each patch. Source: released code, sampling_layers.py."""

PAPER_OVERLAP = (3, 7)
"""Largest overlap of two boxes under rule "paper", as a fraction of their union.

Numerator and denominator, for comparison in integers; boxes exactly at the limit are kept. Two
equal areas a that share 0.6 a have 0.6 / (2 - 0.6).
"""

RELEASE_OVERLAP = (3, 5)
"""The same under rule "release", of the reference area. Source: released code, create_patch.py."""


@dataclasses.dataclass(frozen=True)
class PatchSampling:
    """The settings by which patches of an image are drawn.

    Attributes:
        patches_per_image: int, at least 1.
        min_size: int, smallest side of a box in pixels of the canvas, even, at least 2.
        max_size: int, largest side, even, at least min_size.
        patch_size: int, side in pixels to which boxes are resized; 128 in the paper.
        rule: "paper" or "release", the rule that rejects overlapping boxes; see
            `pipelines.batches.mix.sample_boxes`.
        background_label: int in 0..254, the id of the background class. None if there is none.
        background_share: float in 0..1, share of patches whose center is background; 0.1 in the
            released code.
        class_balanced: bool, draw the centers of the (foreground) pool by class first, uniform over
            the classes present, then uniform over the pixels of that class.
        min_share: float in 0..1, smallest share of a box's labelled pixels that have its label. 0
            accepts all boxes, as the paper and the released code do.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> PatchSampling(patches_per_image=10, min_size=64, max_size=256).patch_size
        128
        >>> PatchSampling(patches_per_image=10, min_size=300, max_size=256)
        Traceback (most recent call last):
        ValueError: min_size must not exceed max_size, got 300 > 256: swap them.
    """

    patches_per_image: int
    min_size: int
    max_size: int
    patch_size: int = 128
    rule: str = "paper"
    background_label: int | None = None
    background_share: float = 0.1
    class_balanced: bool = False
    min_share: float = 0.0

    def __post_init__(self):
        if self.rule not in RULES:
            hint = suggest(str(self.rule), RULES)
            raise ValueError(f"Unknown overlap rule {self.rule!r}: expected one of {RULES}.{hint}")
        check_at_least_one(patches_per_image=self.patches_per_image, patch_size=self.patch_size)
        if self.min_size < 2 or self.min_size % 2 or self.max_size % 2:
            raise ValueError(
                f"Patch sizes must be even and at least 2, got {self.min_size} to "
                f"{self.max_size}: use the next even numbers."
            )
        if self.min_size > self.max_size:
            raise ValueError(
                f"min_size must not exceed max_size, got {self.min_size} > {self.max_size}: "
                "swap them."
            )
        for name in ("background_share", "min_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}.")
        if self.background_label is not None and not 0 <= self.background_label < VOID:
            raise ValueError(
                f"background_label must lie in 0..254, got {self.background_label}; "
                "None means that there is no background."
            )

    @property
    def separate_background(self) -> int | None:
        """The background class if patches have a share for it, otherwise None."""
        return self.background_label if self.background_share else None

    @property
    def quotas(self) -> tuple[int, int]:
        """Numbers of foreground and background patches (released code, sampling_layers.py)."""
        if self.separate_background is None:
            return self.patches_per_image, 0
        # At least one of each. A single patch is foreground; the released code makes two patches.
        background = max(1, int(self.patches_per_image * self.background_share))
        background = min(background, self.patches_per_image - 1)
        return self.patches_per_image - background, background
