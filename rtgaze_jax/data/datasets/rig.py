"""The 18 cameras of ETH-XGaze, and one head pose for all pictures of a moment.

The data set's labels hold a head pose for each picture, estimated from its landmarks alone; the 18 heads of one moment
differ by centimetres. Here one pose is fitted to all of them through the rig's calibration, so that views are rigidly
consistent. Rig axes are those of camera 0 (OpenCV's), lengths mm.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np

from rtgaze_jax.data.datasets.face_models import FaceModel
from rtgaze_jax.data.datasets.normalized import normalizing_rotation
from rtgaze_jax.errors import UserError

CAMERAS = 18
UPSIDE_DOWN = (3, 6, 13)  # cameras whose stored pictures must be turned by 180 degrees
# mm from each camera to where all optical axes meet: what stands in for the true distance without a calibration
NOMINAL_DISTANCE = (
    946, 951, 1067, 1092, 1115, 1109, 1094, 1072, 1034, 1030, 1023, 1087, 1376, 1221, 1382, 1087, 1021, 1059,
)  # fmt: skip
Pose = tuple[np.ndarray, np.ndarray]  # rotation [3, 3] and translation [3]


@dataclasses.dataclass(frozen=True)
class Camera:
    """matrix [3, 3], distortion [n] (OpenCV), rotation [3, 3] and translation [3] from rig to camera axes."""

    matrix: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray

    def pose(self, head: Pose) -> Pose:
        """A head pose of the rig in this camera's axes."""
        return self.rotation @ head[0], self.rotation @ head[1] + self.translation

    def rig_pose(self, head: Pose) -> Pose:
        """The inverse of `pose`."""
        return self.rotation.T @ head[0], self.rotation.T @ (head[1] - self.translation)


Rig = dict[int, Camera]


def rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] of a rotation vector [3]."""
    return cv2.Rodrigues(np.asarray(vector, np.float64))[0]


def find_calibration(*folders: Path) -> Path | None:
    """The first folder with cam00.xml among likely places below `folders`."""
    for folder in folders:
        for place in ("", "calibration/cam_calibration", "cam_calibration", "calibration", "cam_original", "cam"):
            if (folder / place / "cam00.xml").is_file():
                return folder / place
    return None


def load_rig(folder: Path) -> Rig:
    """The cameras of a folder with cam00.xml to cam17.xml. Raises UserError where one is missing or of another kind."""
    rig = {}
    for number in range(CAMERAS):
        path = folder / f"cam{number:02}.xml"
        if not path.is_file():
            raise UserError(f"{path} is missing: the folder must hold the calibration of all {CAMERAS} cameras")
        file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        names = ("Camera_Matrix", "Distortion_Coefficients", "cam_rotation", "cam_translation")
        values = [file.getNode(name).mat() for name in names]
        width = file.getNode("image_Width").real()
        file.release()
        if any(value is None for value in values):
            raise UserError(f"{path} is no camera of the ETH-XGaze calibration: it lacks one of {', '.join(names)}")
        if 0 < width < 2000 or values[0][0, 2] < 1000:
            raise UserError(
                f"{path} is GazeNeRF's version for {width:.0f}-pixel crops: give the original ('cam_original')"
            )
        matrix, distortion, rotation, translation = values
        rig[number] = Camera(matrix, distortion.ravel(), rotation, translation.ravel())
    return rig


def fit_pose(residuals: Callable[[Pose], np.ndarray], start: Pose, tolerance: float, steps: int = 60) -> Pose:
    """The pose with the least residuals [n], by Levenberg-Marquardt; beyond `tolerance` they count linearly (Huber)."""

    def moved(pose: Pose, change: np.ndarray) -> Pose:
        return rotation(change[:3]) @ pose[0], pose[1] + 1000 * change[3:]

    def cost(values: np.ndarray) -> float:
        size = np.abs(values)
        return float(np.where(size < tolerance, 0.5 * size**2, tolerance * (size - tolerance / 2)).sum())

    pose, damping = start, 1e-3
    values = residuals(pose)
    for _ in range(steps):
        step = 1e-6
        columns = [
            (residuals(moved(pose, step * e)) - residuals(moved(pose, -step * e))) / (2 * step) for e in np.eye(6)
        ]
        jacobian = np.stack(columns, 1)
        weight = np.minimum(1, tolerance / np.maximum(np.abs(values), 1e-12))
        normal, slope = jacobian.T @ (weight[:, None] * jacobian), jacobian.T @ (weight * values)
        while damping < 1e9:
            change = -np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), slope)
            candidate = moved(pose, change)
            new = residuals(candidate)
            if cost(new) < cost(values):
                pose, values, damping = candidate, new, damping / 10
                break
            damping *= 10
        else:
            break
        if np.abs(change).max() < 1e-11:
            break
    return pose


def pose_from_landmarks(
    rig: Rig, model: FaceModel, landmarks: Mapping[int, np.ndarray], poses: Mapping[int, Pose], tolerance: float = 1.5
) -> Pose:
    """The head in the rig from landmarks [6, 2] (undistorted rays with z = 1) of several cameras.

    poses: each picture's own estimate, to start from. Errors above `tolerance` mm count linearly.
    """

    def residuals(head: Pose) -> np.ndarray:
        return np.concatenate([landmark_errors(rig[c], model, marks, head).ravel() for c, marks in landmarks.items()])

    starts = [rig[camera].rig_pose(pose) for camera, pose in poses.items()]
    best = min(starts, key=lambda head: np.abs(residuals(head)).sum())
    return fit_pose(residuals, best, tolerance)


def landmark_errors(camera: Camera, model: FaceModel, landmarks: np.ndarray, head: Pose) -> np.ndarray:
    """How far landmarks [n, 2] (rays with z = 1) lie from the model's points in a picture: [n, 2] mm at the head."""
    rotation, translation = camera.pose(head)
    points = model.points @ rotation.T + translation
    return (points[:, :2] / points[:, 2:] - landmarks) * np.linalg.norm(translation)


def pose_from_normalized(
    rig: Rig, model: FaceModel, rotations: Mapping[int, np.ndarray], heads: Mapping[int, np.ndarray]
) -> Pose:
    """The head in the rig from the normalising rotations (face_mat_norm) and normalised head rotations of pictures.

    The third row of each normalising rotation points at the face centre: two pictures give its place, more the mean.
    """
    normal, offset = np.zeros((3, 3)), np.zeros(3)
    for camera, rotation in rotations.items():
        ray = rig[camera].rotation.T @ rotation[2]
        across = np.eye(3) - np.outer(ray, ray)
        normal += across
        offset += across @ (-rig[camera].rotation.T @ rig[camera].translation)
    center = np.linalg.solve(normal, offset)

    def residuals(head: Pose) -> np.ndarray:
        found = []
        for camera, rotation in rotations.items():
            turned, moved = rig[camera].pose(head)
            seen = turned @ model.center + moved
            found += [seen / np.linalg.norm(seen) - rotation[2], (rotation @ turned - heads[camera]).ravel()]
        return 1000 * np.concatenate(found)

    starts = [rig[camera].rotation.T @ rotation.T @ heads[camera] for camera, rotation in rotations.items()]
    start = min(((r, center - r @ model.center) for r in starts), key=lambda head: np.abs(residuals(head)).sum())
    return fit_pose(residuals, start, 20.0)


def pose_from_head_labels(
    rig: Rig, model: FaceModel, heads: Mapping[int, np.ndarray], meeting_point: np.ndarray | None = None
) -> Pose:
    """The head in the rig from nothing but the normalised head rotations of pictures (their (pitch, yaw) labels).

    A label depends on where the face is seen in its camera, so that a dozen of them fix the place, too.
    """
    center = np.array([4.0, 3.0, 946.0]) if meeting_point is None else meeting_point

    def residuals(head: Pose) -> np.ndarray:
        found = []
        for camera, label in heads.items():
            turned, moved = rig[camera].pose(head)
            rotation = normalizing_rotation(turned @ model.center + moved, turned)
            found.append((rotation @ turned)[:, 2] - label[:, 2])
        return 1000 * np.concatenate(found)

    starts = []
    for camera, label in heads.items():
        seen = rig[camera].rotation @ center + rig[camera].translation
        level = normalizing_rotation(seen, np.eye(3))  # the roll between head and camera is small
        rotation = rig[camera].rotation.T @ level.T @ label
        starts.append((rotation, center - rotation @ model.center))
    start = min(starts, key=lambda head: np.abs(residuals(head)).sum())
    return fit_pose(residuals, start, 20.0)
