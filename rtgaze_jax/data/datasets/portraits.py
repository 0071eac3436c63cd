"""Pictures of which only the distance to the head is known, or guessed: pose and focal length from landmarks."""

import functools
from collections.abc import Callable

import cv2
import numpy as np

from rtgaze_jax.data.datasets.face_models import ETH
from rtgaze_jax.data.datasets.rig import Pose, rotation

MESH_POINTS = (33, 133, 362, 263, 98, 327, 61, 291)  # ETH's six points and the mouth's corners in MediaPipe's mesh
LANDMARK_ERROR = 0.12  # of the distance between the eyes' outer corners; a smiling head has 0.06
Finder = Callable[[np.ndarray], np.ndarray | None]


@functools.cache
def _finder() -> Callable:
    from rtgaze_jax.inference.face import find_faces

    return find_faces


def find_landmarks(pixels: np.ndarray) -> np.ndarray | None:
    """The 478 landmarks [478, 2] of the largest face of a picture u8[h, w, 3], OpenCV pixel coordinates; or None."""
    faces = _finder()(pixels)
    return faces[0].landmarks.astype(np.float64) - 0.5 if faces else None


def fit_portrait(landmarks: np.ndarray, size: tuple[int, int], distance: float) -> tuple[np.ndarray, Pose]:
    """Camera matrix [3, 3] and head pose (ETH's model) of a picture of (width, height) `size`, undistorted and with the
    principal point in its middle, whose face centre is `distance` mm away.

    How large the face is gives the focal length. Raises ValueError where the landmarks are no face's.
    """
    points = np.concatenate([ETH.points, ETH.mouth])
    marks = np.ascontiguousarray(landmarks[list(MESH_POINTS)], np.float64)
    focal, width = 5.0 * max(size), np.linalg.norm(marks[0] - marks[3])
    matrix, vectors = np.eye(3), None
    for _ in range(12):
        matrix = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
        if vectors is None:
            _, *vectors = cv2.solvePnP(points, marks, matrix, None, flags=cv2.SOLVEPNP_EPNP)
        _, *vectors = cv2.solvePnP(points, marks, matrix, None, *vectors, True, cv2.SOLVEPNP_ITERATIVE)
        turn, place = rotation(vectors[0].ravel()), vectors[1].ravel()
        away = np.linalg.norm(turn @ ETH.center + place)
        focal, vectors[1] = focal * distance / away, vectors[1] * (distance / away)
        if abs(away / distance - 1) < 1e-6:
            break
    seen = cv2.projectPoints(points, *vectors, matrix, None)[0][:, 0]
    error = np.sqrt(np.mean((seen - marks) ** 2)) / width
    if not (place[2] > 0 and error < LANDMARK_ERROR):
        raise ValueError(f"the landmarks do not fit a head (error {100 * error:.0f} % of the eyes' distance)")
    return matrix, (turn, place)
