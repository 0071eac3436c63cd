"""Measures on synthetic heads how the face finder's landmarks, the crop and the eyes' places agree with the truth.

    python experiments/measure_alignment.py [PEOPLE]

Prints the constants of rtgaze_jax/inference/align.py (frontal heads) and the errors that are left. 30 people, 120
pictures: 5 min.
"""

import sys

import numpy as np

from rtgaze_jax.data.heads.capture import LANDMARKS, render_capture
from rtgaze_jax.data.heads.renderer import Renderer
from rtgaze_jax.data.labels import project
from rtgaze_jax.inference import align, mesh
from rtgaze_jax.inference.face import find_faces
from rtgaze_jax.inference.warp import apply

SIZE = 512


def measure(record: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """One picture's figures, crop sides; None if no face was found."""
    faces = find_faces(record["image"])
    if not faces:
        return None
    face = faces[0]
    eyes, _ = project(record["eye_centers"], record["cam2world"], record["intrinsics"])
    matrix = align.crop_matrix(face, SIZE)
    pupils = record["landmarks"][[LANDMARKS.index(f"{side}_eye_pupil") for side in ("left", "right")]]
    corners = align.corner_midpoints(face) / SIZE
    return {
        "pose": np.degrees(record["head_pose"]),
        "eye_midpoint": corners.mean(0),
        "eye_distance": np.linalg.norm(corners[0] - corners[1]),
        "mouth_midpoint": face.landmarks[list(mesh.MOUTH_CORNERS)].mean(0) / SIZE,
        "facing": align.facing(face),
        "centre": apply(matrix, np.full(2, SIZE / 2)) / SIZE - 0.5,
        "scale": np.sqrt(np.linalg.det(matrix[:, :2])),
        "eyes": align.eye_points(face, matrix, SIZE) - apply(matrix, eyes * SIZE) / SIZE,
        "irises": face.landmarks[list(mesh.IRIS_CENTRES)] / SIZE - pupils,
    }


def main() -> None:
    people = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    renderer = Renderer(SIZE)
    rows, missed = [], 0
    for person in range(people):
        for record in render_capture(renderer, "validation", person, 0, gazes=1, views=4):
            row = measure(record)
            missed += row is None
            rows += [row] if row else []
    turn = np.array([np.abs(row["pose"]).max() for row in rows])
    print(f"{len(rows)} faces found, {missed} missed")
    for name in ("eye_midpoint", "mouth_midpoint", "eye_distance"):
        print(
            f"{name:<16} {np.median([row[name] for row, t in zip(rows, turn, strict=True) if t < 10], axis=0).round(3)}"
        )
    for low, high in ((0, 15), (15, 30), (30, 60)):
        some = [row for row, t in zip(rows, turn, strict=True) if low <= t < high]
        if not some:
            continue
        pixels = {
            n: np.median(np.linalg.norm([r[n] for r in some], axis=-1)) * SIZE for n in ("centre", "eyes", "irises")
        }
        scale = np.median([row["scale"] for row in some])
        print(
            f"turned {low}-{high} degrees, {len(some)}: crop's centre off by {pixels['centre']:.1f} px of {SIZE}, "
            f"scale {scale:.2f}, eyeballs off by {pixels['eyes']:.1f} px, irises by {pixels['irises']:.1f} px"
        )


if __name__ == "__main__":
    main()
