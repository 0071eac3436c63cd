"""The hybrid-frequency encoder: a DeepLabV3-ResNet + ViT for global geometry (low), a plain CNN for texture and eyes
(high).

Layer list: Live 3D Portrait (Trevithick et al. 2023), which RTGaze builds on; sizes in models/config.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.models.config import EncoderConfig
from rtgaze_jax.models.layers import (
    ResidualBlock,
    TransformerBlock,
    conv,
    grow,
    leaky,
    pixel_shuffle,
    shrink,
    with_coordinates,
)

ASPP_RATES = (12, 24, 36)
_STAGES = ((1, 1), (2, 1), (1, 2), (1, 4))  # stride, dilation: DeepLab keeps stride 8 by dilating the last two


class ResNet(nn.Module):
    """ResNet of basic blocks at output stride 8."""

    config: EncoderConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 5"]) -> Float[Array, "B H/8 W/8 C"]:
        c = self.config
        x = nn.relu(conv(c.stem, 7, 2, dtype=self.dtype)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for (stride, dilation), blocks, width in zip(_STAGES, c.stages, c.widths, strict=False):
            for i in range(blocks):
                x = ResidualBlock(width, stride if i == 0 else 1, dilation, self.dtype)(x)
        return x


class ASPP(nn.Module):
    """DeepLabV3's atrous spatial pyramid pooling, without normalisation and dropout."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W F"]:
        parts = [conv(self.features, 1, dtype=self.dtype)(x)]
        parts += [conv(self.features, 3, dilation=rate, dtype=self.dtype)(x) for rate in ASPP_RATES]
        pooled = conv(self.features, 1, dtype=self.dtype)(x.mean((1, 2), keepdims=True))
        parts.append(jnp.broadcast_to(pooled, parts[0].shape))
        x = nn.relu(conv(self.features, 1, dtype=self.dtype)(nn.relu(jnp.concatenate(parts, -1))))
        return nn.relu(conv(self.features, 3, dtype=self.dtype)(x))


class LowEncoder(nn.Module):
    """z_l: global geometry."""

    config: EncoderConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B S S 3"]) -> tuple[Float[Array, "B S/s S/s L"], Float[Array, "B T T D"]]:
        """Returns the features on the grid and the map of ViT tokens. `image` in [-1, 1]."""
        c = self.config
        x = with_coordinates(shrink(image, c.pool)).astype(self.dtype)
        x = ASPP(c.aspp, self.dtype)(ResNet(c, self.dtype)(x))
        x = nn.LayerNorm(dtype=self.dtype)(conv(c.vit_dim, 3, 2, dtype=self.dtype, name="patch_embed")(x))
        for _ in range(c.vit_depth):
            x = TransformerBlock(c.vit_heads, dtype=self.dtype)(x)
        tokens = x
        x = pixel_shuffle(x)
        for width in c.low_widths:
            x = nn.relu(conv(width, dtype=self.dtype)(grow(x)))
        return conv(c.low, dtype=self.dtype)(x), tokens


class HighEncoder(nn.Module):
    """z_h: texture, hair, eyes. No normalisation, so that intensities survive."""

    config: EncoderConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B S S 3"]) -> Float[Array, "B S/s S/s H"]:
        c = self.config
        x = with_coordinates(shrink(image, c.pool)).astype(self.dtype)
        x = leaky(conv(c.high_widths[0], 7, 2, dtype=self.dtype)(x))
        for i, width in enumerate(c.high_widths[1:]):
            x = leaky(conv(width, 3, 2 if i == 0 and c.stride == 4 else 1, dtype=self.dtype)(x))
        return x


class TriplaneDecoder(nn.Module):
    """f -> triplane: fuses both frequencies, one ViT block, convolutions to three planes."""

    config: EncoderConfig
    plane_channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, low: Float[Array, "B G G L"], high: Float[Array, "B G G H"]) -> Float[Array, "B 3 G G C"]:
        c = self.config
        x = jnp.concatenate([high, low], -1)
        for width in c.fuse_widths:
            x = leaky(conv(width, dtype=self.dtype)(x))
        x = nn.LayerNorm(dtype=self.dtype)(conv(c.fuse_dim, 3, 2, dtype=self.dtype, name="patch_embed")(x))
        x = pixel_shuffle(TransformerBlock(c.fuse_heads, c.fuse_reduction, dtype=self.dtype)(x))
        x = jnp.concatenate([x, low], -1)
        for width in c.out_widths:
            x = leaky(conv(width, dtype=self.dtype)(x))
        x = conv(3 * self.plane_channels, dtype=self.dtype, name="planes")(x)
        b, h, w, _ = x.shape
        # planes stay float32: their gradient is a scatter-add, slow and lossy in bfloat16
        return jnp.moveaxis(x.reshape(b, h, w, 3, self.plane_channels), 3, 1).astype(jnp.float32)
