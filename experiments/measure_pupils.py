"""Distance between drawn pupils and their labels, in pixels of 512 x 512 pictures taken with the usual lens.

  python experiments/measure_pupils.py [--eyes 500]

Validation people in flat light with plain grey irises, no hair and no glasses, so that the one dark disc is the pupil;
gaze and camera are random within what data sets hold. Eyes that lids or the nose cover in part are left out: there the
disc has another centre.
"""

import argparse
import dataclasses
import json

import numpy as np

from rtgaze_jax.data.heads import eyes
from rtgaze_jax.data.heads.capture import LANDMARKS, landmark_points, look_at
from rtgaze_jax.data.heads.light import Light
from rtgaze_jax.data.heads.people import sample_person
from rtgaze_jax.data.heads.renderer import Develop, Renderer
from rtgaze_jax.data.heads.scene import Scene
from rtgaze_jax.data.labels import project
from rtgaze_jax.data.record import PARTS

SIZE, FOCAL, SHOTS = 512, 4.2647, 4


def measure(renderer: Renderer, number: int) -> list[float]:
    """The errors of one person's readable eyes in SHOTS pictures."""
    rng = np.random.default_rng(number)
    person = sample_person("validation", number)
    iris = dataclasses.replace(person.iris, outer=(0.5,) * 3, inner=(0.5,) * 3, fibres=0.0, ring=0.0, pupil=0.4)
    person = dataclasses.replace(person, iris=iris, hair="", glasses=None)
    black = np.zeros((64, 128, 3), np.float32)
    flat = Light(black, np.ones((40, 3), np.float32), np.array([0, 0, 1.0]), np.zeros(3), 0.01, 3.14)
    scene = Scene(renderer, person, {}, 1.2)
    renderer.set_light(flat, black)
    scene.start()
    develop = Develop(np.ones(3) * 0.8, 0.0, 1.0, 0.0)
    intrinsics = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    errors = []
    for _ in range(SHOTS):
        gaze, view = rng.uniform((-12, -30), (20, 30)), rng.uniform(-30, 30)
        look = scene.look(eyes.converge(np.radians(gaze), scene.centers, 1.5))
        camera = look_at(np.radians(view), 0.05, 2.7, scene.centers.mean(0))
        image, parts, _ = renderer.draw(scene.items(), camera, intrinsics, develop, np.array([0, 0, 1.0, 1.0]))
        marks = project(landmark_points(scene, look, camera[:3, 3]), camera, intrinsics)[0] * SIZE
        for side in ("left", "right"):
            u, v = marks[LANDMARKS.index(f"{side}_eye_pupil")]
            inside = np.hypot(x - u, y - v) < 4.5
            if not (parts[inside] == PARTS[f"{side}_eye"]).all():
                continue
            dark = np.clip(60 - image.mean(-1), 0, None) * inside
            if dark.sum() > 0:
                errors.append(float(np.hypot((dark * x).sum() / dark.sum() - u, (dark * y).sum() / dark.sum() - v)))
    scene.release()
    return errors


def main() -> None:
    """Measures until enough eyes are read; prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eyes", type=int, default=500)
    wanted = parser.parse_args().eyes
    renderer, errors, number = Renderer(SIZE), [], 0
    with renderer.context:
        while len(errors) < wanted:
            errors += measure(renderer, number)
            number += 1
    found = {"eyes": len(errors), "people": number, "median_px": np.median(errors), "p95_px": np.percentile(errors, 95)}
    print(json.dumps({k: round(float(v), 3) for k, v in (found | {"max_px": max(errors)}).items()}))


if __name__ == "__main__":
    main()
