"""Cameras as EG3D labels: 25 numbers, cam2world 4x4 row-major and normalised intrinsics 3x3 row-major.

World: x right in a frontal image (the subject's left), y up, z out of the face; 1 unit = 370 mm. Camera axes are
OpenCV's: x right, y down, z forward. Normalised image coordinates run from 0 to 1, x to the right and y down.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.geometry.gaze import FRONTAL_ROTATION, head_gaze_to_vector
from rtgaze_jax.geometry.linear import times

Scalar = Float[Array, ""] | float | int

FOCAL = 4.2647
"""Focal length of EG3D's face crops in image widths (horizontal field of view 13.4 degrees)."""
RADIUS = 2.7
"""Distance of EG3D's face cameras from the world's origin, world units."""
WORLD_UNIT_MM = 370.0
"""Length of one world unit on a real head."""
EYE_PLANE = 0.07
"""Where the middle between the eyeballs lies in the source frame (see `source_frame`): about as far in front of the
origin as in a real head, world units."""
FRONTAL_POSE = np.eye(4, dtype=np.float32)
"""cam2world of the frontal camera: looks at the origin along -z from (0, 0, RADIUS)."""
FRONTAL_POSE[:3, :3] = FRONTAL_ROTATION
FRONTAL_POSE[2, 3] = RADIUS

ORIGIN = (0.0, 0.0, 0.0)
_UP = np.array([0.0, 1.0, 0.0], np.float32)


def pack_camera(
    cam2world: Float[Array, "*#batch 4 4"], intrinsics: Float[Array, "*#batch 3 3"]
) -> Float[Array, "*#batch 25"]:
    """Camera label of a pose and normalised intrinsics."""
    batch = jnp.broadcast_shapes(cam2world.shape[:-2], intrinsics.shape[:-2])
    pose = jnp.broadcast_to(cam2world, (*batch, 4, 4)).reshape(*batch, 16)
    return jnp.concatenate([pose, jnp.broadcast_to(intrinsics, (*batch, 3, 3)).reshape(*batch, 9)], axis=-1)


def unpack_camera(camera: Float[Array, "*batch 25"]) -> tuple[Float[Array, "*batch 4 4"], Float[Array, "*batch 3 3"]]:
    """(cam2world, normalised intrinsics) of a camera label."""
    batch = camera.shape[:-1]
    return camera[..., :16].reshape(*batch, 4, 4), camera[..., 16:].reshape(*batch, 3, 3)


def intrinsics(focal: Scalar = FOCAL, center: tuple[float, float] = (0.5, 0.5)) -> Float[Array, "3 3"]:
    """Normalised pinhole intrinsics; focal length and principal point in image widths."""
    return jnp.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], jnp.float32)


def eg3d_fov_intrinsics(fov_degrees: float) -> Float[Array, "3 3"]:
    """EG3D's intrinsics of a field of view, which it takes along the image's diagonal (with sqrt 2 rounded to
    1.414)."""
    return intrinsics(float(1 / (np.tan(fov_degrees * np.pi / 360) * 1.414)))


def frontal_camera(focal: Scalar = FOCAL) -> Float[Array, "25"]:
    """The camera that sees a head from the front, as an EG3D crop does."""
    return pack_camera(jnp.asarray(FRONTAL_POSE), intrinsics(focal))


def look_at_camera(
    yaw: Float[Array, "*#batch"] | Scalar,
    pitch: Float[Array, "*#batch"] | Scalar,
    radius: Scalar = RADIUS,
    pivot: Float[Array, "3"] | tuple[float, float, float] = (0.0, 0.0, 0.2),
    focal: Scalar = FOCAL,
) -> Float[Array, "*batch 25"]:
    """EG3D's look-at sampler, with its arguments.

    pi / 2 is frontal for both; yaw = pi / 2 + a moves the camera to +x by the angle a.
    `pitch` is NOT an angle: the elevation is arcsin(1 - 2 pitch / pi). The position lies on a sphere around the ORIGIN
    while the camera looks at `pivot`. Use `orbit_camera` for true angles around the pivot.
    """
    yaw, pitch = jnp.broadcast_arrays(jnp.asarray(yaw, jnp.float32), jnp.asarray(pitch, jnp.float32))
    phi = jnp.arccos(1 - 2 * jnp.clip(pitch, 1e-5, np.pi - 1e-5) / np.pi)
    theta = np.pi - yaw
    position = jnp.stack([jnp.sin(phi) * jnp.cos(theta), jnp.cos(phi), jnp.sin(phi) * jnp.sin(theta)], axis=-1)
    return pack_camera(_look_at(radius * position, jnp.asarray(pivot, jnp.float32)), intrinsics(focal))


def orbit_camera(
    yaw_deg: Float[Array, "*#batch"] | Scalar,
    pitch_deg: Float[Array, "*#batch"] | Scalar,
    radius: Scalar = RADIUS,
    pivot: Float[Array, "3"] | tuple[float, float, float] = ORIGIN,
    focal: Scalar = FOCAL,
) -> Float[Array, "*batch 25"]:
    """Camera at true angles (degrees) on a sphere of `radius` around `pivot`, looking at it, without roll.

    The angles have the sign of gaze: somebody at the pivot with head-frame gaze (pitch, yaw) looks into this camera. So
    +pitch is above and +yaw towards the left of a frontal image (-x). (0, 0) is the frontal camera. Pitch must stay
    within +-90, exclusive.
    """
    angles = jnp.radians(jnp.stack(jnp.broadcast_arrays(jnp.asarray(pitch_deg), jnp.asarray(yaw_deg)), axis=-1))
    center = jnp.asarray(pivot, jnp.float32)
    return pack_camera(_look_at(center + radius * head_gaze_to_vector(angles), center), intrinsics(focal))


def camera_points(
    points: Float[Array, "*#batch n 3"], camera: Float[Array, "*#batch 25"]
) -> Float[Array, "*#batch n 3"]:
    """World points in the OpenCV axes of a camera, world units; the last component is the depth along its axis."""
    cam2world, _ = unpack_camera(camera)
    return transform_points(invert_rigid(cam2world), points)


def project(
    points: Float[Array, "*#batch n 3"], camera: Float[Array, "*#batch 25"]
) -> tuple[Float[Array, "*#batch n 2"], Float[Array, "*#batch n"]]:
    """Normalised image coordinates and depths (ray lengths, world units) of world points.

    Points at or behind the camera's plane get coordinates far outside the image.
    """
    local = camera_points(points, camera)
    _, k = unpack_camera(camera)
    homogeneous = local / jnp.maximum(local[..., 2:], 1e-6)
    uv = times(k[..., None, :2, :], homogeneous)
    return uv, jnp.linalg.norm(local, axis=-1)


def view_change(a: Float[Array, "*#batch 25"], b: Float[Array, "*#batch 25"]) -> Float[Array, "*#batch"]:
    """How differently two cameras see a head: about the angle between their axes plus that by which they are moved
    around it, in radians, with a change of focal length counted as its ratio; 0 for equal cameras."""
    (pose_a, k_a), (pose_b, k_b) = unpack_camera(a), unpack_camera(b)
    turned = jnp.square(pose_a[..., :3, :3] - pose_b[..., :3, :3]).sum((-2, -1)) / 2
    moved = jnp.square(pose_a[..., :3, 3] - pose_b[..., :3, 3]).sum(-1) / RADIUS**2
    zoomed = jnp.square((k_a - k_b)[..., :2, :]).sum((-2, -1)) / FOCAL**2
    return jnp.sqrt(turned + moved + zoomed)


def invert_rigid(matrix: Float[Array, "*batch 4 4"]) -> Float[Array, "*batch 4 4"]:
    """Inverse of a rigid transform (rotation and translation)."""
    rotation = jnp.swapaxes(matrix[..., :3, :3], -1, -2)
    return _affine(rotation, -times(rotation, matrix[..., :3, 3]))


def source_frame(
    camera: Float[Array, "*batch 25"], eye_centers: Float[Array, "*batch 2 3"]
) -> Float[Array, "*batch 4 4"]:
    """Similarity transform to the frame of a photo: its camera looks along -z, and the eyes tell the scale.

    One image cannot say how large and how far a head is, nor with which focal length it was taken. So the world is
    scaled, and the camera placed on the z axis, such that the middle of the eyeballs lies in the plane z = EYE_PLANE
    and the image shows that plane as large as the frontal camera would. What is left to be known can be seen.
    """
    cam2world, k = unpack_camera(camera)
    middle = camera_points(eye_centers, camera).mean(-2)
    away = (RADIUS - EYE_PLANE) * k[..., 0, 0] / FOCAL
    scale = (away / middle[..., 2])[..., None, None]
    turn = compose(jnp.asarray(FRONTAL_ROTATION), jnp.swapaxes(cam2world[..., :3, :3], -1, -2))
    place = -times(scale * turn, cam2world[..., :3, 3])
    return _affine(scale * turn, place.at[..., 2].add(EYE_PLANE + away))


def scale_of(transform: Float[Array, "*batch 4 4"]) -> Float[Array, "*batch"]:
    """The factor by which a similarity transform scales lengths."""
    return jnp.linalg.norm(transform[..., 0, :3], axis=-1)


def compose(a: Float[Array, "*#batch n n"], b: Float[Array, "*#batch n n"]) -> Float[Array, "*#batch n n"]:
    """Matrix product a b in full float32 precision on every device."""
    return jnp.matmul(a, b, precision="highest")


def transform_camera(
    transform: Float[Array, "*#batch 4 4"], camera: Float[Array, "*#batch 25"]
) -> Float[Array, "*#batch 25"]:
    """The camera after a similarity transform of the world."""
    cam2world, k = unpack_camera(camera)
    moved = compose(transform, cam2world)
    turn = moved[..., :3, :3] / scale_of(transform)[..., None, None]
    return pack_camera(_affine(turn, moved[..., :3, 3]), k)


def transform_points(
    transform: Float[Array, "*#batch 4 4"], points: Float[Array, "*#batch n 3"]
) -> Float[Array, "*#batch n 3"]:
    """Points [..., n, 3] after a similarity transform of the world."""
    return times(transform[..., None, :3, :3], points) + transform[..., None, :3, 3]


def transform_vector(
    transform: Float[Array, "*#batch 4 4"], vector: Float[Array, "*#batch 3"]
) -> Float[Array, "*#batch 3"]:
    """A direction (such as a gaze vector) after a similarity transform of the world; it keeps its length."""
    return times(transform[..., :3, :3], vector) / scale_of(transform)[..., None]


def _affine(linear, position):
    top = jnp.concatenate([linear, position[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], top.dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def _look_at(position, target):
    forward = _normalize(target - position)
    right = _normalize(jnp.cross(forward, jnp.asarray(_UP)))
    down = _normalize(jnp.cross(forward, right))
    return _affine(jnp.stack([right, down, forward], axis=-1), position)


def _normalize(vector):
    return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)
