"""Eyeballs: a template with a corneal bulge, rotations without roll, vergence, and the tissue between ball and lids.

Template units: eyeball radius 1, optical axis +z. The iris plane and limbus are anatomical means: cornea radius 7.8 mm,
visible iris 11.7 mm across on a 24 mm ball, anterior chamber 3.1 mm.
"""

import functools

import numpy as np

from rtgaze_jax.data.labels import head_gaze_angles, head_gaze_vector

LIMBUS = 0.4875  # sine of the limbus angle: 5.85 mm on a 12 mm ball
CORNEA = 0.65  # radius of curvature of the cornea
IRIS_DEPTH = 0.845  # z of the iris plane
CORNEA_INDEX = 1.3375


def profile(polar: np.ndarray) -> np.ndarray:
    """Distance of the surface from the eyeball centre at angles (radians) from the optical axis."""
    limbus = np.arcsin(LIMBUS)
    center = np.cos(limbus) - np.sqrt(CORNEA**2 - LIMBUS**2)
    inside = np.maximum(CORNEA**2 - (center * np.sin(polar)) ** 2, 0)
    bulge = center * np.cos(polar) + np.sqrt(inside)
    sharp = 55.0  # smooth maximum: the limbal groove is rounded
    rounded = np.log(np.exp(sharp * (bulge - 1)) + 1) / sharp + 1
    return np.where(polar < limbus * 1.7, rounded, 1.0)


@functools.cache
def template(rings: int = 44, sectors: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eyeball vertices [n, 3], normals [n, 3] and triangles [m, 3]."""
    limbus = np.arcsin(LIMBUS)
    fine, coarse = rings * 3 // 5, rings * 2 // 5
    front = np.linspace(0, limbus * 1.3, fine, endpoint=False)
    polar = np.concatenate([front, np.linspace(limbus * 1.3, np.radians(125), coarse)])
    radius = profile(polar)
    azimuth = np.linspace(0, 2 * np.pi, sectors, endpoint=False)
    around = np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
    ring = (radius * np.sin(polar))[:, None, None] * around
    vertices = np.concatenate(
        [ring, np.broadcast_to((radius * np.cos(polar))[:, None, None], (len(polar), sectors, 1))], -1
    )
    slope = np.gradient(radius, polar)
    # normal of r(theta): r * e_r - r' * e_theta
    radial = np.stack([np.sin(polar), np.cos(polar)], 1)
    tangent = np.stack([np.cos(polar), -np.sin(polar)], 1)
    flat = radius[:, None] * radial - slope[:, None] * tangent
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    normals = np.concatenate(
        [flat[:, :1, None] * around, np.broadcast_to(flat[:, 1][:, None, None], (len(polar), sectors, 1))], -1
    )
    i, j = np.meshgrid(np.arange(len(polar) - 1), np.arange(sectors), indexing="ij")
    a, b = i * sectors + j, i * sectors + (j + 1) % sectors
    triangles = np.stack([np.stack([a, a + sectors, b + sectors], -1), np.stack([a, b + sectors, b], -1)], 2)
    return (
        vertices.reshape(-1, 3).astype(np.float32),
        normals.reshape(-1, 3).astype(np.float32),
        triangles.reshape(-1, 3).astype(np.int32),
    )


def rotation(gaze: np.ndarray) -> np.ndarray:
    """[3, 3] turning +z into a head-frame gaze by yaw, then pitch, without roll; columns are the eye's axes."""
    forward = head_gaze_vector(gaze)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], 1)


def converge(gaze: np.ndarray, centers: np.ndarray, distance: float) -> np.ndarray:
    """Each eye's own gaze [2, 2] when both look at the point `distance` world units along `gaze` from their middle."""
    target = centers.mean(0) + distance * head_gaze_vector(gaze)
    return head_gaze_angles(target - centers)


def filling(edge: np.ndarray, radius: float, steps: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """The still tissue (conjunctiva, caruncle) between the lid edge and the eyeball.

    Args:
        edge: [n, 3] lid edge relative to the eyeball centre, counter-clockwise.
        radius: of the eyeball, same unit.

    Returns:
        vertices [n * steps, 3] relative to the centre, from the edge inwards, and quads.
    """
    t = np.linspace(0, 0.6, steps)[:, None]
    xy = edge[None, :, :2] * (1.03 - t[..., None])
    rho = np.linalg.norm(xy, axis=-1) / radius
    knee = np.sqrt(1 - 0.8**2)
    ball = np.where(rho < 0.8, np.sqrt(np.maximum(1 - rho**2, 0)), knee - (rho - 0.8) * 0.8 / knee) * radius
    blend = np.clip(t / 0.32, 0, 1)
    blend = blend * blend * (3 - 2 * blend)
    depth = (1 - blend) * (edge[None, :, 2] - 0.055 * radius) + blend * (ball - 0.07 * radius)
    vertices = np.concatenate([xy, depth[..., None]], -1).reshape(-1, 3)
    n = len(edge)
    i, j = np.meshgrid(np.arange(steps - 1), np.arange(n), indexing="ij")
    a, b = i * n + j, i * n + (j + 1) % n
    return vertices.astype(np.float32), np.stack([a, b, b + n, a + n], -1).reshape(-1, 4)


def apparent_pupil(center: np.ndarray, radius: float, axes: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Where the pupil's centre is seen on the cornea: the world point whose refracted ray from the camera meets it.

    Args:
        center, radius: of the eyeball, world units.
        axes: [3, 3] from `rotation`.
        camera: [3] position.
    """
    eye = axes.T @ (camera - center) / radius
    limbus = np.arcsin(LIMBUS)
    middle = np.array([0, 0, np.cos(limbus) - np.sqrt(CORNEA**2 - LIMBUS**2)])
    pupil = np.array([0, 0, IRIS_DEPTH])
    aim = pupil.copy()
    for _ in range(12):
        ray = aim - eye
        ray /= np.linalg.norm(ray)
        along = ray @ (middle - eye)
        point = eye + ray * (along - np.sqrt(max(CORNEA**2 - ((middle - eye) ** 2).sum() + along**2, 0)))
        normal = (point - middle) / CORNEA
        cosine = -normal @ ray
        ratio = 1 / CORNEA_INDEX
        bent = ratio * ray + (ratio * cosine - np.sqrt(1 - ratio**2 * (1 - cosine**2))) * normal
        hit = point + bent * (IRIS_DEPTH - point[2]) / bent[2]
        aim = aim - np.array([*(hit - pupil)[:2], 0])
    return center + radius * axes @ point
