"""How far irises move when the gaze does, read by a face tracker that was not trained here (MediaPipe's networks).

  python experiments/measure_response.py --data DIR          # rendered people: label against tracker
  python experiments/measure_response.py PHOTO...            # redirected photos: what was asked for against tracker

The reading: both irises' mean offset from the middle of the eye corners, along and across the line between them, in eye
widths. On two real people with fixed heads and known gaze it moved by 0.285 per sin(yaw) and 0.14 per sin(pitch).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from rtgaze_jax.inference import mesh
from rtgaze_jax.inference.face import find_faces

PERSON = np.array([0.14, 0.285])  # eye widths per sine of pitch, yaw
YAWS, PITCHES = (-20, -10, 0, 10, 20), (-12, 0, 12)
NEAR_FRONTAL = np.radians(20.0)


def read(image: np.ndarray) -> np.ndarray | None:
    """(up, to the image's left) offset of the irises in eye widths; None without a face."""
    faces = find_faces(image)
    if not faces:
        return None
    points, offsets = faces[0].landmarks, []
    for corners, iris in zip(mesh.EYE_CORNERS, mesh.IRIS_CENTRES, strict=True):
        left, right = sorted((points[i] for i in corners), key=lambda p: p[0])
        width = np.linalg.norm(right - left)
        along = (right - left) / width
        away = points[iris] - (left + right) / 2
        offsets.append((-(away @ (-along[1], along[0])) / width, -(away @ along) / width))
    return np.mean(offsets, 0)


def measure_data(directory: str) -> dict[str, object]:
    """Share of near-frontal pictures with a face; slope and correlation of reading against label."""
    from rtgaze_jax.data.record import decode
    from rtgaze_jax.data.storage import RecordSource, only_split

    source = RecordSource(directory, only_split(directory, None))
    near = [r for r in map(decode, source) if np.abs(r["head_pose"]).max() < NEAR_FRONTAL]
    readings = [read(r["image"]) for r in near]
    pairs = [
        (r["gaze_camera"] - r["head_pose"], found) for r, found in zip(near, readings, strict=True) if found is not None
    ]
    asked, seen = np.sin([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    slopes = {n: np.polyfit(asked[:, i], seen[:, i], 1)[0] for i, n in enumerate(("pitch", "yaw"))}
    fits = {f"{n}_r": np.corrcoef(asked[:, i], seen[:, i])[0, 1] for i, n in enumerate(("pitch", "yaw"))}
    return {"pictures": len(near), "found": len(pairs)} | {k: round(float(v), 3) for k, v in (slopes | fits).items()}


def measure_photo(model, path: str) -> dict[str, object]:
    """Slopes as shares of a person's, and whether the irises moved in the right order throughout."""
    face, found = model.encode(path), {"photo": Path(path).name}
    for axis, angles in enumerate((PITCHES, YAWS)):
        name = ("pitch", "yaw")[axis]
        seen = [read(face.redirect(**{"pitch": 0.0, "yaw": 0.0, name: float(a)}).image) for a in angles]
        moved = np.array([s[axis] for s in seen if s is not None])
        if len(moved) < len(angles):
            return found | {"answered": False}
        found[name] = round(float(np.polyfit(PERSON[axis] * np.sin(np.radians(angles)), moved, 1)[0]), 3)
        found[f"{name}_monotone"] = bool((np.diff(moved) > 0).all())
    return found


def main() -> None:
    """Prints one JSON line a data set or photo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--data", help="a data set with gaze labels")
    parser.add_argument("--weights", help="weights of the redirector (default: the shipped ones)")
    args = parser.parse_args()
    if args.data:
        print(json.dumps(measure_data(args.data)))
    if args.photos:
        import rtgaze_jax

        model = rtgaze_jax.load(args.weights)
        for path in args.photos:
            print(json.dumps(measure_photo(model, path)), flush=True)


if __name__ == "__main__":
    main()
