"""Shorter rays: their part inside a box."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import Scalar

_PARALLEL = 1e-12  # a ray's smallest motion along an axis


def box_range(
    origins: Float[Array, "*rays 3"],
    directions: Float[Array, "*rays 3"],
    near: Float[Array, "*#rays"] | Scalar,
    far: Float[Array, "*#rays"] | Scalar,
    low: Float[Array, "3"] | Scalar,
    high: Float[Array, "3"] | Scalar,
) -> tuple[Float[Array, "*rays"], Float[Array, "*rays"]]:
    """The part of [near, far] in which rays are inside an axis-aligned box, world units.

    Rays that miss the box keep their range. On others the samples lie closer together: the result is that of the whole
    ray, better resolved, if nothing absorbs outside. Only the depth of a ray that meets next to nothing is another: it
    is the mean of its range.

    Args:
        origins, directions: of rays, unit directions.
        near, far: ends of the rays.
        low, high: corners of the box.
    """
    directions = jnp.where(jnp.abs(directions) < _PARALLEL, _PARALLEL, directions)
    first, second = ((corner - origins) / directions for corner in (low, high))
    enter = jnp.maximum(jnp.max(jnp.minimum(first, second), axis=-1), near)
    leave = jnp.minimum(jnp.min(jnp.maximum(first, second), axis=-1), far)
    hit = enter < leave
    return jnp.where(hit, enter, near), jnp.where(hit, leave, far)
