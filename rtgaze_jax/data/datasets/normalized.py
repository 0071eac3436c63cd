"""From a picture with known camera and head pose to a record: the crop, its exact camera, and the labels.

The 2018 normalisation (Zhang, Sugano and Bulling, ETRA 2018) turns a camera about its own centre and scales the
picture. So the crop is again what a pinhole camera sees: at the head's true distance d, with focal length
f_n * d / d_n. Nothing is assumed about d, and no focal length is hard-coded. Everything is NumPy; camera axes are
OpenCV's, lengths mm, pixel coordinates OpenCV's (the centre of the first pixel is at 0, 0) unless said otherwise.
"""

import dataclasses

import cv2
import numpy as np

from rtgaze_jax.data.datasets import masks
from rtgaze_jax.data.datasets.face_models import FaceModel
from rtgaze_jax.data.labels import camera_gaze, gaze_angles, head_gaze_angles, project
from rtgaze_jax.data.record import MILLIMETRES, Record, eye_mask, face_mask

CELL = 8
SPAN = 2.7 / 4.2647 * MILLIMETRES  # mm that an EG3D crop spans at the head: 234


@dataclasses.dataclass(frozen=True)
class View:
    """A picture of a face and what is known about it.

    pixels: u8[h, w, 3] RGB. camera_matrix [3, 3], distortion (OpenCV's coefficients). head_rotation [3, 3],
    head_translation [3]: model axes to camera axes. gaze: vector [3] in camera axes, any length, or None. landmarks
    [L, 2]: pixels (in the distorted picture), or None. parts: u8[h, w] of record.PARTS, where somebody parsed the face.
    """

    pixels: np.ndarray
    camera_matrix: np.ndarray
    model: FaceModel
    head_rotation: np.ndarray
    head_translation: np.ndarray
    gaze: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    parts: np.ndarray | None = None
    distortion: np.ndarray | None = None

    def in_camera(self, point: np.ndarray) -> np.ndarray:
        """A model point [3] in camera axes."""
        return self.head_rotation @ point + self.head_translation


def normalizing_rotation(center: np.ndarray, head_rotation: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] from a camera to the one in its place that looks at `center` with the head's x axis level."""
    forward = center / np.linalg.norm(center)
    down = np.cross(forward, head_rotation[:, 0])
    down /= np.linalg.norm(down)
    return np.stack([np.cross(down, forward), down, forward])


def normalizing_warp(
    center: np.ndarray, rotation: np.ndarray, camera_matrix: np.ndarray, focal: float, distance: float, size: int
) -> np.ndarray:
    """Homography [3, 3] from a picture's pixels to the released normalised picture's (focal length, distance, size).

    The released files put the principal point at pixel coordinate size / 2, half a pixel beyond the middle.
    """
    scale = np.diag([1, 1, distance / np.linalg.norm(center)])
    return patch_matrix(focal, size) @ scale @ rotation @ np.linalg.inv(camera_matrix)


def patch_matrix(focal: float, size: int) -> np.ndarray:
    """Camera matrix [3, 3] of a released normalised picture."""
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def patch_camera(focal: float, distance_norm: float, size: int, distance: float | np.floating) -> np.ndarray:
    """The true camera matrix [3, 3] of a released normalised picture of a head at `distance`: f = f_n * d / d_n."""
    return patch_matrix(float(focal * distance / distance_norm), size)


def pose_angles(rotation: np.ndarray) -> np.ndarray:
    """The head label (pitch, yaw) of the released files: of the third column of a head rotation [3, 3]."""
    return gaze_angles(-rotation[:, 2])


def rotation_from_pose(pose: np.ndarray) -> np.ndarray:
    """The head rotation [3, 3] in a normalised camera from its label (pitch, yaw): there the head's x axis is level."""
    pitch, yaw = np.asarray(pose, np.float64)
    z = np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])
    x = np.array([z[2], 0, -z[0]]) / np.hypot(z[0], z[2])
    return np.stack([x, np.cross(z, x), z], 1)


def crop(view: View, size: int, span: float = SPAN) -> Record:
    """The record of a view, without its numbers (person, capture, ...): `span` mm of the head on `size` pixels.

    The crop's camera looks at the world's origin with the head's x axis level. Where the picture ends the crop is
    black, and background in `parts`.
    """
    origin = view.in_camera(view.model.origin)
    distance = np.linalg.norm(origin)
    turn = normalizing_rotation(origin, view.head_rotation)
    focal = distance / span  # crop widths
    matrix = np.array([[focal * size, 0, (size - 1) / 2], [0, focal * size, (size - 1) / 2], [0, 0, 1]])
    sampling = Sampling(view, matrix, turn, size)
    image = sampling.picture()

    to_world = view.model.to_world @ (turn @ view.head_rotation).T
    pose = np.eye(4)
    pose[:3, :3] = to_world
    pose[:3, 3] = -to_world @ [0, 0, distance / MILLIMETRES]
    intrinsics = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    eyes = view.model.eye_centers

    marks = view.landmarks
    if marks is None:
        points = view.model.world(np.concatenate([view.model.points, view.model.mouth]))
        marks = project(points, pose, intrinsics)[0] * size - 0.5
    else:
        marks = undistorted(marks, view.camera_matrix, view.distortion)
        marks = np.column_stack([marks, np.ones(len(marks))]) @ (matrix @ turn).T
        marks = marks[:, :2] / marks[:, 2:]
    if view.parts is not None:
        parts = sampling.nearest(view.parts)
    else:
        parts = masks.from_landmarks(marks, project(eyes, pose, intrinsics)[0] * size - 0.5, size, size / span)
    parts[~sampling.inside()] = 0
    record: Record = {
        "image": image,
        "parts": parts,
        "face_mask": face_mask(parts),
        "eye_mask": eye_mask(parts),
        "cam2world": pose.astype(np.float32),
        "intrinsics": intrinsics.astype(np.float32),
        "head_pose": camera_gaze(np.array([0.0, 0, 1]), pose).astype(np.float32),
        "eye_centers": eyes.astype(np.float32),
        "landmarks": ((marks + 0.5) / size).astype(np.float32),
        "seed": np.int64(0),
    }
    if view.gaze is not None:
        seen = turn @ view.gaze
        record["gaze_camera"] = gaze_angles(seen).astype(np.float32)
        record["gaze_head"] = head_gaze_angles(to_world @ seen).astype(np.float32)
    return record


def undistorted(points: np.ndarray, camera_matrix: np.ndarray, distortion: np.ndarray | None) -> np.ndarray:
    """Rays (x, y, 1) as [n, 2] that a camera sees at pixels [n, 2]."""
    points = np.asarray(points, np.float64)
    rays = (np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(camera_matrix).T)[:, :2]
    if distortion is None or not np.any(distortion):
        return rays
    focal, zero, found = np.diag(camera_matrix)[:2], np.zeros(3), rays
    for _ in range(40):  # a contraction: real lenses move points by percents
        ahead = np.column_stack([found, np.ones(len(found))])[:, None]
        seen = cv2.projectPoints(ahead, zero, zero, camera_matrix, distortion)[0][:, 0]
        found = found + (points - seen) / focal
    return found


class Sampling:
    """Where the pixels of a crop lie in the picture."""

    def __init__(self, view: View, matrix: np.ndarray, turn: np.ndarray, size: int):
        self.view, self.size = view, size
        self.matrix, self.turn = matrix, turn
        self.reduction = view.camera_matrix[0, 0] / matrix[0, 0]  # picture pixels for each crop pixel

    def _places(self, finer: int) -> np.ndarray:
        """Picture coordinates [n, n, 2] float32 of a crop with `finer` times as many pixels a side.

        Computed for every CELLth pixel and interpolated: the map is smooth, and a lens costs time.
        """
        count = self.size * finer
        cells = -(-count // CELL) + 2  # with a border, as interpolation ends at the outermost centres
        steps = ((np.arange(cells) - 0.5) * CELL / finer) - 0.5
        u, v = np.meshgrid(steps, steps)
        rays = np.stack([u, v, np.ones_like(u)], -1) @ (self.turn.T @ np.linalg.inv(self.matrix)).T
        rays = rays / np.where(rays[..., 2:] > 1e-6, rays[..., 2:], np.nan)
        if self.view.distortion is not None:
            zero, lens = np.zeros(3), self.view.distortion
            places = cv2.projectPoints(rays.reshape(-1, 1, 3), zero, zero, self.view.camera_matrix, lens)[0]
        else:
            places = rays @ self.view.camera_matrix.T
        places = np.nan_to_num(places.reshape(cells, cells, -1)[..., :2], nan=-1e4)
        fine = cv2.resize(places, (cells * CELL, cells * CELL), interpolation=cv2.INTER_LINEAR)
        return fine[CELL : CELL + count, CELL : CELL + count].astype(np.float32)

    def picture(self) -> np.ndarray:
        """The crop, u8[size, size, 3]: reductions are averages over areas, not picks of single pixels."""
        finer = 2 if self.reduction > 1.02 else 1
        places, pixels = self._places(finer), self.view.pixels
        blocks = int(self.reduction)
        if blocks >= 2:
            height, width = (n // blocks * blocks for n in pixels.shape[:2])
            low = np.clip(np.floor(places.min((0, 1))) - 4 * blocks, 0, (width, height)).astype(int) // blocks * blocks
            high = np.clip(np.ceil(places.max((0, 1))) + 4 * blocks, 0, (width, height)).astype(int)
            high = np.maximum(low + blocks, low + (high - low) // blocks * blocks)
            part = pixels[low[1] : high[1], low[0] : high[0]]
            pixels = cv2.resize(part, (part.shape[1] // blocks, part.shape[0] // blocks), interpolation=cv2.INTER_AREA)
            places = (places - low + 0.5) / blocks - 0.5
        x, y = cv2.split(places.astype(np.float32))
        black = (0, 0, 0)
        fine = cv2.remap(pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=black)
        return cv2.resize(fine, (self.size, self.size), interpolation=cv2.INTER_AREA) if finer > 1 else fine

    def nearest(self, parts: np.ndarray) -> np.ndarray:
        """A map of labels u8[h, w], cropped."""
        x, y = cv2.split(self._places(1))
        return cv2.remap(parts, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)

    def inside(self) -> np.ndarray:
        """bool [size, size]: where the crop shows the picture."""
        height, width = self.view.pixels.shape[:2]
        places = self._places(1)
        return np.all((places >= -0.5) & (places <= np.array([width - 0.5, height - 0.5])), axis=-1)
