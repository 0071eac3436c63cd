"""What the numbers of a record mean, in NumPy: for processes and checks that do without JAX.

The same conventions as `rtgaze_jax.geometry` (the tests hold them together), frames as in `rtgaze_jax.data.record`.
"""

import numpy as np

FRONTAL = np.diag([1.0, -1.0, -1.0])  # world axes <-> axes of the frontal camera


def gaze_vector(gaze: np.ndarray) -> np.ndarray:
    """Unit vectors [..., 3] in camera axes of gazes [..., (pitch, yaw)] in radians."""
    pitch, yaw = np.moveaxis(np.asarray(gaze, np.float64), -1, 0)
    return -np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], -1)


def gaze_angles(vector: np.ndarray) -> np.ndarray:
    """Gazes [..., (pitch, yaw)] in radians of vectors [..., 3] of any length in camera axes."""
    x, y, z = np.moveaxis(np.asarray(vector, np.float64), -1, 0)
    return np.stack([np.arctan2(-y, np.hypot(x, z)), np.arctan2(-x, -z)], -1)


def head_gaze_vector(gaze: np.ndarray) -> np.ndarray:
    """Unit vectors [..., 3] in the world of head-frame gazes [..., (pitch, yaw)]."""
    return gaze_vector(gaze) @ FRONTAL


def head_gaze_angles(vector: np.ndarray) -> np.ndarray:
    """Head-frame gazes [..., (pitch, yaw)] of world vectors [..., 3]."""
    return gaze_angles(np.asarray(vector) @ FRONTAL)


def camera_gaze(vector: np.ndarray, cam2world: np.ndarray) -> np.ndarray:
    """Gazes [..., (pitch, yaw)] that a camera [4, 4] sees in world vectors [..., 3]."""
    return gaze_angles(np.asarray(vector) @ np.asarray(cam2world, np.float64)[:3, :3])


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles [...] in radians between vectors [..., 3]; exact for tiny ones too."""
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(np.asarray(a) * b, -1))


def camera_label(cam2world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """The 25 numbers [..., 25] float32 of cameras [..., 4, 4] and [..., 3, 3]."""
    lead = np.shape(cam2world)[:-2]
    pose, k = np.reshape(cam2world, (*lead, 16)), np.reshape(intrinsics, (*lead, 9))
    return np.concatenate([pose, k], -1).astype(np.float32)


def project(points: np.ndarray, cam2world: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points [..., 3] into a camera: normalised image coordinates [..., 2] and lengths of their rays [...].

    Points behind the camera get NaN coordinates.
    """
    cam2world = np.asarray(cam2world, np.float64)
    local = (np.asarray(points, np.float64) - cam2world[:3, 3]) @ cam2world[:3, :3]
    image = local @ np.asarray(intrinsics, np.float64).T
    z = np.where(image[..., 2:] > 0, image[..., 2:], np.nan)
    return image[..., :2] / z, np.linalg.norm(local, axis=-1)


def pixel_rays(height: int, width: int, cam2world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Unit directions [height, width, 3] in the world of the rays through all pixel centres."""
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    local = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(np.asarray(intrinsics, np.float64)).T
    world = local @ np.asarray(cam2world, np.float64)[:3, :3].T
    return world / np.linalg.norm(world, axis=-1, keepdims=True)


def world_points(depth: np.ndarray, cam2world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """World points [H, W, 3] that the pixels of a depth map [H, W] (ray lengths) show."""
    rays = pixel_rays(depth.shape[0], depth.shape[1], cam2world, intrinsics)
    return np.asarray(cam2world, np.float64)[:3, 3] + rays * depth[..., None]
