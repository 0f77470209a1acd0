"""Pictures inside pages, which need no other file."""

import base64
import io

import numpy as np
from PIL import Image

_QUALITY = 85  # of JPEG


def data_url(pixels: np.ndarray, side: int | None = None) -> str:
    """Return a picture as the text of an image source, in JPEG.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        side: largest side in pixels, to which larger pictures are shrunk; None for any size.

    Example:
        >>> data_url(np.zeros((2, 3, 3), "uint8"))[:22]
        'data:image/jpeg;base64'
    """
    picture = Image.fromarray(pixels)
    if side is not None:
        picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
