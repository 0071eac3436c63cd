"""The second half of redirecting a frame: finding the eyes, letting the last picture of them fade, pasting.

Everything was decided before (live.py) and the network works already, so frames can go through here side by side. Only
the fading needs what the frame before has shown, and waits for it.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.inference.blend import eye_area, paint_eyes
from rtgaze_jax.inference.registration import Anchor
from rtgaze_jax.inference.tracking import Observation
from rtgaze_jax.inference.warp import apply, compose, invert, scaling, shifting, warp

_SETTLE = 0.16  # seconds, the time constant with which a new picture of the eyes replaces the last one


@dataclasses.dataclass
class Key:
    """The encoded picture of a face. size: of its crop, pixels. crop_of_face: 2x3, the face's own frame to the unit
    crop. points: f32[1, 2, 2], eyeballs. glance: f32, the small crop. lids: how far they are open. source: its own
    gaze, degrees. time: of the frame, seconds. eyes: where they are in it (None: not in it). image: the last result
    u8[1, S, S, 3], perhaps still being computed, for `gaze`.
    """

    features: dict[str, Any]
    size: int
    crop_of_face: np.ndarray
    points: np.ndarray
    glance: np.ndarray
    lids: float
    source: tuple[float, float]
    time: float
    eyes: tuple[Anchor | None, Anchor | None]
    gaze: tuple[float, float] | None = None
    image: Any = None

    def matrices(self, seen: Observation, pixels: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "2 2 3"]:
        """Photo pixels to pixels of the encoded crop, for each eye: carried along with the face, moved with the eye's
        landmarks, and then with the picture around the eye.

        A head that turns shifts its eyes against its face: without this they would jump whenever the face is encoded
        again.
        """
        carried = compose(self.crop_of_face, invert(seen.placement))
        now = apply(invert(seen.framing), seen.points)
        then = apply(invert(carried), self.points[0].astype(np.float64))
        moved = [compose(carried, shifting(*(then[side] - now[side]))) for side in (0, 1)]
        rough = [compose(scaling(self.size, self.size), matrix) for matrix in moved]
        return np.stack([m if eye is None else eye.place(pixels, m) for eye, m in zip(self.eyes, rough, strict=True)])


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """What a frame shows of a face. image: f32[S, S, 3], the key's crop with new eyes. left: by how much each eye's
    rectangle in it still differs from the network's (None: not at all).
    """

    image: Float[np.ndarray, "S S 3"]
    left: tuple[np.ndarray | None, ...]


@dataclasses.dataclass(eq=False)
class Step:
    """What is to be done to one face of a frame. gaze: degrees. image: u8[1, S, S, 3], the key's crop with its eyes at
    that gaze, perhaps still being computed. before: the step of the frame before, if what it has shown is to fade.
    shown: what this one shows, once it is known.
    """

    key: Key
    seen: Observation
    gaze: tuple[float, float]
    time: float
    image: Any
    opacity: float
    before: "Step | None"
    shown: Future[Shown] = dataclasses.field(default_factory=Future)

    def paint(self, canvas: UInt8[np.ndarray, "H W 3"], pixels: UInt8[np.ndarray, "H W 3"], seed: int) -> list[Any]:
        """Pastes the eyes into `canvas`, a copy of the frame's `pixels`; returns the windows in which it changed."""
        matrices = self.key.matrices(self.seen, pixels)
        shown = self._settle(matrices, pixels)
        self.shown.set_result(shown)
        areas = [eye_area(self.seen.face, side, pixels.shape[:2]) for side in (0, 1)]
        paint_eyes(canvas, areas, shown.image, matrices, self.opacity, seed)
        return [area.window for area in areas if area]

    def _settle(self, matrices: Float[np.ndarray, "2 2 3"], pixels: UInt8[np.ndarray, "H W 3"]) -> Shown:
        """The network's picture, and what is left in it of what the last frame showed.

        Without that irises would jump with each encoding, by what the network sees differently and by what the head
        has turned since the last one.
        """
        before, self.before = self.before, None  # or all frames back to the first would be kept
        other = None if before is None or before.key is self.key else before.key.matrices(self.seen, pixels)
        image = np.asarray(self.image)[0].astype(np.float32)
        if before is None:
            return Shown(image, (None, None))
        last = before.shown.result()
        left = last.left
        if other is not None:
            left = tuple(
                None if eye is None else _difference(last.image, compose(now, invert(then)), image, eye)
                for eye, now, then in zip(self.key.eyes, matrices, other, strict=True)
            )
        share = np.float32(np.exp(-max(self.time - before.time, 1e-3) / _SETTLE))
        left = tuple(None if rest is None else rest * share for rest in left)
        for eye, rest in zip(self.key.eyes, left, strict=True):
            if eye is not None and rest is not None:
                image[eye.area.window] += rest
        return Shown(image, left)


def _difference(
    old: Float[np.ndarray, "S S 3"], matrix: np.ndarray, new: Float[np.ndarray, "S S 3"], eye: Anchor
) -> Float[np.ndarray, "h w 3"]:
    """What is to be added to an eye of the picture `new` to make it `old`, which `matrix` takes to it."""
    height, width = eye.area.distance.shape
    return warp(old, compose(eye.to_area, matrix), (width, height)) - new[eye.area.window]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is to be done to one frame, once. seed: chooses the grain. Frames may be finished side by side, in threads,
    but begun in their order: each waits for what the one before has shown.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    steps: Sequence[Step]
    seed: int

    def finish(self) -> tuple[UInt8[np.ndarray, "H W 3"], list[tuple[slice, slice]]]:
        """The frame with new eyes, and the windows in which it changed (none: the frame itself)."""
        if not self.steps:
            return self.pixels, []
        canvas = self.pixels.copy()
        try:
            windows = [window for step in self.steps for window in step.paint(canvas, self.pixels, self.seed)]
        except BaseException as error:
            for step in self.steps:  # the next frame waits for an answer
                if not step.shown.done():
                    step.shown.set_exception(error)
            raise
        return canvas, windows
