"""A patch discriminator for the optional adversarial loss over the eyes."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.models.layers import conv, dense
from rtgaze_jax.models.prompt import GAZE_FREQUENCIES
from rtgaze_jax.rendering.pointwise import fourier


class EyeDiscriminator(nn.Module):
    """Says for each place of an eye patch how real it looks, given the gaze it should show. No normalisation."""

    widths: tuple[int, ...] = (32, 64, 128, 128)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, patches: Float[Array, "N h w 3"], gaze: Float[Array, "N 2"]) -> Float[Array, "N h/16 w/16"]:
        """`patches` in [0, 1], `gaze` (pitch, yaw) in radians; right eyes mirrored. Returns logits."""
        x = patches.astype(self.dtype) * 2 - 1
        for width in self.widths:
            x = nn.leaky_relu(conv(width, 3, 2, dtype=self.dtype)(x), 0.2)
        condition = dense(x.shape[-1], dtype=self.dtype)(
            nn.leaky_relu(dense(64, dtype=self.dtype)(fourier(gaze, GAZE_FREQUENCIES).astype(self.dtype)), 0.2)
        )
        logits = conv(1, 3, dtype=self.dtype)(x)[..., 0] + (x * condition[:, None, None]).mean(-1)
        return logits.astype(jnp.float32)
