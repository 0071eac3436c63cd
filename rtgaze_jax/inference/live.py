"""Redirecting a stream of frames: of a video file or of a webcam.

A face is encoded again only when it looks different; as long as it merely moves, the last result moves with the
picture around the eyes. That saves most of the work on calm footage and keeps the result from trembling. A new result
replaces the last one gradually, because the network never paints quite the same eyes again.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.inference import align
from rtgaze_jax.inference.blend import eye_area, paste_eyes
from rtgaze_jax.inference.gating import Gate, Schedule, angle_between, openness
from rtgaze_jax.inference.redirector import FADE, MAX_PITCH, MAX_YAW, Redirector, check_angles, ease
from rtgaze_jax.inference.registration import Anchor
from rtgaze_jax.inference.saccades import LookAway
from rtgaze_jax.inference.tracking import Observation, OneEuro
from rtgaze_jax.inference.warp import apply, compose, invert, scaling, shifting, warp

_GLANCE = 32  # pixels: the size at which a crop is compared with the encoded one
_DIFFERENT = 5.0  # grey levels at any pixel of that: the face is encoded again at once,
_CHANGED, _PAUSE = 2.0, 0.05  # and for less when some seconds have passed since it was encoded
_LIDS = 0.05  # change of the lids' opening, in eye widths
_SAME_GAZE = 0.1  # degrees
_SETTLE = 0.16  # seconds, the time constant with which a new picture of the eyes replaces the last one
_JUMP = 50.0  # degrees per second: a gaze that moves faster than this is to be seen at once,
_BLINK = 1.0  # eye widths per second: and so are lids
_CUT = 16.0  # grey levels between successive thumbnails, on average
_GAZE_FILTER = (1.0, 0.3)  # Hz, Hz per degree and second: the network's estimate of the gaze that is there
_PLACES = (np.mgrid[:_GLANCE, :_GLANCE] + 0.5) / _GLANCE - 0.5
_FACE = (_PLACES**2).sum(0) < 0.3**2  # the part of a crop that is compared


def _lids(seen: Observation) -> float:
    return (openness(seen.face, 0) + openness(seen.face, 1)) / 2


def _difference(
    old: Float[np.ndarray, "S S 3"], matrix: np.ndarray, new: Float[np.ndarray, "S S 3"], eye: Anchor
) -> Float[np.ndarray, "h w 3"]:
    """What is to be added to an eye of the picture `new` to make it `old`, which `matrix` takes to it."""
    height, width = eye.area.distance.shape
    return warp(old, compose(eye.to_area, matrix), (width, height)) - new[eye.area.window]


@dataclasses.dataclass(frozen=True)
class Aim:
    """Where a video's faces are to look: pitch and yaw in degrees (camera frame), the strength of the correction over
    time, the share of time spent looking away, and the seed of those look-aways. Raises UserError beyond the limits.
    """

    pitch: float = 0.0
    yaw: float = 0.0
    strength: Schedule = dataclasses.field(default_factory=Schedule)
    look_away: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_angles("gaze", self.pitch, self.yaw, (MAX_PITCH, MAX_YAW))


@dataclasses.dataclass
class _Key:
    """The encoded picture of a face. crop_of_face: 2x3, the face's own frame to the unit crop. glance: f32, the small
    crop. lids: how far they are open. time: of the frame, seconds. eyes: where they are in it (None: not in it). image:
    the last result u8[S, S, 3], for `gaze`.
    """

    features: dict[str, Any]
    crop_of_face: np.ndarray
    points: jnp.ndarray
    glance: np.ndarray
    lids: float
    source: tuple[float, float]
    time: float
    eyes: tuple[Anchor | None, Anchor | None]
    gaze: tuple[float, float] | None = None
    image: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Shown:
    """What the last frame showed of a face. image: f32[S, S, 3], the key's crop with new eyes. left: by how much each
    eye's rectangle in it still differs from the network's (None: not at all).
    """

    key: _Key
    gaze: tuple[float, float]
    time: float
    image: np.ndarray
    left: tuple[np.ndarray | None, ...]


class _Person:
    """What is remembered of one followed face. last: None where the last frame left it alone."""

    def __init__(self, gate: Gate, gaze: OneEuro):
        self.gate, self.gaze = gate, gaze
        self.key: _Key | None = None
        self.last: _Shown | None = None


class LiveRedirector:
    """Redirects the tracked faces of successive frames.

    counts: frames seen, faces redirected, left alone (gated), encoded and rendered.
    """

    def __init__(self, model: Redirector, aim: Aim, state: Mapping[str, Any] | None = None):
        self._model, self.aim = model, aim
        self._people: dict[int, _Person] = {}
        self._thumbnail: np.ndarray | None = None  # of the last frame, to notice cuts
        self.counts = dict.fromkeys(("frames", "redirected", "left", "encoded", "rendered"), 0)
        if state:
            self.counts |= state["counts"]
            self._thumbnail = np.array(state["thumbnail"], np.float32)
            for identity, saved in state["people"].items():
                gaze = OneEuro(*_GAZE_FILTER, saved["gaze"])
                self._people[int(identity)] = _Person(Gate(state=saved["gate"]), gaze)

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as JSON values; forgets the encoded faces, so that going on and
        starting from the state are the same.
        """
        people = {}
        for identity, person in self._people.items():
            person.key = person.last = None
            people[str(identity)] = {"gate": person.gate.state(), "gaze": person.gaze.state()}
        thumbnail = None if self._thumbnail is None else self._thumbnail.tolist()
        return {"people": people, "counts": dict(self.counts), "thumbnail": thumbnail}

    def apply(
        self, pixels: UInt8[np.ndarray, "H W 3"], time: float, seen: Sequence[Observation]
    ) -> tuple[UInt8[np.ndarray, "H W 3"], list[tuple[slice, slice]]]:
        """The frame with its observed faces redirected, and the windows in which it changed (none: `pixels` itself)."""
        cut = self._is_cut(pixels)
        self._people = {
            o.identity: self._people.get(o.identity) or _Person(Gate(eager=cut), OneEuro(*_GAZE_FILTER)) for o in seen
        }
        self.counts["frames"] += 1
        result, windows = pixels, []
        for observation in seen:
            changed = self._apply_face(result, pixels, time, observation)
            if changed is None:
                self.counts["left"] += 1
                continue
            self.counts["redirected"] += 1
            result = changed
            for side in (0, 1):
                area = eye_area(observation.face, side, pixels.shape[:2])
                windows += [area.window] if area else []
        return result, windows

    def _is_cut(self, pixels: np.ndarray) -> bool:
        """Whether a new shot begins: then faces need not come in smoothly."""
        new = cv2.resize(pixels, (16, 9), interpolation=cv2.INTER_AREA).astype(np.float32).mean(-1)
        old, self._thumbnail = self._thumbnail, new
        return old is None or float(np.abs(new - old).mean()) > _CUT

    def _apply_face(self, canvas: np.ndarray, pixels: np.ndarray, time: float, seen: Observation) -> np.ndarray | None:
        """`canvas` with one face's eyes pasted in, or None where it is left alone."""
        person = self._people[seen.identity]
        if seen.fresh:
            person.key = person.last = None
        goal = self._goal(seen.identity, time)
        key: _Key | None = None

        def gap() -> float:
            nonlocal key
            key = self._encode(person, pixels, seen, time)
            return angle_between(goal, key.source)

        permission = person.gate.update(pixels, seen, time, gap)
        strength = permission.strength * self.aim.strength(time)
        opacity = permission.opacity * min(1.0, strength / FADE)
        if opacity <= 0 or key is None:
            person.last = None
            return None
        pitch, yaw = (source + strength * (g - source) for source, g in zip(key.source, goal, strict=True))
        image = self._render(key, (pitch, yaw)).astype(np.float32)
        matrices = self._matrices(key, seen, pixels)
        left = self._left(person.last, key, (pitch, yaw), image, matrices, seen, pixels, time)
        for eye, rest in zip(key.eyes, left, strict=True):
            if eye is not None and rest is not None:
                image[eye.area.window] += rest
        person.last = _Shown(key, (pitch, yaw), time, image, left)
        return paste_eyes(canvas, seen.face, image, matrices, opacity, seed=self.counts["frames"])

    def _left(
        self,
        last: _Shown | None,
        key: _Key,
        gaze: tuple[float, float],
        image: Float[np.ndarray, "S S 3"],
        matrices: Float[np.ndarray, "2 2 3"],
        seen: Observation,
        pixels: UInt8[np.ndarray, "H W 3"],
        time: float,
    ) -> tuple[np.ndarray | None, ...]:
        """What is left in this frame of what the last one showed, for each eye: to be added to the network's `image`.

        Without it irises would jump with each encoding, by what the network sees differently and by what the head has
        turned since the last one.
        """
        step = max(time - last.time, 1e-3) if last is not None else 0.0
        if last is None or angle_between(gaze, last.gaze) > _JUMP * step:
            return None, None
        left = last.left
        if last.key is not key:
            if abs(key.lids - last.key.lids) > _BLINK * max(key.time - last.key.time, 1e-3):
                return None, None
            before = self._matrices(last.key, seen, pixels)
            left = tuple(
                None if eye is None else _difference(last.image, compose(now, invert(then)), image, eye)
                for eye, now, then in zip(key.eyes, matrices, before, strict=True)
            )
        share = np.float32(np.exp(-step / _SETTLE))
        return tuple(None if rest is None else rest * share for rest in left)

    def _matrices(self, key: _Key, seen: Observation, pixels: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "2 2 3"]:
        """Photo pixels to pixels of the encoded crop, for each eye: carried along with the face, moved with the eye's
        landmarks, and then with the picture around the eye.

        A head that turns shifts its eyes against its face: without this they would jump whenever the face is encoded
        again.
        """
        size = self._model.network.size
        carried = compose(key.crop_of_face, invert(seen.placement))
        now = apply(invert(seen.framing), seen.points)
        then = apply(invert(carried), np.asarray(key.points[0], np.float64))
        moved = [compose(carried, shifting(*(then[side] - now[side]))) for side in (0, 1)]
        rough = [compose(scaling(size, size), matrix) for matrix in moved]
        return np.stack([m if eye is None else eye.place(pixels, m) for eye, m in zip(key.eyes, rough, strict=True)])

    def _goal(self, identity: int, time: float) -> tuple[float, float]:
        """The gaze wanted of a face, degrees, within what the network can do."""
        away = LookAway(self.aim.look_away, self.aim.seed + identity).offset(time)
        trained = self._model.trained
        return ease(self.aim.pitch + away[0], trained[0]), ease(self.aim.yaw + away[1], trained[1])

    def _encode(self, person: _Person, pixels: np.ndarray, seen: Observation, time: float) -> _Key:
        """The encoded face: the last one as long as it looks the same."""
        key = person.key
        to_face = invert(seen.placement)
        if key is not None:
            glance = self._glance(pixels, compose(key.crop_of_face, to_face))
            same_lids = abs(_lids(seen) - key.lids) < _LIDS
            limit = _DIFFERENT if time - key.time < _PAUSE else _CHANGED
            if same_lids and np.abs(glance - key.glance)[_FACE].max() < limit:
                return key
        network = self._model.network
        matrix = compose(scaling(network.size, network.size), seen.framing)
        crop = align.crop(pixels, matrix, network.size)
        features = network.encode(jnp.asarray(crop)[None])
        estimate = np.degrees(np.asarray(features["pose"]["gaze"][0], np.float64))
        pitch, yaw = person.gaze(estimate, time).tolist()
        points = jnp.asarray(seen.points, jnp.float32)[None]
        glance = self._glance(pixels, seen.framing)
        carried = compose(seen.framing, seen.placement)
        eyes = Anchor.make(crop, matrix, seen.face, 0), Anchor.make(crop, matrix, seen.face, 1)
        person.key = _Key(features, carried, points, glance, _lids(seen), (pitch, yaw), time, eyes)
        self.counts["encoded"] += 1
        return person.key

    def _glance(self, pixels: np.ndarray, framing: np.ndarray) -> Float[np.ndarray, "32 32"]:
        small = align.crop(pixels, compose(scaling(_GLANCE, _GLANCE), framing), _GLANCE)
        # without blur, half a pixel of motion at the hairline would count as much as a closing eye
        return cv2.GaussianBlur(small.astype(np.float32).mean(-1), (0, 0), 1.0)

    def _render(self, key: _Key, gaze: tuple[float, float]) -> UInt8[np.ndarray, "S S 3"]:
        """The face's crop with a gaze, degrees; the last one if that is the same."""
        pitch, yaw = gaze
        if key.image is None or key.gaze is None or angle_between((pitch, yaw), key.gaze) > _SAME_GAZE:
            network = self._model.network
            wanted = jnp.radians(jnp.array([[pitch, yaw]], jnp.float32))
            key.image = np.asarray(network.look(key.features, wanted, key.points)[0])
            key.gaze = (pitch, yaw)
            self.counts["rendered"] += 1
        return key.image
