"""VGG16 (torchvision's vgg16 file) and the LPIPS heads (PyPI lpips, weights/v0.1/vgg.pth)."""

import numpy as np

from rtgaze_jax.evaluation.features.vgg import CONV_NAMES, LPIPS_TAPS
from rtgaze_jax.weights.convert.fold import State, conv, take

_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # the convolutions' places in torchvision's `features`


def convert_vgg16(state: State) -> dict:
    """The convolutions as parameters of `evaluation.features.vgg`; the classifier is left out."""
    return {name: conv(state, f"features.{layer}") for name, layer in zip(CONV_NAMES, _LAYERS, strict=True)}


def convert_lpips_vgg(state: State) -> dict[str, np.ndarray]:
    """The five channel weightings of LPIPS 0.1: {"conv1_2": [64], ...}."""
    return {tap: take(state, f"lin{i}.model.1.weight").reshape(-1) for i, tap in enumerate(LPIPS_TAPS)}
