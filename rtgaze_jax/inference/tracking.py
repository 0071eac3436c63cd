"""Following faces through a video without trembling.

Landmarks of single frames tremble by a fraction of a pixel. They are split into where the face is (a similarity) and
its shape in its own frame; each part goes through a one-euro filter (Casiez, Roussel, Vogel, CHI 2012), which smooths
what rests and lets pass what moves. Shape changes slowly, so it can be smoothed hard without the eyes lagging behind a
moving head.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.inference import align, mesh
from rtgaze_jax.inference.face import Face, find_faces, overlap, track_face
from rtgaze_jax.inference.warp import apply, compose, invert, scale_of, scaling

# pose, shape, and the shape that frames the crop: (lowest cutoff in Hz, Hz per unit of speed); face sizes and radians
_FILTERS = ((1.0, 100.0), (1.0, 12.0), (0.2, 1.0))
_SPEED_CUTOFF = 1.0  # Hz
_JUMP = 0.3  # face sizes in one frame: no head moves so, the picture was cut
_SEARCH_EVERY = 30  # frames between looks for further faces
_SEARCH_LOST = 5  # and where no face is followed
_NOSE_TIP = 1
_SAME = 0.3  # overlap of boxes above which two faces are one


class OneEuro:
    """The one-euro filter on arrays: a low pass whose cutoff rises with speed.

    cutoff: Hz at rest. beta: Hz per unit of speed. Speed is measured along the last axis of the values, so points
    [N, 2] are filtered each by its own speed.
    """

    def __init__(self, cutoff: float, beta: float, state: Mapping[str, Any] | None = None):
        self.cutoff, self.beta = cutoff, beta
        self._time = float(state["time"]) if state else 0.0
        self._value = np.array(state["value"], np.float64) if state else None
        self._speed = np.array(state["speed"], np.float64) if state else None

    def state(self) -> dict[str, Any] | None:
        """What the filter remembers, as JSON values; give it to the constructor to go on."""
        if self._value is None or self._speed is None:
            return None
        return {"time": self._time, "value": self._value.tolist(), "speed": self._speed.tolist()}

    def __call__(self, value: np.ndarray, time: float) -> np.ndarray:
        """The smoothed value at `time` (seconds, rising). The first value passes unchanged."""
        value = np.asarray(value, np.float64)
        if self._value is None or self._speed is None or time <= self._time:
            self._value, self._speed, self._time = value, np.zeros_like(value), time
            return value
        step = time - self._time
        self._speed = self._speed + _weight(_SPEED_CUTOFF, step) * ((value - self._value) / step - self._speed)
        speed = np.linalg.norm(self._speed, axis=-1, keepdims=True)
        self._value = self._value + _weight(self.cutoff + self.beta * speed, step) * (value - self._value)
        self._time = time
        return self._value


def _weight(cutoff: Any, step: float) -> Any:
    """The share of a new value in a first-order low pass of `cutoff` Hz after `step` seconds."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


def fit_similarity(source: Float[np.ndarray, "N 2"], target: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "4"]:
    """The similarity that takes source to target points best (least squares): x, y of the source's origin, log scale,
    angle (radians).
    """
    a, b = source.mean(0), target.mean(0)
    s, t = (source - a) @ (1, 1j), (target - b) @ (1, 1j)
    factor = np.vdot(s, t) / max(np.vdot(s, s).real, 1e-12)
    origin = (b @ (1, 1j)) - factor * (a @ (1, 1j))
    return np.array([origin.real, origin.imag, np.log(max(abs(factor), 1e-12)), np.angle(factor)])


def similarity_matrix(pose: Float[np.ndarray, "4"]) -> Float[np.ndarray, "2 3"]:
    """The 2x3 matrix of the similarity that `fit_similarity` describes."""
    x, y, log_scale, angle = pose
    c, s = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    """A followed face in one frame.

    identity: the same number as long as the face is followed. raw: as found in this frame alone. face: smoothed.
    placement: 2x3, from the face's own frame (one unit: the face's size when it was found) to photo pixels; what is
    fixed to the face has fixed coordinates there. framing: 2x3, photo to crop in units of the crop's side, riding on
    the placement. points: f64[2, 2], eyeballs in the crop, normalised. turn: degrees between the face's direction and
    the line to the camera. fresh: the face was not followed in the frame before.
    """

    identity: int
    raw: Face
    face: Face
    placement: Float[np.ndarray, "2 3"]
    framing: Float[np.ndarray, "2 3"]
    points: Float[np.ndarray, "2 2"]
    turn: float
    fresh: bool


class Track:
    """One face, smoothed from frame to frame."""

    def __init__(self, identity: int, face: Face):
        self.identity = identity
        self._begin(face)

    def _begin(self, face: Face) -> None:
        self.raw, self.fresh = face, True
        self._size = face.size  # the unit of everything below
        points = face.landmarks.astype(np.float64)
        self._reference = (points - points[: mesh.MESH_POINTS].mean(0)) / self._size
        self._pose, self._shape, self._framing = (OneEuro(*kind) for kind in _FILTERS)
        self._last = self._locate(face)

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as JSON values."""
        return {
            "identity": self.identity,
            "raw": {f.name: np.asarray(getattr(self.raw, f.name)).tolist() for f in dataclasses.fields(Face)},
            "size": self._size,
            "reference": self._reference.tolist(),
            "last": self._last.tolist(),
            "filters": [f.state() for f in (self._pose, self._shape, self._framing)],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Track":
        """The track that `state()` described."""
        raw = state["raw"]
        box, landmarks, z = (np.array(raw[name], np.float32) for name in ("box", "landmarks", "z"))
        track = cls(state["identity"], Face(box, float(raw["score"]), landmarks, z))
        track.fresh, track._size = False, state["size"]
        track._reference, track._last = np.array(state["reference"]), np.array(state["last"])
        filters = [OneEuro(*kind, saved) for kind, saved in zip(_FILTERS, state["filters"], strict=True)]
        track._pose, track._shape, track._framing = filters
        return track

    def _locate(self, face: Face) -> np.ndarray:
        """Where a face is, by all points above the tip of the nose: jaws and lips move on their own."""
        upper = np.flatnonzero(self._reference[: mesh.MESH_POINTS, 1] < self._reference[_NOSE_TIP, 1])
        return fit_similarity(self._reference[upper], face.landmarks[upper].astype(np.float64) / self._size)

    def update(self, face: Face, time: float) -> Observation:
        """The smoothed face, given this frame's, at `time` seconds."""
        pose = self._locate(face)
        if np.hypot(*(pose - self._last)[:2]) > _JUMP:
            self._begin(face)
            pose = self._locate(face)
        pose[3] = self._last[3] + (pose[3] - self._last[3] + np.pi) % (2 * np.pi) - np.pi  # passes 180 without a jump
        self.raw, self._last = face, pose
        scale = self._size * float(np.exp(pose[2]))
        own = apply(invert(self._matrix(pose)), face.landmarks.astype(np.float64))
        shape = np.concatenate([own, face.z[:, None].astype(np.float64) / scale], 1)
        placement = self._matrix(self._pose(pose, time))
        smoothed = _placed(face, self._shape(shape, time), placement)
        framing = align.crop_matrix(_placed(face, self._framing(shape, time), placement), 1)
        turn = np.degrees(np.arccos(np.clip(-align.facing(smoothed)[2], -1, 1)))
        points = align.eye_points(smoothed, framing, 1)
        fresh, self.fresh = self.fresh, False
        return Observation(self.identity, face, smoothed, placement, framing, points, float(turn), fresh)

    def _matrix(self, pose: np.ndarray) -> np.ndarray:
        return compose(scaling(self._size, self._size), similarity_matrix(pose))


def _placed(face: Face, shape: Float[np.ndarray, "478 3"], placement: Float[np.ndarray, "2 3"]) -> Face:
    """A face of a given shape (in its own frame) in the photo."""
    landmarks = apply(placement, shape[:, :2])
    outline = landmarks[: mesh.MESH_POINTS]
    box = np.concatenate([outline.min(0), outline.max(0)])
    z = shape[:, 2] * scale_of(placement)
    return Face(box.astype(np.float32), face.score, landmarks.astype(np.float32), z.astype(np.float32))


class Tracker:
    """Follows the faces of a video and chooses those that are wanted.

    choice: the number of one face by size, 1 the largest, or None for all. A chosen face stays the chosen one for as
    long as it is followed.
    """

    def __init__(self, choice: int | None = 1, state: Mapping[str, Any] | None = None):
        self._choice = choice
        self._tracks = [Track.from_state(s) for s in state["tracks"]] if state else []
        self._next: int = state["next"] if state else 0
        self._wait: int = state["wait"] if state else 0  # frames until the next look for further faces
        self._chosen: int | None = state["chosen"] if state else None

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as JSON values."""
        tracks = [track.state() for track in self._tracks]
        return {"tracks": tracks, "next": self._next, "wait": self._wait, "chosen": self._chosen}

    def update(self, pixels: UInt8[np.ndarray, "H W 3"], time: float) -> list[Observation]:
        """The wanted faces of the next frame, at `time` seconds."""
        found = [(track, track_face(pixels, track.raw)) for track in self._tracks]
        followed: list[tuple[Track, Face]] = []
        for track, face in found:
            if face is not None and not _known(face, [other for _, other in followed]):
                followed.append((track, face))
        self._wait -= 1
        if self._wait <= 0 or (not followed and self._tracks):
            for face in find_faces(pixels):
                if not _known(face, [other for _, other in followed]):
                    followed.append((Track(self._next, face), face))
                    self._next += 1
            self._wait = _SEARCH_EVERY if followed else _SEARCH_LOST
        self._tracks = [track for track, _ in followed]
        wanted = self._wanted(followed)
        observations = [track.update(face, time) for track, face in followed]
        return [o for o in observations if o.identity in wanted]

    def _wanted(self, followed: list[tuple[Track, Face]]) -> set[int]:
        identities = [track.identity for track, _ in sorted(followed, key=lambda pair: -pair[1].size)]
        if self._choice is None:
            return set(identities)
        if self._chosen not in identities:
            self._chosen = identities[self._choice - 1] if len(identities) >= self._choice else None
        return set() if self._chosen is None else {self._chosen}


def _known(face: Face, others: list[Face]) -> bool:
    return bool(others) and float(overlap(face.box, np.stack([o.box for o in others])).max()) > _SAME
