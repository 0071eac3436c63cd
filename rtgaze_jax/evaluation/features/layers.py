"""Layers of the fixed feature networks: plain functions of (parameters, NHWC array).

A convolution's parameters are {"kernel": [h, w, in / groups, out], "bias": [out]}; batch normalisation is folded into
them when a file is converted (`rtgaze_jax.weights.convert`). Everything is computed in the dtype of the input array.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Params = Mapping[str, Any]
Padding = str | int | Sequence[tuple[int, int]]


def conv(
    params: Params,
    x: Float[Array, "b h w c"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b h2 w2 d"]:
    """A 2D convolution. Padding: "SAME" (TensorFlow's, more at the end), "VALID", or pixels on every side
    (PyTorch's)."""
    if isinstance(padding, int):
        padding = [(padding, padding), (padding, padding)]
    y = jax.lax.conv_general_dilated(
        x,
        params["kernel"].astype(x.dtype),
        window_strides=(stride, stride),
        padding=padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y + params["bias"].astype(x.dtype) if "bias" in params else y


def dense(params: Params, x: Float[Array, "... c"]) -> Float[Array, "... d"]:
    """A linear layer with bias, in full precision."""
    return jnp.dot(x, params["kernel"], precision=jax.lax.Precision.HIGHEST) + params["bias"]


def max_pool(x: Float[Array, "b h w c"], size: int, stride: int, padding: int = 0) -> Float[Array, "b h2 w2 c"]:
    """The maximum over windows; PyTorch's padding (never wins)."""
    pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)


def average_pool(
    x: Float[Array, "b h w c"], size: int, stride: int, padding: int = 0, *, count_padding: bool = True
) -> Float[Array, "b h2 w2 c"]:
    """The mean over windows; `count_padding=False` divides by the number of real pixels in the window."""
    pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, pads)
    if count_padding or padding == 0:
        return total / (size * size)
    return total / jax.lax.reduce_window(jnp.ones_like(x[:1, :, :, :1]), 0.0, jax.lax.add, window, strides, pads)


def resize_bilinear(
    x: Float[Array, "b h w c"], height: int, width: int, *, antialias: bool = False
) -> Float[Array, "b h2 w2 c"]:
    """Bilinear resizing, pixel centres at (i + 0.5) (PyTorch's align_corners=False); no antialiasing unless asked."""
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[3]), "bilinear", antialias=antialias)


def unit_normalize(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """Scales each pixel's channel vector to length one (LPIPS); a zero vector stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-10)
