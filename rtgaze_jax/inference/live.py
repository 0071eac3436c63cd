"""Redirecting a stream of frames: of a video file or of a webcam.

A face is encoded again only when it looks different; as long as it merely moves, the last result moves with the
picture around the eyes. That saves most of the work on calm footage and keeps the result from trembling. A new result
replaces the last one gradually, because the network never paints quite the same eyes again.

What is to be done is decided here, frame after frame; doing it (repaint.py) need not wait for the next decision.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.inference import align
from rtgaze_jax.inference.gating import Gate, Schedule, angle_between, openness
from rtgaze_jax.inference.redirector import FADE, MAX_PITCH, MAX_YAW, Redirector, check_angles, ease
from rtgaze_jax.inference.registration import Anchor
from rtgaze_jax.inference.repaint import Key, Plan, Step
from rtgaze_jax.inference.saccades import LookAway
from rtgaze_jax.inference.tracking import Observation, OneEuro
from rtgaze_jax.inference.warp import compose, invert, scaling

_GLANCE = 32  # pixels: the size at which a crop is compared with the encoded one
_DIFFERENT = 5.0  # grey levels at any pixel of that: the face is encoded again at once,
_CHANGED, _PAUSE = 2.0, 0.05  # and for less when some seconds have passed since it was encoded
_LIDS = 0.05  # change of the lids' opening, in eye widths
_SAME_GAZE = 0.1  # degrees
_JUMP = 50.0  # degrees per second: a gaze that moves faster than this is to be seen at once,
_BLINK = 1.0  # eye widths per second: and so are lids
_CUT = 16.0  # grey levels between successive thumbnails, on average
_GAZE_FILTER = (1.0, 0.3)  # Hz, Hz per degree and second: the network's estimate of the gaze that is there
_PLACES = (np.mgrid[:_GLANCE, :_GLANCE] + 0.5) / _GLANCE - 0.5
_FACE = (_PLACES**2).sum(0) < 0.3**2  # the part of a crop that is compared


def _lids(seen: Observation) -> float:
    return (openness(seen.face, 0) + openness(seen.face, 1)) / 2


def _fades(last: Step | None, key: Key, gaze: tuple[float, float], time: float) -> bool:
    """Whether what the last frame showed is to fade, rather than to be replaced at once."""
    if last is None or angle_between(gaze, last.gaze) > _JUMP * max(time - last.time, 1e-3):
        return False
    return last.key is key or abs(key.lids - last.key.lids) <= _BLINK * max(key.time - last.key.time, 1e-3)


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


class _Person:
    """What is remembered of one followed face. last: None where the last frame left it alone."""

    def __init__(self, gate: Gate, gaze: OneEuro):
        self.gate, self.gaze = gate, gaze
        self.key: Key | None = None
        self.last: Step | None = None


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
        return self.plan(pixels, time, seen).finish()

    def plan(self, pixels: UInt8[np.ndarray, "H W 3"], time: float, seen: Sequence[Observation]) -> Plan:
        """What is to be done to the next frame with its observed faces; finish it to have the frame."""
        cut = self._is_cut(pixels)
        self._people = {
            o.identity: self._people.get(o.identity) or _Person(Gate(eager=cut), OneEuro(*_GAZE_FILTER)) for o in seen
        }
        self.counts["frames"] += 1
        steps = [step for step in (self._step(pixels, time, observation) for observation in seen) if step]
        self.counts["redirected"] += len(steps)
        self.counts["left"] += len(seen) - len(steps)
        return Plan(pixels, steps, self.counts["frames"])

    def _is_cut(self, pixels: np.ndarray) -> bool:
        """Whether a new shot begins: then faces need not come in smoothly."""
        new = cv2.resize(pixels, (16, 9), interpolation=cv2.INTER_AREA).astype(np.float32).mean(-1)
        old, self._thumbnail = self._thumbnail, new
        return old is None or float(np.abs(new - old).mean()) > _CUT

    def _step(self, pixels: np.ndarray, time: float, seen: Observation) -> Step | None:
        """What is to be done to one face, or None where it is left alone."""
        person = self._people[seen.identity]
        if seen.fresh:
            person.key = person.last = None
        goal = self._goal(seen.identity, time)
        key: Key | None = None

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
        image = self._render(key, (pitch, yaw))
        before = person.last if _fades(person.last, key, (pitch, yaw), time) else None
        person.last = Step(key, seen, (pitch, yaw), time, image, opacity, before)
        return person.last

    def _goal(self, identity: int, time: float) -> tuple[float, float]:
        """The gaze wanted of a face, degrees, within what the network can do."""
        away = LookAway(self.aim.look_away, self.aim.seed + identity).offset(time)
        trained = self._model.trained
        return ease(self.aim.pitch + away[0], trained[0]), ease(self.aim.yaw + away[1], trained[1])

    def _encode(self, person: _Person, pixels: np.ndarray, seen: Observation, time: float) -> Key:
        """The encoded face: the last one as long as it looks the same."""
        key = person.key
        if key is not None and abs(_lids(seen) - key.lids) < _LIDS:
            glance = self._glance(pixels, compose(key.crop_of_face, invert(seen.placement)))
            limit = _DIFFERENT if time - key.time < _PAUSE else _CHANGED
            if np.abs(glance - key.glance)[_FACE].max() < limit:
                return key
        network = self._model.network
        matrix = compose(scaling(network.size, network.size), seen.framing)
        crop = align.crop(pixels, matrix, network.size)
        features = network.encode(crop[None])
        # while the network works
        glance = self._glance(pixels, seen.framing)
        eyes = Anchor.make(crop, matrix, seen.face, 0), Anchor.make(crop, matrix, seen.face, 1)
        carried = compose(seen.framing, seen.placement)
        points = seen.points.astype(np.float32)[None]
        estimate = np.degrees(np.asarray(features["pose"]["gaze"])[0].astype(np.float64))
        pitch, yaw = person.gaze(estimate, time).tolist()
        person.key = Key(features, network.size, carried, points, glance, _lids(seen), (pitch, yaw), time, eyes)
        self.counts["encoded"] += 1
        return person.key

    def _glance(self, pixels: np.ndarray, framing: np.ndarray) -> Float[np.ndarray, "32 32"]:
        small = align.crop(pixels, compose(scaling(_GLANCE, _GLANCE), framing), _GLANCE)
        # without blur, half a pixel of motion at the hairline would count as much as a closing eye
        return cv2.GaussianBlur(small.astype(np.float32).mean(-1), (0, 0), 1.0)

    def _render(self, key: Key, gaze: tuple[float, float]) -> Any:
        """The face's crop with a gaze, degrees: u8[1, S, S, 3], perhaps still being computed; the last one if that is
        the same.
        """
        if key.image is None or key.gaze is None or angle_between(gaze, key.gaze) > _SAME_GAZE:
            wanted = np.radians(np.array([gaze], np.float32))
            key.image, key.gaze = self._model.network.look(key.features, wanted, key.points), gaze
            self.counts["rendered"] += 1
        return key.image
