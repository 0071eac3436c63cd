"""Gaze angles, gaze vectors and the frames they live in.

Angles are (pitch, yaw) in radians with the sign of ETH-XGaze: in the OpenCV axes of a camera
(x right, y down, z forward)

    g = -(cos p sin y, sin p, cos p cos y)

so (0, 0) looks into the lens, +pitch looks up and +yaw looks to image left. The angles of the head frame are the same
formula in the axes of the frame's frontal camera; in world axes (x right, y up, z out of the face) that is

    w = (-cos p sin y, sin p, cos p cos y)
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.geometry.linear import times

FRONTAL_ROTATION = np.diag([1.0, -1.0, -1.0]).astype(np.float32)
"""Rotation of the frontal camera: OpenCV camera axes to world axes and back (it is its own inverse)."""


def gaze_to_vector(pitch_yaw: Float[Array, "*batch 2"]) -> Float[Array, "*batch 3"]:
    """Unit gaze vector in a camera's OpenCV axes of (pitch, yaw) in radians."""
    pitch, yaw = pitch_yaw[..., 0], pitch_yaw[..., 1]
    return -jnp.stack([jnp.cos(pitch) * jnp.sin(yaw), jnp.sin(pitch), jnp.cos(pitch) * jnp.cos(yaw)], axis=-1)


def vector_to_gaze(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 2"]:
    """(pitch, yaw) in radians of a gaze vector (any length above zero) in a camera's OpenCV axes.

    Straight up and down, where yaw means nothing, it is 0 and gradients stay finite.
    """
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    # atan2 instead of arcsin: exact near the poles, no clipping, no normalisation needed.
    pole = (x == 0) & (z == 0)
    yaw = jnp.arctan2(-x, jnp.where(pole, 1.0, -z))
    return jnp.stack([jnp.arctan2(-y, _safe_norm(vector[..., 0::2])), yaw], axis=-1)


def vector_angle_deg(a: Float[Array, "*#batch 3"], b: Float[Array, "*#batch 3"]) -> Float[Array, "*#batch"]:
    """Angle between two vectors of any length, in degrees, in [0, 180].

    The arctangent form keeps its precision at 0 and 180 degrees, where the arccosine of the cosine loses half of the
    digits.
    """
    return jnp.degrees(jnp.arctan2(_safe_norm(jnp.cross(a, b)), jnp.sum(a * b, axis=-1)))


def angular_error_deg(a: Float[Array, "*#batch 2"], b: Float[Array, "*#batch 2"]) -> Float[Array, "*#batch"]:
    """Angle between two gaze directions given as (pitch, yaw) in radians of the same frame, in degrees."""
    return vector_angle_deg(gaze_to_vector(a), gaze_to_vector(b))


def gaze_to_world(
    pitch_yaw: Float[Array, "*#batch 2"], cam2world: Float[Array, "*#batch 4 4"]
) -> Float[Array, "*#batch 3"]:
    """World vector of a gaze given as (pitch, yaw) in the frame of one camera."""
    return times(cam2world[..., :3, :3], gaze_to_vector(pitch_yaw))


def gaze_from_world(
    vector: Float[Array, "*#batch 3"], cam2world: Float[Array, "*#batch 4 4"]
) -> Float[Array, "*#batch 2"]:
    """(pitch, yaw) in the frame of one camera of a world gaze vector: the inverse of `gaze_to_world`."""
    return vector_to_gaze(times(jnp.swapaxes(cam2world[..., :3, :3], -1, -2), vector))


def head_gaze_to_vector(pitch_yaw: Float[Array, "*batch 2"]) -> Float[Array, "*batch 3"]:
    """World vector of a gaze given as (pitch, yaw) in the head frame, i.e. as seen by the frontal camera."""
    return gaze_to_vector(pitch_yaw) * jnp.diagonal(FRONTAL_ROTATION)


def vector_to_head_gaze(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 2"]:
    """(pitch, yaw) in the head frame of a world gaze vector: the inverse of `head_gaze_to_vector`."""
    return vector_to_gaze(vector * jnp.diagonal(FRONTAL_ROTATION))


def _safe_norm(vector: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Euclidean length whose gradient at zero is zero instead of NaN."""
    square = jnp.sum(vector * vector, axis=-1)
    zero = square == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))
