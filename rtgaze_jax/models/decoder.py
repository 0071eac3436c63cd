"""Fields: the small networks that turn triplane features at a point into density and colour features."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.models.layers import LECUN, dense
from rtgaze_jax.rendering.pointwise import softplus


class FieldDecoder(nn.Module):
    """EG3D's decoder: features -> hidden (softplus) -> density (raw) and colours (sigmoid, slightly widened). View-
    independent."""

    hidden: int = 64
    features: int = 32
    layers: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"]) -> tuple[Float[Array, "B N"], Float[Array, "B N F"]]:
        x = x.astype(self.dtype)
        for _ in range(self.layers):
            x = softplus(dense(self.hidden, dtype=self.dtype, init=LECUN)(x))
        x = dense(1 + self.features, dtype=self.dtype, init=LECUN, name="out")(x).astype(jnp.float32)
        return x[..., 0], nn.sigmoid(x[..., 1:]) * 1.002 - 0.001
