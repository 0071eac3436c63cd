"""Affine resampling without aliasing.

Coordinates are continuous: pixel i covers [i, i + 1), its centre is at i + 0.5. Matrices are 2x3 and map source to
destination.
"""

import math

import cv2
import numpy as np

from rtgaze_jax.geometry.normalize import invert_affine, opencv_affine

_BORDERS = {"edge": cv2.BORDER_REPLICATE, "zero": cv2.BORDER_CONSTANT}


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points [..., 2] by a 2x3 matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a 2x3 affine matrix."""
    return np.asarray(invert_affine(matrix))


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The 2x3 matrix that applies `first`, then `second`."""
    return np.concatenate([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]], 1)


def scale_of(matrix: np.ndarray) -> float:
    """Destination pixels per source pixel."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def scaling(x: float, y: float) -> np.ndarray:
    """The matrix that multiplies coordinates by (x, y)."""
    return np.array([[x, 0, 0], [0, y, 0]], np.float64)


def shifting(x: float, y: float) -> np.ndarray:
    """The matrix that adds (x, y)."""
    return np.array([[1, 0, x], [0, 1, y]], np.float64)


def warp(
    image: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    border: str = "edge",
    interpolation: int = cv2.INTER_CUBIC,
) -> np.ndarray:
    """Resamples `image` [H, W] or [H, W, C<=4] (uint8 or float32) to `size` (width, height) under `matrix` (source to
    destination).

    Only the part of the image that is needed is touched, so the cost follows the destination, not a huge photo.
    Reductions are averaged over areas first (no aliasing), enlargements use `interpolation`. Outside the image:
    `border` "edge" or "zero".
    """
    width, height = size
    corners = apply(invert(matrix), np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64))
    margin = 4 + 4 / max(scale_of(matrix), 1e-6)
    low = np.floor(corners.min(0) - margin).astype(int)
    high = np.ceil(corners.max(0) + margin).astype(int)
    x0, y0 = np.clip(low, 0, (image.shape[1] - 1, image.shape[0] - 1))
    x1, y1 = np.clip(high, (x0 + 1, y0 + 1), (image.shape[1], image.shape[0]))
    image = image[y0:y1, x0:x1]
    matrix = compose(matrix, shifting(x0, y0))
    reduction = 1 / scale_of(matrix)
    if reduction >= 2:  # average whole blocks of source pixels
        new = [max(1, round(n / math.floor(reduction))) for n in (image.shape[1], image.shape[0])]
        matrix = compose(matrix, scaling(image.shape[1] / new[0], image.shape[0] / new[1]))
        image = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
    finer = 2 if scale_of(matrix) < 0.99 else 1  # what is left is below 2: sample twice as densely, then average
    matrix = compose(scaling(finer, finer), matrix)
    result = cv2.warpAffine(
        image,
        np.asarray(opencv_affine(matrix)),
        (width * finer, height * finer),
        flags=interpolation,
        borderMode=_BORDERS[border],
    )
    return cv2.resize(result, size, interpolation=cv2.INTER_AREA) if finer > 1 else result
