"""Super-resolution: EG3D's skip architecture with its constant style folded into plain convolutions, and the source-
pixel skip."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.models.layers import LECUN, conv

MASK_START = 4.0  # an untrained network shows the photo: in its own view the reprojected pixels are the photo itself
FIR = (0.125, 0.375, 0.375, 0.125)  # [1, 3, 3, 1] / 8
_GAIN = 2**0.5


def _smooth(x: Float[Array, "B H W C"], gain: float, pad: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Separable [1, 3, 3, 1] filter with `gain` per axis."""
    c = x.shape[-1]
    taps = jnp.asarray(FIR, x.dtype) * gain
    for shape, padding in (((4, 1, 1, 1), (pad, (0, 0))), ((1, 4, 1, 1), ((0, 0), pad))):
        kernel = jnp.broadcast_to(taps.reshape(shape), (*shape[:3], c))
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=c
        )
    return x


def upsample(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """StyleGAN's image upsampling: zeros inserted, then [1, 3, 3, 1] filtered."""
    b, h, w, c = x.shape
    x = jnp.pad(x[:, :, None, :, None], ((0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 0))).reshape(b, 2 * h, 2 * w, c)
    return _smooth(x, 2.0, (2, 1))


class UpConv(nn.Module):
    """Stride-2 transposed 3x3 convolution followed by the FIR filter (StyleGAN2's upsampling layer)."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W F"]:
        init = LECUN
        # "VALID" on H gives 2H + 1; the filter's padding of 1 brings it to 2H
        x = nn.ConvTranspose(
            self.features,
            (3, 3),
            (2, 2),
            padding="VALID",
            use_bias=False,
            dtype=self.dtype,
            kernel_init=init,
            name="conv",
        )(x)
        x = _smooth(x, 2.0, (1, 1))
        return x + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)


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
    ) -> Float[Array, "B S S 3"]:
        """`rgb`: the rendered colours in [0, 1]. `pixels`: the source photo's colours seen at each output pixel,
        blended in by a
        learned mask. Returns colours around [0, 1], not clipped."""
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
        return mask * pixels + (1 - mask) * rgb
