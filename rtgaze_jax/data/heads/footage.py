"""Footage of one synthetic person: a picture per frame, with the gaze, the lids and the camera of that moment.

The labels are exact, so footage measures what moves too much, too late or not at all.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from rtgaze_jax.data.heads import eyes
from rtgaze_jax.data.heads.camera_response import make_develop
from rtgaze_jax.data.heads.capture import FOCAL, RADIUS, backdrop_window, landmark_points, look_at
from rtgaze_jax.data.heads.light import make_background, make_light
from rtgaze_jax.data.heads.people import sample_person
from rtgaze_jax.data.heads.renderer import Renderer
from rtgaze_jax.data.heads.scene import Scene
from rtgaze_jax.data.labels import camera_gaze, head_gaze_vector, project

TARGET_DISTANCE = 2.7  # of the point looked at, world units (1 m)


@dataclasses.dataclass(frozen=True)
class Moment:
    """What one frame shows.

    gaze: (pitch, yaw) in the head frame, radians. view: (yaw, pitch) of the camera around the head, radians (yaw to
    +x, pitch up). opening: of the lids, 1 as the person has them, 0 closed. roll: of the camera, radians. target: the
    point the camera looks at, world units.
    """

    gaze: tuple[float, float] = (0.0, 0.0)
    view: tuple[float, float] = (0.0, 0.0)
    opening: float = 1.0
    roll: float = 0.0
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Shot:
    """One frame. image: u8[S, S, 3], noise-free. gaze: (pitch, yaw) as its camera sees it, radians. landmarks:
    f32[L, 2], normalised, in the order of capture.LANDMARKS.
    """

    image: np.ndarray
    gaze: np.ndarray
    landmarks: np.ndarray


def render_footage(
    renderer: Renderer,
    split: str,
    person: int,
    moments: Iterable[Moment],
    capture: int = 0,
    expression: dict[str, float] | None = None,
) -> Iterator[Shot]:
    """Draws a person, one frame per moment, under one light. Deterministic in (split, person, capture, moments)."""
    who = sample_person(split, person)
    rng = np.random.default_rng([who.seed, 5, capture])
    light = make_light(rng)
    background = make_background(rng, light)
    develop = make_develop(rng, light, augment=False)
    with renderer.context:
        scene = Scene(renderer, who, expression or {}, who.opening)
        try:
            renderer.set_light(light, background)
            scene.start()
            for moment in moments:
                scene.opening = who.opening * moment.opening
                look = scene.look(eyes.converge(np.asarray(moment.gaze), scene.centers, TARGET_DISTANCE))
                camera = look_at(*moment.view, RADIUS, np.asarray(moment.target), moment.roll)
                intrinsics = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1.0]])
                image = renderer.draw(scene.items(), camera, intrinsics, develop, backdrop_window(camera))[0]
                marks = project(landmark_points(scene, look, camera[:3, 3]), camera, intrinsics)[0]
                gaze = camera_gaze(head_gaze_vector(np.asarray(moment.gaze)), camera)
                yield Shot(image, np.asarray(gaze), marks.astype(np.float32))
        finally:
            scene.release()
