"""Where the eyes in an image look, read from its pixels: an independent check of gaze labels.

The iris is a dark disc on a ball whose centre is known. For many gaze directions the disc is laid over the eyeball
pixels of both eyes, and the direction with the greatest contrast between the disc and the ring around it wins. Only
eye centres, camera and part labels are used, never the gaze label. On synthetic heads at 256 pixels the median
error is 2.7 degrees.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rtgaze_jax.data.labels import head_gaze_vector, pixel_rays
from rtgaze_jax.data.record import PARTS

IRIS_ANGLE = np.radians(29.0)  # half the angle under which a ball's centre sees the iris
RING_ANGLE = np.radians(48.0)  # outer edge of the white around it
APPARENT_RADIUS = 0.93  # where the cornea's refraction makes the iris appear, in eyeball radii
EYE_RADIUS = 12.0 / 370.0  # of most people, world units
MIN_PIXELS = 24  # of an eye: fewer say nothing
MIN_SHARE = 0.0018  # of the image that an eye must cover: half of what an open one does in a frontal view
MIN_CONTRAST = 0.25  # of disc and ring, in standard deviations: less is a guess


class Reading(NamedTuple):
    """A gaze read from an image."""

    gaze: np.ndarray  # (pitch, yaw) in the head frame, radians
    support: float  # contrast at the direction that was asked about, as a share of the best contrast


def read_gaze(record: Mapping[str, Any], claim: np.ndarray) -> Reading | None:
    """The gaze that the drawn irises show, and how well a `claim` (pitch, yaw) fits; None if too hidden or faint."""
    eyes = _visible_eyes(record)
    if not eyes:
        return None
    middle, contrast = _search(eyes, np.zeros(2), np.radians(60), np.radians(3))
    if contrast < MIN_CONTRAST:
        return None
    best, contrast = _search(eyes, middle, np.radians(3), np.radians(0.5))
    _, claimed = _search(eyes, np.asarray(claim, np.float64), np.radians(4), np.radians(1))
    return Reading(best, claimed / contrast)


def _visible_eyes(record: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each eye that shows enough: directions [n, 3] from the centre to its pixels, and red values [n] of these."""
    red = record["image"][..., 0].astype(np.float64)  # in which blue irises are dark, too
    height, width = record["parts"].shape
    rays = pixel_rays(height, width, record["cam2world"], record["intrinsics"])
    enough = max(MIN_PIXELS, MIN_SHARE * red.size)
    eyes = []
    for part, center in zip((PARTS.left_eye, PARTS.right_eye), record["eye_centers"], strict=True):
        shown = record["parts"] == part
        if shown.sum() < enough:
            continue
        points, hit = _on_ball(rays[shown], record["cam2world"][:3, 3].astype(np.float64) - center)
        values = red[shown][hit]
        if len(values) >= enough / 2:
            # Highlights are brighter than any white of an eye: they must not outweigh it.
            values = np.minimum(values, np.percentile(values, 95))
            eyes.append((points[hit], (values - values.mean()) / max(values.std(), 1e-6)))
    return eyes


def _on_ball(rays: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays from `origin` (relative to the centre) meet the ball of the apparent iris: directions, and whether."""
    radius = APPARENT_RADIUS * EYE_RADIUS
    along = rays @ origin
    inside = along**2 - (origin @ origin - radius**2)
    points = origin - rays * (along + np.sqrt(np.maximum(inside, 0)))[:, None]
    return points / radius, inside > 0


def _search(eyes: list, middle: np.ndarray, reach: float, step: float) -> tuple[np.ndarray, float]:
    """The best (pitch, yaw) on a square grid around `middle`, and its contrast."""
    offsets = np.arange(-reach, reach + step / 2, step)
    candidates = middle + np.stack(np.meshgrid(offsets, offsets, indexing="ij"), -1).reshape(-1, 2)
    directions = head_gaze_vector(candidates)
    score = np.zeros(len(candidates))
    for points, values in eyes:
        cosine = points @ directions.T
        disc = cosine > np.cos(IRIS_ANGLE)
        ring = (cosine > np.cos(RING_ANGLE)) & ~disc
        n_disc, n_ring = disc.sum(0), ring.sum(0)
        contrast = values @ ring / np.maximum(n_ring, 1) - values @ disc / np.maximum(n_disc, 1)
        # A disc or ring of few pixels is easily all dark or all bright.
        score += contrast * np.sqrt(np.minimum(n_disc, n_ring) / len(values)) / len(eyes)
    best = score.argmax()
    return candidates[best], float(score[best])
