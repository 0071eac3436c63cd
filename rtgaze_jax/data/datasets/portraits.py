"""Pictures of which only the distance to the head is known, or guessed: pose and focal length from landmarks.

Where a face points comes from the face mesh's own depth, calibrated on the synthetic heads (inference/align.py): the
proportions of one's face, or a smile, turn a pose fitted to generic 3D points by 40 degrees.
"""

from typing import NamedTuple

import numpy as np

from rtgaze_jax.data.datasets.face_models import ETH
from rtgaze_jax.data.datasets.normalized import normalizing_rotation
from rtgaze_jax.data.datasets.rig import Pose

MESH_POINTS = (33, 133, 362, 263, 98, 327, 61, 291)  # ETH's six points and the mouth's corners in MediaPipe's mesh
LANDMARK_ERROR = 0.15  # of the distance between the eyes' outer corners; a smiling head has 0.07


class Found(NamedTuple):
    """The largest face of a picture: landmarks [478, 2] (OpenCV pixels), and the head's axes [3, 3] (columns: world x,
    y, z) for a camera that looks straight at it."""

    landmarks: np.ndarray
    axes: np.ndarray


def find_face(pixels: np.ndarray) -> Found | None:
    """The largest face of a picture u8[h, w, 3], or None."""
    from rtgaze_jax.inference.align import facing
    from rtgaze_jax.inference.face import find_faces
    from rtgaze_jax.inference.mesh import EYE_CORNERS

    faces = find_faces(pixels)
    if not faces:
        return None
    face, out = faces[0], facing(faces[0])
    points = np.column_stack([face.landmarks, face.z]).astype(np.float64)
    across = points[EYE_CORNERS[0][0]] - points[EYE_CORNERS[1][0]]
    across -= (across @ out) * out
    left = across / np.linalg.norm(across)
    return Found(face.landmarks.astype(np.float64) - 0.5, np.stack([left, np.cross(out, left), out], 1))


def fit_portrait(found: Found, size: tuple[int, int], distance: float) -> tuple[np.ndarray, Pose]:
    """Camera matrix [3, 3] and head pose (ETH's model) of a picture of (width, height) `size`, undistorted and with the
    principal point in its middle, whose face centre is `distance` mm away.

    How large the face is gives the focal length. Raises ValueError where the landmarks are no face's.
    """
    points = np.concatenate([ETH.points, ETH.mouth])
    marks = found.landmarks[list(MESH_POINTS)] - (np.array(size) - 1) / 2
    focal, center = 5.0 * max(size), np.array([0.0, 0, distance])
    for _ in range(30):
        turn = normalizing_rotation(center, np.eye(3)).T @ found.axes @ ETH.to_world
        local = (points - ETH.center) @ turn.T
        # x / f (z + cz) = X + cx is linear in the centre; its distance is known, so the focal length is wrong by that
        rays = marks / focal
        rows = np.zeros((2 * len(points), 3))
        rows[0::2, 0], rows[1::2, 1] = -1, -1
        rows[0::2, 2], rows[1::2, 2] = rays[:, 0], rays[:, 1]
        wanted = (local[:, :2] - rays * local[:, 2:]).ravel()
        center = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        scale = float(distance / np.linalg.norm(center))
        focal, center = focal * scale, center * [1, 1, scale]
        if abs(scale - 1) < 1e-9:
            break
    center *= distance / np.linalg.norm(center)
    turn = normalizing_rotation(center, np.eye(3)).T @ found.axes @ ETH.to_world
    seen = (points - ETH.center) @ turn.T + center
    error = np.sqrt(np.mean((focal * seen[:, :2] / seen[:, 2:] - marks) ** 2)) / np.linalg.norm(marks[0] - marks[3])
    if not error < LANDMARK_ERROR:
        raise ValueError(f"the landmarks do not fit a head (error {100 * error:.0f} % of the eyes' distance)")
    matrix = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
    return matrix, (turn, center - turn @ ETH.center)
