"""Super-resolution: EG3D's skip architecture with its constant style folded into plain convolutions, and the source-
pixel skip."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.models.convolution import convolve
from rtgaze_jax.models.layers import LECUN, conv

MASK_START = 4.0  # an untrained network shows the photo: in its own view the reprojected pixels are the photo itself
_GAIN = 2**0.5
# [6, 3]: a kernel's taps after the FIR filter [1, 3, 3, 1] / 4 (gain 2 an axis)
_SPREAD = np.sum([weight / 4 * np.eye(6, 3, -at, np.float32) for at, weight in enumerate((1, 3, 3, 1))], 0)


_KEPT = np.array([[1, 3, 5], [0, 2, 4]])  # taps of the whole kernel that even and odd output pixels see
# [3, 3, 2, 2, 3, 3]: tap, phase and tap of the kernel, each in rows and columns
_PHASES = np.einsum("aik,bjl->ijabkl", _SPREAD[_KEPT], _SPREAD[_KEPT]).astype(np.float32)


def upsample(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """StyleGAN's image upsampling: zeros inserted, then [1, 3, 3, 1] filtered; zeros around the image."""
    for axis in (1, 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(int(i == axis),) * 2 for i in range(4)])
        before, after = (jax.lax.slice_in_dim(padded, at, at + size, axis=axis) for at in (0, 2))
        x = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
        x = x.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 2 :])
    return x


class UpConv(nn.Module):
    """Stride-2 transposed 3x3 convolution followed by the FIR filter (StyleGAN2's upsampling layer).

    Both together are a 6x6 kernel on the image with zeros inserted, of which each of the four output phases sees 3x3
    taps: computed as one 3x3 convolution to four times the channels (on an H100's tensor cores; the transposed and the
    depthwise convolution took a quarter of a training step).
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W F"]:
        b, h, w, c = x.shape
        kernel = self.param("kernel", LECUN, (3, 3, c, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        # sums of products, not a product of matrices: XLA makes one loop of them, with the kernel's cast and layout
        taps = [(k, m) for k in range(3) for m in range(3)]
        phases = sum(_PHASES[:, :, None, :, :, None, k, m] * kernel[k, m][:, None, None] for k, m in taps)
        x = convolve(
            x.astype(self.dtype),
            phases.reshape(3, 3, c, 4 * self.features).astype(self.dtype),
            (1, 1),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = x + jnp.tile(bias, 4)  # before the shuffle, where the convolution can add it
        return (
            x.reshape(b, h, w, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, self.features)
        )


def activate(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """StyleGAN2's activation: leaky ReLU 0.2 with gain sqrt(2)."""
    return nn.leaky_relu(x, 0.2) * _GAIN


class SuperResolution(nn.Module):
    """Feature image -> colour image, twice the side per block."""

    widths: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B R R C"],
        rgb: Float[Array, "B R R 3"],
        pixels: Float[Array, "B S S 3"] | None = None,
        trust: Float[Array, "B"] | float = 0.0,
    ) -> Float[Array, "B S S 3"]:
        """`rgb`: the rendered colours in [0, 1]. `pixels`: the source photo's colours seen at each output pixel,
        blended in by a learned mask, of which `trust` takes the share that it left out. Returns colours around [0, 1],
        not clipped."""
        init = LECUN
        x = features.astype(self.dtype)
        for width in self.widths:
            x = activate(UpConv(width, self.dtype)(x))
            x = activate(conv(width, dtype=self.dtype, init=init)(x))
            rgb = upsample(rgb) + 0.1 * conv(3, 1, dtype=self.dtype, init=init)(x).astype(jnp.float32)
        if pixels is None:
            return rgb
        x = jnp.concatenate([x, rgb.astype(self.dtype), pixels.astype(self.dtype)], -1)
        x = activate(conv(self.widths[-1], dtype=self.dtype, init=init)(x))
        mask = nn.sigmoid(
            conv(1, dtype=self.dtype, init=nn.initializers.zeros, bias=MASK_START, name="mask")(x).astype(jnp.float32)
        )
        rest = (1 - mask) * (1 - jnp.reshape(jnp.asarray(trust), (-1, 1, 1, 1)))
        return pixels + rest * (rgb - pixels)
