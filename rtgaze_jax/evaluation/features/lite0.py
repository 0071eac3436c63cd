"""EfficientNet-Lite0 (Tan, 2020) as a feature network: ImageNet weights under Apache-2.0 that a package may ship.

Images are float [-1, 1] NHWC of any size; the network's own input is (pixel - 127) / 128 and its padding TensorFlow's
SAME. Parameters are {"stem": conv, "block0": {"expand", "depthwise", "project": conv}, ..., "head": conv, "classifier":
dense}; a file may stop after any block (the shipped one does: blocks 0-11).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.evaluation.features.layers import Params, conv, dense, unit_normalize


class Block(NamedTuple):
    """An inverted residual block: depthwise kernel size, stride, expansion, channels in and out."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


def _blocks() -> tuple[Block, ...]:
    stages = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    blocks, channels = [], 32
    for repeats, kernel, stride, expansion, out in stages:
        for i in range(repeats):
            blocks.append(Block(kernel, stride if i == 0 else 1, expansion, channels, out))
            channels = out
    return tuple(blocks)


BLOCKS = _blocks()
PERCEPTUAL_TAPS = ("stem", "block2", "block4", "block7", "block10")  # strides 2, 4, 8, 16, 16
FRECHET_TAP = "block11"  # stride 32, 192 channels


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


def _block(params: Params, spec: Block, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
    y = _relu6(conv(params["expand"], x)) if spec.expansion > 1 else x
    y = _relu6(conv(params["depthwise"], y, stride=spec.stride, groups=y.shape[-1]))
    y = conv(params["project"], y)
    return x + y if spec.stride == 1 and spec.channels_in == spec.channels_out else y


def lite0_stages(params: Params, images: Float[Array, "b h w 3"], taps: tuple[str, ...]) -> dict[str, Array]:
    """The outputs of the stem and blocks named in `taps`; nothing after the last of them is computed."""
    x = ((images + 1) * 127.5 - 127) / 128
    x = _relu6(conv(params["stem"], x, stride=2))
    outputs = {"stem": x} if "stem" in taps else {}
    for i, spec in enumerate(BLOCKS):
        if len(outputs) == len(taps):
            break
        x = _block(params[f"block{i}"], spec, x)
        if f"block{i}" in taps:
            outputs[f"block{i}"] = x
    return outputs


def lite0_perceptual(
    params: Params, images: Float[Array, "b h w 3"], *, dtype: jnp.dtype = jnp.float32
) -> list[Float[Array, "b h2 w2 c"]]:
    """Feature maps for a perceptual distance, each pixel's channel vector of length one.

    Args:
        images: [-1, 1]; sizes that are multiples of 16 keep all levels aligned.
        dtype: of the computation (bfloat16 is enough for a training loss and faster on a GPU).
    Returns: five maps at strides 2, 4, 8, 16, 16 with 32, 24, 40, 80, 112 channels.
    """
    maps = lite0_stages(params, images.astype(dtype), PERCEPTUAL_TAPS)
    return [unit_normalize(maps[tap].astype(jnp.float32)).astype(dtype) for tap in PERCEPTUAL_TAPS]


def lite0_pooled(params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b 192"]:
    """One 192-d vector per image for `frechet_lite0`: the spatial mean of the last shipped block. Resizing is the
    caller's."""
    return lite0_stages(params, images, (FRECHET_TAP,))[FRECHET_TAP].mean((1, 2))


def lite0_logits(params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b 1000"]:
    """ImageNet class scores; needs the whole network (`rtgaze weights convert efficientnet_lite0`), not the shipped
    part."""
    last = f"block{len(BLOCKS) - 1}"
    x = lite0_stages(params, images, (last,))[last]
    return dense(params["classifier"], _relu6(conv(params["head"], x)).mean((1, 2)))
