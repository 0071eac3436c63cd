"""torchvision's ResNet and DeepLabV3 state dicts as parameters of `evaluation.features.resnet`."""

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features.resnet import ASPP_RATES, LAYERS
from rtgaze_jax.weights.convert.fold import State, conv, conv_norm, dense

_BLOCKS = (3, 4, 6, 3)


def _backbone(state: State, prefix: str, convolutions: int) -> dict:
    params: dict = {"stem": conv_norm(state, f"{prefix}conv1", f"{prefix}bn1")}
    for layer, blocks in zip(LAYERS, _BLOCKS, strict=True):
        if f"{prefix}{layer}.{blocks}.conv1.weight" in state:
            raise UserError(f"the file's {layer} has more than {blocks} blocks: it is another ResNet than its KIND")
        params[layer] = {}
        for i in range(blocks):
            name = f"{prefix}{layer}.{i}"
            numbers = range(1, convolutions + 1)
            block = {f"conv{k}": conv_norm(state, f"{name}.conv{k}", f"{name}.bn{k}") for k in numbers}
            if f"{name}.downsample.0.weight" in state:
                block["shortcut"] = conv_norm(state, f"{name}.downsample.0", f"{name}.downsample.1")
            params[layer][f"block{i}"] = block
    return params


def convert_resnet34(state: State) -> dict:
    """ResNet-34 with its classifier."""
    return _backbone(state, "", 2) | {"classifier": dense(state, "fc")}


def convert_resnet50(state: State) -> dict:
    """ResNet-50 with its classifier (the gaze lineage's estimators have four outputs there)."""
    return _backbone(state, "", 3) | {"classifier": dense(state, "fc")}


def convert_deeplabv3(state: State) -> dict:
    """DeepLabV3 on ResNet-50; the auxiliary classifier is left out."""
    name = "classifier.0.convs"
    aspp = {
        "point": conv_norm(state, f"{name}.0.0", f"{name}.0.1"),
        "pool": conv_norm(state, f"{name}.4.1", f"{name}.4.2"),
        "project": conv_norm(state, "classifier.0.project.0", "classifier.0.project.1"),
    }
    for i, rate in enumerate(ASPP_RATES, start=1):
        aspp[f"rate{rate}"] = conv_norm(state, f"{name}.{i}.0", f"{name}.{i}.1")
    return {
        "backbone": _backbone(state, "backbone.", 3),
        "aspp": aspp,
        "head": conv_norm(state, "classifier.1", "classifier.2"),
        "scores": conv(state, "classifier.4"),
    }
