"""Pasting redirected eyes back into the untouched photo, at the photo's own resolution.

Per eye: a soft mask grown from the lids' outline; colour matched to the photo in the ring around the mask, where
nothing should have changed; sharpness and grain matched to the photo. Outside the masks every pixel keeps its bits.
"""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.inference import mesh
from rtgaze_jax.inference.face import Face
from rtgaze_jax.inference.warp import apply, compose, invert, shifting, warp

# Distances from the opening of the eye, in eye widths (outer to inner corner):
_FULL = 0.10  # the patch counts fully up to here (lids, lashes),
_REACH = 0.36  # fades out up to here: in all 1.7 eye widths by 1.1,
_RING = 0.60  # and is compared with the photo from _FULL up to here
_COLOUR_BLUR = 0.25  # eye widths: finer differences than this are content, not colour
_FIELD_WIDTH = 40.0  # pixels: of the eye, where its colours are compared
_GAIN_LIMIT = 1.5  # more than this is no difference of colour but a failure of the patch
_DARK = 12.0  # grey levels added to both before dividing, so that near-black pixels have stable ratios
_SHARPEN_LIMIT = 0.7
_BLUR_LIMIT = 0.06  # eye widths
# matrices for cv2.transform: NumPy's products wake threads that wait spinning, which is dear beside other stages
_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
_MEAN = np.full((1, 3), 1 / 3, np.float32)
_EDGE_PERCENTILE = 97.0  # the steepest edges of an eye: lid lines, lashes, the rim of the iris


@dataclasses.dataclass(frozen=True)
class EyeArea:
    """One eye's rectangle in the photo and how far each of its pixels lies from the eye.

    x, y: corner in the photo, pixels. width: eye width, pixels. distance: f32[h, w], distance from the opening of the
    eye in eye widths, 0 inside.
    """

    x: int
    y: int
    width: float
    distance: Float[np.ndarray, "h w"]

    @property
    def window(self) -> tuple[slice, slice]:
        """The rectangle as an index into the photo."""
        height, width = self.distance.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


def eye_area(face: Face, side: int, shape: tuple[int, int]) -> EyeArea | None:
    """The area of one eye (0 subject's left, 1 right) in a photo of `shape` (height, width); None if outside or too
    small.
    """
    outline = face.landmarks[list(mesh.EYE_CONTOURS[side])].astype(np.float64)
    outer, inner = face.landmarks[list(mesh.EYE_CORNERS[side])].astype(np.float64)
    # a turned head shortens the far eye; its lids stay as tall, so the mask must not shrink with the corners' distance
    # alone
    other = face.landmarks[list(mesh.EYE_CORNERS[1 - side])].astype(np.float64)
    width = max(float(np.linalg.norm(outer - inner)), 0.75 * float(np.linalg.norm(other[0] - other[1])))
    margin = _RING * width + 2
    low = np.maximum(np.floor(outline.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(outline.max(0) + margin), (shape[1], shape[0])).astype(int)
    if width < 4 or (high - low).min() < 3:
        return None
    polygon = cv2.convexHull((outline - low - 0.5).astype(np.float32))  # OpenCV puts pixel centres at integers
    size = high - low
    # a polygon with 1/16 pixel precision, filled; distances outside it, in pixels
    inside = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillConvexPoly(inside, np.rint(polygon * 16).astype(np.int32), 1, shift=4)
    distance = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's roots differ in their last bit with the place in memory; squares of distances are whole numbers
    distance = np.sqrt(np.rint(np.square(distance, dtype=np.float64))).astype(np.float32)
    return EyeArea(int(low[0]), int(low[1]), width, distance / width)


def mask(area: EyeArea) -> Float[np.ndarray, "h w"]:
    """How much of each pixel comes from the patch: 1 over the eye and its lids, falling smoothly to 0."""
    x = np.clip((_REACH - area.distance) / (_REACH - _FULL), 0, 1)
    return x * x * (3 - 2 * x)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REPLICATE)


def match_colour(
    patch: Float[np.ndarray, "h w 3"], photo: Float[np.ndarray, "h w 3"], area: EyeArea
) -> Float[np.ndarray, "h w 3"]:
    """The patch, multiplied by a smooth field that takes it to the photo's colours in the ring around the eye.

    The field is measured in the ring only, where nothing should have changed, and spreads inwards by normalised
    blurring. A product rather than a sum: light and exposure act so, and pupils stay black.
    """
    ring = np.clip((area.distance - _FULL) / (_REACH - _FULL), 0, 1).astype(np.float32)
    height, width = ring.shape
    # so smooth a field needs few pixels
    smaller = min(1.0, _FIELD_WIDTH / area.width)
    size = max(1, round(width * smaller)), max(1, round(height * smaller))
    old = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    new = cv2.resize(np.maximum(patch, np.float32(0)), size, interpolation=cv2.INTER_AREA)
    ring = cv2.resize(ring, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    sigma = _COLOUR_BLUR * area.width * smaller
    detail = 0.08 * area.width * smaller  # hairs and pores are no colour difference
    ratio = np.log((_blur(old, detail) + _DARK) / (_blur(new, detail) + _DARK)) * ring[..., None]
    # the wider blur reaches where the first has nothing
    field, weight = (_blur(x, sigma) + 0.02 * _blur(x, 3 * sigma) for x in (ratio, ring))
    limit = math.log(_GAIN_LIMIT)
    gain = np.clip(field / np.maximum(weight, 1e-6)[..., None], -limit, limit)
    gain = np.exp(cv2.resize(gain, (width, height), interpolation=cv2.INTER_LINEAR))
    return (patch + _DARK) * gain - _DARK


def _slopes(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "2 h w"]:
    """How steep a picture is across and down, grey levels per pixel."""
    return np.stack([cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx, scale=0.125) for dx in (1, 0)])


def _steepest(slopes: Float[np.ndarray, "2 N"]) -> float:
    """The steepness of the steepest of these slopes."""
    steepness = np.hypot(slopes[0], slopes[1])
    place = (steepness.size - 1) * _EDGE_PERCENTILE / 100
    lower = math.floor(place)
    low, high = np.partition(steepness, (lower, lower + 1))[lower : lower + 2].tolist()
    return low + (high - low) * (place - lower)


def _edges(image: np.ndarray, weights: np.ndarray) -> float:
    """The steepness of an image's steepest edges where `weights` is set, grey levels per pixel."""
    return _steepest(_slopes(cv2.transform(image, _LUMA))[:, weights])


def match_sharpness(
    patch: Float[np.ndarray, "h w 3"], photo: Float[np.ndarray, "h w 3"], area: EyeArea
) -> Float[np.ndarray, "h w 3"]:
    """The patch, blurred or carefully sharpened until its steepest edges are as steep as those of the eye it
    replaces.
    """
    near = area.distance < _FULL
    if near.sum() < 32:
        return patch
    # blurring and slopes are linear, so grey levels will do, and only where a blur can reach what is near
    reach = math.ceil(4 * _BLUR_LIMIT * area.width) + 3
    window = tuple(
        slice(max(int(line[0]) - reach, 0), int(line[-1]) + 1 + reach)
        for line in (np.flatnonzero(near.any(axis)) for axis in (1, 0))
    )
    near, new = near[window], cv2.transform(patch[window], _LUMA)
    goal, slopes = _edges(photo[window], near), _slopes(new)[:, near]
    if _steepest(slopes) > goal:
        low, high = 0.0, _BLUR_LIMIT * area.width
        for _ in range(6):
            sigma = (low + high) / 2
            steep = _steepest(_slopes(_blur(new, sigma))[:, near]) > goal
            low, high = (sigma, high) if steep else (low, sigma)
        return _blur(patch, high) if high > 0.35 else patch
    # unsharp masking moves edges by its own scale, so that scale follows the eye's size in the photo
    scale = max(0.6, 0.02 * area.width)
    sharper = slopes - _slopes(_blur(new, scale))[:, near]
    for amount in np.linspace(_SHARPEN_LIMIT, 0, 8)[:-1].tolist():
        if _steepest(slopes + np.float32(amount) * sharper) <= goal:
            return patch + np.float32(amount) * (patch - _blur(patch, scale))
    return patch


def _residual(image: np.ndarray) -> np.ndarray:
    return image - _blur(image, 1.2)


def _median(values: np.ndarray) -> float:
    """As np.median, for many numbers in half the time."""
    half = values.size // 2
    ordered = np.partition(values, half)
    return float(ordered[half] if values.size % 2 else (ordered[half] + ordered[:half].max()) / 2)


def _spread(values: np.ndarray) -> float:
    """A standard deviation that ignores edges and hairs."""
    return 1.4826 * _median(np.abs(values - np.float32(_median(values)))) if values.size else 0.0


def match_grain(
    patch: Float[np.ndarray, "h w 3"], photo: Float[np.ndarray, "h w 3"], area: EyeArea, seed: int = 0
) -> Float[np.ndarray, "h w 3"]:
    """The patch with as much fine grain as the photo's skin around the eye has. `seed` chooses the grain."""
    skin = (area.distance > _FULL) & (area.distance < _RING)
    grain, own = (_residual(cv2.transform(image, _MEAN)) for image in (photo, patch))
    missing = _spread(grain[skin]) ** 2 - _spread(own[skin]) ** 2
    if missing <= 0.05:  # under a quarter of a grey level nobody sees it
        return patch
    # how alike neighbouring pixels are tells how coarse the grain is: white noise here has -0.1, film or an
    # enlargement more
    alike = float(np.mean(grain[:, 1:] * grain[:, :-1])) / max(float(np.mean(grain**2)), 1e-6)
    noise = np.random.default_rng(seed).standard_normal(area.distance.shape).astype(np.float32)
    if alike > 0.1:
        noise = _blur(noise, 0.5 + 1.2 * min(alike, 0.8))
    noise = _residual(noise)
    return patch + (noise * (math.sqrt(missing) / max(_spread(noise.ravel()), 1e-6)))[..., None]


def paint_eyes(
    canvas: UInt8[np.ndarray, "H W 3"],
    areas: Sequence[EyeArea | None],
    patch: UInt8[np.ndarray, "S S 3"] | Float[np.ndarray, "S S 3"],
    matrices: Float[np.ndarray, "2 2 3"],
    strength: float = 1.0,
    seed: int = 0,
) -> None:
    """Pastes both eyes of `patch` into the areas of `canvas`, in place. Arguments as in `paste_eyes`."""
    if strength <= 0:
        return
    patch = patch.astype(np.float32, copy=False)
    photos = [None if area is None else canvas[area.window].astype(np.float32) for area in areas]
    for side, (area, photo) in enumerate(zip(areas, photos, strict=True)):
        if area is None or photo is None:
            continue
        to_area = compose(shifting(-area.x, -area.y), invert(matrices[side]))
        height, width = area.distance.shape
        corners = apply(
            compose(matrices[side], shifting(area.x, area.y)), np.array([[0, 0], [width, height]], np.float64)
        )
        if corners.max() < 0 or corners.min() > patch.shape[0]:
            continue
        new = warp(patch, to_area, (width, height))
        new = match_colour(new, photo, area)
        new = match_sharpness(new, photo, area)
        new = match_grain(new, photo, area, seed + side)
        weight = (strength * mask(area))[..., None]
        blended = np.clip(np.rint(photo + weight * (new - photo)), 0, 255).astype(np.uint8)
        target = canvas[area.window]
        np.copyto(target, blended, where=weight > 0)


def paste_eyes(
    pixels: UInt8[np.ndarray, "H W 3"],
    face: Face,
    patch: UInt8[np.ndarray, "S S 3"] | Float[np.ndarray, "S S 3"],
    matrix: Float[np.ndarray, "2 3"] | Float[np.ndarray, "2 2 3"],
    strength: float = 1.0,
    seed: int = 0,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the photo with both eyes taken from `patch`, an image of its crop under `matrix` (photo to crop
    pixels; or one for each eye, subject's left and right).

    `strength` 0..1 scales the masks; at 0 the photo comes back as it is.
    """
    result = pixels.copy()
    areas = [eye_area(face, side, pixels.shape[:2]) for side in (0, 1)]
    paint_eyes(result, areas, patch, np.broadcast_to(matrix, (2, 2, 3)), strength, seed)
    return result
