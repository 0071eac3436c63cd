"""A head made of spheres, ray-traced in closed form: exact records at any resolution, in milliseconds.

It shares no code with the package's renderer or label geometry, so that the data tests and `data check` meet an
independent truth.
"""

import os

import numpy as np

PARTS = {"background": 0, "skin": 1, "left_eye": 2, "right_eye": 3, "hair": 6, "mouth": 7, "clothes": 8}
EYE_RADIUS = 0.033
IRIS_ANGLE = np.radians(27.0)
PUPIL_ANGLE = np.radians(10.0)
EYE_CENTERS = np.array([[0.085, 0.05, 0.062], [-0.085, 0.05, 0.062]])
SPHERES = [  # centre, radius, part
    ((0.0, 0.0, -0.15), 0.24, "skin"),
    ((0.0, 0.06, -0.19), 0.25, "hair"),
    ((0.0, -0.42, -0.15), 0.27, "clothes"),
    ((0.0, -0.13, 0.045), 0.03, "mouth"),
    (tuple(EYE_CENTERS[0]), EYE_RADIUS, "left_eye"),
    (tuple(EYE_CENTERS[1]), EYE_RADIUS, "right_eye"),
]


def _unit(v):
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def camera(yaw, pitch, radius):
    """cam2world (OpenCV axes) of a camera on a sphere around the origin that looks at it."""
    position = radius * np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])
    forward = _unit(-position)
    right = _unit(np.cross(forward, [0.0, 1.0, 0.0]))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward], -1)
    matrix[:3, 3] = position
    return matrix


def intrinsics(focal=4.2647):
    return np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]])


def eth_angles(camera_vector):
    """(pitch, yaw): asin and atan2 of the ETH-XGaze definition."""
    x, y, z = camera_vector
    return np.array([np.arcsin(-y), np.arctan2(-x, -z)])


def gaze_in_world(gaze_head):
    pitch, yaw = gaze_head
    return np.array([-np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])


def trace(cam2world, k, resolution, gaze_world, colours, light):
    """image, parts, ray length."""
    grid = (np.arange(resolution) + 0.5) / resolution
    u, v = np.meshgrid(grid, grid)
    local = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1)
    rays = _unit(local @ cam2world[:3, :3].T)
    origin = cam2world[:3, 3]
    depth = np.full(u.shape, np.inf)
    parts = np.zeros(u.shape, np.uint8)
    normal = np.zeros((*u.shape, 3))
    for centre, radius, part in SPHERES:
        offset = origin - np.array(centre)
        b = rays @ offset
        discriminant = b * b - (offset @ offset - radius * radius)
        t = -b - np.sqrt(np.maximum(discriminant, 0))
        hit = (discriminant > 0) & (t > 0) & (t < depth)
        if part == "hair":  # a cap: only above the forehead and behind
            point = origin + rays * np.where(np.isfinite(t), t, 0)[..., None]
            hit &= point[..., 1] > 0.1 + 0.35 * point[..., 2]
        depth[hit] = t[hit]
        parts[hit] = PARTS[part]
        normal[hit] = ((offset + rays * t[..., None]) / radius)[hit]
    points = origin + rays * np.where(np.isfinite(depth), depth, 0)[..., None]
    albedo = colours[parts]
    waves = 1 + 0.12 * np.sin(points @ np.array([41.0, 57.0, 33.0]) + light[0] * 9)
    albedo = albedo * np.where(np.isin(parts, (1, 6, 8)), waves, 1.0)[..., None]
    eyes = np.isin(parts, (2, 3))
    angle = np.arccos(np.clip(normal @ gaze_world, -1, 1))
    albedo[eyes & (angle < IRIS_ANGLE)] = colours[10]
    albedo[eyes & (angle < PUPIL_ANGLE)] = 0.03
    shade = 0.45 + 0.55 * np.clip(normal @ light, 0, 1)
    image = np.where((parts > 0)[..., None], albedo * shade[..., None], colours[0] * (0.8 + 0.2 * v[..., None]))
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), parts, np.where(np.isfinite(depth), depth, 0)


def render_capture(resolution, split, person, capture=0, *, gazes, views):
    """The records of one capture, gaze-major; person 666 cannot be rendered, person 667 kills the process."""
    if person == 666:
        raise RuntimeError("no such person")
    if person == 667:
        os._exit(9)
    seed = {"train": 1, "validation": 2, "test": 3}[split] * 10**6 + person
    rng = np.random.default_rng([seed, capture])
    colours = np.full((11, 3), 0.8)
    colours[0] = rng.uniform(0.1, 0.9, 3)
    colours[1] = np.array([0.85, 0.65, 0.55]) * rng.uniform(0.5, 1.0)
    colours[6], colours[7], colours[8] = rng.uniform(0.05, 0.4, 3), (0.5, 0.1, 0.1), rng.uniform(0, 1, 3)
    colours[10] = rng.uniform(0.1, 0.35, 3)
    light = _unit(rng.uniform(-1, 1, 3) + np.array([0, 0.5, 1.5]))
    limits = np.radians([20.0, 30.0])
    looks = rng.uniform(-limits, limits, (gazes, 2))
    cameras = []
    for view in range(views):
        spread = 0.05 if view == 0 else 0.6
        yaw, pitch = rng.uniform(-1, 1, 2) * spread * np.array([1, 0.5])
        cameras.append((camera(yaw, pitch, rng.uniform(2.6, 2.8)), intrinsics(rng.uniform(4.1, 4.4))))
    records = []
    for g, gaze in enumerate(looks):
        world = gaze_in_world(gaze)
        for v, (matrix, k) in enumerate(cameras):
            image, parts, depth = trace(matrix, k, resolution, world, colours, light)
            to_camera = matrix[:3, :3].T
            marks = (np.concatenate([EYE_CENTERS, [[0, -0.1, 0.07]]]) - matrix[:3, 3]) @ matrix[:3, :3] @ k.T
            records.append(
                {
                    "image": image,
                    "parts": parts,
                    "depth": depth.astype(np.float32),
                    "face_mask": np.isin(parts, (1, 2, 3, 6, 7)),
                    "eye_mask": np.isin(parts, (2, 3)),
                    "cam2world": matrix.astype(np.float32),
                    "intrinsics": k.astype(np.float32),
                    "gaze_head": gaze.astype(np.float32),
                    "gaze_camera": eth_angles(to_camera @ world).astype(np.float32),
                    "head_pose": eth_angles(to_camera @ np.array([0, 0, 1.0])).astype(np.float32),
                    "eye_centers": EYE_CENTERS.astype(np.float32),
                    "landmarks": (marks[:, :2] / marks[:, 2:]).astype(np.float32),
                    "person": np.int32(person),
                    "capture": np.int32(capture),
                    "gaze_index": np.int32(g),
                    "view_index": np.int32(v),
                    "seed": np.int64(seed),
                }
            )
    return records


class Camera:
    """What `rtgaze_jax.data.heads` calls a renderer factory: built once in each process."""

    def __init__(self, resolution, device=None):
        self.resolution, self.device = resolution, device

    def __call__(self, split, person, capture=0, *, gazes, views):
        return render_capture(self.resolution, split, person, capture, gazes=gazes, views=views)
