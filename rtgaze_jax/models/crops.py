"""Looking into images: colours at points, and crops around eyes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import project, unpack_camera

MIRRORED = np.array([1.0, -1.0])
"""Sign of an eye's horizontal axis: the subject's left eye as it is, the right one mirrored."""


def per_eye(gaze: Float[Array, "B 2"]) -> Float[Array, "2*B 2"]:
    """(pitch, yaw) as each example's left and mirrored right eye see it, in the order of `eye_crops`."""
    signs = np.stack([np.ones(2), MIRRORED], -1).astype(np.float32)
    return (gaze[:, None] * signs).reshape(-1, 2)


def sample_image(image: Float[Array, "B H W C"], uv: Float[Array, "B N 2"]) -> Float[Array, "B N C"]:
    """Bilinear lookup at normalised coordinates, edge pixels repeated."""
    b, h, w, c = image.shape
    flat = image.reshape(b * h * w, c)
    x, y = uv[..., 0] * w - 0.5, uv[..., 1] * h - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    base = (jnp.arange(b) * h * w)[:, None]
    total = jnp.zeros((*uv.shape[:-1], c), image.dtype)
    for dx in (0, 1):
        for dy in (0, 1):
            column = jnp.clip(left.astype(jnp.int32) + dx, 0, w - 1)
            row = jnp.clip(top.astype(jnp.int32) + dy, 0, h - 1)
            weight = (1 - jnp.abs(x - left - dx)) * (1 - jnp.abs(y - top - dy))
            total += weight[..., None] * jnp.take(flat, base + row * w + column, axis=0, mode="clip")
    # Compilers for GPUs would look again for every use, and for every channel that is put next to these.
    return jax.lax.optimization_barrier(total)


def source_colours(
    points: Float[Array, "B N 3"], source: Float[Array, "B S S 3"], source_camera: Float[Array, "B 25"]
) -> Float[Array, "B N 3"]:
    """The source's colours where it sees 3D points (no test of visibility; no gradient into the points)."""
    uv, _ = project(jax.lax.stop_gradient(points), source_camera)
    return sample_image(source, uv)


def eye_crops(
    image: Float[Array, "B S S 3"], centers: Float[Array, "B 2 3"], camera: Float[Array, "B 25"], box: float, size: int
) -> Float[Array, "2*B size size 3"]:
    """Square crops that span `box` world units around each projected eye centre; the right eye's is mirrored."""
    b = image.shape[0]
    uv, depth = project(centers, camera)
    focal = unpack_camera(camera)[1][..., 0, 0]
    half = 0.5 * box * focal[:, None] / depth  # [B, 2]
    line = (jnp.arange(size) + 0.5) / size * 2 - 1
    du = half[..., None] * line * MIRRORED[:, None]  # [B, 2, size]
    dv = half[..., None] * line
    grid = jnp.stack(
        jnp.broadcast_arrays(uv[..., 0, None, None] + du[:, :, None, :], uv[..., 1, None, None] + dv[:, :, :, None]), -1
    )
    return sample_image(image, grid.reshape(b, -1, 2)).reshape(2 * b, size, size, image.shape[-1])
