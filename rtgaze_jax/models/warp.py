"""The 2D baseline: warping the eye region of a photo, as older gaze correction does. No 3D, no change of view."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.models.crops import per_eye, sample_image
from rtgaze_jax.models.eyes import (
    ConditionedBlock,
    feather,
    paste_patches,
    patch_origins,
    take_patches,
)
from rtgaze_jax.models.layers import conv, dense, grow, initialize, with_coordinates
from rtgaze_jax.models.prompt import GAZE_FREQUENCIES
from rtgaze_jax.rendering.pointwise import fourier


@dataclasses.dataclass(frozen=True)
class WarpConfig:
    """Sizes. `patch`: rows and columns of pixels around each eye, multiples of 2 ** len(widths)."""

    preset: str = "small"
    image_size: int = 512
    dtype: str = "bfloat16"
    patch: tuple[int, int] = (80, 112)
    widths: tuple[int, ...] = (32, 64, 96)
    condition: int = 128
    reach: float = 0.25  # of the patch's height: the flow that a network output of one means


PRESETS = {
    "small": WarpConfig(),
    "tiny": WarpConfig("tiny", 64, "float32", (8, 16), (8, 16), 16),
}


def config_from_dict(values: Any) -> WarpConfig:
    """The configuration of a mapping such as a weights header's; unknown keys raise TypeError."""
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in dict(values).items()}
    return WarpConfig(**known)


class GazeWarp(nn.Module):
    """A conditioned U-Net: an eye patch and two gazes -> where each pixel comes from, and what is added to it."""

    config: WarpConfig

    @nn.compact
    def __call__(
        self, patches: Float[Array, "N h w 3"], source: Float[Array, "N 2"], target: Float[Array, "N 2"]
    ) -> Float[Array, "N h w 3"]:
        """`patches` in [-1, 1], right eyes mirrored; gazes (pitch, yaw) in radians, in the camera's frame."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        condition = fourier(jnp.concatenate([source, target], -1), GAZE_FREQUENCIES).astype(dtype)
        for _ in range(2):
            condition = nn.leaky_relu(dense(c.condition, dtype)(condition), 0.1)
        x = conv(c.widths[0], dtype=dtype, name="stem")(with_coordinates(patches).astype(dtype))
        levels = []
        for i, width in enumerate(c.widths):
            if i:
                x = conv(width, 3, 2, dtype=dtype)(nn.leaky_relu(x, 0.1))
            x = ConditionedBlock(width, dtype)(x, condition)
            levels.append(x)
        for width, level in zip(c.widths[-2::-1], levels[-2::-1], strict=True):
            x = conv(width, dtype=dtype)(jnp.concatenate([grow(x), level], -1))
            x = ConditionedBlock(width, dtype)(x, condition)
        zeros = nn.initializers.zeros  # at first nothing moves
        out = conv(5, dtype=jnp.float32, init=zeros, name="out")(nn.leaky_relu(x, 0.1).astype(jnp.float32))
        flow, residual = out[..., :2] * c.reach, out[..., 2:]
        n, h, w, _ = patches.shape
        rows, columns = (jnp.arange(h) + 0.5) / h, (jnp.arange(w) + 0.5) / w
        grid = jnp.stack(jnp.broadcast_arrays(columns[None, :], rows[:, None]), -1)
        at = grid + flow * jnp.array([h / w, 1.0])
        return sample_image(patches, at.reshape(n, h * w, 2)).reshape(patches.shape) + residual


def mirrored(patches: Float[Array, "B 2 h w C"]) -> Float[Array, "B 2 h w C"]:
    """Patches with the subject's right eye turned into a left one, and back."""
    return jnp.stack([patches[:, 0], patches[:, 1, :, ::-1]], 1)


def warp_patches(
    params: Any,
    config: WarpConfig,
    patches: Float[Array, "B 2 h w 3"],
    source_gaze: Float[Array, "B 2"],
    target_gaze: Float[Array, "B 2"],
) -> Float[Array, "B 2 h w 3"]:
    """Eye patches (left, right, not mirrored, in [-1, 1]) after the change of gaze."""
    flat = mirrored(patches).reshape(-1, *patches.shape[2:])
    out: Any = GazeWarp(config).apply({"params": params}, flat, per_eye(source_gaze), per_eye(target_gaze))
    return mirrored(out.reshape(patches.shape))


def redirect_eyes(
    params: Any,
    config: WarpConfig,
    image: Float[Array, "B S S 3"],
    eye_centers: Float[Array, "B 2 3"],
    camera: Float[Array, "B 25"],
    source_gaze: Float[Array, "B 2"],
    target_gaze: Float[Array, "B 2"],
) -> Float[Array, "B S S 3"]:
    """Images in [-1, 1] with warped eyes pasted in. Gazes are (pitch, yaw) in the frame of `camera`.

    Images may have any size: patches cover the same share of them as of the training images.
    """
    (b, size), share = image.shape[:2], image.shape[1] / config.image_size
    patch = round(config.patch[0] * share), round(config.patch[1] * share)
    origins = patch_origins(eye_centers, camera, size, patch)
    patches = jax.image.resize(take_patches(image, origins, patch), (b, 2, *config.patch, 3), "linear")
    patches = warp_patches(params, config, patches, source_gaze, target_gaze)
    patches = jax.image.resize(patches, (b, 2, *patch, 3), "linear")
    weights = jnp.broadcast_to(feather(patch), (*patches.shape[:-1], 1))
    return paste_patches(image, patches, weights, origins)


def init_warp(config: WarpConfig, key: Array) -> dict[str, Any]:
    """Fresh parameters, float32 arrays of the host."""
    gaze = jnp.zeros((1, 2))
    return initialize(GazeWarp(config), key, jnp.zeros((1, *config.patch, 3)), gaze, gaze)
