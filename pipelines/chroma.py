"""Matrices that split an RGB pixel into its gray level and its chroma, and turn the chroma."""

import numpy as np

LUMA = (0.299, 0.587, 0.114)
"""Weights of the gray level of an RGB pixel. Source: ITU-R BT.601."""

GRAY = np.tile(np.array(LUMA, np.float32), (3, 1))
"""Matrix [3, 3] from an RGB pixel to its gray; the rest of the pixel is its chroma."""

_TO_YIQ = np.array(
    [LUMA, (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955)]
)
"""Matrix from RGB to the gray level and the chroma axes I and Q of NTSC."""

QUARTER_TURN = (
    np.linalg.inv(_TO_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _TO_YIQ
).astype(np.float32)
"""Matrix [3, 3] that turns the chroma of an RGB pixel by 90 degrees and drops its gray."""
