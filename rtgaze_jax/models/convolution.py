"""Convolutions in the forms that are fast on GPUs: as products of matrices, and with channels that fit matrix units.

cuDNN turns everything around a convolution whose channels do not fit (fills them up, changes the layout) or runs it on
the plain cores, and XLA cannot fuse anything into it. The numbers are the convolution's own.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FEW = 4  # output channels below which one product and a sum of shifted images is cheaper than a convolution


def convolve(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k l C F"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "B h w F"]:
    """lax.conv_general_dilated of an image, NHWC, as flax.linen.Conv calls it; not for groups of features."""
    size, channels, features = kernel.shape[:2], *kernel.shape[2:]
    plain = all(d in (1, None) or set(d) == {1} for d in (options.get("lhs_dilation"), options.get("rhs_dilation")))
    if size == (1, 1) and not any(map(any, padding)):
        return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]
    if features < _FEW and plain and set(strides) == {1}:
        return _by_taps(x, kernel, padding)
    if x.dtype != jnp.bfloat16:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    more, wider = fitting(channels) - channels, -features % 8
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, wider)))
    out = jax.lax.conv_general_dilated(_widened(x, more), kernel, strides, padding, **options)
    return out[..., :features]


def fitting(channels: int) -> int:
    """So many channels or a few more, for an H100's matrix units: 8, 16, 32, or a multiple of 8.

    24 of them took cuDNN nearly twice the time of 32 at 512 x 512.
    """
    return channels + -channels % 8 if channels > 32 else max(8, 1 << (channels - 1).bit_length())


def _widened(x, more):
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x


def _by_taps(x, kernel, padding):
    """Each pixel's part in every output that sees it, then their sum: one product, read where it is used."""
    height, width = kernel.shape[:2]
    parts = jnp.einsum("bhwc,klcf->bhwklf", x, kernel, preferred_element_type=jnp.float32)
    parts = jnp.pad(parts, ((0, 0), *padding, (0, 0), (0, 0), (0, 0)))
    rows, columns = parts.shape[1] - height + 1, parts.shape[2] - width + 1
    taps = [parts[:, k : k + rows, m : m + columns, k, m] for k in range(height) for m in range(width)]
    return sum(taps[1:], taps[0]).astype(x.dtype)
