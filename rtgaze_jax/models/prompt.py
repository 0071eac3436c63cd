"""The gaze prompt: (pitch, yaw) -> a sequence of tokens -> cross-attention into a feature map.

With a single key/value token the softmax is 1 and every pixel gets the same vector, so the prompt is a sequence and the
query knows
its position. Output projections start at zero: an untrained prompt changes nothing.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.models.config import PromptConfig
from rtgaze_jax.models.layers import attention, conv, dense, gaussian, leaky, with_coordinates
from rtgaze_jax.rendering.pointwise import fourier

GAZE_FREQUENCIES = (1.0, 2.0, 4.0)


class PromptTokens(nn.Module):
    """Embeds a gaze direction as a token sequence."""

    config: PromptConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, gaze: Float[Array, "B 2"]) -> Float[Array, "B K D"]:
        """`gaze`: (pitch, yaw) in radians, in the world frame of the weights."""
        c = self.config
        x = leaky(dense(c.dim, dtype=self.dtype)(fourier(gaze, GAZE_FREQUENCIES)))
        x = dense(c.tokens * c.dim, dtype=self.dtype)(leaky(dense(c.dim, dtype=self.dtype)(x)))
        place = self.param("token", gaussian(1.0), (c.tokens, c.dim))
        return x.reshape(-1, c.tokens, c.dim) + place.astype(self.dtype)


class PromptBlock(nn.Module):
    """Cross-attention (query: features, key and value: gaze tokens), then a convolutional MLP; both start at zero."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], tokens: Float[Array, "B K D"]) -> Float[Array, "B H W C"]:
        b, h, w, channels = x.shape
        width = channels // self.heads * self.heads
        split = (b, -1, self.heads, width // self.heads)
        y = with_coordinates(nn.LayerNorm(dtype=self.dtype)(x))
        query = dense(width, dtype=self.dtype, name="query")(y).reshape(split)
        key, value = jnp.split(dense(2 * width, dtype=self.dtype, name="key_value")(tokens), 2, -1)
        read = attention(query, key.reshape(split), value.reshape(split)).reshape(b, h, w, width)
        zeros = nn.initializers.zeros
        x = x + dense(channels, use_bias=False, init=zeros, dtype=self.dtype, name="project")(read)
        y = leaky(conv(channels, dtype=self.dtype)(x))
        return x + conv(channels, dtype=self.dtype, init=zeros)(y)


class PromptInjection(nn.Module):
    """Feature map + gaze -> gaze-controllable feature map."""

    config: PromptConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], gaze: Float[Array, "B 2"]) -> Float[Array, "B H W C"]:
        tokens = PromptTokens(self.config, self.dtype)(gaze)
        for _ in range(self.config.blocks):
            x = PromptBlock(self.config.heads, self.dtype)(x, tokens)
        return x
