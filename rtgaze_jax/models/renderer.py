"""Triplane -> image at a camera: EG3D's two-pass volume rendering and super-resolution. Shared by the student and the
teacher."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.geometry.camera import unpack_camera
from rtgaze_jax.models.config import RenderConfig
from rtgaze_jax.models.crops import source_colours
from rtgaze_jax.models.decoder import FieldDecoder
from rtgaze_jax.models.layers import grow
from rtgaze_jax.models.superres import SuperResolution
from rtgaze_jax.rendering import kernels
from rtgaze_jax.rendering.rays import camera_rays
from rtgaze_jax.rendering.triplane import EG3D_AXES, TRUE_AXES
from rtgaze_jax.rendering.volume import render_rays


class TriplaneRenderer(nn.Module):
    """Renders triplanes. Depth is ray length in world units."""

    config: RenderConfig
    dtype: jnp.dtype = jnp.float32
    implementation: kernels.Implementation = kernels.DEFAULT  # of the field; no part of what the weights mean

    @nn.compact
    def __call__(
        self,
        planes: Float[Array, "B 3 G G C"],
        camera: Float[Array, "B 25"],
        source: Float[Array, "B S S 3"] | None = None,
        source_camera: Float[Array, "B 25"] | None = None,
        key: Array | None = None,
        trust: Float[Array, "B"] | float = 0.0,
    ) -> dict[str, Array]:
        """`source` in [0, 1] and its camera feed the source-pixel skip, `trust` (0 to 1) is how much more of it to take
        than was learned. `key`: stratified samples; None: deterministic.

        Returns image [B, S, S, 3] around [0, 1], raw [B, R, R, 3], depth [B, R, R], opacity [B, R, R].
        """
        c = self.config
        axes = TRUE_AXES if c.axes == "true" else EG3D_AXES
        decoder = FieldDecoder(c.hidden, c.features, dtype=self.dtype, name="field")
        if self.is_initializing():
            decoder(jnp.zeros((1, 1, c.plane_channels)))  # for its parameters; the field is a function of them
        options = kernels.Options(c.box, axes, c.density_shift, self.dtype, self.implementation)
        params = decoder.variables["params"]
        b, r = planes.shape[0], c.resolution
        start, direction = camera_rays(camera, r)
        distance = jnp.linalg.norm(unpack_camera(camera)[0][:, :3, 3], axis=-1)[:, None]
        near, far = (jnp.broadcast_to(distance + offset, (b, r * r)) for offset in (c.start, c.end))
        rendered = render_rays(
            lambda points: kernels.field(planes, points, params, options),
            start.reshape(b, -1, 3),
            direction.reshape(b, -1, 3),
            near,
            far,
            c.coarse,
            c.fine,
            key,
            merge=c.merge,
            density_scale=c.density_scale,
            density=lambda points: kernels.density(planes, points, params, options),
        )
        colour, depth, opacity = (x.reshape(b, r, r, *x.shape[2:]) for x in rendered[:3])
        raw = colour[..., :3]
        pixels = None
        if c.skip and source is not None and source_camera is not None:
            pixels = reproject(depth, camera, source, source_camera)
        image = SuperResolution(c.superres, self.dtype, name="superres")(colour * 2 - 1, raw, pixels, trust)
        return {"image": image, "raw": raw, "depth": depth, "opacity": opacity}


def reproject(
    depth: Float[Array, "B R R"],
    camera: Float[Array, "B 25"],
    source: Float[Array, "B S S 3"],
    source_camera: Float[Array, "B 25"],
) -> Float[Array, "B S S 3"]:
    """The source's colour at the surface point that each output pixel sees (no test of visibility; no gradient into the
    depth)."""
    b, size = source.shape[:2]
    deep = grow(depth[..., None], size // depth.shape[1])
    start, direction = camera_rays(camera, size)
    points = (start + direction * deep).reshape(b, -1, 3)
    return source_colours(points, source, source_camera).reshape(b, size, size, 3)
