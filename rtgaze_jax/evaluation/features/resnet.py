"""torchvision's ResNets (He et al., 2015) and DeepLabV3 (Chen et al., 2017), for weights that the user has.

Images are float [-1, 1] NHWC. Parameters: {"stem": conv, "layer1": {"block0": {"conv1", "conv2", ["conv3"],
["shortcut"]}, ...}, ..., ["classifier": dense]}; a block with a third convolution is a bottleneck. DeepLabV3's are
{"backbone", "aspp", "head", "scores"}.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.evaluation.features.layers import Params, conv, dense, max_pool, resize_bilinear
from rtgaze_jax.evaluation.features.vgg import imagenet_normalize

LAYERS = ("layer1", "layer2", "layer3", "layer4")
ASPP_RATES = (12, 24, 36)


def resnet_stages(params: Params, images: Float[Array, "b h w 3"], output_stride: int = 32) -> dict[str, Array]:
    """The outputs of layer1..layer4. `output_stride` 8 or 16 dilates the last layers instead of striding (torchvision's
    way)."""
    x = jax.nn.relu(conv(params["stem"], imagenet_normalize(images), stride=2, padding=3))
    x = max_pool(x, 3, 2, 1)
    outputs, stride_so_far, dilation = {}, 4, 1
    for name in LAYERS:
        if name == "layer1":
            stride, first_dilation = 1, 1
        else:
            grow = stride_so_far < output_stride
            stride, first_dilation = (2, dilation) if grow else (1, dilation)
            stride_so_far, dilation = (stride_so_far * 2, dilation) if grow else (stride_so_far, dilation * 2)
        for i in range(len(params[name])):
            block = params[name][f"block{i}"]
            x = _block(block, x, stride if i == 0 else 1, first_dilation if i == 0 else dilation)
        outputs[name] = x
    return outputs


def _block(params: Params, x: Float[Array, "b h w c"], stride: int, dilation: int) -> Float[Array, "b h2 w2 d"]:
    shortcut = conv(params["shortcut"], x, stride=stride, padding=0) if "shortcut" in params else x
    if "conv3" in params:
        y = jax.nn.relu(conv(params["conv1"], x, padding=0))
        y = jax.nn.relu(conv(params["conv2"], y, stride=stride, padding=dilation, dilation=dilation))
        y = conv(params["conv3"], y, padding=0)
    else:
        y = jax.nn.relu(conv(params["conv1"], x, stride=stride, padding=1))
        y = conv(params["conv2"], y, padding=1)
    return jax.nn.relu(y + shortcut)


def resnet_logits(params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b classes"]:
    """Class scores (or whatever the last linear layer was trained to give)."""
    x = resnet_stages(params, images)["layer4"].mean((1, 2))
    return dense(params["classifier"], x)


def deeplab_scores(params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b h w classes"]:
    """DeepLabV3's class scores for every pixel."""
    x = resnet_stages(params["backbone"], images, output_stride=8)["layer4"]
    x = jax.nn.relu(conv(params["head"], aspp(params["aspp"], x), padding=1))
    return resize_bilinear(conv(params["scores"], x, padding=0), *images.shape[1:3])


def aspp(params: Params, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
    """Atrous spatial pyramid pooling: a 1x1, three dilated 3x3 and a global branch, joined by a 1x1."""
    parts = [jax.nn.relu(conv(params["point"], x, padding=0))]
    for rate in ASPP_RATES:
        parts.append(jax.nn.relu(conv(params[f"rate{rate}"], x, padding=rate, dilation=rate)))
    pooled = jax.nn.relu(conv(params["pool"], x.mean((1, 2), keepdims=True), padding=0))
    parts.append(jnp.broadcast_to(pooled, parts[0].shape))
    return jax.nn.relu(conv(params["project"], jnp.concatenate(parts, -1), padding=0))
