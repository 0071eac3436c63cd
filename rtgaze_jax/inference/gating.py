"""When to leave a face alone, and how to let go of it smoothly.

The network paints eyes wherever it is told to, so something else has to know when there are none: lids closed, a hand
before the face, a head turned away, a face too small. Both eyes are always treated alike: one redirected and one
original eye would squint.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.errors import UserError
from rtgaze_jax.inference import mesh
from rtgaze_jax.inference.face import Face
from rtgaze_jax.inference.tracking import Observation

# Each pair: nothing is done at the first value, everything at the second.
_TURN = (40.0, 32.0)  # degrees between the face and the camera
_EYE_WIDTH = (8.0, 12.0)  # pixels
_SCORE = (0.90, 0.97)  # the mesh network's belief in the face
_GAP = (45.0, 32.0)  # degrees between the wanted gaze and the estimated one: further away is meant
_OPENNESS, _OPENNESS_SHARE = (0.06, 0.11), (0.45, 0.65)  # lid distance over eye width; and against the usual one
_CONTRAST, _CONTRAST_SHARE = (0.40, 0.60), (0.38, 0.55)  # iris against white, log intensity; and against the usual one
_LIKENESS = (0.25, 0.50)  # correlation of the eye's surroundings with how they used to look

_RELEASE, _RETURN = 0.3, 0.5  # seconds for the whole way out of and back into redirection
_REOPEN = 0.08  # seconds to come back after a blink
_USUAL, _USUAL_SHUT = 2.0, 20.0  # seconds in which "usual" follows falling values, of visible eyes and of others
_LEARN = 1.5  # seconds in which the picture of the surroundings is learned anew

_PATCH = (48, 32)  # an eye, upright and two thirds of the picture wide
_PATCH_EYE = 32.0


def ramp(value: float, ends: tuple[float, float]) -> float:
    """0 at the first end, 1 at the second, smooth between, constant beyond. The ends may fall."""
    x = min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _ellipse(width: float, height: float) -> np.ndarray:
    y, x = np.mgrid[: _PATCH[1], : _PATCH[0]] + 0.5
    return ((x - _PATCH[0] / 2) / width) ** 2 + ((y - _PATCH[1] / 2) / height) ** 2 < 1


_AROUND = _ellipse(23, 15.5) & ~_ellipse(17, 8)


def eye_patch(pixels: UInt8[np.ndarray, "H W 3"], face: Face, side: int) -> Float[np.ndarray, "32 48"]:
    """Log intensity of one eye (0 subject's left, 1 right), upright, the corners 32 of 48 pixels apart."""
    outer, inner = face.landmarks[list(mesh.EYE_CORNERS[side])].astype(np.float64)
    left, right = (inner, outer) if side == 0 else (outer, inner)
    across = (right - left) / max(float(np.linalg.norm(right - left)), 1e-6) ** 2 * _PATCH_EYE
    turn = np.array([[across[0], across[1]], [-across[1], across[0]]])
    centre = np.array(_PATCH) / 2 - turn @ ((left + right) / 2) - 0.5
    # the picture is small, so a large eye is reduced first: one pixel in many would be noise
    matrix = np.concatenate([turn, centre[:, None]], 1)
    finer = max(1, min(8, round(1 / max(float(np.hypot(*across)), 1e-3))))
    size = (_PATCH[0] * finer, _PATCH[1] * finer)
    fine = cv2.warpAffine(pixels, matrix * finer, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(fine, _PATCH, interpolation=cv2.INTER_AREA) if finer > 1 else fine
    return np.log(small.astype(np.float64) + 10).mean(-1)


def iris_contrast(patch: Float[np.ndarray, "32 48"]) -> float:
    """How much the columns through the middle of an eye differ: iris against white, about 1 to 1.7 for open eyes, under
    0.5 for closed lids, 0 for a hand, a bar or a blank.
    """
    columns = patch[12:20, 10:38].mean(0)
    return float(columns.max() - columns.min())


def openness(face: Face, side: int) -> float:
    """The distance of the lids over that of the corners of one eye; about 0.2 to 0.4 when open."""
    upper, lower = face.landmarks[list(mesh.EYE_LIDS[side])]
    outer, inner = face.landmarks[list(mesh.EYE_CORNERS[side])]
    return float(np.linalg.norm(upper - lower) / max(float(np.linalg.norm(outer - inner)), 1e-6))


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two flat pictures; featureless ones are like nothing."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 1e-3 * len(a) else 0.0


@dataclasses.dataclass(frozen=True)
class Permission:
    """How far a frame's face may be changed. strength: of the correction, 0..1. opacity: of the new eyes, 0..1."""

    strength: float
    opacity: float


class Gate:
    """Decides for one followed face, frame by frame.

    eager: begin with full strength (the first frame of a video) rather than come in smoothly.
    """

    def __init__(self, eager: bool = True, state: Mapping[str, Any] | None = None):
        saved = state or {}
        self._time: float | None = saved.get("time")
        self._strength: float | None = saved.get("strength", None if eager else 0.0)
        self._visible: float = saved.get("visible", 1.0)
        self._usual = np.array(saved.get("usual", [[0.0, 0.0], [0.0, 0.0]]))  # openness, contrast; per eye
        self._around = None if saved.get("around") is None else np.array(saved["around"])

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as JSON values."""
        around = None if self._around is None else self._around.tolist()
        kept = {"time": self._time, "strength": self._strength, "visible": self._visible}
        return kept | {"usual": self._usual.tolist(), "around": around}

    def update(
        self, pixels: UInt8[np.ndarray, "H W 3"], seen: Observation, time: float, gap: Callable[[], float]
    ) -> Permission:
        """What may be done to the face in this frame.

        gap: tells the degrees between the wanted gaze and the one the face has; only asked where it matters.
        """
        step = max(time - self._time, 1e-3) if self._time is not None else 0.0
        self._time = time
        visible = self._see(pixels, seen, step)
        self._visible = min(visible, self._visible + step / _REOPEN) if step else visible
        width = min(np.linalg.norm(np.subtract(*seen.raw.landmarks[list(c)])) for c in mesh.EYE_CORNERS)
        # what the picture itself moves smoothly may act at once; the rest is slowed down below
        at_once = min(ramp(seen.turn, _TURN), ramp(float(width), _EYE_WIDTH), ramp(seen.raw.score, _SCORE))
        goal = min(at_once, ramp(gap(), _GAP)) if at_once > 0 and self._visible > 0 else at_once
        if self._strength is None:
            self._strength = goal
        elif goal < self._strength:
            self._strength = max(goal, self._strength - step / _RELEASE)
        else:
            self._strength = min(goal, self._strength + step / _RETURN)
        self._strength = min(self._strength, at_once)
        return Permission(self._strength, self._visible)

    def _see(self, pixels: np.ndarray, seen: Observation, step: float) -> float:
        """How well both eyes can be seen, 0..1: the worse one counts."""
        patches = [eye_patch(pixels, seen.raw, side) for side in (0, 1)]
        values = np.array([(openness(seen.raw, side), iris_contrast(patches[side])) for side in (0, 1)])
        # what is usual for this person rises at once and falls slowly, so blinks do not lower it
        decay = np.exp(-step / (_USUAL if self._visible > 0.5 else _USUAL_SHUT))
        self._usual = np.maximum(values, self._usual * decay + values * (1 - decay))
        share = values / np.maximum(self._usual, 1e-6)
        limits = ((_OPENNESS, _OPENNESS_SHARE), (_CONTRAST, _CONTRAST_SHARE))
        visible = min(
            min(ramp(values[side, i], limits[i][0]), ramp(share[side, i], limits[i][1]))
            for side in (0, 1)
            for i in (0, 1)
        )
        around = np.stack([patch[_AROUND] for patch in patches])
        around -= around.mean(1, keepdims=True)
        if self._around is None or not step or seen.fresh:
            self._around = around if visible > 0.5 or self._around is None else self._around
            return visible
        like = min(_likeness(new, old) for new, old in zip(around, self._around, strict=True))
        if visible > 0.5:  # what covers an eye teaches nothing about it; what stays beside an open eye belongs to it
            self._around += (1 - np.exp(-step / _LEARN)) * (around - self._around)
        return min(visible, ramp(like, _LIKENESS))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Strength over time: straight lines between (seconds, strength) pairs, constant before and after."""

    points: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def __call__(self, time: float) -> float:
        """The strength at `time` seconds."""
        times, strengths = zip(*self.points, strict=True)
        return float(np.interp(time, times, strengths))

    @classmethod
    def constant(cls, strength: float) -> "Schedule":
        """The same strength all the time. Raises UserError unless it is from 0 to 1."""
        if not 0 <= strength <= 1:
            raise UserError("strength must be a number from 0 to 1")
        return cls(((0.0, strength),))

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """From "0.8", or "0:0,2:1,30:0.5" (SECONDS:STRENGTH,...). Raises UserError."""
        points = []
        try:
            for part in text.split(","):
                before, colon, after = part.partition(":")
                points.append((float(before), float(after)) if colon else (0.0, float(before)))
        except ValueError:
            points = []
        times = [time for time, _ in points]
        ordered = all(a < b for a, b in itertools.pairwise(times))
        if not points or not ordered or any(not (0 <= t < 1e6 and 0 <= s <= 1) for t, s in points):
            raise UserError(
                f"--strength takes a number from 0 to 1, or SECONDS:STRENGTH,... with rising seconds, not '{text}'"
            )
        return cls(tuple(points))


def angle_between(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Degrees between two gazes (pitch, yaw), degrees."""
    vectors = []
    for pitch, yaw in (np.radians(a), np.radians(b)):
        vectors.append(np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)]))
    return float(np.degrees(np.arccos(np.clip(vectors[0] @ vectors[1], -1, 1))))
