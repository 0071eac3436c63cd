"""Finding the eyes of an encoded face again, to a few hundredths of a pixel, by the picture around them.

Landmarks say where an eye is to a few tenths of a pixel, and each frame's error is a new one. Pasted eyes would show
that as trembling.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.inference.blend import EyeArea, eye_area
from rtgaze_jax.inference.face import Face
from rtgaze_jax.inference.warp import apply, compose, shifting, warp

_BLUR = 1.0  # pixels: finer detail is noise
_SUM = np.ones((1, 3), np.float32)
_STEPS = 4
_ENOUGH = 0.01  # pixels
_ALIKE = 0.8  # correlation: less is another picture, or something before it
_STRUCTURE = 0.03  # grey levels per pixel, in the least clear direction: less says nothing about places
_FURTHEST = 0.15  # eye widths between what landmarks say and what the picture says
# eye widths from the opening of the eye: from here, fully from here to here, up to here. Nearer, irises and lids move
# on their own; further away, the head turns differently
_AROUND = (0.05, 0.15, 0.40, 0.60)


def flat(image: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Grey levels of an image [h, w, 3] without the finest detail."""
    grey = cv2.transform(image.astype(np.float32), _SUM) / np.float32(3)
    return cv2.GaussianBlur(grey, (0, 0), _BLUR, borderType=cv2.BORDER_REPLICATE)


def align_to(
    reference: Float[np.ndarray, "h w"],
    weights: Float[np.ndarray, "h w"],
    pixels: UInt8[np.ndarray, "H W 3"],
    matrix: Float[np.ndarray, "2 3"],
    limit: float,
) -> Float[np.ndarray, "2 3"]:
    """`matrix` (photo `pixels` to the pixels of `reference`, made by `flat`), shifted so that the photo lies on the
    reference where `weights` count: least squares, as Lucas and Kanade do.

    Returns `matrix` itself where the pictures differ too much, have no structure, or lie over `limit` pixels apart.
    """
    height, width = reference.shape
    weights = weights / max(float(weights.sum()), 1e-6)
    old = reference - (weights * reference).sum()
    shift = np.zeros(2)
    for _ in range(_STEPS):
        now = flat(warp(pixels, compose(shifting(*shift), matrix), (width, height)))
        now = now - (weights * now).sum()
        common, own = float((weights * old * now).sum()), float((weights * now * now).sum())
        if common <= _ALIKE * np.sqrt(own * (weights * old * old).sum()):
            return matrix
        now = now * (common / own)  # the light may have changed a little
        dy, dx = np.gradient((old + now) / 2)
        slopes = np.stack([dx, dy])
        squares = np.einsum("ihw,jhw,hw->ij", slopes, slopes, weights)
        if np.linalg.eigvalsh(squares)[0] < _STRUCTURE**2:
            return matrix
        step = np.linalg.solve(squares, np.einsum("ihw,hw->i", slopes, weights * (now - old)))
        shift = shift + step
        if np.hypot(*shift) > limit:
            return matrix
        if np.hypot(*step) < _ENOUGH:
            break
    return compose(shifting(*shift), matrix)


@dataclasses.dataclass(frozen=True, eq=False)
class Anchor:
    """One eye of a crop. area: where it is there. around: the crop in that rectangle, flat. weights: how much each of
    its pixels says about the eye's place.
    """

    area: EyeArea
    around: Float[np.ndarray, "h w"]
    weights: Float[np.ndarray, "h w"]

    @classmethod
    def make(
        cls, crop: UInt8[np.ndarray, "S S 3"], matrix: Float[np.ndarray, "2 3"], face: Face, side: int
    ) -> "Anchor | None":
        """The anchor of one eye (0 subject's left, 1 right) of a photo's `face`, whose crop was made by `matrix` (photo
        to crop pixels). None where the eye lies outside.
        """
        inside = dataclasses.replace(face, landmarks=apply(matrix, face.landmarks.astype(np.float64)))
        area = eye_area(inside, side, crop.shape[:2])
        if area is None:
            return None
        start, full, to, end = _AROUND
        distance = area.distance
        weights = np.clip((distance - start) / (full - start), 0, 1) * np.clip((end - distance) / (end - to), 0, 1)
        return cls(area, flat(crop[area.window]), weights.astype(np.float32))

    @property
    def to_area(self) -> Float[np.ndarray, "2 3"]:
        """Crop pixels to pixels of the rectangle."""
        return shifting(-self.area.x, -self.area.y)

    def place(self, pixels: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
        """The exact map from another photo's pixels to the crop's for this eye, given a rough one."""
        limit = _FURTHEST * self.area.width
        exact = align_to(self.around, self.weights, pixels, compose(self.to_area, matrix), limit)
        return compose(shifting(self.area.x, self.area.y), exact)
