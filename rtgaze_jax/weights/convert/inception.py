"""pytorch-fid's Inception state dict (pt_inception-2015-12-05-6726825d.pth)."""

from rtgaze_jax.errors import UserError
from rtgaze_jax.weights.convert.fold import State, conv_norm

_EPSILON = 1e-3


def convert_inception_fid(state: State) -> dict:
    """All convolutions, nested by their module names; the classifier is left out."""
    params: dict = {}
    for name in (key.removesuffix(".conv.weight") for key in state if key.endswith(".conv.weight")):
        if name.startswith("AuxLogits"):
            continue
        *parents, last = name.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = conv_norm(state, f"{name}.conv", f"{name}.bn", _EPSILON)
    if "Mixed_7c" not in params:
        raise UserError("the file has no Inception v3: give pytorch-fid's pt_inception-2015-12-05-6726825d.pth")
    return params
