"""The Inception network of FID (Heusel et al., 2017): pytorch-fid's port of TensorFlow's 2015 weights, up to pool3
(2048-d).

It is not torchvision's: average pools leave the padding out of the mean, and the last block pools by maximum. The
weights (pt_inception-2015-12-05-6726825d.pth) come from the user. Parameters are nested by pytorch-fid's module names.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.evaluation.features.layers import Params, average_pool, conv, max_pool, resize_bilinear

INPUT_SIZE = 299
BLOCKS = tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"))


def _conv(params: Params, x: Array, stride: int = 1, *, same: bool = True) -> Array:
    return jax.nn.relu(conv(params, x, stride=stride, padding="SAME" if same else "VALID"))


def _chain(params: Params, x: Array, *names: str) -> Array:
    for name in names:
        x = _conv(params[name], x)
    return x


def _average(x: Array) -> Array:
    return average_pool(x, 3, 1, 1, count_padding=False)


def _block_a(p: Params, x: Array) -> list[Array]:
    return [
        _chain(p, x, "branch1x1"),
        _chain(p, x, "branch5x5_1", "branch5x5_2"),
        _chain(p, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        _chain(p, _average(x), "branch_pool"),
    ]


def _block_b(p: Params, x: Array) -> list[Array]:
    double = _chain(p, x, "branch3x3dbl_1", "branch3x3dbl_2")
    return [
        _conv(p["branch3x3"], x, 2, same=False),
        _conv(p["branch3x3dbl_3"], double, 2, same=False),
        max_pool(x, 3, 2),
    ]


def _block_c(p: Params, x: Array) -> list[Array]:
    return [
        _chain(p, x, "branch1x1"),
        _chain(p, x, *(f"branch7x7_{i}" for i in (1, 2, 3))),
        _chain(p, x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
        _chain(p, _average(x), "branch_pool"),
    ]


def _block_d(p: Params, x: Array) -> list[Array]:
    seven = _chain(p, x, *(f"branch7x7x3_{i}" for i in (1, 2, 3)))
    return [
        _conv(p["branch3x3_2"], _conv(p["branch3x3_1"], x), 2, same=False),
        _conv(p["branch7x7x3_4"], seven, 2, same=False),
        max_pool(x, 3, 2),
    ]


def _block_e(p: Params, x: Array, pooled: Array) -> list[Array]:
    three = _conv(p["branch3x3_1"], x)
    double = _chain(p, x, "branch3x3dbl_1", "branch3x3dbl_2")
    return [
        _chain(p, x, "branch1x1"),
        *(_conv(p[f"branch3x3_2{side}"], three) for side in "ab"),
        *(_conv(p[f"branch3x3dbl_3{side}"], double) for side in "ab"),
        _chain(p, pooled, "branch_pool"),
    ]


def inception_stages(params: Params, images: Float[Array, "b 299 299 3"]) -> dict[str, Array]:
    """The outputs of all mixed blocks for images in [-1, 1] that already have the network's size."""
    x = _conv(params["Conv2d_1a_3x3"], images, 2, same=False)
    x = _conv(params["Conv2d_2a_3x3"], x, same=False)
    x = max_pool(_conv(params["Conv2d_2b_3x3"], x), 3, 2)
    x = _conv(params["Conv2d_3b_1x1"], x)
    x = max_pool(_conv(params["Conv2d_4a_3x3"], x, same=False), 3, 2)
    outputs = {}
    for name in BLOCKS:
        match name.removeprefix("Mixed_"):
            case "5b" | "5c" | "5d":
                parts = _block_a(params[name], x)
            case "6a":
                parts = _block_b(params[name], x)
            case "7a":
                parts = _block_d(params[name], x)
            case "7b":
                parts = _block_e(params[name], x, _average(x))
            case "7c":
                parts = _block_e(params[name], x, max_pool(x, 3, 1, 1))
            case _:
                parts = _block_c(params[name], x)
        x = outputs[name] = jnp.concatenate(parts, -1)
    return outputs


def inception_pool3(params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b 2048"]:
    """FID's features of images in [-1, 1] of any size (resized bilinearly to 299, without antialiasing, as pytorch-fid
    does)."""
    resized = resize_bilinear(images, INPUT_SIZE, INPUT_SIZE)
    return inception_stages(params, resized)[BLOCKS[-1]].mean((1, 2))
