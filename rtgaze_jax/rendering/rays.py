"""Camera rays: origins and unit directions in world axes, so that depths along them are Euclidean lengths."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import unpack_camera
from rtgaze_jax.geometry.linear import times


def rays_at(
    camera: Float[Array, "*batch 25"], uv: Float[Array, "*points 2"]
) -> tuple[Float[Array, "*points 3"], Float[Array, "*points 3"]]:
    """Rays through points of the image.

    Args:
        camera: camera labels.
        uv: normalised image coordinates; the leading dimensions are those of `camera`, any number of others follows.

    Returns:
        origins and unit directions, world axes.
    """
    cam2world, k = unpack_camera(camera)
    extra = (1,) * (uv.ndim - camera.ndim)
    cam2world, k = (m.reshape(*camera.shape[:-1], *extra, *m.shape[-2:]) for m in (cam2world, k))
    y = (uv[..., 1] - k[..., 1, 2]) / k[..., 1, 1]
    x = (uv[..., 0] - k[..., 0, 2] - k[..., 0, 1] * y) / k[..., 0, 0]
    local = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)
    directions = times(cam2world[..., :3, :3], local)
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    return jnp.broadcast_to(cam2world[..., :3, 3], directions.shape), directions


def camera_rays(
    camera: Float[Array, "*batch 25"], resolution: int
) -> tuple[Float[Array, "*batch height width 3"], Float[Array, "*batch height width 3"]]:
    """Rays through the pixel centres of a square image: origins and unit directions, world axes."""
    uv = pixel_centers(resolution)
    return rays_at(camera, jnp.broadcast_to(uv, (*camera.shape[:-1], *uv.shape)))


def pixel_centers(resolution: int) -> Float[Array, "height width 2"]:
    """Normalised (x, y) of the pixel centres of a square image: (i + 0.5) / resolution."""
    centers = (jnp.arange(resolution, dtype=jnp.float32) + 0.5) / resolution
    return jnp.stack(jnp.meshgrid(centers, centers, indexing="xy"), axis=-1)
