"""Layers shared by the networks. NHWC, float32 parameters, computation in the module's `dtype`."""

import contextvars
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.models.convolution import convolve

MAX_ATTENTION_MAP = 1 << 24  # elements; a larger map is computed in chunks of queries


_deferred = contextvars.ContextVar("deferred", default=False)


def gaussian(deviation: float = 1.0, *, fan_in: float = 0.0) -> Callable:
    """An initializer: normal numbers of a given standard deviation, or of sqrt(fan_in / inputs)."""

    def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        scale = math.sqrt(fan_in / max(math.prod(shape[:-1]), 1)) if fan_in else deviation
        return jnp.full(shape, -scale, dtype) if _deferred.get() else scale * jax.random.normal(key, shape, dtype)

    return init


def initialize(module: nn.Module, seed: Array, *args: Any) -> dict[str, Any]:
    """The parameters of `module.init(seed, *args)`, drawn by NumPy in the order of their names.

    Same distributions, other numbers. A compiled generator for every shape of a network takes a minute on a GPU host;
    so inside, gaussian initializers leave minus their deviation, and every negative leaf is drawn here.
    """
    token = _deferred.set(True)
    try:
        params = jax.device_get(jax.jit(lambda *a: module.init(*a)["params"])(seed, *args))
    finally:
        _deferred.reset(token)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(seed)).ravel())

    def draw(leaf: np.ndarray) -> np.ndarray:
        scale = -leaf.flat[0]
        return leaf if scale <= 0 else scale * generator.standard_normal(leaf.shape, np.float32)

    return jax.tree.map(draw, params)


HE, LECUN = gaussian(fan_in=2.0), gaussian(fan_in=1.0)


def dense(features: int, dtype: jnp.dtype = jnp.float32, init: Callable = LECUN, **options: Any) -> nn.Dense:
    """A dense layer."""
    return nn.Dense(features, dtype=dtype, kernel_init=init, **options)


def leaky(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """LP3D's LeakyReLU (slope 0.01)."""
    return nn.leaky_relu(x, 0.01)


def conv(
    features: int,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    dtype: jnp.dtype = jnp.float32,
    init: Callable = HE,
    bias: float = 0.0,
    name: str | None = None,
) -> nn.Conv:
    """A k x k convolution with bias, zero padding that keeps PyTorch's alignment (k // 2 on every side)."""
    pad = dilation * (kernel // 2)
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        kernel_dilation=(dilation, dilation),
        padding=((pad, pad), (pad, pad)),
        dtype=dtype,
        kernel_init=init,
        bias_init=nn.initializers.constant(bias),
        conv_general_dilated=convolve,
        name=name,
    )


def with_coordinates(image: Float[Array, "B H W C"]) -> Float[Array, "B H W C+2"]:
    """Appends the pixel's column and row, each from -1 to 1 (at pixel centres)."""
    b, h, w, _ = image.shape
    rows = (jnp.arange(h, dtype=image.dtype) + 0.5) / h * 2 - 1
    columns = (jnp.arange(w, dtype=image.dtype) + 0.5) / w * 2 - 1
    grid = jnp.stack(jnp.broadcast_arrays(columns[None, :], rows[:, None]), -1)
    return jnp.concatenate([image, jnp.broadcast_to(grid, (b, h, w, 2))], -1)


def shrink(x: Float[Array, "B H W C"], factor: int) -> Float[Array, "B H/f W/f C"]:
    """Box average over factor x factor pixels."""
    return x if factor == 1 else nn.avg_pool(x, (factor, factor), (factor, factor))


def grow(x: Float[Array, "B H W C"], factor: int = 2) -> Float[Array, "B H*f W*f C"]:
    """Bilinear upsampling at pixel centres, edge pixels repeated."""
    return x if factor == 1 else _grow(x, factor)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _grow(x, factor):
    # Each output pixel is a sum of three neighbours, the same everywhere but at the edges: one loop, where a general
    # resize is two products with matrices that are made first.
    offset = (np.arange(factor) + 0.5) / factor - 0.5
    for axis in (1, 2):
        size = x.shape[axis]
        before, after = (np.tile(np.maximum(side, 0), (size, 1)) for side in (-offset, offset))
        before[0] = after[-1] = 0  # beyond the edge there is nothing; the weight is the pixel's own
        parts = []
        for weight, shift in ((before, 1), (1 - before - after, 0), (after, -1)):
            pad = [(shift * (i == axis), -shift * (i == axis), 0) for i in range(4)]
            part = jnp.expand_dims(jax.lax.pad(x, jnp.zeros((), x.dtype), pad), axis + 1)
            parts.append(part * jnp.asarray(weight.reshape(size, factor, *[1] * (3 - axis)), x.dtype))
        x = sum(parts[1:], parts[0]).reshape(*x.shape[:axis], factor * size, *x.shape[axis + 1 :])
    return x


def _grow_backward(factor, _, gradient):
    # As products: the sums of so many overlapping pieces are slow on processors.
    b, h, w, c = gradient.shape
    small = jax.ShapeDtypeStruct((b, h // factor, w // factor, c), gradient.dtype)
    return jax.linear_transpose(lambda x: jax.image.resize(x, gradient.shape, "bilinear"), small)(gradient)


_grow.defvjp(lambda x, factor: (_grow(x, factor), None), _grow_backward)


def pixel_shuffle(x: Float[Array, "B H W 4*C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Moves groups of four channels (PyTorch's order: channel-major) into 2 x 2 pixels."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // 4, 2, 2)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, c // 4)


def attention(
    query: Float[Array, "B N H D"], key: Float[Array, "B M H D"], value: Float[Array, "B M H D"]
) -> Float[Array, "B N H D"]:
    """Softmax attention. A map above MAX_ATTENTION_MAP elements never exists as a whole: queries go in chunks,
    recomputed backwards."""
    b, n, heads, depth = query.shape
    chunks = 1
    while b * n * key.shape[1] * heads // chunks > MAX_ATTENTION_MAP and n % (2 * chunks) == 0:
        chunks *= 2
    if chunks == 1:
        return jax.nn.dot_product_attention(query, key, value)
    parts = jnp.moveaxis(query.reshape(b, chunks, n // chunks, heads, depth), 1, 0)
    one = jax.checkpoint(lambda part: jax.nn.dot_product_attention(part, key, value))
    return jnp.moveaxis(jax.lax.map(one, parts), 0, 1).reshape(query.shape)


class ResidualBlock(nn.Module):
    """ResNet's basic block without normalisation: two 3x3 convolutions around a shortcut.

    The second convolution starts at zero, so a chain of blocks starts as its shortcuts and keeps its scale.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H/s W/s F"]:
        y = nn.relu(conv(self.features, 3, self.stride, self.dilation, self.dtype)(x))
        y = conv(self.features, 3, 1, self.dilation, self.dtype, nn.initializers.zeros)(y)
        if x.shape[-1] != self.features or self.stride != 1:
            x = conv(self.features, 1, self.stride, dtype=self.dtype)(x)
        return nn.relu(x + y)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention on a feature map: keys and values optionally at 1/reduction resolution, MLP with a
    depthwise 3x3."""

    heads: int
    reduction: int = 1
    mlp_ratio: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        b, h, w, c = x.shape
        split = (b, -1, self.heads, c // self.heads)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        z = y
        if self.reduction > 1:
            r = self.reduction
            z = nn.LayerNorm(dtype=self.dtype)(
                nn.Conv(c, (r, r), strides=(r, r), dtype=self.dtype, kernel_init=LECUN, name="reduce")(y)
            )
        query = dense(c, use_bias=False, dtype=self.dtype, name="query")(y)
        key, value = jnp.split(dense(2 * c, use_bias=False, dtype=self.dtype, name="key_value")(z), 2, -1)
        y = attention(query.reshape(split), key.reshape(split), value.reshape(split)).reshape(b, h, w, c)
        x = x + dense(c, dtype=self.dtype, name="project")(y)
        y = dense(self.mlp_ratio * c, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))
        y = nn.Conv(
            y.shape[-1],
            (3, 3),
            padding=((1, 1), (1, 1)),
            feature_group_count=y.shape[-1],
            dtype=self.dtype,
            kernel_init=LECUN,
            conv_general_dilated=convolve,
            name="depthwise",
        )(y)
        return x + dense(c, dtype=self.dtype)(nn.gelu(y))
