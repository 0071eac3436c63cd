"""Normalised cameras (data normalisation of 2018) and the EG3D-style face crop from landmarks.

Normalisation after Zhang, Sugano and Bulling, "Revisiting data normalization for appearance-based gaze estimation"
(ETRA 2018): the camera is rotated to look straight at a point of the face with the head's x axis level, then scaled to
a fixed distance. Camera axes are OpenCV's, lengths in mm or any one unit.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import Scalar, compose
from rtgaze_jax.geometry.linear import times

EYE_MIDPOINT = (0.5, 0.376)
"""Where the midpoint between the eyes lies in an EG3D crop, normalised image coordinates."""
MOUTH_MIDPOINT = (0.5, 0.663)
"""Where the middle of the mouth lies in an EG3D crop, normalised image coordinates."""
EYE_DISTANCE = 0.266
"""Distance between the eyes in an EG3D crop of a frontal face, image widths."""
# EG3D's crop puts Deep3DFaceRecon's standard landmarks (eyes at (+-0.31, 0.29), mouth corners at (+-0.25, -0.381), in
# units of 10 cm) at 300 pixels a unit around the centre of an image of which it keeps 700 pixels: so the eyes come to
# 0.5 - 0.29 * 300 / 700 = 0.376, and so on.


class Normalization(NamedTuple):
    """A normalised camera.

    rotation: from the original camera's axes to the normalised camera's.
    warp: homography from the original image's pixels to the normalised image's.
    """

    rotation: Float[Array, "*batch 3 3"]
    warp: Float[Array, "*batch 3 3"]


def face_center(
    model: Float[Array, "6 3"], head_rotation: Float[Array, "*#batch 3 3"], head_translation: Float[Array, "*#batch 3"]
) -> Float[Array, "*#batch 3"]:
    """ETH-XGaze's face centre in camera axes: the mean of the mean of four eye corners and the mean of two nose points.

    Args:
        model: the four eye corners, then the two nose (or mouth) points, in the head's axes.
        head_rotation, head_translation: the head's pose in the camera.
    """
    center = (model[:4].mean(axis=0) + model[4:].mean(axis=0)) / 2
    return times(head_rotation, center) + head_translation


def normalize_camera(
    center: Float[Array, "*#batch 3"],
    head_rotation: Float[Array, "*#batch 3 3"],
    camera_matrix: Float[Array, "*#batch 3 3"],
    *,
    focal: Scalar,
    distance: Scalar,
    size: tuple[int, int],
) -> Normalization:
    """The normalised camera that looks at `center`.

    Args:
        center: point of the face that comes to the image centre, in camera axes.
        head_rotation: head axes to camera axes.
        camera_matrix: intrinsics of the original camera, pixels.
        focal, distance, size: of the normalised camera: pixels, unit of `center`, (width, height) in pixels.
    """
    length = jnp.linalg.norm(center, axis=-1, keepdims=True)
    forward = center / length
    down = jnp.cross(forward, head_rotation[..., :, 0])
    down = down / jnp.linalg.norm(down, axis=-1, keepdims=True)
    rotation = jnp.stack([jnp.cross(down, forward), down, forward], axis=-2)
    scaled = rotation * jnp.concatenate([jnp.ones_like(center[..., :2]), distance / length], axis=-1)[..., None]
    normalized = jnp.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]], center.dtype)
    return Normalization(rotation, compose(normalized, compose(scaled, jnp.linalg.inv(camera_matrix))))


def normalized_head(
    normalization: Normalization, head_rotation: Float[Array, "*#batch 3 3"]
) -> Float[Array, "*#batch 3 3"]:
    """Head rotation in the normalised camera."""
    return compose(normalization.rotation, head_rotation)


def normalized_gaze(
    normalization: Normalization, center: Float[Array, "*#batch 3"], target: Float[Array, "*#batch 3"]
) -> Float[Array, "*#batch 3"]:
    """Unit gaze vector in the normalised camera from `center` to the gaze target, both in the original camera's axes.

    The 2018 method rotates gaze and does not scale it.
    """
    gaze = times(normalization.rotation, target - center)
    return gaze / jnp.linalg.norm(gaze, axis=-1, keepdims=True)


def rotation_from_vector(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrix of a rotation vector (axis times angle in radians), as OpenCV's Rodrigues."""
    square = jnp.sum(vector * vector, axis=-1)[..., None, None]
    small = square < 1e-8
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    sine = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
    cosine = jnp.where(small, 0.5 - square / 24, 2 * (jnp.sin(angle / 2) / angle) ** 2)
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vector.shape, 3)
    return jnp.eye(3, dtype=vector.dtype) + sine * cross + cosine * compose(cross, cross)


def vector_from_rotation(rotation: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3"]:
    """Rotation vector (axis times angle in radians, at most pi long) of a rotation matrix."""
    diagonal = jnp.diagonal(rotation, axis1=-2, axis2=-1)
    trace = jnp.sum(diagonal, axis=-1, keepdims=True)
    lower, upper = rotation[..., (2, 0, 1), (1, 2, 0)], rotation[..., (1, 2, 0), (2, 0, 1)]
    odd, even = lower - upper, lower + upper  # (x, y, z): 4 w q_i and 4 q_j q_k of the unit quaternion (w, q)
    # Four ways to read the quaternion, each scaled by four times one of its parts; the one with the largest part is
    # exact.
    squares = jnp.concatenate([1 + trace, 1 - trace + 2 * diagonal], axis=-1)
    ex, ey, ez = even[..., 0], even[..., 1], even[..., 2]
    candidates = jnp.stack(
        [
            jnp.concatenate([squares[..., :1], odd], axis=-1),
            jnp.stack([odd[..., 0], squares[..., 1], ez, ey], axis=-1),
            jnp.stack([odd[..., 1], ez, squares[..., 2], ex], axis=-1),
            jnp.stack([odd[..., 2], ey, ex, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    best = jnp.argmax(squares, axis=-1)[..., None, None]
    quaternion = jnp.take_along_axis(candidates, best, axis=-2)[..., 0, :]
    quaternion = quaternion * jnp.where(quaternion[..., :1] < 0, -1, 1)
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    length = jnp.linalg.norm(axis, axis=-1, keepdims=True)
    safe = jnp.where(length > 1e-12, length, 1.0)
    return axis * jnp.where(length > 1e-12, 2 * jnp.arctan2(length, w) / safe, 0.0)


def face_crop_matrix(
    eyes: Float[Array | np.ndarray, "*#batch 2 2"],
    mouth: Float[Array | np.ndarray, "*#batch 2"],
    size: Scalar,
    *,
    eye_midpoint: tuple[float, float] = EYE_MIDPOINT,
    mouth_midpoint: tuple[float, float] = MOUTH_MIDPOINT,
    eye_distance: float = EYE_DISTANCE,
) -> Float[Array | np.ndarray, "*#batch 2 3"]:
    """Similarity from photo pixels to the pixels of an upright EG3D-style square crop.

    Roll is removed; scale comes from the larger of the eyes' distance and the distance from eyes to mouth, each against
    its length in a frontal crop, because a turned head shortens the former and a nodding one the latter. The midpoint
    between eyes and mouth comes to its canonical place; for an upright frontal face so do the eyes' and the mouth's
    middles. Takes NumPy arrays (inference) as well as JAX's and answers in kind. Pixel coordinates are continuous:
    pixel i covers [i, i + 1); see `opencv_affine`.

    Args:
        eyes: centres of the subject's left and right eye in the photo, pixels, in this order.
        mouth: middle of the mouth, pixels.
        size: side of the crop, pixels.
        eye_midpoint, mouth_midpoint, eye_distance: the canonical frontal face, normalised coordinates.
    """
    xp = eyes.__array_namespace__()
    eye_to_mouth = mouth_midpoint[1] - eye_midpoint[1]
    middle = (eyes[..., 0, :] + eyes[..., 1, :]) / 2
    across, along = eyes[..., 0, :] - eyes[..., 1, :], mouth - middle
    # Both directions vote for the image's x axis, each in canonical lengths; (y, -x) turns "down" into "right".
    turned = xp.stack([along[..., 1], -along[..., 0]], axis=-1)
    right = across / eye_distance + turned / eye_to_mouth
    right = right / xp.linalg.norm(right, axis=-1, keepdims=True)
    lengths = xp.linalg.norm(across, axis=-1) / eye_distance, xp.linalg.norm(along, axis=-1) / eye_to_mouth
    linear = xp.stack([right, xp.stack([-right[..., 1], right[..., 0]], axis=-1)], axis=-2)
    linear = linear * (size / xp.maximum(*lengths))[..., None, None]
    goal = size * (xp.asarray(eye_midpoint, dtype=linear.dtype) + xp.asarray(mouth_midpoint, dtype=linear.dtype)) / 2
    shift = goal - xp.sum(linear * ((middle + mouth) / 2)[..., None, :], axis=-1)
    return xp.concatenate([linear, shift[..., None]], axis=-1)


def opencv_affine(matrix: Float[Array | np.ndarray, "*batch 2 3"]) -> Float[Array | np.ndarray, "*batch 2 3"]:
    """The same map for OpenCV's warpAffine, which puts pixel centres at whole numbers instead of halves."""
    xp = matrix.__array_namespace__()
    linear, shift = matrix[..., :2], matrix[..., 2]
    return xp.concatenate([linear, (shift + xp.sum(linear, axis=-1) / 2 - 0.5)[..., None]], axis=-1)


def invert_affine(matrix: Float[Array | np.ndarray, "*batch 2 3"]) -> Float[Array | np.ndarray, "*batch 2 3"]:
    """Inverse of a 2x3 affine map, such as crop pixels back to photo pixels."""
    xp = matrix.__array_namespace__()
    inverse = xp.linalg.inv(matrix[..., :2])
    shift = -xp.sum(inverse * matrix[..., None, :, 2], axis=-1)
    return xp.concatenate([inverse, shift[..., None]], axis=-1)
