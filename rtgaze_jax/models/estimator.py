"""A gaze and head-pose network that judges images; nothing is ever trained against it.

Fused inverted bottlenecks with squeeze-and-excitation (EfficientNetV2's early stages), which no other network of this
package uses, on two mirrored eye crops and a face crop placed by the projected eye centres. Crops have a fixed share
of the image's width: every image of this package shows a head at the same scale.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.models.crops import sample_image
from rtgaze_jax.models.layers import conv, dense, gaussian, initialize, with_coordinates

_FORWARD = np.array([0.0, 0.0, -1.0], np.float32)  # camera axes: a look into the lens
_SIDE = np.array([1.0, -1.0], np.float32)  # the subject's right eye is mirrored
_FINEST = 512  # larger images are shrunk to this before crops are taken, or a crop would skip pixels


@dataclasses.dataclass(frozen=True)
class EstimatorConfig:
    """Sizes; `image_size` is the training images' side in pixels."""

    preset: str = "small"
    image_size: int = 512
    dtype: str = "bfloat16"
    eye_crop: tuple[int, int] = (64, 96)  # rows, columns
    eye_span: float = 0.24  # image widths that the columns cover
    face_crop: int = 112
    face_span: float = 0.9
    face_drop: float = 0.1  # the face crop's centre lies this far below the eyes' middle
    widths: tuple[int, ...] = (32, 64, 112)
    depths: tuple[int, ...] = (1, 2, 3)
    expansion: int = 2
    features: int = 192


PRESETS = {
    "small": EstimatorConfig(),
    "tiny": EstimatorConfig("tiny", 64, "float32", (16, 24), 0.24, 32, 0.9, 0.1, (8, 16), (1, 1), 2, 32),
}


def config_from_dict(values: Any) -> EstimatorConfig:
    """The configuration of a mapping such as a weights header's; unknown keys raise TypeError."""
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in dict(values).items()}
    return EstimatorConfig(**known)


def resize(image: Float[Array, "B H W C"], side: int) -> Float[Array, "B side side C"]:
    """Antialiased resizing to a square."""
    return jax.image.resize(image, (image.shape[0], side, side, image.shape[-1]), "linear")


def take_crops(
    image: Float[Array, "B S S 3"],
    eyes: Float[Array, "B 2 2"],
    config: EstimatorConfig,
    scale: Float[Array, "B"] | float = 1.0,
) -> tuple[Float[Array, "B 2 h w 3"], Float[Array, "B f f 3"]]:
    """Eye crops (the right one mirrored) and face crop of square images of any size.

    eyes: the eyeballs' centres in the image (subject's left, right; normalised x, y). scale: enlarges the crops' spans.
    """
    b = image.shape[0]
    scale = jnp.broadcast_to(jnp.asarray(scale), (b,))

    def line(count: int, span: float) -> Float[Array, "B n"]:
        return ((jnp.arange(count) + 0.5) / count - 0.5) * span * scale[:, None]

    rows, columns = config.eye_crop
    fine = image if image.shape[1] <= _FINEST else resize(image, _FINEST)
    du = line(columns, config.eye_span)[:, None] * _SIDE[:, None]  # [B, 2, w]
    dv = line(rows, config.eye_span * rows / columns)  # [B, h]
    u, v = eyes[..., 0, None] + du, eyes[..., 1, None] + dv[:, None]
    grid = jnp.stack(jnp.broadcast_arrays(u[:, :, None, :], v[..., None]), -1)
    eye_crops = sample_image(fine, grid.reshape(b, -1, 2)).reshape(b, 2, rows, columns, 3)

    side = config.face_crop
    coarse = resize(image, round(side / config.face_span))
    across = line(side, config.face_span)
    middle = eyes.mean(1) + jnp.array([0.0, config.face_drop])
    u, v = middle[:, :1] + across, middle[:, 1:] + across
    grid = jnp.stack(jnp.broadcast_arrays(u[:, None, :], v[..., None]), -1)
    return eye_crops, sample_image(coarse, grid.reshape(b, -1, 2)).reshape(b, side, side, 3)


class FusedBlock(nn.Module):
    """3x3 expansion, squeeze-and-excitation, 1x1 projection; group norm and SiLU."""

    features: int
    expansion: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H/s W/s F"]:
        wide = self.features * self.expansion
        y = nn.GroupNorm(num_groups=8, dtype=self.dtype)(x)
        y = nn.silu(conv(wide, 3, self.stride, dtype=self.dtype)(y))
        y = nn.GroupNorm(num_groups=8, dtype=self.dtype)(y)
        gate = nn.silu(dense(max(8, wide // 8), self.dtype)(y.mean((1, 2))))
        y = y * nn.sigmoid(dense(wide, self.dtype)(gate))[:, None, None]
        y = conv(self.features, 1, dtype=self.dtype, init=gaussian(fan_in=0.5))(y)
        return x + y if x.shape == y.shape else y


class Trunk(nn.Module):
    """A crop to a vector. The last map is flattened, not averaged: where an iris is matters."""

    config: EstimatorConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, crop: Float[Array, "N H W 3"]) -> Float[Array, "N D"]:
        c = self.config
        x = with_coordinates(crop).astype(self.dtype)
        x = conv(c.widths[0], 3, 2, dtype=self.dtype, name="stem")(x)
        for width, depth in zip(c.widths, c.depths, strict=True):
            for i in range(depth):
                x = FusedBlock(width, c.expansion, 2 if i == 0 else 1, self.dtype)(x)
        x = nn.silu(nn.GroupNorm(num_groups=8, dtype=self.dtype)(x))
        x = conv(max(8, c.widths[-1] // 7), 1, dtype=self.dtype, name="squeeze")(x)
        return nn.silu(dense(c.features, self.dtype)(x.reshape(x.shape[0], -1)))


class GazeEstimator(nn.Module):
    """Crops to directions; both eyes share one trunk."""

    config: EstimatorConfig

    @nn.compact
    def __call__(
        self,
        eye_crops: Float[Array, "B 2 h w 3"],
        face_crop: Float[Array, "B f f 3"],
        eyes: Float[Array, "B 2 2"],
    ) -> dict[str, Float[Array, "B 3"]]:
        """Crops in [-1, 1] (see take_crops), `eyes` normalised image coordinates.

        Returns the unit vectors "gaze" and "head" (the head's forward direction) in the camera's OpenCV axes.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        b = face_crop.shape[0]
        each = Trunk(c, dtype, name="eye")(eye_crops.reshape(2 * b, *eye_crops.shape[2:])).reshape(b, -1)
        face = Trunk(c, dtype, name="face")(face_crop)
        # how far off the optical axis an eye is seen turns its picture by degrees
        where = dense(32, dtype, name="where")(((eyes - 0.5) * 8).reshape(b, 4).astype(dtype))
        x = jnp.concatenate([each, face, where], -1)
        x = nn.silu(dense(c.features, dtype, name="join")(x)).astype(jnp.float32)
        out = dense(6, init=gaussian(fan_in=0.01), name="directions")(x)
        return {"gaze": _unit(out[:, :3] + _FORWARD), "head": _unit(out[:, 3:] + _FORWARD)}


def init_estimator(config: EstimatorConfig, key: Array) -> dict[str, Any]:
    """Fresh parameters, float32 arrays of the host."""
    eyes, face = jnp.zeros((1, 2, *config.eye_crop, 3)), jnp.zeros((1, config.face_crop, config.face_crop, 3))
    return initialize(GazeEstimator(config), key, eyes, face, jnp.full((1, 2, 2), 0.5))


def estimate(
    params: Any, config: EstimatorConfig, image: Float[Array, "B S S 3"], eyes: Float[Array, "B 2 2"]
) -> dict[str, Float[Array, "B 3"]]:
    """Gaze and head directions (unit vectors in camera axes) of square images in [0, 1], eyes at `eyes`."""
    eye_crops, face = take_crops(image, eyes, config)
    out: Any = GazeEstimator(config).apply({"params": params}, eye_crops * 2 - 1, face * 2 - 1, eyes)
    return out


def _unit(vector: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    return vector / jnp.sqrt(jnp.square(vector).sum(-1, keepdims=True) + 1e-8)
