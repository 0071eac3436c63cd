"""Convolutions in the forms that are fast on GPUs: as products of matrices, and with channels that fit matrix units.

cuDNN turns everything around a convolution whose channels do not fit (fills them up, changes the layout) or runs it on
the plain cores, and XLA cannot fuse anything into it. The numbers are the convolution's own.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FEW = 4  # output channels below which one product and a sum of shifted images is cheaper than a convolution
_THIN = 5  # input channels up to which a stride is taken out of the convolution


def convolve(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k l C/G F"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "B h w F"]:
    """lax.conv_general_dilated of an image, NHWC, as flax.linen.Conv calls it; of groups of features (G,
    `feature_group_count`) only one channel in each, one output for each."""
    size, channels, features = kernel.shape[:2], *kernel.shape[2:]
    stretched, dilation = (tuple(options.get(f"{side}_dilation") or (1, 1)) for side in ("lhs", "rhs"))
    plain = stretched == dilation == (1, 1)
    if options.get("feature_group_count", 1) > 1:
        if channels != 1 or features != x.shape[-1] or not plain or set(strides) != {1}:
            raise ValueError("groups of features must be of one channel each, without strides and dilation")
        return _depthwise(x, kernel, tuple(padding))
    if size == (1, 1) and not any(map(any, padding)):
        return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]
    if features < _FEW and plain and set(strides) == {1}:
        return _by_taps(x, kernel, padding)
    if dilation != (1, 1) and stretched == (1, 1) and set(strides) == {1}:
        return _dilated(x, kernel, tuple(padding), dilation)
    if x.dtype != jnp.bfloat16:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if channels <= _THIN and plain and tuple(strides) == (2, 2):
        x, kernel = _in_blocks(x, kernel, padding)
        channels, strides, padding = x.shape[-1], (1, 1), ((0, 0), (0, 0))
    more, wider = fitting(channels) - channels, -features % 8
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, wider)))
    out = jax.lax.conv_general_dilated(_widened(x, more), kernel, strides, padding, **options)
    return out[..., :features]


def fitting(channels: int) -> int:
    """So many channels or a few more, for an H100's matrix units: 8, 16, 32, or a multiple of 8.

    24 of them took cuDNN nearly twice the time of 32 at 512 x 512.
    """
    return channels + -channels % 8 if channels > 32 else max(8, 1 << (channels - 1).bit_length())


def _in_blocks(x, kernel, padding):
    """A convolution of stride 2 as one of stride 1 over blocks of 2 x 2 pixels: four times the channels, half the side.

    A few channels do not fill a matrix unit: 5 of them with a 7 x 7 kernel took 70 us on an H100's plain cores.
    """
    k, m, channels, features = kernel.shape
    blocks = (k + 1) // 2, (m + 1) // 2
    kernel = jnp.pad(kernel, ((0, k % 2), (0, m % 2), (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks[0], 2, blocks[1], 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    # so many rows and columns as the output needs, an even number
    sides = zip(x.shape[1:3], (k, m), blocks, padding, strict=True)
    needed = [2 * ((size + sum(pad) - taps) // 2 + block) for size, taps, block, pad in sides]
    edges = [(pad[0], total - size - pad[0]) for size, pad, total in zip(x.shape[1:3], padding, needed, strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*edge, 0) for edge in edges), (0, 0, 0)))
    b, h, w, _ = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, -1)
    return x, kernel.reshape(*blocks, 4 * channels, features)


def _plain(x, kernel, padding, dilation=(1, 1), groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, rhs_dilation=dilation, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dilated(x, kernel, padding, dilation):
    return _plain(x, kernel, padding, dilation)


def _dilated_forward(x, kernel, padding, dilation):
    return _dilated(x, kernel, padding, dilation), (x, kernel)


def _dilated_backward(padding, dilation, saved, gradient):
    """The kernel's gradient tap by tap, products of matrices. XLA takes it for a convolution with a kernel as large as
    the image: 2.5 ms each on an H100 for 512 channels at 64 x 64, a quarter of the paper preset's step."""
    x, kernel = saved
    (by_image,) = jax.linear_transpose(lambda x: _plain(x, kernel, padding, dilation), x)(gradient)
    padded, (rows, columns) = jnp.pad(x, ((0, 0), *padding, (0, 0))), gradient.shape[1:3]

    def tap(k, m):
        top, left = k * dilation[0], m * dilation[1]
        seen = padded[:, top : top + rows, left : left + columns]
        return jnp.einsum("bhwc,bhwf->cf", seen, gradient, preferred_element_type=jnp.float32)

    by_kernel = jnp.stack([jnp.stack([tap(k, m) for m in range(kernel.shape[1])]) for k in range(kernel.shape[0])])
    return by_image, by_kernel.astype(kernel.dtype)


_dilated.defvjp(_dilated_forward, _dilated_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, kernel, padding):
    """A sum of shifted products: XLA computes it in one loop, together with what comes after."""
    height, width = kernel.shape[:2]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0))).astype(jnp.float32)
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    taps = [
        padded[:, k : k + rows, m : m + columns] * kernel[k, m, 0].astype(jnp.float32)
        for k in range(height)
        for m in range(width)
    ]
    return sum(taps[1:], taps[0]).astype(x.dtype)


def _depthwise_forward(x, kernel, padding):
    return _depthwise(x, kernel, padding), (x, kernel)


def _depthwise_backward(padding, saved, gradient):
    channels = gradient.shape[-1]
    return jax.vjp(lambda x, kernel: _plain(x, kernel, padding, groups=channels), *saved)[1](gradient)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


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
