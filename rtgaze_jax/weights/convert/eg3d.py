"""EG3D's renderer (Chan et al., 2022) as `models.renderer.TriplaneRenderer` parameters, from EG3D's own pickles or LP3D
checkpoints.

The decoder MLP and the 512-pixel super-resolution (SuperresolutionHybrid8XDC) convert; the super-resolution's style is
made a constant and folded into plain convolutions, which is exact for that style. LP3D networks have only one style (a
learned constant). EG3D has one per sample, and the average one (mapping.w_avg) is taken. What makes the triplanes does
not convert: EG3D's is a generative StyleGAN2 without a counterpart here, and LP3D's encoder differs from ours in
kernels, coordinates and resizing.

Configure the renderer as EG3D's: axes "eg3d", box 1, start -0.45, end 0.6, 32 plane channels, superres (256, 128), no
skip.
"""

import numpy as np

from rtgaze_jax.errors import UserError
from rtgaze_jax.weights.convert.fold import State, take

_BLOCKS = 2
_COLOUR_GAIN = 0.1  # TriplaneRenderer's super-resolution scales its colour layers by this
_HALF = 0.5  # our colours are in [0, 1], EG3D's in [-1, 1]


def equalized_dense(state: State, name: str, learning_rate_gain: float = 1.0) -> dict[str, np.ndarray]:
    """StyleGAN's linear layer, whose stored weight is scaled by 1 / sqrt(inputs) when it is used."""
    weight = take(state, f"{name}.weight")
    scale = learning_rate_gain / np.sqrt(weight.shape[1])
    return {
        "kernel": np.ascontiguousarray((weight * scale).T, np.float32),
        "bias": take(state, f"{name}.bias") * learning_rate_gain,
    }


def folded_conv(state: State, name: str, w: np.ndarray, *, colour: bool = False) -> np.ndarray:
    """A modulated convolution at the style vector `w` [512] as a plain kernel OIHW.

    The style scales each input channel; ordinary layers are then demodulated (each output's weights get length one),
    colour layers instead divide the style by sqrt(inputs).
    """
    affine = equalized_dense(state, f"{name}.affine")
    weight = take(state, f"{name}.weight").astype(np.float64)
    style = w.astype(np.float64) @ affine["kernel"] + affine["bias"]
    if colour:
        return weight * (style / np.sqrt(weight.shape[1]))[None, :, None, None]
    weight = weight * style[None, :, None, None]
    return weight / np.sqrt(np.sum(weight**2, axis=(1, 2, 3), keepdims=True) + 1e-8)


def _hwio(kernel: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0), dtype=np.float32)


def _superres(state: State, prefix: str, w: np.ndarray) -> dict:
    params: dict = {}
    for i in range(_BLOCKS):
        block = f"{prefix}superresolution.block{i}"
        # torch's transposed convolution spreads the kernel, linen's reads with it: the same thing turned by 180 degrees
        up = folded_conv(state, f"{block}.conv0", w)[:, :, ::-1, ::-1]
        params[f"UpConv_{i}"] = {"kernel": _hwio(up), "bias": take(state, f"{block}.conv0.bias")}
        params[f"Conv_{2 * i}"] = {
            "kernel": _hwio(folded_conv(state, f"{block}.conv1", w)),
            "bias": take(state, f"{block}.conv1.bias"),
        }
        params[f"Conv_{2 * i + 1}"] = {
            "kernel": _hwio(folded_conv(state, f"{block}.torgb", w, colour=True) * (_HALF / _COLOUR_GAIN)),
            "bias": take(state, f"{block}.torgb.bias") * (_HALF / _COLOUR_GAIN),
        }
    return params


def _renderer(state: State, w: np.ndarray, prefix: str = "") -> dict:
    if f"{prefix}superresolution.block1.conv1.weight" not in state:
        raise UserError("the file has no 8XDC super-resolution: give a 512-pixel EG3D network or an LP3D checkpoint")
    field = {
        "Dense_0": equalized_dense(state, f"{prefix}decoder.net.0"),
        "out": equalized_dense(state, f"{prefix}decoder.net.2"),
    }
    return {"renderer": {"field": field, "superres": _superres(state, prefix, w)}}


def convert_eg3d(state: State) -> dict:
    """The renderer of an EG3D network, its super-resolution at the average style."""
    return _renderer(state, take(state, "backbone.mapping.w_avg"))


def convert_lp3d(state: State) -> dict:
    """The renderer of a Live3DPortrait checkpoint (encoder_render*.pt), its super-resolution at the learned constant
    style."""
    prefix = "triplane_renderer." if "triplane_renderer.const" in state else ""
    return _renderer(state, take(state, f"{prefix}const").reshape(-1), prefix)
