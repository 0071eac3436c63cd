"""VGG16 (Simonyan and Zisserman, 2014; torchvision's weights) and LPIPS (Zhang et al., 2018; version 0.1, VGG).

Images are float [-1, 1] NHWC. Neither network can be shipped; both come from files the user has (`rtgaze weights
convert`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.evaluation.features.layers import Params, conv, max_pool, unit_normalize

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_WIDTHS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

CONV_NAMES = tuple(f"conv{i + 1}_{j + 1}" for i, (_, count) in enumerate(_WIDTHS) for j in range(count))
LPIPS_TAPS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
PERCEPTUAL_TAPS = LPIPS_TAPS[:4]


def imagenet_normalize(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """[-1, 1] images as torchvision's networks want them: ([0, 1] - mean) / std."""
    return ((images + 1) / 2 - jnp.asarray(_MEAN, images.dtype)) / jnp.asarray(_STD, images.dtype)


def vgg_stages(params: Params, images: Float[Array, "b h w 3"], taps: tuple[str, ...]) -> dict[str, Array]:
    """The activations (after ReLU) of the convolutions named in `taps`; nothing after the last of them is computed."""
    x = imagenet_normalize(images)
    outputs: dict[str, Array] = {}
    for name in CONV_NAMES:
        if len(outputs) == len(taps):
            break
        if name.endswith("_1") and name != "conv1_1":
            x = max_pool(x, 2, 2)
        x = jax.nn.relu(conv(params[name], x))
        if name in taps:
            outputs[name] = x
    return outputs


def vgg_perceptual(
    params: Params, images: Float[Array, "b h w 3"], *, dtype: jnp.dtype = jnp.float32
) -> list[Float[Array, "b h2 w2 c"]]:
    """Feature maps relu1_2, relu2_2, relu3_3, relu4_3 (strides 1, 2, 4, 8), each pixel's channel vector of length
    one."""
    maps = vgg_stages(params, images.astype(dtype), PERCEPTUAL_TAPS)
    return [unit_normalize(maps[tap].astype(jnp.float32)).astype(dtype) for tap in PERCEPTUAL_TAPS]


def lpips(
    vgg: Params, heads: Params, first: Float[Array, "b h w 3"], second: Float[Array, "b h w 3"]
) -> Float[Array, "b"]:
    """LPIPS 0.1 with the VGG16 backbone, per image: the weighted squared difference of unit features, averaged over
    space.

    Args:
        vgg: converted VGG16 parameters. heads: {"conv1_2": [64], ...}, shipped.
        first, second: images in [-1, 1] (the original's normalize=False; piq's [0, 1] inputs give the same number).
    """
    a, b = vgg_stages(vgg, first, LPIPS_TAPS), vgg_stages(vgg, second, LPIPS_TAPS)
    levels = [
        jnp.mean(jnp.sum(jnp.square(_lpips_unit(a[tap]) - _lpips_unit(b[tap])) * heads[tap], -1), (1, 2))
        for tap in LPIPS_TAPS
    ]
    return sum(levels[1:], levels[0])


def _lpips_unit(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """The reference's own normalisation: x / (length + 1e-10)."""
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True)) + 1e-10)
