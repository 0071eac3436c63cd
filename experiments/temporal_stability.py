"""How steady and how right is redirected video? Synthetic people with known gaze, told to look into the camera.

  python experiments/temporal_stability.py --json experiments/results/temporal_stability.json
  python experiments/temporal_stability.py --weights W.safetensors --people 4 --frames 75 --estimator E.safetensors

Three ways of treating the same footage (sensor noise added) are compared:
  nothing    the footage as it is
  per frame  each frame on its own, as a photo
  video      tracking, smoothing, reuse and gating, as `rtgaze video` does

  error      degrees between the gaze and the camera, by the gaze estimator, median over frames (if one is given)
  jitter     of the irises in the exactly known frame of the head: root mean square of second differences, in
             thousandths of the eyes' distance. Measured by laying each iris on that of the next frame (iris_motion.py);
             "nothing" shows the measurement's own noise, since the true pupils hardly tremble ("true pupils")
  landmarks  the same by the iris landmark network, whose own noise is far larger
  added      jitter beyond that of "nothing", in squares: what the treatment itself adds
  flicker    mean absolute second difference of grey levels around the eyes, head motion removed
Frames in which the eyes are jumping or lids are moving in the source are left out of jitter and flicker.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from iris_motion import iris_step

from rtgaze_jax.data.heads.capture import LANDMARKS
from rtgaze_jax.data.heads.footage import Moment, Shot, render_footage
from rtgaze_jax.data.heads.renderer import Renderer
from rtgaze_jax.files import write_bytes
from rtgaze_jax.inference import align, mesh
from rtgaze_jax.inference.face import Face, find_faces, track_face
from rtgaze_jax.inference.live import Aim, LiveRedirector
from rtgaze_jax.inference.redirector import Redirector, load
from rtgaze_jax.inference.tracking import Tracker, fit_similarity, similarity_matrix
from rtgaze_jax.inference.warp import apply, compose, invert, scaling

RATE = 25
NOISE = 2.5  # grey levels
_EYES = (64, 32)  # the picture of both eyes in which flicker is measured


def performance(frames: int, seed: int) -> tuple[list[Moment], np.ndarray]:
    """A head that sways gently and eyes that jump every second; which frames have still eyes, bool[frames]."""
    random = np.random.default_rng([seed, 12])
    moments, still, gaze = [], np.ones(frames, bool), np.zeros(2)
    for i in range(frames):
        t = i / RATE
        if i % RATE == 0:
            gaze = np.radians(random.uniform((-10, -20), (10, 20)))
            still[max(i - 1, 0) : i + 2] = False
        view = np.radians((9 * np.sin(1.1 * t + seed), 3 * np.sin(0.9 * t)))
        shift = (0.015 * np.sin(0.8 * t), 0.01 * np.sin(1.2 * t), 0.0)
        moments.append(Moment(tuple(gaze.tolist()), tuple(view.tolist()), 1.0, 0.05 * np.sin(0.7 * t), shift))
    return moments, still


def per_frame(model: Redirector, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Each frame as a photo of its own; frames without a face stay."""
    results = []
    for pixels in frames:
        faces = find_faces(pixels)
        if not faces:
            results.append(pixels)
            continue
        photo, found = model.find(pixels)
        results.append(model.encode_found(photo, found[0]).look_at("camera").image)
    return results


def as_video(model: Redirector, frames: list[np.ndarray]) -> list[np.ndarray]:
    """The frames as `rtgaze video` treats them."""
    tracker, live = Tracker(), LiveRedirector(model, Aim())
    return [live.apply(f, i / RATE, tracker.update(f, i / RATE))[0] for i, f in enumerate(frames)]


def placements(shots: list[Shot]) -> list[np.ndarray]:
    """For each frame the 2x3 map from photo pixels to the head's own frame (unit: the distance of the eyes' outer
    corners), from the exact places of points that neither gaze nor lids move.
    """
    rigid = [i for i, name in enumerate(LANDMARKS) if not name.endswith(("upper", "lower", "pupil")) or "lip" in name]
    points = [shot.landmarks[rigid].astype(np.float64) * shot.image.shape[0] for shot in shots]
    corners = [LANDMARKS.index(f"{side}_eye_outer") for side in ("left", "right")]
    size = float(np.linalg.norm(np.subtract(*shots[0].landmarks[corners]))) * shots[0].image.shape[0]
    reference = (points[0] - points[0].mean(0)) / size
    poses = [fit_similarity(reference, p / size) for p in points]
    return [invert(compose(scaling(size, size), similarity_matrix(pose))) for pose in poses]


def second_differences(values: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Second differences along time where all three frames are still."""
    usable = still[:-2] & still[1:-1] & still[2:]
    return np.diff(values, 2, axis=0)[usable]


def trembling(second: np.ndarray) -> float:
    """Root mean square of second differences [..., 2], in thousandths."""
    return float(1000 * np.sqrt((second**2).sum(-1).mean()))


def steps(frames: list[np.ndarray], maps: list[np.ndarray], rough: np.ndarray) -> np.ndarray:
    """How far each iris moves in the head between successive frames, f64[F - 1, 2, 2]. rough: places [F, 2, 2]."""
    pairs = zip(itertools.pairwise(frames), itertools.pairwise(maps), (rough[1:] + rough[:-1]) / 2, strict=True)
    return np.array([[iris_step(two, to_head, place) for place in places] for two, to_head, places in pairs])


def true_jitter(shots: list[Shot], maps: list[np.ndarray], still: np.ndarray) -> float:
    """Jitter of the rendered pupils, whose places are known."""
    pupils = [LANDMARKS.index(f"{side}_eye_pupil") for side in ("left", "right")]
    size = shots[0].image.shape[0]
    places = [apply(m, shot.landmarks[pupils].astype(np.float64) * size) for m, shot in zip(maps, shots, strict=True)]
    return trembling(second_differences(np.array(places), still))


def measure(
    frames: list[np.ndarray], maps: list[np.ndarray], still: np.ndarray, estimate: Callable | None
) -> dict[str, float]:
    """The figures of one treatment of one take."""
    irises, eyes, errors = [], [], []
    face: Face | None = None
    for pixels, to_head in zip(frames, maps, strict=True):
        face = (face and track_face(pixels, face)) or find_faces(pixels)[0]
        irises.append(apply(to_head, face.landmarks[list(mesh.IRIS_CENTRES)].astype(np.float64)))
        if not eyes:  # the window in the head's frame is fixed by the first frame
            centre = apply(to_head, align.corner_midpoints(face)).mean(0)
        window = compose(
            scaling(*_EYES), np.array([[1.25, 0, 0.5 - 1.25 * centre[0]], [0, 2.5, 0.5 - 2.5 * centre[1]]])
        )
        small = cv2.warpAffine(pixels, compose(window, to_head), _EYES, flags=cv2.INTER_AREA)
        eyes.append(cv2.GaussianBlur(small.astype(np.float32).mean(-1), (0, 0), 0.7))
        if estimate is not None:
            errors.append(estimate(pixels, face))
    usable = still[:-2] & still[1:-1] & still[2:]
    found = {
        "jitter": trembling(np.diff(steps(frames, maps, np.array(irises)), axis=0)[usable]),
        "landmarks": trembling(second_differences(np.array(irises), still)),
        "flicker": float(np.abs(second_differences(np.array(eyes), still)).mean()),
    }
    return found | ({"error": float(np.median(errors))} if errors else {})


def gaze_error(path: str | None) -> Callable:
    """A function (pixels, face) -> degrees between the estimated gaze and the camera."""
    from rtgaze_jax.evaluation.gaze import load_estimator

    estimator = load_estimator(path)

    def estimate(pixels: np.ndarray, face: Face) -> float:
        size = 512
        matrix = align.crop_matrix(face, size)
        crop = align.crop(pixels, matrix, size)
        gaze = estimator(crop[None], align.eye_points(face, matrix, size)[None].astype(np.float32))["gaze"][0]
        return float(np.degrees(np.arccos(np.clip(-gaze[2] / np.linalg.norm(gaze), -1, 1))))

    return estimate


def main() -> None:
    """Renders, redirects, measures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="weights file (default: the shipped ones)")
    parser.add_argument("--estimator", help="gaze estimator's file, 'shipped', or 'none' (default)", default="none")
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    estimate = None if args.estimator == "none" else gaze_error(None if args.estimator == "shipped" else args.estimator)
    print(json.dumps(run(load(args.weights), args, estimate), indent=1))


def run(model: Redirector, args: argparse.Namespace, estimate: Callable | None) -> dict:
    """All people; returns {treatment: {figure: mean over people}}."""
    renderer = Renderer(args.resolution)
    rows: dict[str, list[dict[str, float]]] = {"nothing": [], "per frame": [], "video": []}
    truth = []
    for person in range(args.people):
        moments, still = performance(args.frames, person)
        shots = list(render_footage(renderer, "test", 100 + person, moments))
        random = np.random.default_rng([person, 13])
        frames = [np.clip(s.image + random.normal(0, NOISE, s.image.shape), 0, 255).astype(np.uint8) for s in shots]
        maps = placements(shots)
        truth.append(true_jitter(shots, maps, still))
        for name, treated in (
            ("nothing", frames),
            ("per frame", per_frame(model, frames)),
            ("video", as_video(model, frames)),
        ):
            rows[name].append(measure(treated, maps, still, estimate))
            print(f"person {person}, {name}: {rows[name][-1]}", flush=True)
    means = {name: {k: float(np.mean([r[k] for r in found])) for k in found[0]} for name, found in rows.items()}
    floor = means["nothing"]["jitter"]
    for figures in means.values():
        figures["added"] = float(np.sqrt(max(figures["jitter"] ** 2 - floor**2, 0.0)))
    means["true pupils"] = {"jitter": float(np.mean(truth))}
    if args.json:
        settings = {"people": args.people, "frames": args.frames, "resolution": args.resolution, "noise": NOISE}
        write_bytes(args.json, json.dumps({"settings": settings, "mean": means, "people": rows}, indent=1).encode())
    return means


if __name__ == "__main__":
    main()
