"""The eye branch: one small triplane per eye in a box around the eyeball, and rays over the eyes at output resolution.

An iris is about four rays wide in the global rendering. Here it gets a triplane of its own, made from a full-resolution
crop and the
gaze, added to the (frozen) global features inside the box, and one ray per output pixel. Both eyes share the weights:
the subject's
right eye is mirrored to look like a left one (crop flipped, yaw negated, local x negated).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtgaze_jax.geometry.camera import project
from rtgaze_jax.models.config import EyeConfig
from rtgaze_jax.models.crops import MIRRORED, source_colours
from rtgaze_jax.models.decoder import FieldDecoder
from rtgaze_jax.models.layers import conv, dense, gaussian, grow, with_coordinates
from rtgaze_jax.models.prompt import GAZE_FREQUENCIES
from rtgaze_jax.rendering import kernels
from rtgaze_jax.rendering.pointwise import fourier, waves
from rtgaze_jax.rendering.rays import rays_at
from rtgaze_jax.rendering.triplane import TRUE_AXES, sample_planes
from rtgaze_jax.rendering.volume import march, stratified_depths

_DENSITY_SCALE = 100.0  # a lid is thin compared with the box
_PLACE = (2.0, 4.0)  # frequencies of the field's waves of the place


class ConditionedBlock(nn.Module):
    """Residual block whose group norm is scaled and shifted by the condition."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], condition: Float[Array, "N D"]) -> Float[Array, "N H W F"]:
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, dtype=self.dtype)(x)
        film = dense(2 * self.features, self.dtype, gaussian(fan_in=0.1), name="film")(condition)[:, None, None]
        scale, shift = jnp.split(film, 2, -1)
        y = nn.GroupNorm(num_groups=8, dtype=self.dtype)(x) * (1 + scale) + shift
        y = conv(self.features, dtype=self.dtype)(nn.leaky_relu(y, 0.1))
        return x + conv(self.features, dtype=self.dtype)(nn.leaky_relu(y, 0.1))


class EyeTriplanes(nn.Module):
    """Eye crops + gaze + a context vector -> eye-local triplanes (a conditioned U-Net)."""

    config: EyeConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, crops: Float[Array, "N K K 3"], gaze: Float[Array, "N 2"], context: Float[Array, "N D"]
    ) -> Float[Array, "N 3 P P C"]:
        """`crops` in [-1, 1]; `gaze` radians; right eyes mirrored throughout."""
        c = self.config
        condition = jnp.concatenate(
            [fourier(gaze, GAZE_FREQUENCIES).astype(self.dtype), context.astype(self.dtype)], -1
        )
        for _ in range(2):
            condition = nn.leaky_relu(dense(c.condition, dtype=self.dtype)(condition), 0.1)
        x = with_coordinates(crops).astype(self.dtype)
        x = conv(c.widths[0], 3, c.plane_stride, dtype=self.dtype, name="stem")(x)
        levels = []
        for i, width in enumerate(c.widths):
            if i:
                x = conv(width, 3, 2, dtype=self.dtype)(nn.leaky_relu(x, 0.1))
            x = ConditionedBlock(width, self.dtype)(x, condition)
            levels.append(x)
        x = ConditionedBlock(c.widths[-1], self.dtype)(x, condition)
        for width, level in zip(c.widths[-2::-1], levels[-2::-1], strict=True):
            x = conv(width, dtype=self.dtype)(jnp.concatenate([grow(x), level], -1))
            x = ConditionedBlock(width, self.dtype)(x, condition)
        x = conv(3 * c.plane_channels, dtype=self.dtype, name="planes")(nn.leaky_relu(x, 0.1))
        n, h, w, _ = x.shape
        return jnp.moveaxis(x.reshape(n, h, w, 3, c.plane_channels), 3, 1).astype(jnp.float32)


def patch_origins(
    centers: Float[Array, "B 2 3"], camera: Float[Array, "B 25"], size: int, patch: tuple[int, int]
) -> Int[Array, "B 2 2"]:
    """Row and column of each eye patch's first pixel: centred on the projected eye, kept inside the image."""
    uv, _ = project(centers, camera)
    first = jnp.round(uv[..., ::-1] * size).astype(jnp.int32) - jnp.array([patch[0] // 2, patch[1] // 2])
    return jnp.clip(first, 0, jnp.array([size - patch[0], size - patch[1]]))


def take_patches(
    image: Float[Array, "B S S *c"], origins: Int[Array, "B 2 2"], patch: tuple[int, int]
) -> Float[Array, "B 2 h w *c"]:
    """Cuts the eye patches out of images (any trailing channels)."""
    tail = image.shape[3:]

    def one(m: Array, o: Array) -> Array:
        return jax.lax.dynamic_slice(m, (o[0], o[1], *[0] * len(tail)), (*patch, *tail))

    return jax.vmap(lambda m, pair: jax.vmap(lambda o: one(m, o))(pair))(image, origins)


def paste_patches(
    image: Float[Array, "B S S C"],
    patches: Float[Array, "B 2 h w C"],
    weights: Float[Array, "B 2 h w 1"],
    origins: Int[Array, "B 2 2"],
) -> Float[Array, "B S S C"]:
    """Blends patches over images, one eye after the other."""

    def one(m: Array, ps: Array, ws: Array, os: Array) -> Array:
        for p, w, o in zip(ps, ws, os, strict=True):
            at = (o[0], o[1], 0)
            under = jax.lax.dynamic_slice(m, at, p.shape)
            m = jax.lax.dynamic_update_slice(m, under * (1 - w) + p * w, at)
        return m

    return jax.vmap(one)(image, patches, weights, origins)


def feather(patch: tuple[int, int], border: float = 0.12) -> Float[Array, "h w 1"]:
    """Weights that rise from 0 at the patch's edge to 1 inside, over `border` of its height."""
    rows, columns = (jnp.minimum(jnp.arange(n) + 0.5, n - jnp.arange(n) - 0.5) for n in patch)
    x = jnp.clip(jnp.minimum(rows[:, None], columns[None, :]) / (border * patch[0]), 0, 1)
    return (x * x * (3 - 2 * x))[..., None]


class EyeRefiner(nn.Module):
    """Rendered eye features -> colours. A two-level U-Net at output resolution.

    With the source's pixels, skin and lashes around the moving parts need not be drawn anew.
    """

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "N h w F"],
        opacity: Float[Array, "N h w 1"],
        pixels: Float[Array, "N h w 3"] | None = None,
    ) -> Float[Array, "N h w 3"]:
        act = lambda y: nn.leaky_relu(y, 0.1)  # noqa: E731
        parts = [features * 2 - 1, opacity] + ([] if pixels is None else [pixels * 2 - 1])
        x = jnp.concatenate(parts, -1).astype(self.dtype)
        x = top = act(conv(self.width, dtype=self.dtype)(x))
        x = act(conv(2 * self.width, 3, 2, dtype=self.dtype)(x))
        x = x + conv(2 * self.width, dtype=self.dtype)(act(conv(2 * self.width, dtype=self.dtype)(x)))
        x = act(conv(self.width, dtype=self.dtype)(jnp.concatenate([grow(x), top], -1)))
        x = x + conv(self.width, dtype=self.dtype)(act(conv(self.width, dtype=self.dtype)(x)))
        change = conv(3, dtype=self.dtype, init=gaussian(1e-3), name="out")(act(x)).astype(jnp.float32)
        return features[..., :3] + change


class EyeRenderer(nn.Module):
    """Rays over both eyes at output resolution through global features + eye-local triplanes."""

    config: EyeConfig
    image_size: int
    dtype: jnp.dtype = jnp.float32
    implementation: kernels.Implementation = kernels.DEFAULT  # of the field; no part of what the weights mean

    @nn.compact
    def __call__(
        self,
        eye_planes: Float[Array, "2*B 3 P P C"],
        centers: Float[Array, "B 2 3"],
        planes: Float[Array, "B 3 G G D"] | None,
        box: float,
        camera: Float[Array, "B 25"],
        source: Float[Array, "B S S 3"],
        source_camera: Float[Array, "B 25"],
        key: Array | None = None,
    ) -> dict[str, Array]:
        """`planes`: the head's, for a field that is shared. `source` in [0, 1] and its camera feed the source-pixel
        skip. `key`: stratified samples (training); None: bin centres.

        Returns patch colours [B, 2, h, w, 3] before (`raw`) and after refinement (`patches`), in [0, 1]; depth (ray
        length) and opacity [B, 2, h, w]; origins [B, 2, 2].
        """
        c = self.config
        b, (h, w) = centers.shape[0], c.patch
        origins = patch_origins(centers, camera, self.image_size, c.patch)
        rows = (origins[..., 0, None] + jnp.arange(h) + 0.5) / self.image_size
        columns = (origins[..., 1, None] + jnp.arange(w) + 0.5) / self.image_size
        uv = jnp.stack(jnp.broadcast_arrays(columns[:, :, None, :], rows[:, :, :, None]), -1).reshape(b, -1, 2)
        start, direction = rays_at(camera, uv)  # [B, 2*h*w, 3]
        center = jnp.repeat(centers, h * w, 1)
        nearest = ((center - start) * direction).sum(-1)
        depths = stratified_depths(nearest + c.near, nearest + c.far, c.samples, key, nearest.shape)  # [B, R, n]
        points = start[:, :, None] + direction[:, :, None] * depths[..., None]
        local = (points - center[:, :, None]).reshape(b, 2, h * w * c.samples, 3)
        local = (local * jnp.stack([MIRRORED, jnp.ones(2), jnp.ones(2)], -1)[:, None]).reshape(2 * b, -1, 3)
        decoder = FieldDecoder(c.hidden, c.features, 2, dtype=self.dtype, name="field")
        if c.shared:
            assert planes is not None
            known = sample_planes(jax.lax.stop_gradient(planes), points.reshape(b, -1, 3), box, TRUE_AXES)
            known = jax.lax.stop_gradient(known).reshape(2 * b, -1, known.shape[-1])
            own = sample_planes(eye_planes, local, c.box, TRUE_AXES)
            density, colours = decoder(jnp.concatenate([own, waves(local, c.box, _PLACE), known], -1))
        else:
            if self.is_initializing():  # for its parameters; the field is a function of them
                decoder(jnp.zeros((1, 1, c.plane_channels + waves(local[:1, :1], c.box, _PLACE).shape[-1])))
            options = kernels.Options(
                c.box, TRUE_AXES, dtype=self.dtype, implementation=self.implementation, place=_PLACE
            )
            density, colours = kernels.field(eye_planes, local, decoder.variables["params"], options)
        shape = (b, 2 * h * w, c.samples)
        seen = march(colours.reshape(*shape, c.features), density.reshape(shape), depths, _DENSITY_SCALE)
        # compilers for GPUs would march again wherever the colours are read
        colour, depth, opacity = jax.lax.optimization_barrier(seen[:3])

        def grid(x: Array) -> Array:
            return x.reshape(2 * b, h, w, -1)

        pixels = None
        if c.skip:
            pixels = grid(source_colours(start + direction * depth[..., None], source, source_camera))
        refined = EyeRefiner(c.refine, self.dtype, name="refine")(grid(colour), grid(opacity), pixels)
        refined = jax.lax.optimization_barrier(refined)  # or each pixel of the whole image would refine its own
        return {
            "patches": refined.reshape(b, 2, h, w, 3),
            "raw": grid(colour)[..., :3].reshape(b, 2, h, w, 3),
            "depth": depth.reshape(b, 2, h, w),
            "opacity": opacity.reshape(b, 2, h, w),
            "origins": origins,
        }
